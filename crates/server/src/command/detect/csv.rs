//! Rows as CSV, in the columns of the contract.

use anomaly_engine::frame::Row;
use anomaly_engine::json_text::{push_f64, push_optional_f64};
use anomaly_engine::{Anomaly, Judgement, Point, Settings, Timestamp, Verdict, late_explanation};

use super::output::Series;

/// The columns.
pub(super) const HEADER: &str = "timestamp,series,value,score,expected,lower,upper,z_score,anomaly,verdict,detector,explanation";

/// Appends an anomaly as a row.
pub(super) fn push_anomaly(out: &mut String, anomaly: &Anomaly) {
    let Anomaly { timestamp, value, judgement, settings, .. } = anomaly;
    push(out, *timestamp, &anomaly.key.name(), *value, Some((Verdict::Anomaly, judgement)), settings);
}

/// Appends a row, whether or not it fired; one without a point is a duplicate.
pub(super) fn push_row(out: &mut String, series: &Series, row: &Row<'_>, point: Option<&Point>) {
    let said = point.map(|point| (point.verdict, &point.judgement));
    push(out, row.timestamp, &series.name, row.value, said, &series.settings);
}

fn push(out: &mut String, at: Timestamp, series: &str, value: f64, said: Option<(Verdict, &Judgement)>, settings: &Settings) {
    out.push_str(&at.to_string());
    out.push(',');
    push_field(out, series);
    out.push(',');
    push_f64(out, value);
    let judged = said.filter(|(verdict, _)| matches!(verdict, Verdict::Anomaly | Verdict::Normal));
    match judged {
        Some((_, judgement)) => {
            for number in [judgement.score(), judgement.expected, judgement.lower, judgement.upper] {
                out.push(',');
                push_f64(out, number);
            }
            out.push(',');
            if judgement.z_score.is_some() {
                push_optional_f64(out, judgement.z_score);
            }
        }
        None => out.push_str(",0.0,,,,"),
    }
    let verdict = said.map_or("duplicate", |(verdict, _)| verdict.as_str());
    let fired = verdict == Verdict::Anomaly.as_str();
    for field in [if fired { "true" } else { "false" }, verdict, settings.params.kind().as_str()] {
        out.push(',');
        out.push_str(field);
    }
    out.push(',');
    let explanation = match said {
        Some((Verdict::Late, _)) => late_explanation(settings).explanation,
        Some((_, judgement)) => settings.params.explain(value, judgement, settings.window_seconds).explanation,
        None => "an event with this id came before, so it was not judged again".to_owned(),
    };
    push_field(out, &explanation);
}

/// Appends a text, in quotes where it needs them (RFC 4180).
fn push_field(out: &mut String, text: &str) {
    if text.contains([',', '"', '\n', '\r']) {
        out.push('"');
        out.push_str(&text.replace('"', "\"\""));
        out.push('"');
    } else {
        out.push_str(text);
    }
}

#[cfg(test)]
mod tests {
    use super::push_field;

    #[test]
    fn quotes_stand_where_they_are_needed() {
        for (text, expected) in [("cpu", "cpu"), ("cpu{dc=\"eu\"}", "\"cpu{dc=\"\"eu\"\"}\""), ("a,b", "\"a,b\""), ("a\nb", "\"a\nb\"")] {
            let mut out = String::new();
            push_field(&mut out, text);
            assert_eq!(out, expected);
        }
    }
}
