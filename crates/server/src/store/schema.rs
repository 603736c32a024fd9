//! The tables of `anomaly.db`, step by step: a step that was released is never changed, the next one is added behind it.
//!
//! - `outbox.seq` numbers all that was detected and is never reused; an anomaly has the number of its outbox row.
//! - `anomalies` is narrow, so that scanning it is quick; `bodies` has the JSON, `series` the names, once.
//! - `incidents.first` is the time of the anomaly that was detected first: with `num` it orders incidents, and never changes.
//! - `incidents.resolved` is when the engine resolved it, NULL while it is open; `opened` when it was opened last, before which an
//!   acknowledgement counts no more; `arrived` when its newest anomaly was detected, `age` how old that was when its event came.
//! - `transitions` numbers what happened to incidents besides anomalies: resolved, acknowledged, closed by hand.
//! - `handling` is what people said of an incident as it stands. An acknowledgement is of one `opened`, a closing of one `arrived`: they
//!   count no more when that has changed, whatever the clock says. `audit` is every change that they or the engine made, in order.
//! - `notifier` is how far the notifier has read, and whether there is one: what was found without is not told later.
//! - `told` is what the notifier knows of an incident, `waiting` what it gathers for a message, `notifications` what it decided;
//!   `message` is the same in the notifications of one message on several channels.
//! - `meta` has P, the least number that retention has not deleted, since step 2 what tells this store from others, and since step 4
//!   the last entry of a journal that was done to it, with the chain behind it.

