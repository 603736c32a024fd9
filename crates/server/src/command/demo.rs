//! `anomaly demo`: everything in one process on a throw-away data directory, fed with made-up metrics that go wrong on purpose.

mod told;

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anomaly_engine::frame::{Batch, BatchBuilder, Origin, Position};
use anomaly_engine::{EngineConfig, Event, NANOS, Report, Timestamp};
use anyhow::Context as _;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::MissedTickBehavior;

use crate::app::App;
use crate::clock;
use crate::config::{Config, Flag, KafkaConfig, Loaded, NotifyConfig, Sources};
use crate::demo::{Generator, HISTORY_SECONDS, SERIES, Sample};
use crate::log::{Append, Appended};
use crate::logging;
use crate::run::{self, Signals};
use crate::store::Stored;
use told::Told;

/// The same values in every demo that begins at the same time.
const SEED: u64 = 1;
/// Standard deviations: above all noise of the generator, below all of its faults.
const THRESHOLD: f64 = 5.0;
/// Seconds of history in one append.
const HISTORY_STEP: usize = 300;
/// A machine that slept is not caught up with beyond so many seconds.
const MOST_BEHIND: i64 = 120;
/// What the throw-away directory may take, the reserve for a full disk included (a twentieth of it).
const DISK_BYTES: u64 = 1 << 30;

/// Serves the demo until Ctrl-C or SIGTERM, and removes what it has written.
///
/// # Errors
/// A configuration with faults; a port in use; no temporary directory.
pub fn run(mut flags: Vec<Flag>, config_file: Option<&Path>) -> anyhow::Result<ExitCode> {
    let runtime = super::runtime()?;
    let entered = runtime.enter();
    // From here on a signal ends the demo in order: no moment is left in which it would leave the directory behind.
    let signals = Signals::listen().context("Ctrl-C and SIGTERM cannot be listened for")?;
    drop(entered);
    let dir = tempfile::Builder::new().prefix("anomaly-demo-").tempdir().context("no temporary directory can be made")?;
    flags.push(Flag { flag: "--data-dir", name: "DATA_DIR", text: dir.path().display().to_string() });
    let config = config(Sources::of_process(flags, config_file, true)?.load()?);
    logging::init(&config);
    let told = Arc::new(Told::new(jiff::tz::TimeZone::system()));
    let feeding = Arc::clone(&told);
    let code = runtime.block_on(run::beside(config, signals.received(), |app, address| feed(app, address, feeding)))?;
    // What still runs in the directory ends before it is removed.
    drop(runtime);
    dir.close().context("the demo's directory cannot be removed")?;
    told.ended();
    Ok(code)
}

/// What is served, and where, is as it is configured; what decides results is the demo's own.
fn config(loaded: Loaded) -> Config {
    let quiet = !loaded.is_set("LOG_LEVEL");
    let mut config = loaded.config;
    config.engine = EngineConfig { threshold: THRESHOLD, ..EngineConfig::default() };
    // What is made up is told to nobody.
    config.notify = NotifyConfig::default();
    // Offsets are not committed for events that are thrown away.
    config.kafka = KafkaConfig::default();
    config.disk_max_bytes = Some(config.disk_max_bytes.map_or(DISK_BYTES, |bytes| bytes.min(DISK_BYTES)));
    if quiet {
        config.log_level = "warn".into();
    }
    config
}

/// Appends an hour of history, then the values of each second as it passes; tells what goes wrong and what was found.
async fn feed(app: App, address: SocketAddr, told: Arc<Told>) -> anyhow::Result<()> {
    let mut followed = app.live.subscribe();
    let live = now();
    let mut generator = Generator::new(SEED, live);
    for first in (live - HISTORY_SECONDS..live).step_by(HISTORY_STEP) {
        let seconds: Vec<_> = (first..first + HISTORY_STEP as i64).map(|at| (at, second(&mut generator, at, &told))).collect();
        if let Some(position) = append(&app, &seconds).await? {
            // The first look at the page finds the history judged, and the welcome counts all that was found in it.
            app.engine.reached(position).await;
            while let Ok(anomaly) = followed.try_recv() {
                told.anomaly(&anomaly.body);
            }
        }
    }
    told.welcome(&format!("http://{address}{}", app.config.base_path));
    let follower = tokio::spawn(follow(followed, Arc::clone(&told)));
    let ended = pass(&app, generator, live, &told).await;
    follower.abort();
    ended
}

