//! What the log on SQLite keeps, loses and tells: kills, cut and damaged files, full disks.

use std::fs;
use std::path::Path;

use super::super::UploadState;
use super::*;

fn frame(number: u64, bytes: usize) -> SealedFrame {
    let fill = (number as u8).wrapping_mul(31);
    SealedFrame { number, rows: 2, bytes: (0..bytes).map(|i| fill.wrapping_add(i as u8)).collect() }
}

fn append(log: &mut EventLog, n: usize, bytes: usize) {
    for _ in 0..n {
        log.append(&[frame(log.next_frame(), bytes)], &[]).unwrap();
    }
}

fn numbers(log: &EventLog, from: u64) -> Vec<u64> {
    log.reader().unwrap().read(from, usize::MAX).unwrap().into_iter().map(|(number, _)| number).collect()
}

/// What a process that is killed leaves behind.
fn killed(from: &Path) -> (tempfile::TempDir, DataDir) {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if !entry.file_name().to_string_lossy().ends_with("-shm") {
            fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
    }
    let dir = DataDir::open(copy.path()).unwrap();
    (copy, dir)
}

fn answer(key: &str, at: i64) -> Side {
    let report = Report { accepted: 3, ..Report::default() };
    Side::Answer { key: key.into(), fingerprint: u64::MAX, report, at: Timestamp::from_seconds(at) }
}

#[test]
fn what_was_appended_is_there_after_a_kill_with_its_side_writes() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap();
    for durability in [Durability::Fsync, Durability::Os] {
        let mut log = EventLog::open(&dir, durability).unwrap();
        let next = log.next_frame();
        log.append(&[frame(next, 10), frame(next + 1, 100_000)], &[answer("k", 1), Side::Count { name: "rejected", by: 2 }]).unwrap();
        let (_copy, dir) = killed(temp.path());
        let again = EventLog::open(&dir, durability).unwrap();
        assert_eq!(again.opened().lost, None);
        assert_eq!(again.next_frame(), next + 2);
        let frames = again.reader().unwrap().read(next, usize::MAX).unwrap();
        assert_eq!(frames, [(next, frame(next, 10).bytes), (next + 1, frame(next + 1, 100_000).bytes)]);
        assert_eq!(again.answer("k").unwrap().unwrap(), (u64::MAX, Report { accepted: 3, ..Report::default() }));
        assert_eq!(again.counter("rejected").unwrap(), next + 1);
    }
}

#[test]
fn a_reader_takes_at_least_one_frame_and_stops_at_its_limit() {
    let dir = DataDir::memory();
    let mut log = EventLog::open(&dir, Durability::Fsync).unwrap();
    append(&mut log, 5, 1000);
    let mut reader = log.reader().unwrap();
    for (max, expected) in [(0, vec![2]), (1, vec![2]), (1001, vec![2, 3]), (usize::MAX, vec![2, 3, 4, 5])] {
        assert_eq!(reader.read(2, max).unwrap().into_iter().map(|(number, _)| number).collect::<Vec<_>>(), expected);
    }
    assert_eq!((reader.first().unwrap(), reader.last().unwrap(), reader.rows_after(3).unwrap()), (Some(1), Some(5), 4));
    assert_eq!(reader.read(6, 1).unwrap(), []);
}

#[test]
fn memory_is_shared_within_a_directory_and_leaves_nothing_on_disk() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap();
    let mut log = EventLog::open(&dir, Durability::Memory).unwrap();
    append(&mut log, 3, 10);
    assert_eq!(numbers(&log, 1), [1, 2, 3]);
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1, "only LOCK");
    assert_eq!(EventLog::open(&DataDir::memory(), Durability::Fsync).unwrap().next_frame(), 1);
}

