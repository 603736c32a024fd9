#!/usr/bin/env bash
# All tests: `cargo test` of every crate, then the black-box tests in tests/ against the release binary.
# REQUIRE=nab,conformance,root,loop,strace,ptrace,browser,compose,alertmanager,kafka,readme,redis,haproxy,netns turns the skip of what needs them into a failure.
# Arguments go to pytest: scripts/test.sh -k bad_input
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
cargo test --workspace --locked
cargo build --release --locked
if [ ! -e .venv/requirements.txt ]; then
  echo "black-box tests: skipped, no Python environment (see above)"
  [ -z "${REQUIRE:-}" ]
  exit
fi
export ANOMALY_BIN=${ANOMALY_BIN:-${CARGO_TARGET_DIR:-$PWD/target}/release/anomaly}
exec .venv/bin/python -B -m pytest tests "$@"
