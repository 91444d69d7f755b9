# Drover's targets. `make` alone lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  := -s -w -X drover/internal/app.Version=$(VERSION)
GO_IMAGE ?= golang:1.26
IMAGE    ?= drover
FUZZTIME ?= 30s
SCHEDULES ?= 250000
TESTFLAGS ?=

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: build ## act out the loss of a server and its recovery, on this machine, no server and no root needed
	@bin/drover demo

.PHONY: test
test: prepare ## all tests: unit, oracle, simulator, and the stories in containers where Docker is
	@.ci/test

.PHONY: e2e
e2e: prepare ## the stories in real containers alone; fails where Docker is not
	go test -tags e2e -count=1 -timeout 30m -v $(TESTFLAGS) ./e2e

.PHONY: bench
bench: build ## side-by-side figures against restic, kopia and tar, as ratios
	go test -tags bench -count=1 -timeout 90m -v $(TESTFLAGS) ./bench

.PHONY: lint
lint: ## golangci-lint, go vet with every tag, govulncheck
	@.ci/lint

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (30s) each
	@.ci/fuzz $(FUZZTIME)

.PHONY: soak
soak: ## the long runs: SCHEDULES (250000) simulated ones, big model searches, every crash
	dirs=$$(grep -rl DROVER_SOAK --include='*_test.go' internal | xargs -n 1 dirname | sort -u | sed 's,^,./,'); \
	DROVER_SOAK=$(SCHEDULES) go test -count=1 -p 1 -timeout 4h -v $(TESTFLAGS) $$dirs

.PHONY: soak-supervise
soak-supervise: ## 200 unruly jobs under fire for DROVER_SOAK_TIME (10m): nothing may be left, nothing may grow
	DROVER_SOAK=1 DROVER_SOAK_TIME=$${DROVER_SOAK_TIME:-10m} go test -count=1 -timeout 4h -v -run TestSupervisionSoak $(TESTFLAGS) ./internal/app

.PHONY: soak-database
soak-database: prepare ## PostgreSQL in containers: every fault, on every coordinator, in every mode
	DROVER_SOAK=1 go test -tags e2e -count=1 -timeout 4h -v -run TestDatabaseSoak $(TESTFLAGS) ./e2e

.PHONY: postgres-18
postgres-18: ## the driver's tests and a cluster in containers on PostgreSQL 18, which `make test` leaves out
	DROVER_SOAK=1 go test -tags e2e -count=1 -timeout 40m -v -run 'TestDriver/18|TestDatabaseNext' $(TESTFLAGS) ./e2e

.PHONY: build
build: ## the static binary, bin/drover
	CGO_ENABLED=0 go build -trimpath -ldflags "$(LDFLAGS)" -o bin/drover ./cmd/drover

.PHONY: image
image: ## the container image (GO_IMAGE names the image that has Go)
	docker build --build-arg GO_IMAGE=$(GO_IMAGE) --build-arg VERSION=$(VERSION) -t $(IMAGE) .

.PHONY: prepare
prepare: ## install what the tests need (Debian packages; needs root only if one is missing)
	@.ci/prepare

.PHONY: clean
clean: ## remove what was built here
	rm -rf bin dist
