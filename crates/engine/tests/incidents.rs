//! When an incident is over, and when it goes on.

#![allow(clippy::unwrap_used, reason = "a test says by its line what failed")]

use anomaly_engine::frame::{BatchBuilder, Frame, FrameBuilder, Origin, Position, Record};
use anomaly_engine::{CheckpointFormat, DecodeError, Engine, EngineConfig, Event, Outputs, Resolved, SeriesKey, Stale, Timestamp};

/// An engine with a window of 300 s, and what its last frame brought forth.
struct World {
    engine: Engine,
    number: u64,
    log: Vec<Vec<u8>>,
    /// Seconds, in time of arrival.
    arrival: i64,
    out: Outputs,
}

impl World {
    fn new() -> Self {
        Self::with(EngineConfig { series_idle_seconds: 1000.0, ..EngineConfig::default() })
    }

    fn with(config: EngineConfig) -> Self {
        Self { engine: Engine::new(config, 2), number: 0, log: Vec::new(), arrival: 1_000_000, out: Outputs::default() }
    }

    /// The engine as it is after a restart.
    fn restarted(&mut self) {
        self.engine = restore(chunks(&self.engine)).unwrap();
    }

    fn frame(&mut self, records: &[Record]) {
        self.number += 1;
        let mut frame = FrameBuilder::new(Timestamp::from_seconds(self.arrival));
        records.iter().for_each(|record| _ = frame.push(record));
        let bytes = frame.seal(self.number);
        self.out.clear();
        self.engine.apply(&Frame::open(self.number, &bytes).unwrap(), &mut self.out).unwrap();
        self.log.push(bytes);
    }

    /// Events in one frame: series, second in event time, value.
    fn events(&mut self, events: &[(&str, i64, f64)]) {
        self.frame(&[batch(events)]);
    }

    /// Ten ordinary samples, one a second, then an anomaly at `at`; its incident.
    fn anomaly(&mut self, series: &str, at: i64) -> u128 {
        let calm: Vec<_> = (at - 10..at).map(|second| (series, second, 50.0 + (second % 2) as f64)).collect();
        self.events(&[&calm[..], &[(series, at, 90.0)]].concat());
        let [anomaly] = &self.out.anomalies[..] else { panic!("not one anomaly: {:?}", self.out.anomalies) };
        anomaly.incident
    }

    /// A tick so many seconds after the last frame; the incidents that it resolves.
    fn tick(&mut self, seconds: i64) -> Vec<u128> {
        self.arrival += seconds;
        self.frame(&[Record::Tick]);
        self.resolved()
    }

    fn resolved(&self) -> Vec<u128> {
        self.out.resolved.iter().map(|resolved| resolved.incident).collect()
    }

    fn forget(&mut self, series: &str) {
        self.frame(&[Record::Forget(key(series))]);
    }

    fn count(&self, series: &str) -> u64 {
        self.engine.series(key(series).hash()).map_or(0, |info| info.count)
    }
}

fn key(series: &str) -> SeriesKey {
    SeriesKey::new(series, &[])
}

fn batch(events: &[(&str, i64, f64)]) -> Record {
    let mut batch = BatchBuilder::new();
    for &(metric, second, value) in events {
        let timestamp = Timestamp::from_seconds(second);
        batch.push(&Event { metric, labels: &[], timestamp, value, id: None, meta: None }, 1);
    }
    Record::Events(batch.finish(Origin::http()))
}

fn chunks(engine: &Engine) -> Vec<Vec<u8>> {
    let (mut cursor, mut chunks, mut chunk) = (engine.begin_checkpoint(CheckpointFormat::NEWEST), Vec::new(), Vec::new());
    while engine.next_chunk(&mut cursor, 1000, &mut chunk).unwrap().is_some() {
        chunks.push(chunk.clone());
    }
    chunks
}

fn restore(chunks: Vec<Vec<u8>>) -> Result<Engine, DecodeError> {
    Engine::restore(chunks.into_iter().map(Ok), 1)
}

#[test]
fn a_series_that_falls_silent_is_over_after_a_window() {
    let mut world = World::new();
    let incident = world.anomaly("m", 5000);
    assert_eq!(world.engine.open_incidents(), 1);
    assert_eq!(world.tick(10), []);
    assert_eq!(world.tick(290), [], "exactly a window");
    assert_eq!(world.engine.open_incidents(), 1);
    assert_eq!(world.tick(1), [incident]);
    let expected = Resolved { position: Position { frame: world.number, row: 0 }, incident, series: key("m").hash() };
    assert_eq!((&world.out.resolved[..], world.engine.open_incidents()), (&[expected][..], 0));
    assert_eq!(world.tick(1000), [], "it is told once");
}

