//! The shapes of requests and answers, for the OpenAPI document. Answers are written around stored JSON and not from these;
//! a test holds the examples of both against each other.

#![allow(missing_docs, reason = "each field's documentation is its description in the document, where one is needed")]

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

/// An event: one value of a metric at a time.
#[derive(Debug, Serialize, ToSchema)]
pub struct Event {
    /// Epoch seconds (number) or RFC 3339 (text); also named `time` or `ts`. Absent: the time of arrival.
    #[schema(value_type = Option<f64>)]
    pub timestamp: Option<f64>,
    /// 1–255 bytes without control characters; also named `name`.
    #[schema(min_length = 1, max_length = 255)]
    pub metric: String,
    /// A finite number.
    pub value: f64,
    /// Part of the series' identity, at most 32.
    pub labels: Option<BTreeMap<String, String>>,
    /// Carried along to the anomaly.
    #[schema(value_type = Option<Object>)]
    pub meta: Option<BTreeMap<String, String>>,
    /// The same id for the same series within `DEDUP_HORIZON_SECONDS` is not judged again.
    #[schema(min_length = 1, max_length = 255)]
    pub id: Option<String>,
}

/// An event was taken.
#[derive(Debug, Serialize, ToSchema)]
pub struct Queued {
    pub status: String,
    /// The event's own `id`, or one made for it.
    pub id: String,
}

/// A row that was not taken, and why.
#[derive(Debug, Serialize, ToSchema)]
pub struct RowError {
    /// From 1, blank lines and the header included; in a JSON array the element's number.
    pub line: u64,
    /// Empty where the whole row is at fault.
    pub field: String,
    /// Stable.
    pub code: String,
    pub message: String,
}

/// What became of a batch.
#[derive(Debug, Serialize, ToSchema)]
pub struct Report {
    pub accepted: u64,
    pub rejected: u64,
    /// The first 1,000.
    pub errors: Vec<RowError>,
}

/// An error (RFC 9457). `code` is stable; some problems have further fields.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProblemDetails {
    pub r#type: String,
    pub title: String,
    pub status: u16,
    pub code: String,
    pub detail: String,
}

/// A form with a file.
#[derive(Debug, Serialize, ToSchema)]
pub struct FileForm {
    #[schema(format = Binary, content_media_type = "application/octet-stream")]
    pub file: String,
    /// For times without an offset; before or behind the file.
    pub timezone: Option<String>,
}

/// A form with files.
#[derive(Debug, Serialize, ToSchema)]
pub struct FilesForm {
    #[schema(value_type = Vec<String>, format = Binary)]
    pub files: Vec<String>,
    /// For times without an offset; before or behind the files.
    pub timezone: Option<String>,
}

/// An upload.
#[derive(Debug, Serialize, ToSchema)]
pub struct Upload {
    pub id: String,
    /// `running` or `interrupted` (the replica that has its files is gone: the same files with the same `Idempotency-Key` go on); absent
    /// when it has ended.
    #[schema(required = false)]
    pub state: Option<String>,
    pub files: Vec<FileReport>,
}

/// What became of a file.
#[derive(Debug, Serialize, ToSchema)]
pub struct FileReport {
    pub file: String,
    /// `csv`, `json`, `ndjson` or `txt`.
    pub format: Option<String>,
    /// The earliest event, in epoch seconds.
    pub from: Option<f64>,
    /// The latest event, in epoch seconds.
    pub to: Option<f64>,
    /// What was assumed, and what is worth knowing.
    pub warnings: Vec<String>,
    pub accepted: u64,
    pub rejected: u64,
    /// Null while not yet judged.
    pub late: Option<u64>,
    /// Null while not yet judged.
    pub anomalies: Option<u64>,
    /// The first 1,000.
    pub errors: Vec<RowError>,
    /// Of an interrupted upload: the sample with which to go on, those before it are in the log.
    #[schema(required = false)]
    pub next_sample: Option<u64>,
}

/// A step of the detector's reasoning.
#[derive(Debug, Serialize, ToSchema)]
pub struct Check {
    pub name: String,
    pub passed: bool,
    pub detail: String,
}