/// Appends the values of each second as it passes, until the server stops.
async fn pass(app: &App, mut generator: Generator, live: i64, told: &Told) -> anyhow::Result<()> {
    let mut next = live;
    let mut clock = tokio::time::interval(Duration::from_millis(200));
    clock.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        clock.tick().await;
        let now = now();
        if now - next > MOST_BEHIND {
            next = now;
        }
        let mut seconds = Vec::new();
        while next <= now {
            seconds.push((next, second(&mut generator, next, told)));
            next += 1;
        }
        append(app, &seconds).await?;
    }
}

fn second(generator: &mut Generator, at: i64, told: &Told) -> Vec<Sample> {
    let (samples, begun) = generator.second(at);
    begun.into_iter().for_each(|fault| told.begun(fault));
    samples
}

/// Appends values to the log as a request does. What the server cannot take for the moment is lost, as a client that does not
/// try again would lose it.
async fn append(app: &App, seconds: &[(i64, Vec<Sample>)]) -> anyhow::Result<Option<Position>> {
    let batch = batch(seconds);
    if batch.is_empty() {
        return Ok(None);
    }
    let report = Report { accepted: batch.len() as u64, ..Report::default() };
    match app.log.append(Append { batch, report, atomic: false, key: None }).await {
        Ok(Appended::Taken { position, report }) => {
            app.stats.report(&report);
            Ok(Some(position))
        }
        Ok(Appended::Repeated(_)) => Ok(None),
        Err(error) if error.is_temporary() => {
            tracing::warn!("values of the demo were not taken: {error}");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

fn batch(seconds: &[(i64, Vec<Sample>)]) -> Batch {
    let mut batch = BatchBuilder::new();
    for (at, samples) in seconds {
        for sample in samples {
            let series = &SERIES[sample.series];
            let meta = sample.fault.map(|fault| format!("{{\"injected\":\"{}\"}}", fault.kind.as_str()));
            let (metric, labels, timestamp) = (series.metric, series.labels, Timestamp::from_seconds(*at));
            let line = batch.len() as u64 + 1;
            batch.push(&Event { metric, labels, timestamp, value: sample.value, id: None, meta: meta.as_deref() }, line);
        }
    }
    batch.finish(Origin { name: "demo".into(), first: None })
}

/// Tells which faults are found, as a client on the WebSocket would learn it.
async fn follow(mut live: broadcast::Receiver<Arc<Stored>>, told: Arc<Told>) {
    loop {
        match live.recv().await {
            Ok(anomaly) => told.anomaly(&anomaly.body),
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

/// The second that has begun, in epoch seconds.
fn now() -> i64 {
    clock::now().nanos().div_euclid(NANOS)
}

#[cfg(test)]
mod tests {
    use anomaly_engine::frame::{Frame, FrameBuilder, Record};
    use anomaly_engine::{Engine, Outputs};

    use super::*;

    /// What the engine finds in an hour of history and half an hour of live values, as (label, series, second).
    #[test]
    fn every_fault_is_found_and_nothing_else_is() {
        let live = 1_760_000_000;
        for seed in [SEED, 2, 3] {
            let mut generator = Generator::new(seed, live);
            let told = Told::new(jiff::tz::TimeZone::UTC);
            let loaded = Loaded { config: Config::default(), set: Vec::new(), warnings: Vec::new() };
            let mut engine = Engine::new(config(loaded).engine, 1);
            let mut outputs = Outputs::default();
            for (frame, first) in (1..).zip((live - HISTORY_SECONDS..live + 1800).step_by(HISTORY_STEP)) {
                let seconds: Vec<_> = (first..first + HISTORY_STEP as i64).map(|at| (at, second(&mut generator, at, &told))).collect();
                let mut builder = FrameBuilder::new(Timestamp::from_seconds(first));
                builder.push(&Record::Events(batch(&seconds)));
                let bytes = builder.seal(frame);
                engine.apply(&Frame::open(frame, &bytes).unwrap(), &mut outputs).unwrap();
            }
            let unlabelled = outputs.anomalies.iter().filter(|anomaly| anomaly.meta.is_none()).count();
            for anomaly in &outputs.anomalies {
                let mut body = String::new();
                anomaly.write_json(&mut body, anomaly.timestamp);
                told.anomaly(&body);
            }
            let (faults, found) = told.counts();
            assert!(faults > 90 && found == faults, "seed {seed}: {found} of {faults}");
            assert!(unlabelled * 100 <= outputs.anomalies.len(), "seed {seed}: {unlabelled} of {}", outputs.anomalies.len());
        }
    }
}
