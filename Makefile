# Every target works without a terminal, under CI, and from a tree that was just cloned.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

# node_modules/.bin brings Node 24; rustup's folder is not in the PATH of every shell.
export PATH := $(CURDIR)/node_modules/.bin:$(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin

# Not `:=`: rustc may come with `make deps`. PATH again, because make exports it to recipes but not to $(shell).
HOST = $(shell PATH="$(PATH)" rustc -vV 2>/dev/null | sed -n 's/^host: //p')
GENERATED := proto/gen/clawsec/v1/control.ts proto/gen/clawsec/v1/loader.ts
LOADER := bpf/target/release/clawsec-loader
SHIM = bpf/target/static/$(HOST)/release/clawsec-init

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: build ## Show clawsec at work on this host, from nothing
	@node dist/test/demo/main.js

.PHONY: test
test: ## Run every check and test; the last line counts them (needs root)
	@test/tools/test.sh

.PHONY: deps
deps: ## Install what is missing: Debian packages, npm packages, crates
	@test/tools/deps.sh

.PHONY: build
build: deps $(GENERATED) ## Build the supervisor, the loader and the init shim
	@test -n '$(HOST)' || { echo 'make build: rustc was not found in PATH or ~/.cargo/bin; install Rust with rustup.' >&2; exit 1; }
	@echo '==> build: TypeScript'
	@tsc -p tsconfig.json
	@echo '==> build: loader$(if $(wildcard $(LOADER)),, (the first time takes some minutes))'
	@cd bpf && cargo build --release --locked --quiet -p clawsec-loader
	@echo '==> build: init shim (static)'
	@cd bpf && RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --locked --quiet \
	  -p clawsec-init --target $(HOST) --target-dir target/static
	@test/tools/check-static.sh $(SHIM)

$(GENERATED) &: proto/clawsec/v1/loader.proto proto/clawsec/v1/control.proto test/tools/gen-proto.sh
	@echo '==> build: generated types of the contract'
	@test/tools/gen-proto.sh
	@touch $(GENERATED)

.PHONY: lint
lint: deps $(GENERATED) ## Check formatting, types, borders between the parts, scripts
	@node test/tools/lint.ts

.PHONY: bench
bench: build ## Measure what clawsec costs on this host
	@echo '==> build: what is measured in the sandbox'
	@cd bpf && cargo build --release --locked --quiet -p clawsec-bench
	@node dist/test/bench/main.js

.PHONY: races
races: deps ## Race every check of an exec against its change, 5,000 tries each (make test: fewer)
	@cd bpf && CLAWSEC_RACE_TRIES=5000 cargo test --locked --quiet -p clawsec-exec-gate --test race --test race_reach --test race_script -- --test-threads 1 --nocapture

.PHONY: escape conformance chaos
escape: build ## Try every known way out of a sandbox; none may have an effect
	@node dist/test/escape/main.js
conformance: build ## Compare what layers allow with what the policy says
	@node dist/test/conformance/main.js
chaos: ## Kill each part at the worst moment
	@echo 'make chaos: there is no chaos suite yet; nothing was run.'

.PHONY: test-vm
test-vm: build ## Run the tests on other kernels, in virtual machines (part of make test, too)
	@vitest run --project vm

.PHONY: fuzz
fuzz: deps $(GENERATED) ## Read a million bad policies
	@echo '==> build: TypeScript'
	@tsc -p tsconfig.json
	@node dist/test/fuzz/main.js

.PHONY: clean
clean: ## Remove what was built (installed packages stay)
	rm -rf dist proto/gen test/.work bpf/target