/// An anomaly.
#[derive(Debug, Serialize, ToSchema)]
pub struct Anomaly {
    pub id: String,
    pub series: String,
    pub metric: String,
    pub labels: BTreeMap<String, String>,
    /// Epoch seconds.
    pub timestamp: f64,
    pub value: f64,
    pub detector: String,
    /// 0.5 at the threshold, 0.75 at twice the threshold.
    pub score: f64,
    /// Null for a detector that has none.
    pub z_score: Option<f64>,
    pub expected: f64,
    pub lower: f64,
    pub upper: f64,
    pub mean: f64,
    pub stddev: f64,
    /// Samples in the window.
    pub count: u64,
    pub threshold: f64,
    pub critical_from: f64,
    pub min_count: u32,
    pub window_seconds: f64,
    /// `high` or `low`.
    pub direction: String,
    /// `warning` or `critical`.
    pub severity: String,
    pub summary: String,
    pub explanation: String,
    pub checks: Vec<Check>,
    /// Of the event.
    #[schema(value_type = Object)]
    pub meta: BTreeMap<String, String>,
    pub event_id: Option<String>,
    pub incident_id: String,
    pub detected_at: f64,
    pub source: String,
}

/// A page of anomalies.
#[derive(Debug, Serialize, ToSchema)]
pub struct AnomalyPage {
    pub anomalies: Vec<Anomaly>,
    /// The cursor of the next page; null on the last.
    pub next: Option<String>,
}

/// A sample, for drawing.
#[derive(Debug, Serialize, ToSchema)]
pub struct Point {
    pub timestamp: f64,
    pub value: f64,
    /// Null where the sample was not judged; so are the band and `z_score`.
    pub expected: Option<f64>,
    pub lower: Option<f64>,
    pub upper: Option<f64>,
    pub z_score: Option<f64>,
    /// `warning`, `critical` or null.
    pub severity: Option<String>,
    /// `anomaly`, `normal`, `too_few` or `late`.
    pub verdict: String,
}

/// Points.
#[derive(Debug, Serialize, ToSchema)]
pub struct Points {
    pub points: Vec<Point>,
}

/// An anomaly and the samples around it.
#[derive(Debug, Serialize, ToSchema)]
pub struct AnomalyWithPoints {
    pub anomaly: Anomaly,
    pub points: Vec<Point>,
}

/// The shape of an anomaly for any point. Where it did not fire, `severity` is null, and so is what only an anomaly has.
#[derive(Debug, Serialize, ToSchema)]
pub struct Explanation {
    /// `anomaly`, `normal`, `too_few` or `late`.
    pub verdict: String,
    pub series: String,
    pub metric: String,
    pub labels: BTreeMap<String, String>,
    pub timestamp: f64,
    pub value: f64,
    pub detector: String,
    pub score: f64,
    pub z_score: Option<f64>,
    pub severity: Option<String>,
    pub explanation: String,
    pub checks: Vec<Check>,
}

/// An incident.
#[derive(Debug, Serialize, ToSchema)]
pub struct Incident {
    pub id: String,
    pub series: String,
    pub metric: String,
    pub labels: BTreeMap<String, String>,
    pub start: f64,
    pub end: f64,
    /// Anomalies in it.
    pub count: u64,
    /// The highest of its anomalies.
    pub severity: String,
    /// `open`, `acknowledged`, `silenced` or `resolved`.
    pub state: String,
    /// When it was resolved, in epoch seconds.
    pub resolved_at: Option<f64>,
    /// Who acknowledged or resolved it by hand, or made the silence.
    pub by: Option<String>,
    pub comment: Option<String>,
    /// `useful` or `false_alarm`, where somebody said so.
    pub feedback: Option<String>,
    /// The strongest of its anomalies.
    pub peak: Anomaly,
}

/// What a filter holds in all.
#[derive(Debug, Serialize, ToSchema)]
pub struct Totals {
    pub incidents: u64,
    pub anomalies: u64,
}

/// A page of incidents.
#[derive(Debug, Serialize, ToSchema)]
pub struct IncidentPage {
    pub incidents: Vec<Incident>,
    /// The cursor of the next page; null on the last.
    pub next: Option<String>,
    pub totals: Totals,
    /// Where the WebSocket goes on: `after`.
    pub cursor: String,
}

