# lpad: everything a developer, an OEM and CI run. "make help" lists the targets.
# Each target sets up what it needs: Debian packages and Go modules by name.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS   += --no-print-directory

T       ?= 30s
BUILD   := build
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
# Functions on 4 bytes instead of 32 save a sixth of a megabyte, with a linker that knows how (Go 1.26).
ALIGN   := $(if $(findstring -funcalign,$(shell go tool link -h 2>&1 || true)),-funcalign=4)
LDFLAGS := -s -w -buildid= $(ALIGN) -X main.version=$(VERSION)
GOBUILD := go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)'
# ES9+ speaks HTTP/1.1: leaving HTTP/2 out of net/http saves half a megabyte of flash. Cryptography in Go alone, as it is on
# most of the small processors in any case, is a sixth of a megabyte (docs/security.md says what that means). lpad waits for cards and
# networks, not for itself: without inlining it is another half megabyte smaller, and no slower that anybody could see.
# A compiler that can be told to (Go 1.26) also leaves out what makes short slices faster, and shortens names of types.
SMALLER  := $(if $(findstring maxshapelen,$(shell go tool compile -d help 2>&1 || true)),-d=variablemakethreshold=0 -d=maxshapelen=20)
LPADTAGS := -tags nethttpomithttp2,purego -gcflags='all=-l $(SMALLER)'
# The collector of Go 1.26 keeps half a megabyte more for itself, which is much for a heap of half a megabyte.
COLLECT  := $(shell GOEXPERIMENT=nogreenteagc go version >/dev/null 2>&1 && echo GOEXPERIMENT=nogreenteagc)

# What the tests and the lab run for real, beside Go itself.
PACKAGES := gcc libc6-dev pkg-config libpcsclite-dev pcscd vsmartcard-vpcd dbus polkitd modemmanager \
            network-manager mobile-broadband-provider-info iproute2 util-linux udev e2fsprogs mount \
            systemd init-system-helpers curl

.PHONY: help setup build programs demo flow test bench fuzz size lint faults matrix soak man deb deb-twice cross clean

help:
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

setup: ## install the Debian packages that are missing (needs root)
	@missing=""; for p in $(PACKAGES); do \
	  [ "$$(dpkg-query -W -f '$${db:Status-Status}' $$p 2>/dev/null)" = installed ] || missing="$$missing $$p"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" != 0 ]; then echo "not root: going on without$$missing"; exit 0; fi; \
	echo "installing$$missing"; \
	[ -e /usr/sbin/policy-rc.d ] || { printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d; made=1; }; \
	export DEBIAN_FRONTEND=noninteractive; \
	apt-get -qq update && apt-get -qq install -y --no-install-recommends $$missing >$${TMPDIR:-/tmp}/lpad-setup.log 2>&1 \
	  || { tail -20 $${TMPDIR:-/tmp}/lpad-setup.log; exit 1; }; \
	[ -z "$${made:-}" ] || rm -f /usr/sbin/policy-rc.d

build: programs ## lpad, lpactl, lpalab and lpad-pcsc into build/
	@CGO_ENABLED=0 $(GOBUILD) -o $(BUILD)/ ./cmd/lpalab

# What is shipped; the tests of cmd/lpalab/lab call it too.
programs:
	@mkdir -p $(BUILD)
	@CGO_ENABLED=0 $(COLLECT) $(GOBUILD) $(LPADTAGS) -o $(BUILD)/ ./cmd/lpad ./cmd/lpactl
	@CGO_ENABLED=1 $(GOBUILD) -o $(BUILD)/ ./cmd/lpad-pcsc

demo: setup build ## the main job on the embedded lab: from an activation code to a connected device
	@$(BUILD)/lpalab demo

flow: setup build ## the founding flow: an operator's signed orders, parameters with the profile, notifications and reports
	@$(BUILD)/lpalab flow

# The coverage that the packages at the heart must keep, in percent.
COVER := 85:apdu,apdu/ber,agent/job,agent/rsp,agent/rsp/bpp,agent/rsp/es10,agent/rsp/es9p

# The lab's tests wait for radios and timers more than they compute: one package more than there are processors.
PARALLEL := $(shell echo $$(( $$(nproc) + 1 )))
# Those that wait longest begin first. "make lint" vets; what a debugger wants takes the linker half of its time.
LONGEST  := ./cmd/lpalab/lab ./modem/network ./cmd/lpalab ./packaging ./modem/modemtest

