# ha-install: build, check, and try it on real hosts.
#
# What is expensive to make (the software of the lab, its box) is cached
# outside the checkout, in HA_INSTALL_CACHE.
SHELL := /bin/bash
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo development)
LDFLAGS := -s -w -X github.com/ha-install/ha-install/cmd.Version=$(VERSION)
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
export HA_INSTALL_CACHE ?= $(HOME)/.cache/ha-install
# Our modules are many and large; a machine with two cores needs no more at once.
export CGO_ENABLED := 0
# The same for programs, tests and the lab's software: what they share is
# compiled once.
export GOFLAGS := $(strip $(shell go env GOFLAGS) -trimpath)

LAB := go run ./test/lab/cmd/lab

.PHONY: help build lint test test-packages test-workflows test-everywhere suite e2e e2e-long bench demo lab-up lab-down lab-ssh lab-status bundle deps clean

help: ## Show the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## Build bin/ha-install
	go build -ldflags '$(LDFLAGS)' -o bin/ha-install ./cmd/ha-install

deps: ## Install the Debian packages that the tests and the lab use
	@./test/deps.sh

lint: ## gofmt, go vet, staticcheck
	@unformatted=$$(gofmt -l cmd inventory provision templates test); \
	if [ -n "$$unformatted" ]; then echo "not gofmt-clean:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	go vet -tags e2e ./test/...
	go run $(STATICCHECK) -tags e2e ./...

test: deps ## Unit, golden, architecture and in-process tests; no lab
	@$(MAKE) --no-print-directory -j2 --output-sync=target test-packages test-workflows

test-packages:
	go test $$(go list ./... | grep -v '/provision$$')

# Package provision, whose workflows are stopped at points and calls, by a false
# clock. What was tried is said; a failure is shown whole.
WORKFLOWS = log=$$(mktemp) && trap 'rm -f "$$log"' EXIT && \
	if $(1) go test -timeout 60m ./provision -v $(2) >"$$log" 2>&1; then grep -E 'killed at|different calls|^ok' "$$log"; else grep -v '^=== ' "$$log"; exit 1; fi

# A sample of the points. The packages beside it, with real etcds and sshds, go
# first where cores are few.
test-workflows:
	@$(call WORKFLOWS,nice -n 15)

test-everywhere: ## The same with every workflow killed at every point: minutes
	@$(call WORKFLOWS,HA_INSTALL_EVERYWHERE=2 $(IDLE),-run 'Anywhere|Fault|Killed|Reset')

bundle: deps ## Build the bundles of both Kubernetes releases, or of K8S=v1.36.3, from source, cached
	go run ./test/software $(if $(K8S),-k8s $(K8S),-all)

lab-up: bundle ## Bring up two balancers, three masters and a worker, bare
	$(LAB) up

lab-down: ## Remove the lab
	$(LAB) down

lab-status: ## Show the lab's hosts
	$(LAB) status

lab-ssh: ## Log in to a lab host: make lab-ssh HOST=cp-1
	$(LAB) ssh $(HOST)

# While hosts are waited for, what is left of the processor kills workflows: with
# this policy it runs when nobody else wants to, and one thread of it.
e2e: build lab-up ## The suite on real hosts, the report's page in a browser; beside it test-everywhere
	@./test/deps.sh browser
	@$(MAKE) --no-print-directory -j2 suite test-everywhere IDLE="GOMAXPROCS=1 $$(chrt --idle 0 echo chrt --idle 0 2>/dev/null || echo nice -n 19)"

suite:
	@./test/suite.sh -timeout 50m ./test/e2e ./test/fault ./test/browser ./provision/boot

e2e-long: build lab-up ## The suite, and the parts that are too long for each change
	go run ./test/software -k8s v1.36.1
	@./test/deps.sh browser
	@./test/suite.sh -timeout 120m ./test/e2e -long

demo: build deps ## Bare hosts to a verified cluster, and a look around
	go run ./test/software
	$(LAB) up
	./test/demo.sh

bench: build lab-up ## Side by side with kubeadm by hand, in one run
	go run ./test/bench

clean: ## Remove what was built in the checkout
	rm -rf bin
