//! What is said of events: a script in, the verdicts out.
//!
//! A line of a script is `series time value [#id]`; `!forget series`, `!pause seconds`, `!source NAME POSITION`. The word
//! behind the arrow is what must be said of it: `few`, `ok`, `high`, `low`, `late`, `dup` (nothing is said: a duplicate or
//! a redelivered row).

#![allow(clippy::unwrap_used, reason = "a test says by its line what failed")]

use anomaly_engine::frame::{BatchBuilder, Frame, FrameBuilder, Origin, Record};
use anomaly_engine::{Anomaly, DetectorKind, Engine, EngineConfig, Event, Outputs, Rule, SeriesKey, Timestamp, Verdict};

struct World {
    engine: Engine,
    arrival: i64,
    number: u64,
    out: Outputs,
    source: Option<(String, u64)>,
}

impl World {
    fn new(config: EngineConfig) -> Self {
        let mut engine = Engine::new(config, 2);
        engine.keep_points(true);
        Self { engine, arrival: 1_000_000, number: 0, out: Outputs::default(), source: None }
    }

    fn frame(&mut self, record: &Record) {
        self.number += 1;
        let mut frame = FrameBuilder::new(Timestamp::from_seconds(self.arrival));
        frame.push(record);
        let bytes = frame.seal(self.number);
        self.out.clear();
        self.engine.apply(&Frame::open(self.number, &bytes).unwrap(), &mut self.out).unwrap();
    }

    fn line(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[0] {
            "!forget" => self.frame(&Record::Forget(SeriesKey::new(words[1], &[]))),
            "!pause" => self.arrival += words[1].parse::<i64>().unwrap(),
            "!source" => self.source = Some((words[1].into(), words[2].parse().unwrap())),
            series => {
                let at = (words[1].parse::<f64>().unwrap() * 1e9).round() as i64;
                let mut batch = BatchBuilder::with_made_ids();
                let event = Event {
                    metric: series,
                    labels: &[],
                    timestamp: Timestamp::from_nanos(at),
                    value: words[2].parse().unwrap(),
                    id: words.get(3).map(|id| &id[1..]),
                    meta: None,
                };
                batch.push(&event, 1);
                let origin = match self.source.take() {
                    Some((name, first)) => Origin { name, first: Some(first) },
                    None => Origin::http(),
                };
                self.frame(&Record::Events(batch.finish(origin)));
                return self.said();
            }
        }
        String::new()
    }

    fn said(&self) -> String {
        match self.out.points.first().map(|point| (point.verdict, point)) {
            None => "dup",
            Some((Verdict::Late, _)) => "late",
            Some((Verdict::TooFew, _)) => "few",
            Some((Verdict::Normal, _)) => "ok",
            Some((Verdict::Anomaly, point)) => point.judgement.direction(point.value).as_str(),
        }
        .into()
    }

    /// Ten ordinary samples from `start` on.
    fn calm(&mut self, series: &str, start: i64) {
        (0..10).for_each(|i| drop(self.line(&format!("{series} {} {}", start + i, 50 + i % 2))));
    }

    fn anomaly(&mut self, line: &str) -> Anomaly {
        self.line(line);
        self.out.anomalies.first().cloned().unwrap_or_else(|| panic!("no anomaly for {line}"))
    }
}

#[track_caller]
fn check(config: EngineConfig, script: &str) {
    let mut world = World::new(config);
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (happens, expected) = line.split_once("->").unwrap_or((line, ""));
        assert_eq!(world.line(happens.trim()), expected.trim(), "{line}");
    }
}

fn steady() -> String {
    (0..10).map(|i| format!("m {i} {} -> {}\n", 50 + i % 2, if i < 5 { "few" } else { "ok" })).collect()
}

fn check_after_steady(script: &str) {
    check(EngineConfig::default(), &(steady() + script));
}

#[test]
fn five_samples_are_needed_and_the_point_is_not_in_its_own_window() {
    check(EngineConfig::default(), "m 0 49 -> few\nm 1 51 -> few\nm 2 49 -> few\nm 3 51 -> few\nm 4 50 -> few\nm 5 54 -> high");
}

#[test]
fn spikes_on_both_sides_fire() {
    check_after_steady("m 10 60 -> high\nm 400 50 -> few");
    check_after_steady("m 10 40 -> low");
}

#[test]
fn the_window_is_in_time_and_open_at_its_old_end() {
    check_after_steady("m 309 500 -> few");
    check_after_steady("m 304 500 -> high");
    check_after_steady("m 305 500 -> few");
}

#[test]
fn an_event_exactly_the_allowed_lateness_behind_is_judged_and_one_beyond_is_late() {
    check_after_steady("m 69 50 -> ok\nm 9 60 -> high");
    check_after_steady("m 70 50 -> ok\nm 9.9 60 -> late\nm 10 60 -> high");
}

