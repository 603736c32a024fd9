//! The way of a batch through the core, without the log between.

use anomaly_detect::WindowKind;
use anomaly_engine::frame::{BatchBuilder, Frame, FrameBuilder, Origin, Record};
use anomaly_engine::parse::Context;
use anomaly_engine::{Engine, EngineConfig, NANOS, Outputs, Rule, Timestamp};

use crate::Named;

/// An engine of one shard that is fed as the server feeds it: a batch becomes a sealed frame, which is opened, its checksum
/// checked, and applied.
#[derive(Debug)]
pub struct Pipeline {
    engine: Engine,
    outputs: Outputs,
    frame: u64,
    anomalies: usize,
}

/// The default configuration: z-score, exact windows of 300 s with 60 s of lateness.
pub fn exact() -> EngineConfig {
    EngineConfig::default()
}

/// The same with panes.
pub fn panes() -> EngineConfig {
    EngineConfig { rules: vec![Rule { window: Some(WindowKind::Panes), ..Rule::default() }], ..exact() }
}

impl Pipeline {
    /// An engine without series.
    pub fn new(config: EngineConfig) -> Self {
        Self { engine: Engine::new(config, 1), outputs: Outputs::default(), frame: 0, anomalies: 0 }
    }

    /// What a parser needs to know of bytes that arrive at `now`.
    pub fn context(now: Timestamp) -> Context {
        Context::new(now, 60 * NANOS)
    }

    /// Takes a batch that arrived at `now`.
    ///
    /// # Panics
    /// If the engine does not understand what the builder wrote.
    pub fn take(&mut self, batch: BatchBuilder, now: Timestamp) {
        self.frame += 1;
        let mut frame = FrameBuilder::new(now);
        frame.push(&Record::Events(batch.finish(Origin::http())));
        let bytes = frame.seal(self.frame);
        let frame = Frame::open(self.frame, &bytes).expect("a sealed frame opens");
        self.outputs.clear();
        self.engine.apply(&frame, &mut self.outputs).expect("the records of a builder can be read");
        self.anomalies += self.outputs.anomalies.len();
    }

    /// Takes named samples as one batch, from the bytes of their keys on.
    pub fn take_named(&mut self, samples: &Named) {
        let mut batch = BatchBuilder::new();
        for (line, event) in (1..).zip(samples.events()) {
            batch.push(&event, line);
        }
        self.take(batch, samples.end());
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Anomalies so far.
    pub fn anomalies(&self) -> usize {
        self.anomalies
    }
}
