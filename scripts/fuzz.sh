#!/usr/bin/env bash
# Runs every fuzz target for FUZZ_SECONDS (60) seconds; arguments name targets. Needs `cargo install cargo-fuzz --locked`.
set -euo pipefail
cd "$(dirname "$0")/.."

[ -d fuzz ] || { echo "fuzz: there are no fuzz targets"; exit 1; }
command -v cargo-fuzz >/dev/null || { echo "fuzz: needs cargo-fuzz: cargo install cargo-fuzz --locked"; exit 1; }
for target in ${*:-$(cargo fuzz list)}; do
  echo "== $target"
  cargo fuzz run -s none "$target" -- -max_total_time="${FUZZ_SECONDS:-60}" -rss_limit_mb=4096
done
