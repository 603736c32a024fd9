//! Copies of the store on Redis, from which a process begins that has none: the file, compressed, in chunks. Behind a copy the journal
//! begins anew.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use super::StoreError;
use super::sqlite::{Store, StoreReader};
use crate::data_dir::DataDir;
use crate::redis::chunks::{self, ChunkWriter, ChunksError, SNAPSHOT};
use crate::redis::{Link, RedisError, keys};

const CHUNK_BYTES: usize = 1 << 20;
const COMPRESSION: i32 = 3;
/// A copy is due when the journal has grown by so many bytes, and by twice the last copy.
const MIN_JOURNAL_BYTES: u64 = 32 << 20;

/// Why a copy was not written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Chunks(#[from] ChunksError),
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Writes copies when they are due.
#[derive(Debug)]
pub struct Snapshots {
    store: StoreReader,
    /// Bytes of the last copy that was written here.
    last_bytes: u64,
}

impl Snapshots {
    /// Copies of this store.
    pub fn new(store: StoreReader) -> Self {
        Self { store, last_bytes: 0 }
    }

    /// Writes a copy where the journal has become long.
    ///
    /// # Errors
    /// The store cannot be read, or Redis does not take it: the journal stays as it is.
    pub fn write_if_due(&mut self, link: &mut Link, token: &str) -> Result<(), SnapshotError> {
        let mut command = redis::cmd("MEMORY");
        command.arg("USAGE").arg(keys::JOURNAL).arg("SAMPLES").arg(50);
        let journal_bytes = link.query::<Option<u64>>(&command)?.unwrap_or(0);
        if journal_bytes >= MIN_JOURNAL_BYTES.max(2 * self.last_bytes) {
            self.write(link, token)?;
        }
        Ok(())
    }

    fn write(&mut self, link: &mut Link, token: &str) -> Result<(), SnapshotError> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("copy.db");
        let applied = self.store.copy_to(&path)?;
        let mut writer = ChunkWriter::begin(link, SNAPSHOT, token)?;
        let mut packed = zstd::stream::read::Encoder::new(File::open(&path)?, COMPRESSION)?;
        loop {
            let mut chunk = Vec::with_capacity(CHUNK_BYTES);
            if packed.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut chunk)? == 0 {
                break;
            }
            writer.chunk(link, &chunk)?;
        }
        self.last_bytes = writer.finish(link, applied + 1)?;
        tracing::info!(entry = applied, bytes = self.last_bytes, "copy of the store written to redis");
        Ok(())
    }
}

/// Opens the store that follows the journal in `dir`: as it was left, where the journal goes on from there; else from the newest copy;
/// else empty.
///
/// # Errors
/// Redis is away, a copy cannot be read, or the store cannot be opened.
pub fn open_view(dir: &DataDir, link: &mut Link) -> Result<Store, SnapshotError> {
    let identity = identity(link)?;
    let mut view = Store::open_view(dir)?;
    let first: redis::streams::StreamRangeReply =
        link.query(redis::cmd("XRANGE").arg(keys::JOURNAL).arg("-").arg("+").arg("COUNT").arg(1))?;
    let first = first.ids.first().and_then(|entry| crate::log::stream::number_of(&entry.id));
    let last = link.query::<Option<u64>>(redis::cmd("HGET").arg(keys::STATE).arg(keys::field::WRITE))?.unwrap_or(0);
    let mine = view.applied() == 0 || view.reader().extent()?.store == identity;
    let goes_on = mine && view.applied() <= last && first.map_or(view.applied() == last, |first| first <= view.applied() + 1);
    if !goes_on {
        drop(view);
        Store::remove_view(dir)?;
        if let Some(manifest) = chunks::newest(link, SNAPSHOT)? {
            let path = Store::view_path(dir);
            load(link, manifest, &path)?;
        }
        view = Store::open_view(dir)?;
    }
    view.set_identity(&identity)?;
    Ok(view)
}

fn load(link: &mut Link, manifest: chunks::Manifest, path: &Path) -> Result<(), SnapshotError> {
    let mut out = zstd::stream::write::Decoder::new(File::create(path)?)?;
    for chunk in chunks::chunks(link, manifest) {
        out.write_all(&chunk?)?;
    }
    out.flush()?;
    Ok(())
}

/// The identity of the store that all processes share, made by the first.
fn identity(link: &mut Link) -> Result<String, SnapshotError> {
    let mut made = redis::cmd("HSETNX");
    made.arg(keys::STATE).arg(keys::field::STORE).arg(&crate::ids::new_id()[..16]);
    link.query::<u8>(&made)?;
    Ok(link.query(redis::cmd("HGET").arg(keys::STATE).arg(keys::field::STORE))?)
}
