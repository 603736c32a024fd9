//! How often the samples of a series come, so that one too sparse for its window is told.

use anomaly_detect::text;

use crate::config::Settings;
use crate::varint::{DecodeError, take_array, undecodable};

/// How many samples are needed before a series may be called sparse.
const SAMPLES: usize = 20;

/// The spacings of the last samples of a series in seconds, as f32. Memory: 80 bytes, inline.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C)]
pub(crate) struct Cadence {
    /// How many were seen; the ring's next place is this modulo its length.
    seen: u32,
    spacings: [f32; SAMPLES - 1],
}

impl Cadence {
    /// Takes the spacing before a sample, in nanoseconds.
    pub(crate) fn push(&mut self, nanos: i64) {
        let n = self.spacings.len() as u32;
        self.spacings[(self.seen % n) as usize] = (nanos as f64 * 1e-9) as f32;
        // Stays below 2 n, so that it never overflows and still tells that the ring is full.
        self.seen = if self.seen + 1 == 2 * n { n } else { self.seen + 1 };
    }

    /// The median spacing in seconds where the window cannot hold enough samples before each:
    /// median × (`min_count` + 1) > window, over the last 20 samples or more.
    pub(crate) fn sparse(&self, settings: &Settings) -> Option<f64> {
        if (self.seen as usize) < self.spacings.len() {
            return None;
        }
        let mut sorted = self.spacings;
        sorted.sort_unstable_by(f32::total_cmp);
        let median = f64::from(sorted[sorted.len() / 2]);
        (median * (f64::from(settings.params.min_count) + 1.0) > settings.window_seconds).then_some(median)
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.seen.to_le_bytes());
        self.spacings.iter().for_each(|spacing| out.extend_from_slice(&spacing.to_le_bytes()));
    }

    pub(crate) fn decode(from: &mut &[u8]) -> Result<Self, DecodeError> {
        let mut cadence = Self { seen: u32::from_le_bytes(take_array(from)?), ..Self::default() };
        for spacing in &mut cadence.spacings {
            *spacing = f32::from_le_bytes(take_array(from)?);
        }
        let limit = 2 * cadence.spacings.len();
        if (cadence.seen as usize) < limit { Ok(cadence) } else { Err(undecodable("the spacings of a series")) }
    }
}

/// What to say of a sparse series: how often it comes, what its window lacks, what to set.
pub(crate) fn sparse_text(median: f64, settings: &Settings) -> String {
    let needs = settings.params.min_count;
    let seconds = (median * (f64::from(needs) + 1.0)).ceil();
    format!(
        "samples every {}; a window of {} cannot hold {needs} before each: set WINDOW_SECONDS to {seconds} or more",
        text::span(median),
        text::span(settings.window_seconds)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EngineConfig;
    use crate::series_key::SeriesKey;

    fn sparse(spacings: impl IntoIterator<Item = f64>) -> Option<f64> {
        let mut cadence = Cadence::default();
        spacings.into_iter().for_each(|seconds| cadence.push((seconds * 1e9) as i64));
        cadence.sparse(&EngineConfig::default().settings_of(&SeriesKey::new("m", &[])))
    }

    #[test]
    fn the_median_of_the_last_nineteen_spacings_decides() {
        assert_eq!(sparse([300.0; 18]), None, "nineteen samples");
        assert_eq!(sparse([300.0; 19]), Some(300.0));
        assert_eq!(sparse([50.0; 49]), None, "every 50 s is enough");
        assert_eq!(sparse([51.0; 49]), Some(51.0));
        assert_eq!(sparse([300.0; 29].into_iter().chain([1.0; 100])), None);
        assert_eq!(sparse([1.0; 29].into_iter().chain([300.0; 100])), Some(300.0));
        assert_eq!(sparse([10.0, 10.0, 10.0, 2000.0, 2000.0].repeat(10)), None);
        assert_eq!(sparse([60.0, 60.0, 60.0, 1.0, 1.0].repeat(10)), Some(60.0));
    }

    #[test]
    fn no_setting_and_no_state_overflows() {
        let config = EngineConfig { min_count: u32::MAX, ..EngineConfig::default() };
        let mut cadence = Cadence::default();
        (0..20).for_each(|_| cadence.push(1_000_000_000));
        assert_eq!(cadence.sparse(&config.settings_of(&SeriesKey::new("m", &[]))), Some(1.0));
        for (seen, fits) in [(37u32, true), (38, false), (u32::MAX, false)] {
            let bytes = [&seen.to_le_bytes()[..], &[0; 76]].concat();
            assert_eq!(Cadence::decode(&mut &bytes[..]).is_ok(), fits, "{seen}");
        }
    }

    #[test]
    fn the_text_says_what_to_set() {
        let settings = EngineConfig::default().settings_of(&SeriesKey::new("m", &[]));
        let expected = "samples every 5 min; a window of 5 min cannot hold 5 before each: set WINDOW_SECONDS to 1800 or more";
        assert_eq!(sparse_text(300.0, &settings), expected);
    }
}
