//! Goals 3 and 8: what an event costs from the bytes of its key to its verdict, by number of series.
//!
//! Series report once a second in an order shuffled anew each second, 10,000 events a batch; windows of 300 s and 60 s of
//! lateness. Beside the engine stands what one would write first: a hash map from key bytes to the same window and detector,
//! asked event by event.
//!
//! Filling a million windows at one sample a second would take hours. Panes are filled by one sample a pane of five seconds,
//! which leaves the same structure behind. Exact windows of a million series hold 24 samples, one in 15 s.

use std::hint::black_box;

use anomaly_detect::{Bounds, Detector, Window, WindowKind};
use anomaly_engine::{EngineConfig, Event, NANOS, SeriesKey, Settings};
use anomaly_eval::{Contestant, Fleet, Named, Need, Order, Pipeline, Row, cheapest, cpu_time, exact, panes, peer};
use hashbrown::HashMap;

const BATCH: usize = 10_000;
const BATCHES: usize = 10;
const TURNS: usize = 11;
/// Event time in which the windows fill.
const FULL: i64 = 365 * NANOS;

/// What an event costs in nanoseconds.
struct Cost {
    engine: f64,
    scalar: f64,
}

fn main() {
    let filter: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |name: &str| filter.is_empty() || filter.iter().any(|f| name.contains(f.as_str()));
    if wanted("detector") {
        one_series();
    }
    for (name, config, kind) in [("panes", panes(), WindowKind::Panes), ("exact", exact(), WindowKind::Exact)] {
        if !wanted(name) {
            continue;
        }
        let mut by_size = Vec::new();
        for n_series in [1, 1_000, 100_000, 1_000_000] {
            let cost = contest(n_series, &config, kind);
            print(name, n_series, &cost);
            by_size.push(cost.engine);
        }
        let (what, measured) = (format!("{name}, 100,000 series"), format!("{:.0} ns an event", by_size[2]));
        let beside = format!("1,000 series: {:.0} ns", by_size[1]);
        Row { goal: 8, what, measured, beside, ratio: by_size[2] / by_size[1], need: Need::AtMost(1.5) }.print();
    }
}

fn print(name: &str, n_series: u32, cost: &Cost) {
    let least = if n_series == 1_000_000 && name == "panes" { Need::AtLeast(1.8) } else { Need::Nothing };
    let what = format!("key to verdict, {name}, {} series", anomaly_eval::grouped(n_series.into()));
    let (measured, beside) = (format!("{:.0} ns an event", cost.engine), format!("hash map, one by one: {:.0} ns", cost.scalar));
    Row { goal: 3, what: what.clone(), measured: measured.clone(), beside, ratio: cost.scalar / cost.engine, need: least }.print();
    if n_series == 1_000_000 && name == "panes" {
        let beside = "160 ns on the machine of the goal".into();
        Row { goal: 3, what, measured, beside, ratio: cost.engine / 160.0, need: Need::AtMost(1.0) }.print();
    }
}

fn contest(n_series: u32, config: &EngineConfig, kind: WindowKind) -> Cost {
    // (while the windows fill, while it is measured)
    let (filling, measured) = match (kind, n_series) {
        (WindowKind::Exact, 1_000_000) => (15 * NANOS, 15 * NANOS),
        (WindowKind::Panes, 1_000_000) => (5 * NANOS, NANOS),
        _ => (NANOS, NANOS),
    };
    let mut pipeline = Pipeline::new(config.clone());
    let mut scalar = Scalar::new(config);
    let [engine, scalar] = cheapest(
        TURNS,
        BATCHES * BATCH,
        [
            fed(n_series, filling, measured, move |samples| pipeline.take_named(samples)),
            fed(n_series, filling, measured, move |samples| samples.events().for_each(|event| scalar.take(&event))),
        ],
    );
    Cost { engine, scalar }
}

/// A contestant that has seen the fleet until its windows are full.
fn fed<'a>(n_series: u32, filling: i64, measured: i64, mut take: impl FnMut(&Named) + 'a) -> Contestant<'a> {
    let mut fleet = Fleet::new(n_series, filling, Order::Shuffled);
    while fleet.now().since(fleet.start()) < FULL {
        take(&fleet.named(BATCH));
    }
    fleet.set_interval(measured);
    Box::new(move || {
        let batches: Vec<Named> = (0..BATCHES).map(|_| fleet.named(BATCH)).collect();
        cpu_time(|| batches.iter().for_each(&mut take))
    })
}

/// The structure that one would write first.
struct Scalar {
    settings: Settings,
    series: HashMap<Vec<u8>, (Window, Detector)>,
}

impl Scalar {
    fn new(config: &EngineConfig) -> Self {
        Self { settings: config.settings_of(&SeriesKey::new("cpu_usage", &[])), series: HashMap::new() }
    }

    fn take(&mut self, event: &Event<'_>) {
        let Settings { params, shape, .. } = &self.settings;
        let (window, detector) = self.series.entry_ref(event.metric.as_bytes()).or_insert_with(|| {
            let window = Window::new(*shape);
            let detector = Detector::new(params, &window);
            (window, detector)
        });
        let time = event.timestamp.nanos();
        let judgement = detector.judge(params, window, Bounds { after: time - shape.span, upto: time }, event.value);
        black_box(&judgement);
        detector.observe(params, window, time, event.value);
    }
}

/// Window and detector alone, for one series, beside peers that have no more than that.
fn one_series() {
    let detector = |config: EngineConfig| -> f64 {
        let Settings { params, shape, .. } = config.settings_of(&SeriesKey::new("cpu_usage", &[]));
        let mut window = Window::new(shape);
        let mut detector = Detector::new(&params, &window);
        let mut fleet = Fleet::new(1, NANOS, Order::Steady);
        let turn = || {
            let samples = fleet.samples(BATCHES * BATCH);
            cpu_time(|| {
                for sample in &samples {
                    let time = sample.time.nanos();
                    black_box(&detector.judge(&params, &mut window, Bounds { after: time - shape.span, upto: time }, sample.value));
                    detector.observe(&params, &mut window, time, sample.value);
                }
            })
        };
        let [nanos] = cheapest(TURNS, BATCHES * BATCH, [Box::new(turn)]);
        nanos
    };
    let (two_stacks, river) = (peer("TWO_STACKS_LITE", 5), peer("RIVER", 2));
    for (name, ours) in [("exact", detector(exact())), ("panes", detector(panes()))] {
        let row = |beside: &str, theirs: Option<f64>, ratio: fn(f64, f64) -> f64, need| {
            let beside = theirs.map_or(format!("{beside}: not measured"), |nanos| format!("{beside}: {nanos:.0} ns"));
            let what = format!("window and detector alone, {name}, one series");
            let (ratio, need) = theirs.map_or((f64::NAN, Need::Nothing), |theirs| (ratio(ours, theirs), need));
            Row { goal: 3, what, measured: format!("{ours:.0} ns an event"), beside, ratio, need }.print();
        };
        row("IBM two_stacks_lite, no verdict", two_stacks, |ours, theirs| ours / theirs, Need::AtMost(1.0));
        row("river, rolling z", river, |ours, theirs| theirs / ours, Need::AtLeast(100.0));
    }
}
