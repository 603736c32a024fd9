//! Goal 2: batches of text through parsing, framing and detection, beside parsers that only parse.
//!
//! 10,000 series that report once a second, 10,000 events a batch, so each batch meets each series once, which is the worst
//! case for a frame that names each series once. In a steady order, as a collector sends what it has walked, and shuffled
//! anew each second, which is the worst case for caches: what the windows hold (120 MB where they are exact) is met cold.
//! Windows are full: 300 s and 60 s of lateness. One event in 1,000 is an anomaly. All on one core, in processor time.

use std::hint::black_box;
use std::io::Cursor;
use std::time::Duration;

use anomaly_engine::frame::BatchBuilder;
use anomaly_engine::parse::{FileOptions, FileReader, More, parse_batch};
use anomaly_engine::{EngineConfig, NANOS, Timestamp};
use anomaly_eval::{Contestant, Fleet, Need, Order, Pipeline, Row, Sample, cheapest, cpu_time, exact, grouped, panes};
use serde::Deserialize;

const SERIES: u32 = 10_000;
const BATCH: usize = 10_000;
/// Batches that are measured at a time; each time with new ones, since time goes on.
const BATCHES: usize = 8;
const EVENTS: usize = BATCHES * BATCH;
/// Event time in which the windows fill: 300 s and 60 s of lateness.
const FULL: i64 = 365 * NANOS;
const TURNS: usize = 15;

/// An event as sonic-rs reads it: everything borrowed, nothing checked that its types do not check.
#[derive(Debug, Deserialize)]
struct Plain<'a> {
    timestamp: f64,
    metric: &'a str,
    value: f64,
}

/// The same with a label, whose name is known beforehand: a map would have to be allocated.
#[derive(Debug, Deserialize)]
struct Labelled<'a> {
    timestamp: f64,
    metric: &'a str,
    value: f64,
    #[serde(borrow)]
    labels: Host<'a>,
}

#[derive(Debug, Deserialize)]
struct Host<'a> {
    host: &'a str,
}

fn main() {
    let sonic_plain = |text: &str| {
        for line in text.lines() {
            let event: Plain<'_> = sonic_rs::from_str(line).expect("an event");
            black_box((event.timestamp, event.metric, event.value));
        }
    };
    let sonic_labelled = |text: &str| {
        for line in text.lines() {
            let event: Labelled<'_> = sonic_rs::from_str(line).expect("an event");
            black_box((event.timestamp, event.metric, event.value, event.labels.host));
        }
    };
    ndjson("NDJSON", Sample::ndjson, sonic_plain);
    ndjson("NDJSON with a label", Sample::ndjson_labelled, sonic_labelled);
    csv();
}

fn ndjson(name: &str, write: fn(Sample, &mut String), sonic: impl Fn(&str)) {
    let text = |fleet: &mut Fleet| lines(fleet, BATCH, write);
    let mut fleet = Fleet::new(SERIES, NANOS, Order::Steady);
    let texts: Vec<_> = (0..BATCHES).map(|_| text(&mut fleet)).collect();
    let [exact_steady, exact_shuffled, panes_steady, panes_shuffled, parse, alone] = cheapest(
        TURNS,
        EVENTS,
        [
            through(exact(), Order::Steady, text, take_ndjson, BATCHES),
            through(exact(), Order::Shuffled, text, take_ndjson, BATCHES),
            through(panes(), Order::Steady, text, take_ndjson, BATCHES),
            through(panes(), Order::Shuffled, text, take_ndjson, BATCHES),
            Box::new(|| fresh(&texts, |text| drop(black_box(parsed(text, fleet.now()))))),
            Box::new(|| fresh(&texts, &sonic)),
        ],
    );
    let beside = format!("sonic-rs parses alone: {}", rate(alone));
    let row = |what: &str, ours: f64, need| {
        Row { goal: 2, what: format!("{name}, {what}"), measured: rate(ours), beside: beside.clone(), ratio: alone / ours, need }.print();
    };
    row("through detection, exact windows", exact_steady, Need::AtLeast(0.9));
    row("through detection, exact windows, shuffled", exact_shuffled, Need::Nothing);
    row("through detection, panes", panes_steady, Need::AtLeast(0.9));
    row("through detection, panes, shuffled", panes_shuffled, Need::Nothing);
    row("parsed into a batch, alone", parse, Need::Nothing);
}