#[test]
fn a_late_event_counts_for_nothing_but_the_count() {
    let mut world = World::new(EngineConfig::default());
    world.calm("m", 0);
    world.line("m 1000 50");
    assert_eq!(world.line("m 5 5000"), "late");
    let key = SeriesKey::new("m", &[]);
    let info = world.engine.series(key.hash()).unwrap();
    assert_eq!((info.count, info.last), (12, (Timestamp::from_seconds(1000), 50.0)));
    assert_eq!(world.engine.totals().late, 1);
}

#[test]
fn an_id_counts_once_a_series_whatever_the_rest() {
    check_after_steady("m 10 50 #a -> ok\nm 11 5000 #a -> dup\nn 11 50 #a -> few\nm 11 5000 #b -> high");
    check(
        EngineConfig { dedup_horizon_seconds: 100.0, ..EngineConfig::default() },
        "m 0 50 #a -> few\nm 101 50 #a -> few\nm 102 50 #a -> dup",
    );
}

#[test]
fn a_row_at_or_below_the_position_taken_is_redelivered() {
    let mut world = World::new(EngineConfig::default());
    for (position, expected) in [(5, "few"), (6, "few"), (6, "dup"), (5, "dup"), (7, "few")] {
        world.line(&format!("!source kafka:events/3 {position}"));
        assert_eq!(world.line("m 0 50"), expected, "position {position}");
    }
    world.line("!source kafka:events/4 5");
    assert_eq!(world.line("m 0 50"), "few", "another partition");
    assert_eq!((world.engine.totals().redelivered, world.engine.totals().events), (2, 4));
}

#[test]
fn positions_of_uploads_are_forgotten_after_a_day_and_those_of_kafka_never() {
    for (source, expected) in [("upload:a/0", "few"), ("kafka:events/3", "dup")] {
        let mut world = World::new(EngineConfig::default());
        world.line(&format!("!source {source} 5"));
        world.line("m 0 50");
        world.line("!pause 90000");
        world.line(&format!("!source {source} 5"));
        assert_eq!(world.line("m 1 50"), expected, "{source}");
    }
}

#[test]
fn a_forgotten_series_begins_anew() {
    check_after_steady("!forget m\nm 10 500 -> few");
}

#[test]
fn a_forgotten_series_gives_back_the_bytes_of_all_that_it_had() {
    let mut world = World::new(EngineConfig::default());
    // A first time, since the room of the slab itself stays.
    world.calm("m", 0);
    world.line("!forget m");
    let before = world.engine.state_bytes();
    world.calm("m", 0);
    let with_samples = world.engine.state_bytes();
    world.line("m 10 60 #a-first-id");
    world.line("m 10 60 #a-first-id");
    assert_eq!(world.out.batches[0].duplicates, 1);
    assert!(world.engine.state_bytes() > with_samples, "an id and an incident take room");
    world.line("!forget m");
    assert_eq!(world.engine.state_bytes(), before);
}

#[test]
fn an_idle_series_begins_anew_in_time_of_arrival() {
    let config = EngineConfig { series_idle_seconds: 100.0, ..EngineConfig::default() };
    check(config.clone(), &(steady() + "!pause 100\nm 10 60 -> high"));
    check(config.clone(), &(steady() + "!pause 101\nm 10 60 -> few"));
    let mut world = World::new(config);
    world.calm("m", 0);
    world.line("!pause 500");
    world.line("n 0 1");
    assert_eq!((world.engine.series_len(), world.out.idle.len()), (1, 1), "it has left memory");
}

#[test]
fn a_rule_chooses_detector_and_parameters_and_the_first_match_wins() {
    let rule = |metric: &str| Rule { metric: Some(metric.into()), ..Rule::default() };
    let config = EngineConfig {
        rules: vec![
            Rule { threshold: Some(20.0), ..rule("quiet*") },
            Rule { detector: Some(DetectorKind::Percentile), ..rule("q*") },
            Rule { direction: Some(anomaly_detect::Direction::High), ..rule("high") },
            Rule { min_deviation: Some(15.0), ..rule("coarse") },
        ],
        ..EngineConfig::default()
    };
    assert!(config.faults().is_empty());
    for (series, value, expected) in [
        ("quiet", 60, "ok"),
        ("q", 60, "few"),
        ("high", 40, "ok"),
        ("high", 60, "high"),
        ("coarse", 60, "ok"),
        ("coarse", 70, "high"),
        ("m", 60, "high"),
    ] {
        let mut world = World::new(config.clone());
        world.calm(series, 0);
        assert_eq!(world.line(&format!("{series} 10 {value}")), expected, "{series} {value}");
    }
}

