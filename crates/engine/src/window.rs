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

/// Whether a series whose last anomaly was at `last` has been quiet for longer than a window, `since_arrival` after its last
/// record arrived. Its newest event says how far its own time has come, and its silence since then how much further: one
/// rule for a source that goes on without anomalies, one that has fallen silent, and a file of last year.
pub(crate) fn is_quiet(last: Timestamp, newest: Timestamp, since_arrival: i64, span: i64) -> bool {
    newest.plus(since_arrival).since(last) > span
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
    fn a_series_is_quiet_after_more_than_a_window_whether_it_goes_on_or_not() {
        let at = Timestamp::from_nanos;
        assert!(!is_quiet(at(100), at(100), 300, 300) && is_quiet(at(100), at(100), 301, 300), "silent");
        assert!(!is_quiet(at(100), at(400), 0, 300) && is_quiet(at(100), at(401), 0, 300), "going on");
        assert!(is_quiet(at(100), at(350), 51, 300), "some of both");
    }

    #[test]
    fn exactly_the_allowed_lateness_is_in_time() {
        let at = Timestamp::from_nanos(100);
        assert!(!is_late(at, Timestamp::from_nanos(160), 60) && is_late(at, Timestamp::from_nanos(161), 60));
        assert!(!is_late(at, Timestamp::from_nanos(50), 60), "an event ahead of the newest is not late");
    }
}
