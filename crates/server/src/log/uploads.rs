//! Uploads as the log knows them: what was spooled, and how far each file has got, in the transaction of its frames.

use anomaly_engine::{Report, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::side::from_json;

/// How an upload stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UploadState {
    /// Its files are being taken; resumed after a crash.
    Running,
    /// All that could be taken is in the log.
    Ended,
    /// It cannot go on: the spool is lost.
    Interrupted,
}

/// An upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadRow {
    /// Its id.
    pub id: String,
    /// The `Idempotency-Key` that it came with.
    pub key: Option<String>,
    /// Hash of the request, as for an answer.
    pub fingerprint: u64,
    /// When it had arrived whole.
    pub created: Timestamp,
    /// Its files as JSON, as the upload stage writes them.
    pub files: String,
    /// How it stands.
    pub state: UploadState,
    /// When it ended.
    pub ended: Option<Timestamp>,
}

/// How far a file of an upload has got.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileProgress {
    /// The upload's id.
    pub upload: String,
    /// The file's number in the upload, from 0.
    pub file: u32,
    /// The sample with which to go on.
    pub next_sample: u64,
    /// What was accepted and rejected so far.
    pub report: Report,
    /// What of it the log's writer refused; counted in `report` too.
    pub refused: Report,
    /// What else the upload stage keeps of the file (format, range, warnings), as JSON.
    pub about: String,
    /// Nothing more will come of it.
    pub finished: bool,
}

pub(super) const SCHEMA: &str = "
CREATE TABLE uploads (
    id TEXT PRIMARY KEY, key TEXT UNIQUE, fingerprint INTEGER NOT NULL, created INTEGER NOT NULL, files TEXT NOT NULL,
    state INTEGER NOT NULL, ended INTEGER
) WITHOUT ROWID;
CREATE TABLE upload_files (
    upload TEXT NOT NULL, file INTEGER NOT NULL, next_sample INTEGER NOT NULL, accepted INTEGER NOT NULL, rejected INTEGER NOT NULL,
    report TEXT NOT NULL, refused TEXT NOT NULL, about TEXT NOT NULL, finished INTEGER NOT NULL, PRIMARY KEY (upload, file)
) WITHOUT ROWID;
";

const COLUMNS: &str = "id, key, fingerprint, created, files, state, ended";

pub(super) fn put_upload(connection: &Connection, row: &UploadRow) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO uploads VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let (created, ended) = (row.created.nanos(), row.ended.map(Timestamp::nanos));
    let values = params![row.id, row.key, row.fingerprint as i64, created, row.files, row.state as i64, ended];
    connection.prepare_cached(sql)?.execute(values).map(drop)
}

pub(super) fn put_progress(connection: &Connection, row: &FileProgress, report: &str, refused: &str) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO upload_files VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    let (next, accepted, rejected) = (row.next_sample as i64, row.report.accepted as i64, row.report.rejected as i64);
    let values = params![row.upload, row.file, next, accepted, rejected, report, refused, row.about, row.finished];
    connection.prepare_cached(sql)?.execute(values).map(drop)
}

pub(super) fn progress(connection: &Connection, upload: &str) -> rusqlite::Result<Vec<FileProgress>> {
    let sql = "SELECT file, next_sample, report, refused, about, finished FROM upload_files WHERE upload = ?1 ORDER BY file";
    let read = |row: &Row<'_>| {
        Ok(FileProgress {
            upload: upload.to_owned(),
            file: row.get(0)?,
            next_sample: row.get::<_, i64>(1)? as u64,
            report: from_json(&row.get::<_, String>(2)?)?,
            refused: from_json(&row.get::<_, String>(3)?)?,
            about: row.get(4)?,
            finished: row.get(5)?,
        })
    };
    connection.prepare_cached(sql)?.query_map([upload], read)?.collect()
}

/// The upload whose `column` (id or key) is `value`.
pub(super) fn find(connection: &Connection, column: &'static str, value: &str) -> rusqlite::Result<Option<UploadRow>> {
    let sql = format!("SELECT {COLUMNS} FROM uploads WHERE {column} = ?1");
    connection.prepare_cached(&sql)?.query_row([value], read).optional()
}

pub(super) fn running(connection: &Connection) -> rusqlite::Result<Vec<UploadRow>> {
    let sql = format!("SELECT {COLUMNS} FROM uploads WHERE state = 0 ORDER BY created, id");
    connection.prepare_cached(&sql)?.query_map([], read)?.collect()
}

pub(super) fn prune(connection: &Connection, before: Timestamp) -> rusqlite::Result<()> {
    let files = "DELETE FROM upload_files WHERE upload IN (SELECT id FROM uploads WHERE ended < ?1)";
    connection.prepare_cached(files)?.execute([before.nanos()])?;
    connection.prepare_cached("DELETE FROM uploads WHERE ended < ?1")?.execute([before.nanos()]).map(drop)
}

fn read(row: &Row<'_>) -> rusqlite::Result<UploadRow> {
    Ok(UploadRow {
        id: row.get(0)?,
        key: row.get(1)?,
        fingerprint: row.get::<_, i64>(2)? as u64,
        created: Timestamp::from_nanos(row.get(3)?),
        files: row.get(4)?,
        state: match row.get::<_, i64>(5)? {
            0 => UploadState::Running,
            1 => UploadState::Ended,
            _ => UploadState::Interrupted,
        },
        ended: row.get::<_, Option<i64>>(6)?.map(Timestamp::from_nanos),
    })
}