# So many tests that failed are run again, alone: two processors for real daemons and a race detector make some of them late. Each is named.
AGAIN ?= 0

test: setup ## every test, with the race detector
	@{ go test -json -race -cover -vet=off -ldflags=-w -p $(PARALLEL) -timeout 8m $(LONGEST) ./... || echo "exit $$?"; } | go run ./internal/tools/testreport -again $(AGAIN) -cover $(COVER) $(if $(filter all,$(LPAD_REQUIRE)),-no-skips)

bench: setup build ## one line a figure: "bench: NAME VALUE UNIT bound BOUND ok|over"
	@$(BUILD)/lpalab bench

fuzz: ## every fuzz target for T (30s)
	@grep -rl --include='*_test.go' '^func Fuzz' . | while read -r f; do \
	  for n in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$$f"); do \
	    echo "fuzz $$(dirname $$f) $$n"; go test -run '^$$' -fuzz "^$$n\$$" -fuzztime $(T) -fuzzminimizetime 10x "$$(dirname $$f)" | tail -2; done; done

size: build ## the sizes that end up in flash
	@$(BUILD)/lpalab size $(BUILD)

lint: ## gofmt, vet, staticcheck, go.mod in order
	@bad=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$bad" ] || { echo "gofmt: $$bad"; exit 1; }
	@go vet ./...
	@CGO_ENABLED=0 go vet ./cmd/lpad ./cmd/lpactl ./cmd/lpalab
	@go tool -modfile=internal/tools/staticcheck/go.mod staticcheck ./...
	@go mod tidy -diff
	@for t in lpad lpactl; do hits=$$(CGO_ENABLED=0 go build -trimpath -tags nethttpomithttp2,purego -ldflags=-dumpdep -o /dev/null ./cmd/$$t 2>&1 | grep '<ReflectMethod>' || true); \
	  [ -z "$$hits" ] || { echo "$$t: reflect.Method turns the removal of dead code off:"; echo "$$hits" | head -3; exit 1; }; done

faults: setup build ## kills, power cuts, lost answers and broken lines at every place, and what must hold after each
	@$(BUILD)/lpalab faults $(FAULTS)

matrix: setup build ## every modem, by every way to its card, with every back-end: a table (MATRIX="--modem NAME" for some of it)
	@$(BUILD)/lpalab matrix $(MATRIX)

CYCLES ?= 500

soak: setup build ## CYCLES (500) of install, switch, switch back and delete on one device, with faults: nothing lost, nothing grows
	@$(BUILD)/lpalab soak --cycles $(CYCLES) $(SOAK)

man: ## the manual pages, from the source, into packaging/man
	@go run ./internal/tools/man

comma := ,

# Debian's architectures: its name, Go's words for it, the C compiler of lpad-pcsc.
DEBS  := amd64/GOARCH=amd64/x86_64-linux-gnu-gcc arm64/GOARCH=arm64/aarch64-linux-gnu-gcc armhf/GOARCH=arm,GOARM=7/arm-linux-gnueabihf-gcc
EPOCH := $(shell git log -1 --format=%ct 2>/dev/null || echo 0)

# lpad-pcsc alone is C, too, and needs a compiler for each. Of the foreign libpcsclite nothing is needed but the names of its
# functions, so it is linked with an empty one: no foreign packages, no foreign architecture in dpkg.
DEBPACKAGES := gcc-aarch64-linux-gnu libc6-dev-arm64-cross gcc-arm-linux-gnueabihf libc6-dev-armhf-cross