pub(super) const STEPS: &[&str] = &[
    "
CREATE TABLE meta (one INTEGER PRIMARY KEY CHECK (one = 1), frame INTEGER NOT NULL, row INTEGER NOT NULL, oldest INTEGER NOT NULL);
INSERT INTO meta VALUES (1, 0, 0, 1);

CREATE TABLE series (
    num INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, name TEXT NOT NULL, metric TEXT NOT NULL, labels TEXT NOT NULL
);
CREATE INDEX series_metric ON series (metric);

CREATE TABLE outbox (seq INTEGER PRIMARY KEY AUTOINCREMENT, record TEXT NOT NULL, kind INTEGER NOT NULL);

CREATE TABLE anomalies (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, series INTEGER NOT NULL, timestamp INTEGER NOT NULL, critical INTEGER NOT NULL,
    strength REAL NOT NULL, height REAL NOT NULL, incident INTEGER NOT NULL, detected_at INTEGER NOT NULL
);
CREATE INDEX anomalies_series ON anomalies (series);
CREATE INDEX anomalies_series_time ON anomalies (series, timestamp);
CREATE INDEX anomalies_time ON anomalies (timestamp, series, critical, height);
CREATE INDEX anomalies_incident ON anomalies (incident, timestamp);
CREATE TABLE bodies (seq INTEGER PRIMARY KEY, body TEXT NOT NULL);

CREATE TABLE incidents (
    num INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, series INTEGER NOT NULL, first INTEGER NOT NULL, start INTEGER NOT NULL,
    end INTEGER NOT NULL, count INTEGER NOT NULL, critical INTEGER NOT NULL, peak INTEGER NOT NULL, strength REAL NOT NULL
);
CREATE INDEX incidents_order ON incidents (first, num);
CREATE INDEX incidents_series ON incidents (series);

CREATE TABLE upload_judged (
    upload TEXT NOT NULL, file INTEGER NOT NULL, rows INTEGER NOT NULL, late INTEGER NOT NULL, anomalies INTEGER NOT NULL,
    warnings TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (upload, file)
) WITHOUT ROWID;
",
    "
ALTER TABLE meta ADD COLUMN store TEXT NOT NULL DEFAULT '';
UPDATE meta SET store = lower(hex(randomblob(8)));
",
    "
ALTER TABLE incidents ADD COLUMN arrived INTEGER NOT NULL DEFAULT 0;
ALTER TABLE incidents ADD COLUMN age INTEGER NOT NULL DEFAULT 0;
ALTER TABLE incidents ADD COLUMN opened INTEGER NOT NULL DEFAULT 0;
ALTER TABLE incidents ADD COLUMN resolved INTEGER;
UPDATE incidents SET arrived = coalesce((SELECT detected_at FROM anomalies WHERE seq = incidents.peak), 0);
UPDATE incidents SET resolved = arrived;
CREATE INDEX incidents_open ON incidents (first, num) WHERE resolved IS NULL;

CREATE TABLE transitions (num INTEGER PRIMARY KEY AUTOINCREMENT, incident INTEGER NOT NULL);
CREATE INDEX transitions_incident ON transitions (incident);

CREATE TABLE handling (
    incident INTEGER PRIMARY KEY, acknowledged INTEGER, acknowledged_of INTEGER, closed INTEGER, closed_of INTEGER, by TEXT, comment TEXT, useful INTEGER, rule TEXT
);
CREATE TABLE silences (
    id TEXT PRIMARY KEY, matchers TEXT NOT NULL, start INTEGER NOT NULL, end INTEGER NOT NULL, by TEXT, comment TEXT, made INTEGER NOT NULL
);
CREATE TABLE audit (
    num INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, what TEXT NOT NULL, incident INTEGER, subject TEXT, by TEXT, comment TEXT
);
CREATE INDEX audit_incident ON audit (incident) WHERE incident IS NOT NULL;
CREATE INDEX audit_at ON audit (at) WHERE incident IS NULL;

CREATE TABLE notifier (
    one INTEGER PRIMARY KEY CHECK (one = 1), anomaly INTEGER NOT NULL, transition INTEGER NOT NULL, active INTEGER NOT NULL
);
INSERT INTO notifier SELECT 1, coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'outbox'), 0), 0, 1;
CREATE TABLE told (
    incident INTEGER PRIMARY KEY, phase INTEGER NOT NULL, at INTEGER NOT NULL, due INTEGER, lead TEXT NOT NULL, times INTEGER NOT NULL,
    count INTEGER NOT NULL, critical INTEGER NOT NULL, acknowledged INTEGER NOT NULL, resolved INTEGER NOT NULL,
    looks INTEGER NOT NULL, seen INTEGER NOT NULL, channels TEXT NOT NULL
);
CREATE INDEX told_due ON told (due) WHERE due IS NOT NULL;
CREATE INDEX told_phase ON told (phase, at);
CREATE INDEX told_lead ON told (lead);
CREATE TABLE waiting (incident INTEGER NOT NULL, kind TEXT NOT NULL, due INTEGER NOT NULL, PRIMARY KEY (incident, kind)) WITHOUT ROWID;

CREATE TABLE notifications (
    num INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, message TEXT NOT NULL, channel TEXT NOT NULL, kind TEXT NOT NULL,
    status INTEGER NOT NULL, attempts INTEGER NOT NULL, due INTEGER NOT NULL, made INTEGER NOT NULL, sent INTEGER, counts INTEGER NOT NULL,
    digest INTEGER, by_hand INTEGER NOT NULL DEFAULT 0, error TEXT, body BLOB NOT NULL
);
CREATE INDEX notifications_status ON notifications (status, channel, due);
CREATE INDEX notifications_counted ON notifications (counts, made);
CREATE INDEX notifications_made ON notifications (made);
CREATE TABLE notified (notification INTEGER NOT NULL, incident TEXT NOT NULL, PRIMARY KEY (notification, incident)) WITHOUT ROWID;
CREATE INDEX notified_incident ON notified (incident);
",
    "
ALTER TABLE meta ADD COLUMN applied INTEGER NOT NULL DEFAULT 0;
ALTER TABLE meta ADD COLUMN chain TEXT NOT NULL DEFAULT '';
",
];

/// `outbox.kind` of an anomaly; `record` is its id.
pub(super) const ANOMALY: i64 = 1;
