#!/usr/bin/env bash
# Format, lints, documentation and doctests; with arguments only those named: check.sh fmt clippy doc doctest
set -euo pipefail
cd "$(dirname "$0")/.."

for part in ${*:-fmt clippy doc doctest}; do
  case $part in
    fmt) cargo fmt --all --check ;;
    clippy)
      cargo clippy --workspace --all-targets --locked -- -D warnings
      # A workspace of its own, since it needs nightly to run.
      cargo clippy --manifest-path fuzz/Cargo.toml --locked -- -D warnings
      ;;
    doc) RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked ;;
    doctest) cargo test --workspace --doc --locked ;;
    *) echo "check.sh: $part is none of fmt, clippy, doc, doctest" >&2; exit 2 ;;
  esac
done
