//! The wall clock, read in one place.

use std::time::{SystemTime, UNIX_EPOCH};

use anomaly_engine::Timestamp;

/// Now, as event time and time of arrival count it. A clock before 1970 reads as 1970.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}