/// An incident and all that is known of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct IncidentWhole {
    pub incident: Incident,
    pub anomalies: Vec<Anomaly>,
    /// Oldest first.
    pub history: Vec<HistoryEntry>,
    /// What was sent, or held back, about it; oldest first.
    pub notifications: Vec<Notification>,
    pub budget: Budget,
    /// Others that began within a window of it, nearest first: the first mover of them all, and the four nearest.
    pub together: Vec<Incident>,
}

/// Something that happened to an incident.
#[derive(Debug, Serialize, ToSchema)]
pub struct HistoryEntry {
    pub at: f64,
    /// `opened`, `reopened`, `resolved`, `acknowledged`, `resolved_by_hand` or `feedback`.
    pub what: String,
    pub by: Option<String>,
    pub comment: Option<String>,
    /// `useful` or `false_alarm`, of a feedback.
    pub verdict: Option<String>,
}

/// What somebody says of an incident.
#[derive(Debug, Serialize, ToSchema)]
pub struct Said {
    /// At most 100 characters.
    pub by: Option<String>,
    /// At most 1,000 characters.
    pub comment: Option<String>,
}

/// What somebody found.
#[derive(Debug, Serialize, ToSchema)]
pub struct Found {
    /// `useful` or `false_alarm`.
    pub verdict: String,
    pub by: Option<String>,
    pub comment: Option<String>,
}

/// What people found, by rule.
#[derive(Debug, Serialize, ToSchema)]
pub struct Feedback {
    pub rules: Vec<RuleFeedback>,
}

/// What people found of one rule's incidents.
#[derive(Debug, Serialize, ToSchema)]
pub struct RuleFeedback {
    /// `default`, or `rules[N]`.
    pub rule: String,
    pub useful: u64,
    pub false_alarm: u64,
    /// The share that was useful.
    pub precision: f64,
}

/// What a label, the metric or the severity must be.
#[derive(Debug, Serialize, ToSchema)]
pub struct Matcher {
    /// A label's name, `series` (the whole name), `metric` or `severity`.
    pub name: String,
    /// `=`, `!=`, `=~` or `!~`.
    pub op: String,
    pub value: String,
}

/// A silence that is asked for.
#[derive(Debug, Serialize, ToSchema)]
pub struct NewSilence {
    pub matchers: Vec<Matcher>,
    /// Epoch seconds or RFC 3339; absent: now.
    pub from: Option<f64>,
    pub to: f64,
    pub by: Option<String>,
    pub comment: Option<String>,
}

/// A silence.
#[derive(Debug, Serialize, ToSchema)]
pub struct Silence {
    pub id: String,
    pub matchers: Vec<Matcher>,
    pub from: f64,
    pub to: f64,
    pub by: Option<String>,
    pub comment: Option<String>,
    /// `active`, `pending` or `expired`.
    pub state: String,
}

/// Silences.
#[derive(Debug, Serialize, ToSchema)]
pub struct Silences {
    pub silences: Vec<Silence>,
}

/// Something that people were, or are to be, told.
#[derive(Debug, Serialize, ToSchema)]
pub struct Notification {
    pub id: String,
    /// `email`, `webhook`, `slack`, `pagerduty` or `alertmanager`.
    pub channel: String,
    /// `opened`, `escalated`, `reopened`, `repeated`, `acknowledged`, `resolved` or `digest`.
    pub kind: String,
    /// Ids.
    pub incidents: Vec<String>,
    /// `pending`, `sent`, `held` or `failed`.
    pub status: String,
    pub attempts: u64,
    /// Why it was not sent yet, is held, or failed.
    pub last_error: Option<String>,
    pub created_at: f64,
    pub sent_at: Option<f64>,
}

/// A page of notifications.
#[derive(Debug, Serialize, ToSchema)]
pub struct NotificationPage {
    pub notifications: Vec<Notification>,
    /// The cursor of the next page; null on the last.
    pub next: Option<String>,
    pub budget: Budget,
}

