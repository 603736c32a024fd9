//! The tables of `anomaly.db`, step by step: a step that was released is never changed, the next one is added behind it.
//!
//! - `outbox.seq` numbers all that was detected and is never reused; an anomaly has the number of its outbox row.
//! - `anomalies` is narrow, so that scanning it is quick; `bodies` has the JSON, `series` the names, once.
//! - `incidents.first` is the time of the anomaly that was detected first: with `num` it orders incidents, and never changes.
//! - `meta` has P, the least number that retention has not deleted, and since step 2 what tells this store from others.

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
];

/// `outbox.kind` of an anomaly; `record` is its id.
pub(super) const ANOMALY: i64 = 1;
