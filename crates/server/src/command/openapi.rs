//! `anomaly openapi`: the document that describes the HTTP API.

use std::io::Write;
use std::process::ExitCode;

use crate::api;

/// Prints it.
///
/// # Errors
/// Nobody reads.
pub fn print(out: &mut impl Write) -> anyhow::Result<ExitCode> {
    writeln!(out, "{}", api::openapi().to_pretty_json()?)?;
    Ok(ExitCode::SUCCESS)
}
