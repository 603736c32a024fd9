//! Names that belong to a later version: known, so that a set one is told instead of silently ignored.

/// A feature that this version does not have, and the names that configure it.
#[derive(Debug)]
pub struct Later {
    /// As in "this version does not … yet".
    pub does: &'static str,
    /// Its names, each with its default (empty: none) and what it will do.
    pub names: &'static [(&'static str, &'static str, &'static str)],
}

/// All of them.
pub const LATER: &[Later] = &[Later {
    does: "write anomalies to Kafka",
    names: &[("KAFKA_ANOMALY_TOPIC", "", "Topic that anomalies are written to; none by default.")],
}];

/// Whether a name belongs to a later version, in whatever case.
pub(super) fn is_later(name: &str) -> bool {
    LATER.iter().flat_map(|later| later.names).any(|(known, ..)| known.eq_ignore_ascii_case(name))
}

/// What is told at start of names that are set: one warning for each feature.
pub(super) fn warnings(value_of: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let told = |later: &Later| {
        let asked = |name: &str| value_of(name).is_some();
        let set: Vec<_> = later.names.iter().map(|(name, ..)| *name).filter(|&name| asked(name)).collect();
        let (is, it) = if set.len() == 1 { ("is", "it is") } else { ("are", "they are") };
        let does = later.does;
        (!set.is_empty()).then(|| format!("{} {is} set, but this version does not {does} yet: {it} ignored", set.join(", ")))
    };
    LATER.iter().filter_map(told).collect()
}
