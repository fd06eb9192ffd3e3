# Drover's build. `make run` shows the whole thing, `make test` proves it; everything else is for people who work on it.
# Whatever is downloaded or built goes to .cache/ and bin/, which git ignores.

SHELL        := /bin/bash
.SHELLFLAGS  := -eu -o pipefail -c
.DEFAULT_GOAL := help

GO           ?= go
CACHE        := $(CURDIR)/.cache
# The geth that is run is the geth that replicas embed: one version, pinned in go.mod.
GETH_VERSION := $(shell sed -n 's|.*github.com/ethereum/go-ethereum v\([0-9.]*\).*|\1|p' go.mod | head -1)
GETH         := $(CACHE)/bin/geth-$(GETH_VERSION)
# The geth of the minor release before, for the tests of upgrades.
OLD_VERSION  := $(shell sed -n 's|^const OldVersion = "\([0-9.]*\)"|\1|p' tools/geth/geth.go)
OLD_GETH     := $(CACHE)/bin/geth-$(OLD_VERSION)
LINT_VERSION := v2.15.0
LINT         := $(CACHE)/bin/golangci-lint-$(LINT_VERSION)
SOURCES      := $(shell git ls-files '*.go' 2>/dev/null) go.mod go.sum

# Everything but the end-to-end tests, which drive the built binaries.
UNIT          = $(shell $(GO) list ./... 2>/dev/null | grep -v /e2e)

# The end-to-end tests drive real processes: drover is built with the race detector, the tests themselves are not, since they
# generate and compare whole chains.
export DROVER_TEST_GETH := $(GETH)
export DROVER_TEST_OLD_GETH := $(OLD_GETH)
export DROVER_TEST_BIN  := $(CURDIR)/bin/drover-race

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: build $(GETH) ## a whole cluster on this machine: broker, geth, master, two replicas (ARGS="--fresh" starts over)
	@./bin/drover dev --geth $(GETH) $(ARGS)

.PHONY: build
build: bin/drover ## bin/drover

bin/drover: $(SOURCES)
	@echo "building bin/drover (the first time takes some minutes: go-ethereum is compiled)"
	@$(GO) build -o $@ ./cmd/drover

bin/drover-race: $(SOURCES)
	@$(GO) build -race -o $@ ./cmd/drover

.PHONY: geth
geth: $(GETH) ## geth, built from its module at the version that go.mod pins

.PHONY: geth-old
geth-old: $(OLD_GETH) # the geth of the minor release before, for the tests of upgrades

$(CACHE)/bin/geth-%:
	@$(call need,$(GO),Go 1.26 or newer)
	@echo "building geth $* from its module into .cache/bin (some minutes, once)"
	@mkdir -p $(CACHE)/bin $(CACHE)/gobin/$*
	@GOBIN=$(CACHE)/gobin/$* GOFLAGS= $(GO) install github.com/ethereum/go-ethereum/cmd/geth@v$* \
		|| { echo "cannot build geth $*: is the Go module proxy reachable?" >&2; exit 1; }
	@mv $(CACHE)/gobin/$*/geth $@

# A fresh Debian machine lacks Java, Maven or a C compiler; as root they are installed, otherwise the one line says what is missing.
define debian
if [ -f /etc/debian_version ] && [ "$$(id -u)" = 0 ] && ! { command -v $(1); } >/dev/null 2>&1; then \
	echo "installing $(2) (apt-get)"; { apt-get update -qq && apt-get install -y -qq --no-install-recommends $(2); } >/dev/null || true; fi; \
$(call need,$(1),$(2))
endef

.PHONY: kafka
kafka: kafka-install ## a real Apache Kafka on 127.0.0.1:9092 until Ctrl-C (ARGS="-three", "-secure", "-dir DIR")
	@$(GO) run ./tools/kafka/cmd/kafka $(ARGS)

.PHONY: kafka-install
kafka-install: ## Apache Kafka's jars into .cache/ (Maven, once)
	@$(call debian,java,default-jre-headless)
	@$(call debian,mvn,maven)
	@$(GO) run ./tools/kafka/cmd/kafka -install

