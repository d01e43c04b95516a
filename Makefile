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
# ES9+ speaks HTTP/1.1: leaving HTTP/2 out of net/http saves half a megabyte of flash. lpad waits for cards and
# networks, not for itself: without inlining it is another half megabyte smaller, and no slower that anybody could see.
LPADTAGS := -tags nethttpomithttp2 -gcflags=all=-l

# What the tests and the lab run for real, beside Go itself.
PACKAGES := gcc libc6-dev pkg-config libpcsclite-dev pcscd vsmartcard-vpcd dbus polkitd modemmanager \
            network-manager mobile-broadband-provider-info iproute2 util-linux udev e2fsprogs mount

.PHONY: help setup build programs demo test bench fuzz size lint faults soak deb cross clean

help:
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 18

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
	@CGO_ENABLED=0 $(GOBUILD) $(LPADTAGS) -o $(BUILD)/ ./cmd/lpad ./cmd/lpactl
	@CGO_ENABLED=1 $(GOBUILD) -o $(BUILD)/ ./cmd/lpad-pcsc

demo: setup build ## the main job on the embedded lab: from an activation code to a connected device
	@$(BUILD)/lpalab demo

# The coverage that the packages at the heart must keep, in percent.
COVER := 85:apdu,apdu/ber,agent/job,agent/rsp,agent/rsp/bpp,agent/rsp/es10,agent/rsp/es9p

test: setup ## every test, with the race detector
	@go test -json -race -cover -timeout 5m ./... | go run ./internal/tools/testreport -cover $(COVER) $(if $(filter all,$(LPAD_REQUIRE)),-no-skips)

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
	@for t in lpad lpactl; do hits=$$(CGO_ENABLED=0 go build -trimpath -tags nethttpomithttp2 -ldflags=-dumpdep -o /dev/null ./cmd/$$t 2>&1 | grep '<ReflectMethod>' || true); \
	  [ -z "$$hits" ] || { echo "$$t: reflect.Method turns the removal of dead code off:"; echo "$$hits" | head -3; exit 1; }; done

faults: setup build ## kills, power cuts, lost answers and broken lines at every place, and what must hold after each
	@$(BUILD)/lpalab faults $(FAULTS)

CYCLES ?= 500

soak: setup build ## CYCLES (500) of install, switch, switch back and delete on one device, with faults: nothing lost, nothing grows
	@$(BUILD)/lpalab soak --cycles $(CYCLES) $(SOAK)

deb: ## (comes with the Debian package)
	@echo "make deb: the Debian package is not built yet"; exit 1

cross: ## the static programs for the architectures of the field
	@echo "make cross: not built yet"; exit 1

clean: ## remove what was built
	@rm -rf $(BUILD) dist
