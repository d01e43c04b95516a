SUMMARY = "eSIM provisioning agent (LPA) for Linux IoT modules"

require lpad.inc

inherit systemd useradd

GO_INSTALL = "${GO_IMPORT}/cmd/lpad ${GO_IMPORT}/cmd/lpactl"
CGO_ENABLED = "0"

SYSTEMD_SERVICE:${PN} = "lpad.socket lpad.service"

# As sysusers.d/lpad.conf says, which finds them made.
USERADD_PACKAGES = "${PN}"
GROUPADD_PARAM:${PN} = "--system lpad; --system lpad-admin"
USERADD_PARAM:${PN} = "--system --no-create-home --home-dir /var/lib/lpad --shell /usr/sbin/nologin --gid lpad lpad"

do_install:append() {
    install -d ${D}${sbindir}
    mv ${D}${bindir}/lpad ${D}${sbindir}/lpad
    sh ${S}/src/${GO_IMPORT}/packaging/install.sh ${D}
}

# install.sh knows Debian's paths, which are these on a merged /usr.
FILES:${PN} += "${datadir}/dbus-1 ${datadir}/polkit-1 ${nonarch_libdir}/sysusers.d ${nonarch_libdir}/tmpfiles.d \
    ${nonarch_libdir}/udev ${systemd_system_unitdir} ${sysconfdir}/lpad"
CONFFILES:${PN} = "${sysconfdir}/lpad/lpad.yaml"

RRECOMMENDS:${PN} = "modemmanager networkmanager"
CVE_PRODUCT = "lpad"
