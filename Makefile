# Every target installs what it needs (build/packages) and prints what it installs. "make help" lists them.
SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# USE flags: USE="qemu -docker" changes the default, USE="-* qemu" begins with nothing. build/tags knows them.
USE  ?=
# ARGS go to horcrux serve in run, and to the program that measures in bench.
ARGS ?=
# PKG narrows test and test-unit: PKG=./pkg/pgserver/...
PKG  ?=
FUZZTIME ?= 5s

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
PATH    := $(PATH):/usr/local/sbin:/usr/sbin:/sbin
export PATH

MODULES  := $(shell sed -n 's,^\t\./,,p' go.work)
# The whole system takes as long as all the rest together: begun first, it is tested beside it.
PACKAGES  = $(or $(PKG),./test/system $(MODULES:%=./%/...))
TOOL      = GOWORK=off go build -C tools -o ../bin/tools/
GOLANGCI  = bin/tools/golangci-lint

.PHONY: help
help: ## say what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20
	printf '\n  USE="%s"   USE flags for build and run; e.g. USE="-qemu", USE="-* qemu ssl"\n' '$(USE)'
	echo '  ARGS="…"  arguments for horcrux serve in run, or for bench;  PKG="./pkg/bus/..."  packages for test and test-unit'

.PHONY: build
build: ## make bin/horcrux
	@build/setup build
	tags=$$(build/tags "$(USE)")
	case $$tags in *with_*) cgo=1 ;; *) cgo=0 ;; esac
	CGO_ENABLED=$$cgo go build -trimpath -tags "$$tags" -ldflags "-s -w -X horcrux/cmd/horcrux/internal/build.Version=$(VERSION)" -o bin/horcrux ./cmd/horcrux
	echo "bin/horcrux $(VERSION)$${tags:+ ($$tags)}"

.PHONY: run
run: ## run the platform from here; everything it keeps is under .horcrux
	@build/setup run
	$(MAKE) build
	exec bin/horcrux serve --data-dir .horcrux $(ARGS)

# A test on anything real gets it from a package that skips under -short (pkg/pgserver/pgtest, test/instance, …), so
# that test-unit needs no list of its own. Where the real thing is missing the skip reads "real: <part>: <reason>", and
# "make test" fails if it is a part that build/setup installs.
.PHONY: test
test: ## run every test, on real Postgres, libvirt and QEMU
	@build/setup test
	if (( EUID == 0 )) || HORCRUX_TEST_KERNEL=$${HORCRUX_TEST_KERNEL-} build/guest-kernel --check; then
	    HORCRUX_TEST_KERNEL=$$(build/guest-kernel)
	    export HORCRUX_TEST_KERNEL
	fi
	$(TOOL) ./testsum
	GOWORK=off go test -C tools ./...
	bin/tools/testsum -require "$$(build/setup --parts)" -- -race -shuffle=on -count=1 -timeout 20m $(PACKAGES)

.PHONY: test-unit
test-unit: ## run the tests that need no daemon
	@build/setup build
	$(TOOL) ./testsum
	bin/tools/testsum -- -short -shuffle=on $(PACKAGES)

# The seeds run with every test as well. What is found stays in testdata/fuzz beside the test, as a seed.
.PHONY: fuzz
fuzz: ## feed every decoder of outside bytes with nonsense, each for FUZZTIME (5s)
	@build/setup build
	grep -rlE '^func Fuzz' --include='*_test.go' $(or $(PKG:%/...=%),$(MODULES)) | while read -r file; do
	    sed -n 's/^func \(Fuzz[A-Za-z]*\)(.*/\1/p' "$$file" | while read -r name; do
	        echo "$$name in $${file%/*}"
	        go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "./$${file%/*}" < /dev/null
	    done
	done

.PHONY: bench
bench: ## measure against the bare tools, both sides in one run; writes bench/results/*.csv
	@build/setup test
	go run ./test/bench $(ARGS)

.PHONY: lint
lint: $(GOLANGCI) ## say what a reviewer would say first
	@build/setup lint
	$(TOOL) ./houserules
	build/lint $(MODULES)

# The linter is built once for each version of it, from a module of its own: it needs two hundred others.
$(GOLANGCI): tools/lint/go.mod
	@build/setup build
	echo 'building golangci-lint (a minute or two, once)'
	mkdir -p bin/tools
	GOWORK=off go build -C tools/lint -o ../../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	touch $@

.PHONY: generate
generate: ## make again what is generated from openapi.yaml and catalogue.yaml
	@build/setup build
	go generate $(MODULES:%=./%/...)

.PHONY: clean
clean: ## remove what was built; .horcrux stays
	rm -rf bin
