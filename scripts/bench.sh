#!/usr/bin/env bash
# Measures the goals in one run, side by side with the Python design where the shared folder has it; writes docs/benchmarks.md.
# QUICK=1 measures shortly and writes nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh wrk=wrk redis-benchmark=redis-tools
cargo build --release --locked --workspace --examples --bins
export ANOMALY_BIN=${ANOMALY_BIN:-${CARGO_TARGET_DIR:-$PWD/target}/release/anomaly}
exec .venv/bin/python -B scripts/bench.py
