//! `anomaly incidents`: what is wrong, and what people say of it, on a running server.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{bail, ensure};
use jiff::tz::TimeZone;
use reqwest::Method;
use serde_json::{Value, json};

use super::client::Server;
use super::terminal::{Style, fitted, harmless, painted, width};
use crate::cli::{AtServer, Finding, OfIncident, Saying};

/// Characters of an id that are shown: enough to tell incidents apart, and taken in place of the whole.
const SHORT: usize = 8;
/// The most that are listed, and among which a short id is looked for.
const LISTED: usize = 1000;

/// How a list is shown.
#[derive(Clone, Copy, Debug)]
pub struct Shown {
    /// Whether with colours.
    pub colour: bool,
    /// Columns of the terminal, if it is one.
    pub columns: Option<usize>,
}

/// Lists incidents, newest first: those that are not resolved, or those in the states that were named.
///
/// # Errors
/// No server answers, or it refuses; nobody reads.
pub fn list(at: &AtServer, states: &str, as_json: bool, shown: Shown, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let path = format!("/incidents?limit={LISTED}&state={}", escaped(states));
    let runtime = super::runtime()?;
    let server = Server::new(at)?;
    let mut answer = runtime.block_on(server.get(&path))?;
    let incidents = answer["incidents"].as_array().cloned().unwrap_or_default();
    if as_json {
        let mut page = incidents;
        loop {
            page.iter().try_for_each(|incident| writeln!(out, "{incident}"))?;
            let Some(next) = answer["next"].as_str() else { return Ok(ExitCode::SUCCESS) };
            answer = runtime.block_on(server.get(&format!("{path}&cursor={}", escaped(next))))?;
            page = answer["incidents"].as_array().cloned().unwrap_or_default();
        }
    }
    if incidents.is_empty() {
        writeln!(out, "no incident is {}", states.replace(',', " or "))?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = incidents.iter().map(row).collect();
    let series = rows.iter().map(|row| width(&row[2])).max().unwrap_or(0);
    let room = shown.columns.map_or(series, |columns| columns.saturating_sub(62).max(16)).min(series);
    for (row, incident) in rows.iter().zip(&incidents) {
        let [id, start, name, state, count, by] = row;
        let style = if incident["severity"] == "critical" { Style::Red } else { Style::Yellow };
        let name = fitted(name, room);
        let gap = " ".repeat(room.saturating_sub(width(&name)));
        let severity = painted(&format!("{:<8}", incident["severity"].as_str().unwrap_or_default()), style, shown.colour);
        writeln!(out, "{id}  {start}  {severity}  {name}{gap}  {state:<12}  {count:>5}  {by}")?;
    }
    let total = answer["totals"]["incidents"].as_u64().unwrap_or(0);
    if total > incidents.len() as u64 {
        writeln!(out, "and {} older ones", total - incidents.len() as u64)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Says something of an incident.
///
/// # Errors
/// No server answers, or it refuses: the incident is not known, or resolved already.
pub fn say(of: &OfIncident, what: Saying, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let (route, mut body) = match what {
        Saying::Acknowledge => ("acknowledge", json!({})),
        Saying::Resolve => ("resolve", json!({})),
        Saying::Feedback(Finding::Useful) => ("feedback", json!({"verdict": "useful"})),
        Saying::Feedback(Finding::FalseAlarm) => ("feedback", json!({"verdict": "false_alarm"})),
    };
    body["by"] = of.words.by().into();
    body["comment"] = of.words.comment.clone().into();
    let incident = super::runtime()?.block_on(async {
        let server = Server::new(&of.at)?;
        let id = whole_id(&server, &of.id).await?;
        server.post(&format!("/incidents/{id}/{route}"), &body).await
    })?;
    let word = match what {
        Saying::Feedback(_) => incident["feedback"].as_str().unwrap_or_default().replace('_', " "),
        _ => incident["state"].as_str().unwrap_or_default().to_owned(),
    };
    writeln!(out, "{}: {word}", harmless(incident["series"].as_str().unwrap_or_default()))?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the capsule of an incident.
///
/// # Errors
/// No server answers, or it does not know the incident; nobody reads.
pub fn capsule(at: &AtServer, id: &str, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let text = super::runtime()?.block_on(async {
        let server = Server::new(at)?;
        let id = whole_id(&server, id).await?;
        server.text(Method::GET, &format!("/incidents/{id}/capsule"), None).await
    })?;
    out.write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// An id as it was given, or the only one among the newest that begins so.
async fn whole_id(server: &Server, given: &str) -> anyhow::Result<String> {
    ensure!(
        given.bytes().all(|b| b.is_ascii_hexdigit()) && !given.is_empty(),
        "{given:?} is no id of an incident: `anomaly incidents` lists them"
    );
    let given = &given.to_ascii_lowercase()[..];
    if given.len() >= 32 {
        return Ok(given.to_owned());
    }
    let answer = server.get(&format!("/incidents?limit={LISTED}")).await?;
    let ids = answer["incidents"].as_array().into_iter().flatten().filter_map(|incident| incident["id"].as_str());
    let mut found: Vec<_> = ids.filter(|id| id.starts_with(given)).collect();
    match (found.pop(), found.len()) {
        (Some(id), 0) => Ok(id.to_owned()),
        (Some(_), more) => bail!("{} incidents begin with {given}: give more of the id", more + 1),
        (None, _) => bail!("none of the newest {LISTED} incidents begins with {given}"),
    }
}

fn row(incident: &Value) -> [String; 6] {
    let text = |name: &str| harmless(incident[name].as_str().unwrap_or_default());
    let start = incident["start"].as_f64().unwrap_or_default();
    let start = jiff::Timestamp::from_millisecond((start * 1000.0) as i64).unwrap_or_default();
    let start = start.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string();
    let id = text("id").chars().take(SHORT).collect();
    let by = match (text("by"), text("comment")) {
        (by, comment) if comment.is_empty() => by,
        (by, comment) if by.is_empty() => comment,
        (by, comment) => format!("{by}: {comment}"),
    };
    [id, start, text("series"), text("state"), format!("×{}", incident["count"].as_u64().unwrap_or(0)), by]
}

/// A text as a part of a query.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b',' => out.push(byte as char),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_shows_what_matters_and_nothing_moves_the_cursor() {
        let incident = json!({"id": "0123456789abcdef", "start": 1_737_453_600.25, "series": "cpu\u{1b}[31m", "state": "acknowledged", "count": 3,
            "by": "ada", "comment": "on it"});
        let [id, start, series, state, count, by] = row(&incident);
        assert_eq!((id.as_str(), series.contains('\u{1b}'), state.as_str()), ("01234567", false, "acknowledged"));
        assert_eq!((count.as_str(), by.as_str(), start.len()), ("×3", "ada: on it", 19));
        assert_eq!(escaped("open,a b&c"), "open,a%20b%26c");
    }
}
