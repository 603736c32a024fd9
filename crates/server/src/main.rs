//! The binary: everything is in the library.

use std::process::ExitCode;

/// Several threads free what others allocated, frames above all: mimalloc does that well. It serves C too, see
/// docs/decisions/one-allocator.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    anomaly_server::cli::main()
}
