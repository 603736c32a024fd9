//! `anomaly config`: the defaults as a file, and what is wrong with a configuration.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use crate::config::{Loaded, Sources, docs};

/// Prints every setting with its default, as `anomaly.toml`.
///
/// # Errors
/// Nobody reads.
pub fn print(out: &mut impl Write) -> anyhow::Result<ExitCode> {
    out.write_all(docs::as_toml().as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Reads the configuration as `all` would and prints what is set and where.
///
/// # Errors
/// All faults of the configuration; nobody reads.
pub fn check(config_file: Option<&Path>, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let loaded = Sources::of_process(Vec::new(), config_file, true)?.load()?;
    report(&loaded, out)?;
    Ok(ExitCode::SUCCESS)
}

fn report(loaded: &Loaded, out: &mut impl Write) -> std::io::Result<()> {
    let n_rules = loaded.config.engine.rules.len();
    let n_routes = loaded.config.notify.routes.len();
    if loaded.set.is_empty() && n_rules + n_routes == 0 {
        writeln!(out, "the configuration is valid: every setting has its default")?;
    } else {
        writeln!(out, "the configuration is valid; set are")?;
    }
    for (name, text, origin) in &loaded.set {
        writeln!(out, "  {name}={text} ({origin})")?;
    }
    if n_rules > 0 {
        writeln!(out, "  {n_rules} {}", if n_rules == 1 { "rule" } else { "rules" })?;
    }
    if n_routes > 0 {
        writeln!(out, "  {n_routes} {}", if n_routes == 1 { "route" } else { "routes" })?;
    }
    for warning in &loaded.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(environment: &'static [(&'static str, &'static str)], toml: &str) -> String {
        let sources = Sources {
            flags: Vec::new(),
            environment: Box::new(|name| environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())),
            dotenv: None,
            file: Some(("a.toml".into(), toml.into())),
            read_file: |path| std::fs::read_to_string(path),
            serving: true,
        };
        let mut out = Vec::new();
        report(&sources.load().unwrap(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_check_says_what_is_set_and_where() {
        assert_eq!(checked(&[], ""), "the configuration is valid: every setting has its default\n");
        assert_eq!(
            checked(&[("PORT", "1"), ("KAFKA_TOPIC", "metrics")], "max_series = 5\n[[rules]]\nthreshold = 4"),
            "the configuration is valid; set are\n  PORT=1 (environment)\n  KAFKA_TOPIC=metrics (environment)\n  MAX_SERIES=5 (a.toml)\n  1 rule\n\
             warning: settings of Kafka are set, but KAFKA_BROKER is not: nothing is read from Kafka\n"
        );
    }
}