#[test]
fn numbers_are_not_used_again_when_all_is_truncated_and_a_skip_is_no_loss() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap();
    let mut log = EventLog::open(&dir, Durability::Os).unwrap();
    append(&mut log, TRUNCATE_FRAMES + 3, 10);
    let next = log.next_frame();
    assert!(log.truncate_before(u64::MAX >> 1).unwrap());
    assert!(!log.truncate_before(u64::MAX >> 1).unwrap());
    assert!(numbers(&log, 0).is_empty());
    drop(log);
    let mut log = EventLog::open(&dir, Durability::Os).unwrap();
    assert_eq!((log.next_frame(), &log.opened().lost), (next, &None));
    append(&mut log, 2, 10);
    log.skip_to(next + 10).unwrap();
    log.skip_to(next).unwrap();
    append(&mut log, 2, 10);
    assert_eq!(numbers(&log, 0), [next, next + 1, next + 10, next + 11]);
    drop(log);
    let mut log = EventLog::open(&dir, Durability::Fsync).unwrap();
    assert_eq!(log.opened().lost, None);
    log.truncate_before(next + 11).unwrap();
    log.skip_to(next + 20).unwrap();
    drop(log);
    let log = EventLog::open(&dir, Durability::Fsync).unwrap();
    assert_eq!((log.next_frame(), &log.opened().lost), (next + 20, &None));
}

#[test]
fn a_cut_tail_is_told_with_its_frames_and_their_numbers_are_not_used_again() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap();
    let mut log = EventLog::open(&dir, Durability::Fsync).unwrap();
    append(&mut log, 10, 100);
    let (copy, dir) = killed(temp.path());
    let wal = fs::OpenOptions::new().write(true).open(copy.path().join("events.db-wal")).unwrap();
    wal.set_len(log.wal.end() - 3 * (u64::from(PAGE_SIZE) + 24)).unwrap();
    let mut cut = EventLog::open(&dir, Durability::Fsync).unwrap();
    assert_eq!(numbers(&cut, 0), (1..=7).collect::<Vec<_>>());
    let lost = cut.opened().lost.clone().unwrap();
    assert_eq!(lost, "the event log is damaged: 3 acknowledged frames, 8 to 10, are missing at its end");
    append(&mut cut, 1, 100);
    assert_eq!(numbers(&cut, 7), [7, 11]);
    drop(cut);
    assert_eq!(EventLog::open(&dir, Durability::Fsync).unwrap().opened().lost, None, "told once");
}

#[test]
fn a_flipped_bit_is_told_with_and_without_the_mark() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap();
    let mut log = EventLog::open(&dir, Durability::Fsync).unwrap();
    append(&mut log, 10, 100);
    let size = u64::from(PAGE_SIZE) + 24;
    for (back, with_mark, expected) in [
        (
            4,
            true,
            Some("4 acknowledged frames, 7 to 10, are missing at its end; 32864 bytes of events.db-wal are damaged, at least 4 appends"),
        ),
        (4, false, Some("32864 bytes of events.db-wal are damaged, at least 4 appends")),
        (1, true, Some("1 acknowledged frames, 10 to 10, are missing at its end")),
        // It may be one that was under way.
        (1, false, None),
    ] {
        let (copy, dir) = killed(temp.path());
        let path = copy.path().join("events.db-wal");
        let mut bytes = fs::read(&path).unwrap();
        let at = log.wal.end() as usize - back * size as usize + 100;
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        if !with_mark {
            fs::remove_file(copy.path().join("events.mark")).unwrap();
        }
        let log = EventLog::open(&dir, Durability::Fsync).unwrap();
        assert_eq!(numbers(&log, 0).len(), 10 - back);
        let expected = expected.map(|text| format!("the event log is damaged: {text}"));
        assert_eq!(log.opened().lost, expected, "{back} {with_mark}");
    }
}

#[test]
fn a_gap_is_told() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap();
    let mut log = EventLog::open(&dir, Durability::Fsync).unwrap();
    append(&mut log, 5, 100);
    log.connection.execute("DELETE FROM frames WHERE number IN (2, 3)", []).unwrap();
    drop(log);
    let lost = EventLog::open(&dir, Durability::Fsync).unwrap().opened().lost.clone().unwrap();
    assert_eq!(lost, "the event log is damaged: 2 frames are missing in its middle");
}

#[test]
fn a_full_disk_takes_nothing_and_the_log_goes_on_when_there_is_room() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap();
    let mut log = EventLog::open(&dir, Durability::Fsync).unwrap();
    append(&mut log, 1, 100);
    log.connection.pragma_update(None, "max_page_count", 30).unwrap();
    let frames = [frame(2, 100_000), frame(3, 200_000)];
    assert!(matches!(log.append(&frames, &[answer("k", 1)]), Err(LogError::Full(_))));
    assert_eq!((numbers(&log, 0), log.answer("k").unwrap(), log.next_frame()), (vec![1], None, 2));
    log.connection.pragma_update(None, "max_page_count", 1000).unwrap();
    log.append(&frames, &[]).unwrap();
    assert_eq!(numbers(&log, 0), [1, 2, 3]);
}

