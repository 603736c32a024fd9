//! `anomaly silence`: for a while, nobody hears of what matches, on a running server.

use std::io::Write;
use std::process::ExitCode;

use anomaly_detect::text;
use anyhow::bail;
use serde_json::{Value, json};

use super::client::Server;
use super::incidents::escaped;
use super::terminal::harmless;
use crate::cli::{AtServer, NewSilence};
use crate::clock;

/// Makes a silence that begins now.
///
/// # Errors
/// A matcher that cannot be read; no server answers, or it refuses.
pub fn add(new: &NewSilence, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let matchers = new.matchers.iter().map(|written| matcher(written)).collect::<anyhow::Result<Vec<_>>>()?;
    let to = clock::now().plus(new.lasts);
    let body = json!({"matchers": matchers, "to": to.to_string(), "by": new.words.by(), "comment": new.words.comment});
    let made = super::runtime()?.block_on(async { Server::new(&new.at)?.post("/silences", &body).await })?;
    writeln!(out, "{}: {}, for {}", made["id"].as_str().unwrap_or_default(), shown(&made), text::span(new.lasts as f64 * 1e-9))?;
    Ok(ExitCode::SUCCESS)
}

/// Lists the silences that hold, will hold, or ended lately.
///
/// # Errors
/// No server answers; nobody reads.
pub fn list(at: &AtServer, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let answer = super::runtime()?.block_on(async { Server::new(at)?.get("/silences").await })?;
    let silences = answer["silences"].as_array().cloned().unwrap_or_default();
    if silences.is_empty() {
        writeln!(out, "nothing is silenced")?;
    }
    for silence in &silences {
        let (id, state) = (silence["id"].as_str().unwrap_or_default(), silence["state"].as_str().unwrap_or_default());
        let left = silence["to"].as_f64().unwrap_or_default() - clock::now().nanos() as f64 * 1e-9;
        let left = if left > 0.0 { format!("{} left", text::span(left.round())) } else { "over".to_owned() };
        let said = |name: &str| harmless(silence[name].as_str().unwrap_or_default()).replace('\n', " ");
        let (by, comment) = (said("by"), said("comment"));
        let colon = if by.is_empty() || comment.is_empty() { "" } else { ": " };
        writeln!(out, "{id}  {state:<8}  {left:<12}  {}  {by}{colon}{comment}", shown(silence))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Ends a silence now.
///
/// # Errors
/// No server answers, or no such silence holds.
pub fn end(at: &AtServer, id: &str, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    super::runtime()?.block_on(async { Server::new(at)?.delete(&format!("/silences/{}", escaped(id))).await })?;
    writeln!(out, "{id}: over; what it held back and is still open is told now")?;
    Ok(ExitCode::SUCCESS)
}

/// Reads `name=value`, `name!=value`, `name=~pattern` or `name!~pattern`.
fn matcher(written: &str) -> anyhow::Result<Value> {
    let Some(at) = written.find(['=', '!']).filter(|at| *at > 0) else {
        bail!("{written:?} is no matcher: write metric=cpu_usage, host!=a, dc=~eu-.* or severity=warning");
    };
    let (name, rest) = written.split_at(at);
    let op = ["!=", "!~", "=~", "="].into_iter().find(|op| rest.starts_with(op));
    let Some(op) = op else { bail!("{written:?} is no matcher: behind {name} comes =, !=, =~ or !~") };
    let value = &rest[op.len()..];
    if value.starts_with('=') {
        bail!("{written:?} is no matcher: it is {name}=VALUE, with one =");
    }
    // Quotes of a shell's or of PromQL's, but not one that is part of the value.
    let bare = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    Ok(json!({"name": name.trim(), "op": op, "value": bare}))
}

fn shown(silence: &Value) -> String {
    let one = |matcher: &Value| {
        // A series is named as it is everywhere.
        if matcher["name"] == "series" && matcher["op"] == "=" {
            return harmless(matcher["value"].as_str().unwrap_or_default());
        }
        let text = |name: &str| matcher[name].as_str().unwrap_or_default();
        harmless(&format!("{}{}\"{}\"", text("name"), text("op"), text("value")))
    };
    silence["matchers"].as_array().into_iter().flatten().map(one).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matchers_are_read_as_they_are_written_everywhere() {
        for (written, name, op, value) in [
            ("metric=cpu", "metric", "=", "cpu"),
            ("host!=\"a b\"", "host", "!=", "a b"),
            ("dc=~eu-.*", "dc", "=~", "eu-.*"),
            ("dc!~a|b=c", "dc", "!~", "a|b=c"),
            ("rack=", "rack", "=", ""),
        ] {
            assert_eq!(matcher(written).unwrap(), json!({"name": name, "op": op, "value": value}), "{written}");
        }
        assert_eq!(matcher("q=x\"").unwrap()["value"], "x\"");
        for written in ["metric", "=cpu", "metric!cpu", "host==\"a\"", ""] {
            assert!(matcher(written).is_err(), "{written}");
        }
    }
}
