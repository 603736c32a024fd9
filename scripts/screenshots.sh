#!/usr/bin/env bash
# Pictures of the dashboard in each of its states, sizes and themes, from a real server with data sent to it.
# screenshots.sh [FOLDER] [NAME…]: into FOLDER (target/screenshots), only those whose name holds one of NAME.
# docs/dashboard.png is desktop-light-selected.png of a run.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh
export ANOMALY_BIN=${ANOMALY_BIN:-${CARGO_TARGET_DIR:-$PWD/target}/release/anomaly}
[ -x "$ANOMALY_BIN" ] || cargo build --release --locked
PYTHONPATH=tests exec .venv/bin/python -B scripts/screenshots.py "$@"
