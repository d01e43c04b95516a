################################################################################
#
# lpad
#
################################################################################

# docs/oem.md says how to use this, and what was not tried.
LPAD_VERSION = $(call qstrip,$(BR2_PACKAGE_LPAD_VERSION))
LPAD_SITE = $(call qstrip,$(BR2_PACKAGE_LPAD_SITE))
LPAD_SITE_METHOD = git
LPAD_LICENSE = Apache-2.0
LPAD_LICENSE_FILES = LICENSE
LPAD_GOMOD = lpad
LPAD_BUILD_TARGETS = cmd/lpad cmd/lpactl
# As in the Makefile: without HTTP/2, Go's own cryptography, no inlining.
LPAD_TAGS = nethttpomithttp2 purego
LPAD_BUILD_OPTS = -gcflags=all=-l
LPAD_LDFLAGS = -s -w -X main.version=$(LPAD_VERSION)
LPAD_GO_ENV = CGO_ENABLED=0

ifeq ($(BR2_PACKAGE_LPAD_PCSC),y)
LPAD_DEPENDENCIES += pcsc-lite host-pkgconf

define LPAD_BUILD_PCSC
	cd $(@D); $(HOST_GO_TARGET_ENV) CGO_ENABLED=1 $(GO_BIN) build $(LPAD_BUILD_OPTS) \
		-o $(@D)/bin/lpad-pcsc $(LPAD_GOMOD)/cmd/lpad-pcsc
endef
LPAD_POST_BUILD_HOOKS += LPAD_BUILD_PCSC

define LPAD_INSTALL_PCSC
	$(INSTALL) -D -m 0755 $(@D)/bin/lpad-pcsc $(TARGET_DIR)/usr/sbin/lpad-pcsc
endef
LPAD_POST_INSTALL_TARGET_HOOKS += LPAD_INSTALL_PCSC
endif

define LPAD_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0755 $(@D)/bin/lpad $(TARGET_DIR)/usr/sbin/lpad
	$(INSTALL) -D -m 0755 $(@D)/bin/lpactl $(TARGET_DIR)/usr/bin/lpactl
	sh $(@D)/packaging/install.sh $(TARGET_DIR)
endef

# The user and the groups of sysusers.d/lpad.conf.
define LPAD_USERS
	lpad -1 lpad -1 * /var/lib/lpad - - eSIM provisioning agent
	- - lpad-admin -1 * - - - eSIM provisioning agent, those who change things
endef

$(eval $(golang-package))