#[test]
fn a_series_that_goes_on_as_ever_is_over_after_a_window() {
    let mut world = World::new();
    let incident = world.anomaly("m", 5000);
    // Its clock runs a second a second.
    for second in 1..=301 {
        world.arrival += 1;
        world.events(&[("m", 5000 + second, 50.0 + (second % 2) as f64)]);
        assert_eq!(world.tick(0), if second == 301 { vec![incident] } else { vec![] }, "second {second}");
    }
}

#[test]
fn an_old_file_counts_in_its_own_time() {
    let mut world = World::new();
    let incident = world.anomaly("m", 5000);
    world.events(&[("m", 5301, 50.0)]);
    assert_eq!(world.resolved(), [], "by a tick, or by the next incident");
    assert_eq!(world.tick(0), [incident], "a window later, though it all came at once");
}

#[test]
fn another_anomaly_within_the_window_opens_it_again() {
    let mut world = World::new();
    let incident = world.anomaly("m", 5000);
    assert_eq!(world.tick(301), [incident]);
    world.restarted();
    assert_eq!(world.engine.open_incidents(), 0);
    assert_eq!(world.anomaly("m", 5300), incident);
    assert_eq!((world.resolved(), world.engine.open_incidents()), (vec![], 1));
    assert_eq!(world.tick(300), []);
    assert_eq!(world.tick(1), [incident]);
    let next = world.anomaly("m", 5601);
    assert_ne!(next, incident);
    assert_eq!(world.resolved(), [], "the one before is told as resolved already");
}

#[test]
fn ticks_change_no_id() {
    let incidents = |ticks: bool| {
        let mut world = World::new();
        [5000, 5200, 5501, 5900, 6100].map(|at| {
            if ticks {
                world.tick(400);
            }
            world.anomaly("m", at)
        })
    };
    assert_eq!(incidents(true), incidents(false));
}

#[test]
fn the_next_incident_ends_the_one_before() {
    let mut world = World::new();
    let mut before = world.anomaly("m", 5000);
    for at in [5301, 6000, 7000] {
        let incident = world.anomaly("m", at);
        let told = (world.out.resolved[0].position, world.out.resolved[0].series);
        assert_eq!((world.resolved(), told), (vec![before], (world.out.anomalies[0].position, key("m").hash())));
        assert_eq!(world.engine.open_incidents(), 1);
        before = incident;
    }
    assert_eq!(world.tick(301), [before]);
}

#[test]
fn records_of_one_frame_come_in_their_order() {
    let mut world = World::new();
    let first = world.anomaly("a", 5000);
    let other = world.anomaly("b", 5000);
    world.arrival += 301;
    let calm: Vec<_> = (5990..6000).map(|second| ("a", second, 50.0 + (second % 2) as f64)).collect();
    let rows = batch(&[&calm[..], &[("a", 6000, 90.0)]].concat());
    world.frame(&[rows, Record::Tick, Record::Forget(key("a")), Record::Tick]);
    let told: Vec<_> = world.out.resolved.iter().map(|resolved| (resolved.position.row, resolved.incident)).collect();
    assert_eq!(told, [(10, first), (11, other)]);
    assert_eq!(world.engine.open_incidents(), 0);
}

#[test]
fn of_a_series_that_is_deleted_nothing_is_told() {
    let mut world = World::new();
    world.anomaly("m", 5000);
    world.forget("m");
    assert_eq!((world.resolved(), world.engine.open_incidents()), (vec![], 0));
    // The next series takes its place.
    world.events(&[("m", 9000, 1.0), ("n", 9000, 1.0)]);
    assert_eq!(world.tick(500), []);
    let incident = world.anomaly("m", 9400);
    assert_eq!((world.resolved(), world.engine.open_incidents()), (vec![], 1));
    assert_eq!(world.tick(301), [incident]);
}

#[test]
fn a_series_with_an_open_incident_is_not_idle() {
    let mut world = World::new();
    let incident = world.anomaly("open", 5000);
    world.anomaly("over", 5000);
    world.events(&[("over", 5301, 50.0)]);
    world.tick(0);
    assert_eq!(world.engine.open_incidents(), 1);
    world.arrival += 1001;
    world.events(&[("other", 5000, 1.0)]);
    assert_eq!((world.count("open"), world.count("over")), (11, 0), "one has left memory");
    world.events(&[("open", 5001, 50.0), ("over", 5001, 50.0)]);
    assert_eq!((world.count("open"), world.count("over")), (12, 1), "and begins anew");
    assert_eq!(world.tick(1001), [incident]);
    world.events(&[("open", 5001, 50.0)]);
    assert_eq!(world.count("open"), 1, "resolved, it is idle");
}

