#!/usr/bin/env bash
# Runs every fuzz target for FUZZ_SECONDS (60) seconds; arguments name targets. Needs `cargo install cargo-fuzz --locked`.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v cargo-fuzz >/dev/null || { echo "fuzz: needs cargo-fuzz: cargo install cargo-fuzz --locked"; exit 1; }
mkdir -p fuzz/corpus/file
for sample in examples/sample_data.*; do
  { printf 000000; cat "$sample"; } >"fuzz/corpus/file/${sample##*/}"
done
for target in ${*:-$(cargo fuzz list)}; do
  echo "== $target"
  mkdir -p "fuzz/corpus/$target"
  inputs=("fuzz/corpus/$target") # the first takes new inputs
  [ ! -d "fuzz/seeds/$target" ] || inputs+=("fuzz/seeds/$target")
  options=(-max_total_time="${FUZZ_SECONDS:-60}" -rss_limit_mb=2048 -timeout=10)
  [ ! -f "fuzz/dict/$target.dict" ] || options+=(-dict="fuzz/dict/$target.dict")
  cargo fuzz run -s none "$target" "${inputs[@]}" -- "${options[@]}"
done
