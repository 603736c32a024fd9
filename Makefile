# What a developer runs; the logic is in scripts/.
.PHONY: help build test check bench chaos fuzz setup

help: ## this list
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/'

build: ## the release binary
	cargo build --release --locked

test: ## all tests: cargo's, then the black-box ones against the release binary; installs what is missing as root on Debian
	@scripts/test.sh

check: ## format, lints, documentation, doctests
	@scripts/check.sh

bench: ## measures the goals side by side with what is beside it, and writes docs/benchmarks.md
	@scripts/bench.sh

chaos: ## the long failure runs (power cuts, kill -9, full and failing disks), and writes docs/reliability.md
	@scripts/chaos.sh

fuzz: ## every fuzz target for FUZZ_SECONDS (60) seconds
	@scripts/fuzz.sh

setup: ## installs what the tests need, or lists what is missing and which tests that skips
	@scripts/setup.sh