deb: ## the Debian packages for amd64, arm64 and armhf into build/deb: lpad, lpad-pcsc, lpad-lab
	@$(MAKE) setup PACKAGES="$(PACKAGES) $(DEBPACKAGES)"
	@rm -rf $(BUILD)/deb; mkdir -p $(BUILD)/deb
	@lib=$$(pkg-config --variable=libdir libpcsclite)/libpcsclite.so.1; \
	for row in $(DEBS); do IFS=/ read -r arch goenv cc <<<"$$row"; to=$(BUILD)/deb/$$arch; mkdir -p $$to; stub=$$(mktemp -d); \
	  ( export GOOS=linux $${goenv//,/ }; \
	    CGO_ENABLED=0 $(COLLECT) $(GOBUILD) $(LPADTAGS) -o $$to/ ./cmd/lpad ./cmd/lpactl; \
	    if command -v $$cc >/dev/null; then \
	      nm -D --defined-only $$lib | awk '$$2 == "T" { print "void " $$3 "(void) {}" } $$2 ~ /[DR]/ { print "unsigned long " $$3 "[2];" }' | grep -Ev ' _(init|fini)' \
	        | $$cc -shared -fPIC -nostdlib -w -fno-builtin -Wl,-soname,libpcsclite.so.1 -o $$stub/libpcsclite.so -xc -; \
	      CC=$$cc CGO_LDFLAGS="-L$$stub -Wl,--build-id=none" CGO_CFLAGS="-O2 -g0" CGO_ENABLED=1 $(GOBUILD) -o $$to/ ./cmd/lpad-pcsc; \
	      CGO_ENABLED=0 $(GOBUILD) -o $$to/ ./cmd/lpalab; fi ); \
	  SOURCE_DATE_EPOCH=$(EPOCH) go run ./internal/tools/deb -version $(VERSION) -arch $$arch $(if $(MAINTAINER),-maintainer '$(MAINTAINER)') -programs $$to -out $(BUILD)/deb; \
	  rm -r $$to $$stub; done

# A maintainer that nobody has named is the one thing that lintian may find.
UNNAMED := $(if $(MAINTAINER),,--suppress-tags bogus-mail-host$(comma)bogus-mail-host-in-debian-changelog)

deb-twice: deb ## make deb once more, in another folder with empty caches, under another umask, zone and language: bit for bit the same; then lintian
	@$(MAKE) setup PACKAGES=lintian
	@there=$$(mktemp -d); trap 'rm -rf "$$there"' EXIT; source="$$there/another folder"; mkdir "$$source" "$$there/tmp"; \
	tar -c --exclude=./.git --exclude=./$(BUILD) . | tar -x -m -C "$$source"; \
	( umask 077; export TZ=Pacific/Auckland LC_ALL=C LANG=tr_TR.UTF-8 GOCACHE="$$there/cache" TMPDIR="$$there/tmp"; \
	  $(MAKE) -C "$$source" deb BUILD=build VERSION=$(VERSION) EPOCH=$(EPOCH) >"$$there/log" 2>&1 || { tail -20 "$$there/log"; exit 1; } ); \
	for f in $(BUILD)/deb/*.deb; do cmp "$$f" "$$source/build/deb/$${f##*/}"; done; \
	echo "$$(ls $(BUILD)/deb/*.deb | wc -l) packages, twice the same"
	@if command -v lintian >/dev/null; then lintian $(UNNAMED) --fail-on error,warning $(BUILD)/deb/*_amd64.deb 2>&1 | grep -v 'root privileges' || [ "$${PIPESTATUS[0]}" = 0 ]; \
	  else echo "lintian is not installed"; fi

# The architectures of the field, in Go's words.
CROSS := amd64 386 arm64 arm,GOARM=7 arm,GOARM=6 mipsle,GOMIPS=softfloat riscv64

cross: ## the static programs for the architectures of the field into build/cross, their sizes, and vet where types differ
	@rm -rf $(BUILD)/cross; mkdir -p $(BUILD)/cross
	@for row in $(CROSS); do name=$${row%%,*}; case $$row in *GOARM=*) name=armv$${row##*=};; esac; \
	  ( export GOOS=linux CGO_ENABLED=0 GOARCH=$${row%%,*}; case $$row in *,*) export "$${row#*,}";; esac; \
	    for p in lpad lpactl; do f=$(BUILD)/cross/$$p-linux-$$name; $(COLLECT) $(GOBUILD) $(LPADTAGS) -o $$f ./cmd/$$p; \
	      if readelf -lW $$f | grep INTERP; then echo "$$f is not static"; exit 1; fi; done ); done
	@GOOS=linux GOARCH=arm CGO_ENABLED=0 go vet ./...
	@GOOS=linux GOARCH=mipsle GOMIPS=softfloat CGO_ENABLED=0 go vet ./cmd/lpad ./cmd/lpactl ./modem/... ./agent/...
	@CGO_ENABLED=0 go run ./cmd/lpalab size --cross $(BUILD)/cross

clean: ## remove what was built
	@rm -rf $(BUILD) dist
