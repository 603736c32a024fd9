//! Which samples belong to the window of an event: the only place where this is computed.

use anomaly_detect::Bounds;

use crate::timestamp::Timestamp;

/// The window of an event at `at`: the samples with a time in (at − span, at], the event itself not among them yet.
///
/// A sample exactly `span` old is out, one a nanosecond younger is in; earlier arrivals at the same instant are in.
pub(crate) fn bounds(at: Timestamp, span: i64) -> Bounds {
    Bounds { after: at.plus(-span).nanos(), upto: at.nanos() }
}

/// Whether an event at `at` is too far behind the newest of its series to be judged; exactly `lateness` behind is not.
pub(crate) fn is_late(at: Timestamp, newest: Timestamp, lateness: i64) -> bool {
    newest.since(at) > lateness
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_open_at_its_old_end() {
        let bounds = bounds(Timestamp::from_nanos(1000), 300);
        assert_eq!((bounds.after, bounds.upto), (700, 1000));
    }

    #[test]
    fn exactly_the_allowed_lateness_is_in_time() {
        let at = Timestamp::from_nanos(100);
        assert!(!is_late(at, Timestamp::from_nanos(160), 60) && is_late(at, Timestamp::from_nanos(161), 60));
        assert!(!is_late(at, Timestamp::from_nanos(50), 60), "an event ahead of the newest is not late");
    }
}
