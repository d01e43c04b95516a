SUMMARY = "eSIM provisioning agent: the helper for eUICCs in PC/SC readers"

require lpad.inc

inherit pkgconfig

DEPENDS += "pcsc-lite"

GO_INSTALL = "${GO_IMPORT}/cmd/lpad-pcsc"
CGO_ENABLED = "1"

do_install:append() {
    install -d ${D}${sbindir}
    mv ${D}${bindir}/lpad-pcsc ${D}${sbindir}/lpad-pcsc
}

RDEPENDS:${PN} = "lpad pcsc-lite"
CVE_PRODUCT = "lpad"
