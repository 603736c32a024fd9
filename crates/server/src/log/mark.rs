//! The number of the last durable frame, in a file of its own: a witness of how far the log had got.
//!
//! It is written after each append and never synced, so it costs a microsecond and may be behind, but it is never ahead.
//! A log that ends before it has lost frames, which SQLite does not notice: a cut write-ahead log is a valid, shorter one.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

/// The file `events.mark`.
#[derive(Debug)]
pub(crate) struct Mark {
    file: File,
}

impl Mark {
    /// Opens the file; the number that stands in it, if one does.
    pub(crate) fn open(folder: &Path) -> io::Result<(Self, Option<u64>)> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(folder.join("events.mark"))?;
        let mut bytes = [0; 16];
        let read = file.read_exact_at(&mut bytes, 0).is_ok();
        let number = u64::from_le_bytes(bytes[..8].try_into().unwrap_or_default());
        let intact = read && bytes == encode(number);
        Ok((Self { file }, intact.then_some(number)))
    }

    /// Notes that all frames up to `number` are durable. What goes wrong only makes the witness silent.
    pub(crate) fn set(&self, number: u64) {
        let _ = self.file.write_all_at(&encode(number), 0);
    }
}

fn encode(number: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    let checksum = xxh3_64(&bytes[..8]);
    bytes[8..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}