/// How much of `NOTIFY_BUDGET` is used.
#[derive(Debug, Serialize, ToSchema)]
pub struct Budget {
    /// Such as `2/week`; null without one.
    pub limit: Option<String>,
    /// Messages of the budget's period, or of 7 days without one.
    pub sent: u64,
    /// Held back, and in no digest yet.
    pub held: u64,
}

/// The overview.
#[derive(Debug, Serialize, ToSchema)]
pub struct Heat {
    pub lanes: Vec<Lane>,
}

/// A series in the overview.
#[derive(Debug, Serialize, ToSchema)]
pub struct Lane {
    pub series: String,
    pub metric: String,
    pub labels: BTreeMap<String, String>,
    /// Null where nothing was found.
    pub buckets: Vec<Option<Cell>>,
}

/// A bucket of the overview.
#[derive(Debug, Serialize, ToSchema)]
pub struct Cell {
    pub count: u64,
    pub max_z: f64,
    pub severity: String,
}

/// The newest sample in event time.
#[derive(Debug, Serialize, ToSchema)]
pub struct Last {
    pub timestamp: f64,
    pub value: f64,
}

/// A series.
#[derive(Debug, Serialize, ToSchema)]
pub struct Series {
    pub series: String,
    pub metric: String,
    pub labels: BTreeMap<String, String>,
    /// All events ever accepted.
    pub count: u64,
    pub last: Last,
    pub anomalies_24h: u64,
    pub detector: String,
    /// True where its samples come too seldom for its window.
    pub sparse: Option<bool>,
    /// True where its window does not hold all of its samples.
    pub truncated: Option<bool>,
}

/// A page of series.
#[derive(Debug, Serialize, ToSchema)]
pub struct SeriesPage {
    pub series: Vec<Series>,
    /// The cursor of the next page; null on the last.
    pub next: Option<String>,
}

/// How something is.
#[derive(Debug, Serialize, ToSchema)]
pub struct Status {
    pub status: String,
    pub reason: Option<String>,
}

/// How the server is.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// `ok` or `degraded`.
    pub status: String,
    pub queue_size: u64,
    pub version: String,
    pub uptime_seconds: f64,
    pub components: BTreeMap<String, Status>,
    /// Of a processor on Redis: `active` or `standby`.
    #[schema(required = false)]
    pub standing: Option<String>,
}

/// Anomalies by severity.
#[derive(Debug, Serialize, ToSchema)]
pub struct BySeverity {
    pub warning: u64,
    pub critical: u64,
}

/// Recent history, oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct History {
    /// 60 of one second.
    pub events_per_second: Vec<u64>,
    /// 60 of one second.
    pub queue_depth: Vec<u64>,
    /// 24, in event time.
    pub anomalies_per_hour: Vec<u64>,
}

/// Statistics.
#[derive(Debug, Serialize, ToSchema)]
pub struct Stats {
    pub events_total: u64,
    pub rejected_total: u64,
    pub late_total: u64,
    pub duplicates_total: u64,
    pub redelivered_total: u64,
    /// Mean of the last five seconds.
    pub events_per_second: f64,
    pub rejected_last_minute: u64,
    pub late_last_minute: u64,
    pub queue_depth: u64,
    pub queue_capacity: u64,
    pub series: u64,
    pub series_new_24h: u64,
    pub anomalies_24h: BySeverity,
    pub websocket_clients: u64,
    pub history: History,
}

/// Which anomalies. All that are given must hold.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Filters {
    /// `*` is any text.
    #[param(example = "cpu*")]
    pub metric: Option<String>,
    /// A series by its name.
    #[param(example = "cpu_usage{dc=\"eu\"}")]
    pub series: Option<String>,
    /// Event time, inclusive: epoch seconds or RFC 3339.
    #[param(example = "2025-01-21T10:00:00Z")]
    pub from: Option<String>,
    /// Event time, inclusive.
    #[param(example = "1737540000")]
    pub to: Option<String>,
    /// `warning` or `critical`.
    #[param(example = "critical")]
    pub severity: Option<String>,
}

/// Which page.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Paging {
    /// Default 100.
    #[param(minimum = 1, maximum = 1000, example = 100)]
    pub limit: Option<u16>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}