.PHONY: moto
moto: moto-install ## AWS emulated (S3, EC2 with EBS, SNS) on 127.0.0.1:5000 until Ctrl-C
	@$(GO) run ./tools/moto/cmd/moto $(ARGS)

# python3 alone may lack venv and ensurepip, which Debian ships apart. The installer says so when they stay missing.
.PHONY: moto-install
moto-install: ## moto into a Python environment in .cache/ (pip, once)
	@$(call debian,python3,python3)
	@python3 -c 'import venv, ensurepip' 2>/dev/null || { [ -f /etc/debian_version ] && [ "$$(id -u)" = 0 ] && echo "installing python3-venv (apt-get)" \
		&& { apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-venv; } >/dev/null; } || true
	@$(GO) run ./tools/moto/cmd/moto -install

.PHONY: versitygw
versitygw: versitygw-install ## a real S3 server over a directory on 127.0.0.1:7070 until Ctrl-C (ARGS="-dir DIR")
	@$(GO) run ./tools/versitygw/cmd/versitygw $(ARGS)

.PHONY: versitygw-install
versitygw-install: ## versitygw into .cache/bin (built from its Go module, once)
	@$(GO) run ./tools/versitygw/cmd/versitygw -install

.PHONY: alertmanager-install
alertmanager-install: # a Prometheus Alertmanager into .cache/bin (built from its Go module, once), for the tests of alerts
	@$(GO) run ./tools/alertmanager/cmd/alertmanager -install

.PHONY: compiler
compiler: # the race detector needs cgo
	@$(call debian,gcc,gcc libc6-dev)

.PHONY: test
test: compiler $(GETH) $(OLD_GETH) kafka-install moto-install versitygw-install alertmanager-install bin/drover-race ## everything that CI runs: vet, unit tests and end-to-end tests on real geth, with the race detector
	$(GO) vet ./...
	$(GO) test -race -timeout 20m $(UNIT)
	$(GO) test -p 1 -timeout 40m -v -run "$(or $(RUN),.)" ./e2e/...

.PHONY: unit
unit: $(GETH) kafka-install moto-install versitygw-install alertmanager-install ## unit tests alone, without the race detector
	$(GO) test -timeout 20m $(UNIT)

.PHONY: soak
soak: compiler $(GETH) $(OLD_GETH) kafka-install bin/drover-race ## the same tests with hundreds of kills and broker faults (hours)
	DROVER_E2E_KILLS=500 DROVER_TEST_KILLS=500 DROVER_E2E_BROKER_FAULTS=200 DROVER_E2E_OUTAGE=600 DROVER_E2E_SNAPSHOTS=100 DROVER_E2E_PERIODS=20 \
		$(GO) test -p 1 -timeout 24h -v -run 'Kill|Faults|Survive|Kafka|TooLong|FullLoad|Periods' ./e2e/... ./master ./replica

.PHONY: bench
bench: build $(GETH) $(if $(findstring --kafka,$(ARGS)),kafka-install) ## ratios of things measured side by side in one run
	$(GO) run ./tools/bench --geth $(GETH) --drover $(CURDIR)/bin/drover $(ARGS)

.PHONY: fuzz
fuzz: ## each fuzz target for FUZZTIME (30s)
	@for pkg in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$pkg 2>/dev/null | grep '^Fuzz' || true); do \
			echo "$$pkg $$target"; $(GO) test -run xxx -fuzz "^$$target$$" -fuzztime $(or $(FUZZTIME),30s) $$pkg; \
		done; done

.PHONY: lint
lint: $(LINT) ## golangci-lint
	$(LINT) run ./...

$(LINT):
	@mkdir -p $(CACHE)/gobin
	@GOBIN=$(CACHE)/gobin GOFLAGS= $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)
	@mkdir -p $(CACHE)/bin && mv $(CACHE)/gobin/golangci-lint $@

.PHONY: clean
clean: ## removes bin/ and the development cluster's data (geth and other downloads stay in .cache/)
	rm -rf bin drover-dev

# need COMMAND,WHAT: fails with one plain line when COMMAND is missing.
define need
command -v $(1) >/dev/null || { echo "$(1) is missing: install $(2)" >&2; exit 1; }
endef
