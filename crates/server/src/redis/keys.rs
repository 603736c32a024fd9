//! The keys under which everything lies. All but the familiar ones share one hash tag.

use anomaly_engine::{NANOS, Timestamp};

/// The hash tag of all keys but those of partitions' checkpoints and the familiar ones.
pub const TAG: &str = "anomaly";
/// Frames: entry `N-0` is frame N, with the field `f` its bytes, `e` its events, `a` all events up to its end.
pub const LOG: &[u8] = b"{anomaly}:log";
/// Writes to the store: entry `N-0` is write N, with the field `w` its bytes.
pub const JOURNAL: &[u8] = b"{anomaly}:journal";
/// Counters and positions, a hash: see [`field`].
pub const STATE: &[u8] = b"{anomaly}:state";
/// What all roles count, a hash by name.
pub const COUNTS: &[u8] = b"{anomaly}:counts";
/// The hashes of all series that may enter the log.
pub const KNOWN: &[u8] = b"{anomaly}:known";
/// The names of all series, sorted.
pub const NAMES: &[u8] = b"{anomaly}:names";
/// What is known of each series, by hash.
pub const SERIES: &[u8] = b"{anomaly}:series";
/// Recent points, a stream of chunks.
pub const POINTS: &[u8] = b"{anomaly}:points";
/// The manifest of the newest checkpoint.
pub const CHECKPOINT: &[u8] = b"{anomaly}:checkpoint";
/// The manifest of the newest copy of the store.
pub const SNAPSHOT: &[u8] = b"{anomaly}:snapshot";
/// Which lease allows to write what only the owner may.
pub const LEASE: &[u8] = b"{anomaly}:lease";
/// The formats of checkpoints that the processors read, and when each said so last; a hash.
pub const FORMATS: &[u8] = b"{anomaly}:formats";
/// The prefix of both keys of the lease.
pub const PREFIX: &str = "{anomaly}:";
/// The familiar list that producers push JSON to.
pub const RAW_EVENTS: &[u8] = b"raw_events";
/// The hash tag of what belongs to it: it may lie elsewhere.
pub const RAW_EVENTS_TAG: &str = "raw_events";
/// The number of what was taken from it last, a hash.
pub const RAW_STATE: &[u8] = b"{raw_events}:state";
/// Holds the token of who moves it.
pub const RAW_OWNER: &[u8] = b"{raw_events}:owner";

/// Holds the token of a partition's owner, beside the journal that it writes to.
pub fn owner_of(partition: u32) -> Vec<u8> {
    format!("{{anomaly}}:owner:{partition}").into_bytes()
}

/// The hash tag of a partition's checkpoints.
pub fn partition_tag(partition: u32) -> String {
    format!("p{partition}")
}

/// The same beside its checkpoints, which lie elsewhere: they are large.
pub fn checkpoint_owner_of(partition: u32) -> Vec<u8> {
    format!("{{p{partition}}}:owner").into_bytes()
}

/// The manifest of the newest checkpoint of a partition.
pub fn checkpoint_of(partition: u32) -> Vec<u8> {
    format!("{{p{partition}}}:checkpoint").into_bytes()
}

/// Fields of [`STATE`]. What each owner of a partition notes for itself has the partition behind it: see
/// [`Share::field`](crate::share::Share::field).
pub mod field {
    /// The last frame of the log.
    pub const FRAME: &str = "frame";
    /// Events that were ever appended.
    pub const APPENDED: &str = "appended";
    /// Events up to P.
    pub const JUDGED: &str = "judged";
    /// The last write of the journal.
    pub const WRITE: &str = "write";
    /// The last write that nothing can undo any more: readers go no further.
    pub const SAFE: &str = "safe";
    /// The frame up to which events are judged, and the one up to which series and points of them are shown.
    pub const REACHED: &str = "reached";
    pub const SHOWN: &str = "shown";
    /// How many replicas the owner waits for.
    pub const WAIT_REPLICAS: &str = "wait_replicas";
    /// What tells the last write from others of its number.
    pub const CHAIN: &str = "chain";
    /// The number of the last anomaly that was published.
    pub const PUBLISHED: &str = "published";
    /// The number of the last anomaly that was written to Kafka.
    pub const PRODUCED: &str = "produced";
    /// The identity of the store.
    pub const STORE: &str = "store";
    /// What the owner's engine counts: late events, duplicates, redelivered rows, bytes of state, series.
    pub const LATE: &str = "late";
    pub const DUPLICATES: &str = "duplicates";
    pub const REDELIVERED: &str = "redelivered";
    pub const MEMORY: &str = "memory";
    pub const MEMORY_LIMIT: &str = "memory_limit";
    pub const N_SERIES: &str = "series";
    /// Events that it has judged.
    pub const EVENTS: &str = "events";
    /// With the log on Kafka: the last owner of a partition, and its P.
    pub const EPOCH: &str = "epoch";
    pub const COMMITTED: &str = "committed";
    /// The topic of the log and its partitions, for ever.
    pub const LOG_TOPIC: &str = "log_topic";
}

/// The hour in which something happens, since 1970.
pub fn hour(at: Timestamp) -> i64 {
    at.nanos().div_euclid(3600 * NANOS)
}

/// The counter of series that were let in within an hour.
pub fn new_series(hour: i64) -> String {
    format!("new_series:{hour}")
}

/// What was taken from [`RAW_EVENTS`] under a number, and is not in the log yet.
pub fn taken(number: u64) -> Vec<u8> {
    format!("{{raw_events}}:taken:{number}").into_bytes()
}

/// The answer to an `Idempotency-Key`.
pub fn answer(key: &str) -> Vec<u8> {
    format!("{{anomaly}}:answer:{key}").into_bytes()
}

/// An upload, a hash: the field `row`, and one for each file by its number.
pub fn upload(id: &str) -> Vec<u8> {
    format!("{{anomaly}}:upload:{id}").into_bytes()
}

/// The id of the upload that came with an `Idempotency-Key`.
pub fn upload_by_key(key: &str) -> Vec<u8> {
    format!("{{anomaly}}:upload-key:{key}").into_bytes()
}

/// Is there while a replica is.
pub fn alive(replica: &str) -> Vec<u8> {
    format!("{{anomaly}}:alive:{replica}").into_bytes()
}

/// The ids of the uploads that a replica is taking.
pub fn running(replica: &str) -> Vec<u8> {
    format!("{{anomaly}}:running:{replica}").into_bytes()
}