#[test]
fn anomalies_within_the_window_share_an_incident() {
    let mut world = World::new(EngineConfig::default());
    world.calm("m", 0);
    let first = world.anomaly("m 10 60");
    world.calm("m", 100);
    let second = world.anomaly("m 110 90");
    world.calm("m", 1000);
    let third = world.anomaly("m 1010 60");
    let late = world.anomaly("m 1005 70");
    assert!(first.incident == second.incident && second.incident != third.incident && third.incident == late.incident);
    assert_ne!(first.id, first.incident);
}

#[test]
fn ids_come_from_what_happened_and_not_from_where_it_stood() {
    let run = |lead: usize| {
        let mut world = World::new(EngineConfig::default());
        (0..lead).for_each(|i| drop(world.line(&format!("other {i} 1"))));
        world.calm("m", 0);
        (world.anomaly("m 10 60"), world.anomaly("m 11 60.5"))
    };
    let ((a, b), (c, d)) = (run(0), run(7));
    assert_eq!((a.id, b.id, a.incident), (c.id, d.id, c.incident));
    assert!(a.id != b.id && a.position != c.position);
}

#[test]
fn an_event_without_id_is_named_after_its_position() {
    let mut world = World::new(EngineConfig::default());
    world.calm("m", 0);
    assert_eq!(world.anomaly("m 10 60").event_id.as_deref(), Some("11-0"));
    assert_eq!(world.anomaly("m 11 90 #mine").event_id.as_deref(), Some("mine"));
}

#[test]
fn a_new_threshold_keeps_the_samples() {
    let mut world = World::new(EngineConfig::default());
    world.calm("m", 0);
    world.frame(&Record::Configure(EngineConfig { threshold: 30.0, ..EngineConfig::default() }.to_text()));
    assert_eq!(world.line("m 10 60"), "ok");
    world.frame(&Record::Configure(EngineConfig { detector: DetectorKind::Percentile, ..EngineConfig::default() }.to_text()));
    assert_eq!(world.line("m 11 60"), "few", "percentiles need 100 samples");
    world.frame(&Record::Configure(EngineConfig { window_seconds: 3.0, ..EngineConfig::default() }.to_text()));
    assert_eq!(world.line("m 12 60"), "few", "a shorter window");
}

#[test]
fn faults_of_a_configuration_are_told_together_with_their_path() {
    let rule = |change: fn(&mut Rule)| {
        let mut rule = Rule::default();
        change(&mut rule);
        rule
    };
    let config = EngineConfig {
        rules: vec![
            rule(|rule| rule.threshold = Some(-1.0)),
            rule(|rule| rule.window_seconds = Some(0.0)),
            rule(|rule| {
                rule.detector = Some(DetectorKind::Percentile);
                rule.window = Some(anomaly_detect::WindowKind::Panes);
            }),
        ],
        ..EngineConfig::default()
    };
    let told: Vec<String> = config.faults().iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "rules[0].threshold: must be a positive number, got -1",
            "rules[1].window_seconds: must be a positive number of seconds, got 0",
            "rules[2].window: percentile needs every sample, window = \"panes\" keeps none",
        ]
    );
    let bad = EngineConfig { window_seconds: f64::NAN, window_max_samples: 1, ..EngineConfig::default() };
    assert_eq!(bad.faults().len(), 2);
}

#[test]
fn a_configuration_reads_back_exactly() {
    let config = EngineConfig {
        threshold: 0.1 + 0.2,
        rules: vec![Rule { metric: Some("a*".into()), low: Some(2.5), ..Rule::default() }],
        ..EngineConfig::default()
    };
    assert_eq!(EngineConfig::from_text(&config.to_text()).unwrap(), config);
    assert!(EngineConfig::from_text("{\"unknown\":1}").is_err());
}

#[test]
fn the_anomaly_is_written_as_the_contract_says() {
    let mut world = World::new(EngineConfig::default());
    (0..20).for_each(|i| drop(world.line(&format!("cpu {i}.5 {}", 50 + i % 10))));
    let mut text = String::new();
    world.anomaly("cpu 20.5 95").write_json(&mut text, Timestamp::from_seconds(7));
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let keys: Vec<_> = text.match_indices("\":").map(|(i, _)| text[..i].rsplit('"').next().unwrap()).collect();
    assert_eq!(keys[..8], ["id", "series", "metric", "labels", "timestamp", "value", "detector", "score"]);
    assert_eq!(
        (&json["timestamp"], &json["z_score"], &json["count"]),
        (&20.5.into(), &(40.5 / (165.0f64 / 19.0).sqrt()).into(), &20.into())
    );
    assert_eq!(json["explanation"], "95 is 13.7 standard deviations above the mean 54.5 of the last 20 samples (5 min)");
    assert_eq!((&json["severity"], &json["direction"], &json["source"]), (&"critical".into(), &"high".into(), &"http".into()));
    assert!(!text.contains('\n'));
}