#[test]
fn a_configuration_that_comes_in_between_holds_at_the_next_tick() {
    let mut world = World::new();
    let incident = world.anomaly("m", 5000);
    let longer = EngineConfig { window_seconds: 500.0, ..world.engine.config().clone() };
    world.frame(&[Record::Configure(longer.to_text())]);
    assert_eq!(world.engine.open_incidents(), 1);
    assert_eq!(world.tick(500), []);
    assert_eq!(world.tick(1), [incident]);
}

#[test]
fn what_is_open_and_what_is_resolved_outlives_a_restart() {
    let mut world = World::new();
    world.anomaly("over", 5000);
    world.tick(301);
    let incident = world.anomaly("open", 5000);
    world.events(&[("calm", 5000, 1.0)]);
    let (digest, state_bytes) = (world.engine.digest(), world.engine.state_bytes());
    world.restarted();
    assert_eq!((world.engine.digest(), world.engine.open_incidents()), (digest, 1));
    assert!(world.engine.state_bytes() > state_bytes / 2);
    assert_eq!(world.tick(301), [incident]);
}

#[test]
fn a_checkpoint_of_an_older_version_is_read_and_its_incidents_are_open() {
    let mut world = World::new();
    let incident = world.anomaly("m", 5000);
    world.events(&[("calm", 5000, 1.0)]);
    assert_eq!(world.engine.open_incident_ids(), [incident]);
    // What version 1 wrote of series that had an incident, and of such that had none, is what later ones do. Behind the frame, version 3
    // has an epoch.
    let mut old = chunks(&world.engine);
    assert_eq!((&old[0][..2], old[0][3]), (&[1, 3][..], 0));
    old[0].remove(3);
    for version in [1, 2] {
        old[0][1] = version;
        assert_eq!(restore(old.clone()).unwrap().open_incidents(), 1, "version {version}");
    }
    world.engine = restore(old.clone()).unwrap();
    assert_eq!(world.tick(301), [incident]);
    for version in [0, CheckpointFormat::NEWEST.number() + 1] {
        old[0][1] = version;
        assert!(restore(old.clone()).is_err(), "version {version}");
    }
}

#[test]
fn a_series_that_has_seen_a_tick_does_not_see_it_again() {
    let mut world = World::new();
    let incident = world.anomaly("m", 5000);
    let (mut cursor, mut chunks, mut chunk) = (world.engine.begin_checkpoint(CheckpointFormat::NEWEST), Vec::new(), Vec::new());
    world.engine.next_chunk(&mut cursor, 1000, &mut chunk).unwrap();
    chunks.push(chunk.clone());
    assert_eq!(world.tick(0), []);
    world.events(&[("m", 5301, 50.0)]);
    // Its chunk is cut when it has been quiet, and no tick has found that yet.
    while world.engine.next_chunk(&mut cursor, 1000, &mut chunk).unwrap().is_some() {
        chunks.push(chunk.clone());
    }
    assert_eq!(world.tick(0), [incident]);
    let mut engine = restore(chunks).unwrap();
    assert_eq!((engine.applied(), engine.recovering()), (1, 3));
    let mut out = Outputs::default();
    for (number, bytes) in (1..).zip(&world.log) {
        engine.apply(&Frame::open(number, bytes).unwrap(), &mut out).unwrap();
    }
    assert_eq!((out.resolved, engine.digest()), (world.out.resolved, world.engine.digest()));
}

/// A restart would know of it only what came behind the head: enough for an incident that never was.
#[test]
fn a_checkpoint_begins_anew_where_a_series_came_and_was_let_go() {
    let mut world = World::new();
    world.events(&[("gone", 5000, 1.0)]);
    world.arrival += 1001;
    world.events(&[("a", 5000, 1.0)]);
    assert_eq!((world.count("gone"), world.count("a")), (0, 1));
    let (mut cursor, mut chunk) = (world.engine.begin_checkpoint(CheckpointFormat::NEWEST), Vec::new());
    assert_eq!(world.engine.next_chunk(&mut cursor, 1000, &mut chunk), Ok(Some(())), "what went before does not matter");
    world.events(&[("b", 5000, 1.0)]);
    world.arrival += 1001;
    world.events(&[("c", 5000, 1.0)]);
    assert_eq!((world.count("b"), world.count("c")), (0, 1));
    assert_eq!(world.engine.next_chunk(&mut cursor, 1000, &mut chunk), Err(Stale));
    assert!(restore(chunks(&world.engine)).is_ok());
}
