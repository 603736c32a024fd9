#!/usr/bin/env bash
# The long failure runs; writes those sections of docs/reliability.md of which every run was made.
# Arguments go to `python -m chaos`: scripts/chaos.sh --section Redis
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
cargo build --release --locked
export ANOMALY_BIN=${ANOMALY_BIN:-${CARGO_TARGET_DIR:-$PWD/target}/release/anomaly}
command="make chaos"
[ $# -eq 0 ] || command="scripts/chaos.sh $*"
out=(--out "$PWD/docs/reliability.md" --command "$command")
case " $* " in *" --quick "*) out=() ;; esac
mkdir -p docs
cd tests
exec ../.venv/bin/python -B -m chaos "${out[@]}" "$@"
