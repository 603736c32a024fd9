#!/usr/bin/env bash
# All tests: `cargo test` of every crate, then the black-box tests in tests/ against the release binary.
# REQUIRE=next,nab,conformance,root,loop,strace,ptrace,browser,compose,alertmanager,kafka,readme,redis,haproxy,netns turns the skip of what needs them into a failure.
# Arguments go to pytest: scripts/test.sh -k bad_input
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
cargo test --workspace --locked
target=${CARGO_TARGET_DIR:-$PWD/target}
# As if of the next version: test_upgrade.py.
cargo build --locked --package anomaly --features next-checkpoint-format
cp "$target/debug/anomaly" "$target/anomaly-next"
export ANOMALY_NEXT_BIN=$target/anomaly-next
cargo build --release --locked
if [ ! -e .venv/requirements.txt ]; then
  echo "black-box tests: skipped, no Python environment (see above)"
  [ -z "${REQUIRE:-}" ]
  exit
fi
export ANOMALY_BIN=${ANOMALY_BIN:-$target/release/anomaly}
pytest() { .venv/bin/python -B -m pytest "$@"; }
[ $# -eq 0 ] || { pytest tests "$@"; exit; }

# Those that start many servers mostly wait for them: beside the others, so that both cores have something to do.
stacks=(tests/test_{compose,kafka,redis_failures,roles,roles_nab,roles_redis,scale_out,upgrade}.py)
said=$(mktemp)
trap 'rm -f "$said"' EXIT
pytest "${stacks[@]}" > "$said" 2>&1 &
stacks_run=$!
failed=0
pytest tests "${stacks[@]/#/--ignore=}" || failed=1
wait $stacks_run || failed=1
echo "beside them, the tests that start stacks of servers:"
cat "$said"
exit $failed