#[test]
fn frames_out_of_order_are_refused() {
    let mut log = EventLog::open(&DataDir::memory(), Durability::Memory).unwrap();
    assert_eq!(log.append(&[frame(2, 1)], &[]).unwrap_err().to_string(), "frame 2 cannot be appended where 1 is next");
}

#[test]
fn a_newer_file_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap();
    let log = EventLog::open(&dir, Durability::Fsync).unwrap();
    log.connection.pragma_update(None, "user_version", 7).unwrap();
    drop(log);
    let error = EventLog::open(&dir, Durability::Fsync).unwrap_err().to_string();
    assert!(error.contains("events.db has schema version 7, this version of anomaly knows up to 1"), "{error}");
}

#[test]
fn the_write_ahead_log_stays_bounded_under_a_reader_and_what_is_truncated_is_used_again() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap();
    let mut log = EventLog::open(&dir, Durability::Os).unwrap();
    let mut reader = log.reader().unwrap();
    for i in 1..200 {
        append(&mut log, 1, 1 << 20);
        reader.read(i, 1).unwrap();
        while log.truncate_before(i).unwrap() {}
    }
    assert!(log.place.wal_bytes() < 3 * WAL_LIMIT, "{}", log.place.wal_bytes());
    assert!(log.reusable() < 64 << 20, "{}", log.reusable());
    log.close().unwrap();
    assert_eq!(fs::metadata(temp.path().join("events.db-wal")).unwrap().len(), 0);
}

#[test]
fn answers_are_kept_for_a_day_whatever_becomes_of_their_frames() {
    let mut log = EventLog::open(&DataDir::memory(), Durability::Memory).unwrap();
    let day = 24 * 3600;
    log.append(&[frame(1, 1)], &[answer("old", 10), answer("new", 11)]).unwrap();
    log.truncate_before(2).unwrap();
    log.prune_answers(Timestamp::from_seconds(day + 11)).unwrap();
    assert_eq!((log.answer("old").unwrap(), log.answer("new").unwrap().is_some()), (None, true));
}

#[test]
fn uploads_go_on_where_they_stood_and_are_kept_for_a_day_after_their_end() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap();
    let mut log = EventLog::open(&dir, Durability::Fsync).unwrap();
    let row = |id: &str, key: Option<&str>| UploadRow {
        id: id.into(),
        key: key.map(str::to_owned),
        fingerprint: 1 << 63,
        created: Timestamp::from_seconds(5),
        files: "[]".into(),
        state: UploadState::Running,
        ended: None,
    };
    let mut progress = FileProgress { upload: "a".into(), next_sample: 4, about: "{}".into(), ..FileProgress::default() };
    log.append(&[], &[Side::Upload(row("a", Some("k"))), Side::Upload(row("b", None)), Side::Upload(row("c", None))]).unwrap();
    log.append(&[frame(1, 1)], &[Side::Progress(progress.clone())]).unwrap();
    progress.next_sample = 9;
    progress.finished = true;
    progress.report.accepted = 7;
    log.append(&[frame(2, 1)], &[Side::Progress(progress.clone())]).unwrap();
    let ended =
        Side::UploadEnded { row: UploadRow { state: UploadState::Interrupted, ended: Some(Timestamp::from_seconds(6)), ..row("b", None) } };
    log.append(&[], &[ended]).unwrap();
    let (_copy, dir) = killed(temp.path());
    let mut log = EventLog::open(&dir, Durability::Fsync).unwrap();
    assert_eq!(log.upload_by_key("k").unwrap(), Some((row("a", Some("k")), vec![progress])));
    assert_eq!(log.unfinished_uploads().unwrap().into_iter().map(|(row, _)| row.id).collect::<Vec<_>>(), ["a", "c"]);
    let b = log.upload("b").unwrap().unwrap().0;
    assert_eq!((b.state, b.ended), (UploadState::Interrupted, Some(Timestamp::from_seconds(6))));
    log.prune_answers(Timestamp::from_seconds(24 * 3600 + 7)).unwrap();
    assert_eq!((log.upload("b").unwrap(), log.upload("a").unwrap().is_some()), (None, true));
}
