//! How an upload stands, as it is answered.

use anomaly_engine::{Report, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::ingest::SpooledFile;
use crate::log::{FileProgress, UploadRow, UploadState};
use crate::store::UploadJudged;
use crate::store::sqlite::StoreReader;

/// An answer about an upload.
#[derive(Clone, Debug)]
pub struct UploadView {
    /// `{"id":…,"files":[…]}`.
    pub body: String,
    /// Whether a row of any file was accepted.
    pub any_accepted: bool,
    /// Whether every row was judged, so that all numbers are there.
    pub judged: bool,
}

/// What is noted of a file beside its report.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct About {
    pub(super) format: Option<String>,
    /// Nanoseconds since 1970.
    pub(super) from: Option<i64>,
    pub(super) to: Option<i64>,
    pub(super) warnings: Vec<String>,
}

pub(super) async fn view(store: &StoreReader, upload: UploadRow, progress: Vec<FileProgress>) -> Option<UploadView> {
    let store = store.clone();
    tokio::task::spawn_blocking(move || build(&store, &upload, &progress)).await.ok()
}

fn build(store: &StoreReader, upload: &UploadRow, progress: &[FileProgress]) -> UploadView {
    let names: Vec<SpooledFile> = serde_json::from_str(&upload.files).unwrap_or_default();
    let (mut files, mut any_accepted, mut all_judged) = (Vec::new(), false, true);
    for (i, file) in (0..).zip(&names) {
        let waiting = FileProgress::default();
        let progress = progress.iter().find(|progress| progress.file == i).unwrap_or(&waiting);
        let judged = store.upload_judged(&upload.id, i).ok().flatten().unwrap_or_default();
        let is_judged = progress.finished && judged.rows >= progress.report.accepted;
        any_accepted |= progress.report.accepted > 0;
        all_judged &= is_judged;
        let mut file = file_json(file, progress, &judged, is_judged);
        if upload.state == UploadState::Interrupted {
            // Where whoever sends the rest goes on: samples before it are in the log.
            file["next_sample"] = json!(progress.next_sample);
        }
        files.push(file);
    }
    let mut body = json!({"id": upload.id, "files": files});
    if upload.state != UploadState::Ended {
        body["state"] = json!(if upload.state == UploadState::Running { "running" } else { "interrupted" });
    }
    UploadView { body: body.to_string(), any_accepted, judged: all_judged }
}

fn file_json(file: &SpooledFile, progress: &FileProgress, judged: &UploadJudged, is_judged: bool) -> serde_json::Value {
    let about: About = serde_json::from_str(&progress.about).unwrap_or_default();
    let Report { accepted, rejected, errors } = &progress.report;
    let mut warnings = about.warnings;
    warnings.extend(judged.warnings.iter().cloned());
    let seconds = |nanos: Option<i64>| nanos.map(|nanos| Timestamp::from_nanos(nanos).seconds());
    json!({
        "file": file.name,
        "format": about.format,
        "from": seconds(about.from),
        "to": seconds(about.to),
        "warnings": warnings,
        "accepted": accepted,
        "rejected": rejected,
        "late": is_judged.then_some(judged.late),
        "anomalies": is_judged.then_some(judged.anomalies),
        "errors": errors,
    })
}