fn csv() {
    let text = |fleet: &mut Fleet| format!("metric,value,timestamp\n{}", lines(fleet, EVENTS, Sample::csv));
    let file = text(&mut Fleet::new(SERIES, NANOS, Order::Steady));
    let [exact, panes, alone] = cheapest(
        TURNS,
        EVENTS,
        [
            through(exact(), Order::Steady, text, take_csv, 1),
            through(panes(), Order::Steady, text, take_csv, 1),
            Box::new(|| {
                cpu_time(|| {
                    let mut reader = csv::Reader::from_reader(file.as_bytes());
                    let mut row = csv::ByteRecord::new();
                    while reader.read_byte_record(&mut row).expect("memory can be read") {
                        let number = |i: usize| -> f64 { fast_float2::parse(&row[i]).expect("a number") };
                        black_box((&row[0], number(1), number(2)));
                    }
                })
            }),
        ],
    );
    let beside = format!("csv's ByteRecord and fast-float2 alone: {}", rate(alone));
    for (what, ours) in [("exact windows", exact), ("panes", panes)] {
        let what = format!("CSV, a file through detection, {what}");
        Row { goal: 2, what, measured: rate(ours), beside: beside.clone(), ratio: alone / ours, need: Need::AtLeast(0.5) }.print();
    }
}

/// A pipeline whose windows are full, and which takes `n_texts` new texts a turn.
fn through<'a>(
    config: EngineConfig,
    order: Order,
    text: impl Fn(&mut Fleet) -> String + 'a,
    take: fn(&mut Pipeline, &str, Timestamp),
    n_texts: usize,
) -> Contestant<'a> {
    let (mut fleet, mut pipeline) = (Fleet::new(SERIES, NANOS, order), Pipeline::new(config));
    while fleet.now().since(fleet.start()) < FULL {
        let text = text(&mut fleet);
        take(&mut pipeline, &text, fleet.now());
    }
    // Each text is written right before it is taken: in a server too, a request has just come in. The first of a turn is not
    // counted: the contestants before it have taken the caches, and in a server there are none.
    Box::new(move || {
        let one = |_| {
            let text = text(&mut fleet);
            cpu_time(|| take(&mut pipeline, &text, fleet.now()))
        };
        (0..=n_texts).map(one).skip(1).sum()
    })
}

/// The time that `work` takes for all texts, each copied right before it, and one more before them that is not counted.
fn fresh(texts: &[String], work: impl Fn(&str)) -> Duration {
    let one = |text: &String| {
        let text = text.clone();
        cpu_time(|| work(&text))
    };
    texts[..1].iter().chain(texts).map(one).skip(1).sum()
}

fn take_ndjson(pipeline: &mut Pipeline, text: &str, now: Timestamp) {
    pipeline.take(parsed(text, now), now);
}

fn parsed(text: &str, now: Timestamp) -> BatchBuilder {
    let mut batch = BatchBuilder::new();
    let report = parse_batch(text.as_bytes(), &Pipeline::context(now), &mut batch).expect("NDJSON is no array");
    assert_eq!(report.accepted, BATCH as u64);
    batch
}

fn take_csv(pipeline: &mut Pipeline, text: &str, now: Timestamp) {
    let options = FileOptions::new("fleet.csv", Pipeline::context(now).arrival);
    let mut reader = FileReader::open(Cursor::new(text.as_bytes()), &options).expect("a table");
    let mut more = More::Rows;
    while more == More::Rows {
        let mut batch = BatchBuilder::new();
        more = reader.next_batch(&mut batch, BATCH).expect("memory can be read");
        if !batch.is_empty() {
            pipeline.take(batch, now);
        }
    }
    assert_eq!(reader.accepted(), EVENTS as u64);
}

fn lines(fleet: &mut Fleet, n: usize, write: fn(Sample, &mut String)) -> String {
    let mut text = String::new();
    fleet.samples(n).into_iter().for_each(|sample| write(sample, &mut text));
    text
}

fn rate(nanos: f64) -> String {
    format!("{nanos:.0} ns an event, {} events/s", grouped((1e9 / nanos) as u64))
}
