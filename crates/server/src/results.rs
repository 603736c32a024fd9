//! The results of events that did not fire, under the ids of their events: for `REDIS_RESULTS=all`.

use anomaly_engine::frame::{Frame, Position, RecordRef};
use anomaly_engine::{Point, SeriesKey, Verdict};

/// What became of an event that has an id, and did not fire.
#[derive(Clone, Debug, PartialEq)]
pub struct EventResult {
    /// The event's id, or the one that was made for it.
    pub id: String,
    /// `metric`, `timestamp`, `value`, …, as the hash of a result has them.
    pub fields: Vec<(&'static str, String)>,
}

/// The results of a frame, whose points are given in the order of positions.
pub fn results_of(frame: &Frame<'_>, points: &[Point]) -> Vec<EventResult> {
    let mut results = Vec::new();
    for (first, record) in frame.records().flatten() {
        let RecordRef::Events(batch) = record else { continue };
        for (row, at) in batch.rows().zip(first..) {
            let position = Position { frame: frame.number, row: at };
            let id = row.id.map(str::to_owned).or_else(|| row.made_id.then(|| position.made_id()));
            let point = points.binary_search_by_key(&position, |point| point.position).ok().map(|i| &points[i]);
            let (Some(id), Some(point)) = (id, point.filter(|point| point.verdict != Verdict::Anomaly)) else { continue };
            let key = batch.series.get(row.series as usize).and_then(|series| SeriesKey::from_bytes(series.key).ok());
            let Some(key) = key else { continue };
            results.push(EventResult { id, fields: fields(&key, point) });
        }
    }
    results
}

fn fields(key: &SeriesKey, point: &Point) -> Vec<(&'static str, String)> {
    let verdict = match point.verdict {
        Verdict::Anomaly => "anomaly",
        Verdict::Normal => "normal",
        Verdict::TooFew => "too_few",
        Verdict::Late => "late",
    };
    let z_score = point.judgement.z_score.map(|z| format!("{z:?}")).unwrap_or_default();
    vec![
        ("metric", key.metric().to_owned()),
        ("series", key.name()),
        ("timestamp", point.timestamp.to_string()),
        ("value", format!("{:?}", point.value)),
        ("z_score", z_score),
        ("verdict", verdict.to_owned()),
        ("anomaly", "0".to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use anomaly_engine::frame::{BatchBuilder, FrameBuilder, Origin, Record};
    use anomaly_engine::{Engine, EngineConfig, Event, Outputs, Timestamp};

    use super::*;

    #[test]
    fn events_with_ids_that_did_not_fire_have_results() {
        let mut batch = BatchBuilder::with_made_ids();
        let values = [1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 99.0];
        for (value, n) in values.into_iter().zip(1..) {
            let id = (n == 6).then_some("mine");
            let timestamp = Timestamp::from_seconds(n);
            batch.push(&Event { metric: "m", labels: &[], timestamp, value, id, meta: None }, n as u64);
        }
        let mut frame = FrameBuilder::new(Timestamp::from_seconds(9));
        frame.push(&Record::Events(batch.finish(Origin::http())));
        let bytes = frame.seal(3);
        let frame = Frame::open(3, &bytes).unwrap();
        let mut engine = Engine::new(EngineConfig::default(), 1);
        engine.keep_points(true);
        let mut outputs = Outputs::default();
        engine.apply(&frame, &mut outputs).unwrap();
        assert_eq!(outputs.anomalies.len(), 1);
        let results = results_of(&frame, &outputs.points);
        assert_eq!(results.iter().map(|result| result.id.as_str()).collect::<Vec<_>>(), ["3-0", "3-1", "3-2", "3-3", "3-4", "mine"]);
        assert!(results[0].fields.contains(&("verdict", "too_few".into())) && results[5].fields.contains(&("verdict", "normal".into())));
    }
}
