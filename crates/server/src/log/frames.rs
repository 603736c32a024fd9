//! What a group appends: one frame, or one for each partition that it has something for.

use anomaly_engine::Timestamp;
use anomaly_engine::frame::{Batch, FrameBuilder, Record, partition_of};

/// Into which frames a log divides what is appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parts {
    /// The log is one.
    One,
    /// Of so many partitions, each series in its own.
    Partitions(u32),
    /// The owner's of one partition, who says who it is.
    Owner { partition: u32, epoch: u64 },
}

/// Where a record stands in what is appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub partition: u32,
    pub row: u32,
}

/// A frame, its partition, and its events.
#[derive(Debug)]
pub struct Part {
    pub partition: u32,
    pub frame: FrameBuilder,
    pub events: u64,
}

/// The frames of a group.
#[derive(Debug)]
pub struct Frames {
    arrival: Timestamp,
    of: Parts,
    parts: Vec<Part>,
}

impl Frames {
    /// None yet; what comes arrived at `arrival`.
    pub fn new(arrival: Timestamp, of: Parts) -> Self {
        Self { arrival, of, parts: Vec::new() }
    }

    /// Puts events in; returns where the first stands, and in which partitions some are, where there are several.
    pub fn push_events(&mut self, batch: Batch) -> (Place, Vec<u32>) {
        let Parts::Partitions(of) = self.of else {
            let events = batch.len() as u64;
            let part = self.part(0);
            part.events += events;
            return (Place { partition: part.partition, row: part.frame.push(&Record::Events(batch)) }, Vec::new());
        };
        // A batch names its series in the order in which they come.
        let first = partition_of(batch.hash(0), of);
        let (mut place, mut all) = (Place { partition: first, row: 0 }, Vec::new());
        for (partition, batch) in batch.split(of) {
            let part = self.part(partition);
            part.events += batch.len() as u64;
            let row = part.frame.push(&Record::Events(batch));
            if partition == first {
                place.row = row;
            }
            all.push(partition);
        }
        (place, all)
    }

    /// Puts something else in, which concerns one series or, said by the owner, all of its partition.
    pub fn push(&mut self, record: &Record) -> Place {
        let partition = match (self.of, record) {
            (Parts::Partitions(of), Record::Forget(key)) => partition_of(key.hash(), of),
            _ => 0,
        };
        let part = self.part(partition);
        Place { partition: part.partition, row: part.frame.push(record) }
    }

    /// Rows in all of them.
    pub fn rows(&self) -> usize {
        self.parts.iter().map(|part| part.frame.rows() as usize).sum()
    }

    /// Bytes of all of them.
    pub fn byte_len(&self) -> usize {
        self.parts.iter().map(|part| part.frame.byte_len()).sum()
    }

    /// Events in all of them.
    pub fn events(&self) -> u64 {
        self.parts.iter().map(|part| part.events).sum()
    }

    /// The frame of a log that is one; it may have no rows.
    pub fn into_one(mut self) -> Part {
        self.part(0);
        self.parts.swap_remove(0)
    }

    /// They, in no order.
    pub fn into_parts(self) -> Vec<Part> {
        self.parts
    }

    fn part(&mut self, partition: u32) -> &mut Part {
        let partition = if let Parts::Owner { partition, .. } = self.of { partition } else { partition };
        let at = self.parts.iter().position(|part| part.partition == partition).unwrap_or_else(|| {
            let mut frame = FrameBuilder::new(self.arrival);
            if let Parts::Owner { epoch, .. } = self.of {
                frame.push(&Record::Owner(epoch));
            }
            self.parts.push(Part { partition, frame, events: 0 });
            self.parts.len() - 1
        });
        &mut self.parts[at]
    }
}
