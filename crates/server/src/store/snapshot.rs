//! Copies of the store on Redis, from which a process begins that has none: the file, compressed, in chunks. Behind a copy the journal
//! begins anew.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use redis::streams::{StreamId, StreamRangeReply};

use super::StoreError;
use super::sqlite::{Store, StoreReader};
use crate::data_dir::DataDir;
use crate::redis::chunks::{self, ChunkWriter, ChunksError, Kind};
use crate::redis::{Fence, Link, RedisError, Script, keys};

const CHUNK_BYTES: usize = 1 << 20;
const COMPRESSION: i32 = 3;
/// A copy is due when the journal has grown by so many bytes, and by twice the last copy.
const MIN_JOURNAL_BYTES: u64 = 32 << 20;
/// Where room is short.
const HURRY_JOURNAL_BYTES: u64 = 1 << 20;

/// KEYS: state. ARGV: the identity that it gets where it has none.
static IDENTITY: Script = Script::new(
    "naming the store",
    "#!lua flags=allow-oom
redis.call('HSETNX', KEYS[1], 'store', ARGV[1])
return redis.call('HGET', KEYS[1], 'store')",
);

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
    /// Where a copy lies while it is sent.
    folder: PathBuf,
    /// Bytes of the last copy that was written here.
    last_bytes: u64,
}

impl Snapshots {
    /// Copies of this store, made in a directory.
    pub fn new(store: StoreReader, dir: &DataDir) -> Self {
        let folder = dir.path().map_or_else(std::env::temp_dir, Path::to_owned);
        Self { store, folder, last_bytes: 0 }
    }

    /// Writes a copy where the journal has become long; where room is short, sooner.
    ///
    /// # Errors
    /// The store cannot be read, or Redis does not take it: the journal stays as it is.
    pub fn write_if_due(&mut self, link: &mut Link, fence: &Fence, hurried: bool) -> Result<(), SnapshotError> {
        let mut command = redis::cmd("MEMORY");
        command.arg("USAGE").arg(keys::JOURNAL).arg("SAMPLES").arg(50);
        let journal_bytes = link.query::<Option<u64>>(&command)?.unwrap_or(0);
        // Where room is short, what a copy makes up for must still be more than it.
        let least = if hurried { HURRY_JOURNAL_BYTES.max(self.last_bytes / 2) } else { MIN_JOURNAL_BYTES.max(2 * self.last_bytes) };
        if journal_bytes >= least {
            self.write(link, fence)?;
        }
        Ok(())
    }

    fn write(&mut self, link: &mut Link, fence: &Fence) -> Result<(), SnapshotError> {
        let folder = tempfile::tempdir_in(&self.folder)?;
        let path = folder.path().join("copy.db");
        let applied = self.store.copy_to(&path)?;
        let mut writer = ChunkWriter::begin(link, Kind::Snapshot, fence)?;
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
    let mut view = match Store::open_view(dir) {
        Ok(view) => view,
        Err(fault @ StoreError::Newer { .. }) => return Err(fault.into()),
        Err(fault) => {
            tracing::warn!("what is kept here cannot be read, it is begun anew from redis: {fault}");
            Store::remove_view(dir)?;
            Store::open_view(dir)?
        }
    };
    let known = view.applied();
    let goes_on = known == 0 && journal_is_whole(link)? || known > 0 && view.reader().extent()?.store == identity && goes_on(link, &view)?;
    if known > 0 && !goes_on {
        tracing::error!(
            entry = known,
            "what is kept here does not go on in redis (it was emptied, restored, or is ahead): it is dropped, and begun anew from redis"
        );
    }
    if !goes_on {
        drop(view);
        Store::remove_view(dir)?;
        if let Some(manifest) = chunks::newest(link, &Kind::Snapshot)? {
            let path = Store::view_path(dir);
            load(link, manifest, &path)?;
        }
        view = Store::open_view(dir)?;
    }
    view.set_identity(&identity)?;
    Ok(view)
}

/// Whether the journal goes on where a store stands: the next entry was written behind the last one done, or that is the last of all.
fn goes_on(link: &mut Link, view: &Store) -> Result<bool, SnapshotError> {
    let next = entry_at(link, view.applied() + 1)?;
    if let Some(next) = next {
        return Ok(next.get::<String>("p").as_deref() == Some(view.chain()));
    }
    let mut command = redis::cmd("HMGET");
    command.arg(keys::STATE).arg(keys::field::WRITE).arg(keys::field::CHAIN);
    let (written, chain): (Option<u64>, Option<String>) = link.query(&command)?;
    Ok(written == Some(view.applied()) && chain.as_deref() == Some(view.chain()))
}

/// Whether the journal is there from its first entry on, so that an empty store may follow it.
fn journal_is_whole(link: &mut Link) -> Result<bool, SnapshotError> {
    let written = link.query::<Option<u64>>(redis::cmd("HGET").arg(keys::STATE).arg(keys::field::WRITE))?.unwrap_or(0);
    Ok(written == 0 || entry_at(link, 1)?.is_some())
}

fn entry_at(link: &mut Link, number: u64) -> Result<Option<StreamId>, SnapshotError> {
    let mut command = redis::cmd("XRANGE");
    let id = format!("{number}-0");
    command.arg(keys::JOURNAL).arg(&id).arg(&id);
    let reply: StreamRangeReply = link.query(&command)?;
    Ok(reply.ids.into_iter().next())
}

fn load(link: &mut Link, manifest: chunks::Manifest, path: &Path) -> Result<(), SnapshotError> {
    // Cut by a crash it must not be taken for the whole.
    let part = path.with_extension("part");
    let mut out = zstd::stream::write::Decoder::new(File::create(&part)?)?;
    for chunk in chunks::chunks(link, manifest) {
        out.write_all(&chunk?)?;
    }
    out.flush()?;
    out.into_inner().sync_all()?;
    std::fs::rename(part, path)?;
    Ok(())
}

/// The identity of the store that all processes share, made by the first.
fn identity(link: &mut Link) -> Result<String, SnapshotError> {
    Ok(link.eval(&IDENTITY, &[keys::STATE], &[&crate::ids::new_id().as_bytes()[..16]])?)
}
