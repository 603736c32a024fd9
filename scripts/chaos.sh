#!/usr/bin/env bash
# The long failure runs; writes docs/reliability.md when all of them are run. Arguments go to `python -m chaos`.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
cargo build --release --locked
export ANOMALY_BIN=${ANOMALY_BIN:-${CARGO_TARGET_DIR:-$PWD/target}/release/anomaly}
out=()
[ $# -gt 0 ] || out=(--out "$PWD/docs/reliability.md")
mkdir -p docs
cd tests
exec ../.venv/bin/python -B -m chaos "${out[@]}" "$@"
