use super::*;

const SERIES: SeriesHash = 7 << 100;

pub(super) fn point(seconds: i64, value: f64) -> Point {
    Point {
        timestamp: Timestamp::from_seconds(1_700_000_000 + seconds),
        value,
        verdict: Verdict::Normal,
        count: 20,
        mean: 1.0,
        stddev: 0.0,
        expected: 1.0,
        lower: 1.0,
        upper: 1.0,
        z_score: None,
        strength: 0.0,
    }
}

/// As the z-score would judge it, in a window whose mean and deviation change with every sample.
pub(super) fn judged(seconds: i64, value: f64) -> Point {
    let (mean, stddev) = (50.0 + 0.01 * (seconds as f64).cos(), 2.0 + 0.001 * (seconds as f64).sin());
    let z = (value - mean) / stddev;
    let (lower, upper) = (mean - 3.0 * stddev, mean + 3.0 * stddev);
    Point { mean, stddev, expected: mean, lower, upper, z_score: Some(z), strength: z.abs() / 3.0, ..point(seconds, value) }
}

fn offer(handle: &PointsHandle, points: impl IntoIterator<Item = Point>) {
    handle.offer(points.into_iter().map(|point| (SERIES, point)).collect());
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(1_700_000_000 + seconds)
}

async fn values(handle: &PointsHandle, from: i64, to: i64) -> Vec<f64> {
    let points = handle.range(SERIES, Some(at(from)), Some(at(to)), 10_000).await.unwrap();
    points.iter().map(|point| point.value).collect()
}

#[tokio::test]
async fn what_was_offered_is_read_at_once_and_after_a_restart() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap();
    let (handle, thread) = start(&dir, 1 << 30);
    assert_eq!(handle.range(SERIES, None, None, 10).await, None);
    let all: Vec<_> = (0..1300).map(|i| judged(i, i as f64)).collect();
    offer(&handle, all.clone());
    assert_eq!(handle.range(SERIES, None, None, 2000).await.unwrap(), all);
    handle.close();
    thread.join().unwrap();
    let (handle, _thread) = start(&dir, 1 << 30);
    assert_eq!(handle.range(SERIES, None, None, 2000).await.unwrap(), all);
    assert_eq!(handle.range(1, None, None, 2000).await, None);
    assert!(handle.bytes() > 0 && handle.dropped() == 0);
    assert_eq!(values(&handle, 510, 513).await, [510.0, 511.0, 512.0, 513.0]);
    assert_eq!(values(&handle, 5000, 6000).await, [0.0; 0]);
}

#[tokio::test]
async fn points_are_sorted_and_those_of_a_replay_are_there_once() {
    let (handle, _thread) = start(&DataDir::memory(), 1 << 30);
    offer(&handle, (0..600).map(|i| point(i, i as f64)));
    offer(&handle, [point(1, 0.5), point(-5, -5.0)]);
    offer(&handle, (0..600).map(|i| point(i, i as f64)));
    assert_eq!(values(&handle, -5, 2).await, [-5.0, 0.0, 1.0, 0.5, 2.0]);
    assert_eq!(values(&handle, -5, 599).await.len(), 602);
}

#[tokio::test]
async fn an_instant_has_its_last_point_and_its_surroundings() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap();
    for restart in [false, true] {
        let (handle, thread) = start(&dir, 1 << 30);
        if !restart {
            offer(&handle, (0..2000).map(|i| point(i, i as f64)));
            offer(&handle, [point(700, -1.0), point(1999, -2.0)]);
        }
        let value = async |seconds| handle.at(SERIES, at(seconds)).await.map(|point| point.value);
        assert_eq!((value(3).await, value(700).await, value(1999).await, value(2000).await), (Some(3.0), Some(-1.0), Some(-2.0), None));
        let around = async |seconds, before, after| {
            let points = handle.around(SERIES, at(seconds), before, after).await;
            points.iter().map(|point| point.value as i64).collect::<Vec<_>>()
        };
        assert_eq!(around(700, 2, 3).await, [698, 699, 700, -1, 701, 702, 703]);
        assert_eq!(around(0, 5, 1).await, [0, 1]);
        assert_eq!(around(5000, 2, 1).await, [1999, -2]);
        assert_eq!(around(512, 600, 600).await.len(), 512 + 1 + 600);
        handle.close();
        thread.join().unwrap();
    }
}

#[tokio::test]
async fn many_points_are_sampled_without_their_anomalies_being_lost() {
    let (handle, _thread) = start(&DataDir::memory(), 1 << 30);
    let mut all: Vec<_> = (0..20_000).map(|i| judged(i, 50.0)).collect();
    for i in [0, 5_000, 5_001, 19_999] {
        all[i].verdict = Verdict::Critical;
    }
    offer(&handle, all.clone());
    let sampled = handle.range(SERIES, None, None, 500).await.unwrap();
    assert!(sampled.len() <= 500 && sampled.len() > 200, "{}", sampled.len());
    for i in [0, 5_000, 5_001, 19_999] {
        assert!(sampled.contains(&all[i]), "{i}");
    }
    assert_eq!(handle.range(SERIES, None, None, 500).await.unwrap(), sampled);
}

#[tokio::test]
async fn a_series_is_forgotten_wherever_its_points_are() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap();
    let (handle, thread) = start(&dir, 1 << 30);
    offer(&handle, (0..600).map(|i| point(i, 0.0)));
    handle.close();
    thread.join().unwrap();
    let (handle, _thread) = start(&dir, 1 << 30);
    offer(&handle, (600..1200).map(|i| point(i, 0.0)));
    handle.offer(vec![(1, point(0, 0.0))]);
    handle.forget(SERIES);
    assert_eq!(handle.range(SERIES, None, None, 2000).await, None);
    assert_eq!(handle.range(1, None, None, 2000).await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_oldest_written_are_dropped_beyond_the_size() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap();
    let (handle, thread) = start(&dir, 2 << 20);
    // Event time runs backwards: the time of writing counts.
    for i in 0..200i64 {
        offer(&handle, (0..1024).map(|k| judged(-i * 1024 + k, (k * 7919 % 1009) as f64)));
        handle.at(SERIES, at(0)).await;
    }
    handle.close();
    thread.join().unwrap();
    assert!(handle.bytes() <= 2 << 20, "{}", handle.bytes());
    let (handle, _thread) = start(&dir, 2 << 20);
    assert_eq!(handle.at(SERIES, at(1023)).await, None);
    assert!(handle.at(SERIES, at(-199 * 1024)).await.is_some());
    handle.shrink_to(1 << 16);
    assert!(handle.range(SERIES, None, None, 10).await.is_none());
    assert!(std::fs::metadata(temp.path().join("points.db")).unwrap().len() < 1 << 18);
}

#[tokio::test]
async fn a_damaged_file_begins_anew() {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temp.path()).unwrap();
    std::fs::write(temp.path().join("points.db"), vec![0x55; 1 << 16]).unwrap();
    let (handle, _thread) = start(&dir, 1 << 30);
    offer(&handle, [point(1, 1.0)]);
    assert_eq!(values(&handle, 0, 2).await, [1.0]);
}

#[test]
fn a_full_queue_drops_and_counts_without_waiting() {
    let (sender, _receiver) = mpsc::channel();
    let handle = PointsHandle { sender: Some(sender), counts: Arc::default(), reader: None };
    let batch: Vec<_> = (0..10_000).map(|i| (SERIES, point(i, 0.0))).collect();
    for _ in 0..30 {
        handle.offer(batch.clone());
    }
    assert_eq!(handle.dropped(), 4 * 10_000);
}
