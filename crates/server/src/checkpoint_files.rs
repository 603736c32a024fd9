//! Checkpoints as files: checksummed chunks, then a manifest, then a footer that makes them whole.
//!
//! ```text
//! file   = magic · chunk* · manifest · footer
//! chunk  = length u64 · checksum u64 (XXH3, seeded with the chunk's number) · bytes
//! footer = lowest frame u64 · number of chunks u64 · manifest's length u64 · its checksum u64 · checksum of the footer so far u64 · magic
//! ```
//! A file gets its name, a number one above the newest, when all of it is durable. The last two are kept.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::data_dir::DataDir;

const FOLDER: &str = "checkpoints";
const MAGIC: &[u8; 8] = b"anomckp1";
const FOOTER: usize = 48;
const KEPT: usize = 2;
/// So much is written between syncs, so that the one at the end is short and appends to the log do not wait behind it.
const SYNC_BYTES: u64 = 4 << 20;

/// What went wrong with a checkpoint.
#[derive(Debug, thiserror::Error)]
#[error("checkpoint {} cannot be {doing}: {source}", path.display())]
pub struct CheckpointError {
    path: PathBuf,
    doing: &'static str,
    source: io::Error,
}

impl CheckpointError {
    /// Whether there was no room on disk.
    pub fn is_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// Writes one checkpoint. Dropped before it is finished, it leaves nothing. In memory it is kept nowhere.
#[derive(Debug)]
pub struct CheckpointWriter {
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    folder: PathBuf,
    path: PathBuf,
    number: u64,
    file: BufWriter<File>,
    chunks: u64,
    bytes: u64,
    unsynced: u64,
}

/// A durable checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Finished {
    /// Its size.
    pub bytes: u64,
    /// Frames below this number are needed by none of the kept checkpoints. `None` until two are kept: were the only one
    /// damaged, the log alone must do. In memory it is what the checkpoint itself needs.
    pub truncate_before: Option<u64>,
}

impl CheckpointWriter {
    /// Begins a checkpoint.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn begin(dir: &DataDir) -> Result<Self, CheckpointError> {
        let Some(path) = dir.path() else { return Ok(Self { open: None }) };
        let folder = path.join(FOLDER);
        let wrong = |source| CheckpointError { path: folder.clone(), doing: "written", source };
        fs::create_dir_all(&folder).map_err(wrong)?;
        let number = numbers(&folder).map_err(wrong)?.last().map_or(1, |newest| newest + 1);
        let path = folder.join(format!("{number:020}.tmp"));
        let begun = File::create(&path).and_then(|file| {
            let mut file = BufWriter::with_capacity(1 << 18, file);
            file.write_all(MAGIC).map(|()| file)
        });
        let file = begun.map_err(|source| CheckpointError { path: path.clone(), doing: "written", source })?;
        Ok(Self { open: Some(Open { folder, path, number, file, chunks: 0, bytes: MAGIC.len() as u64, unsynced: 0 }) })
    }

    /// Appends a chunk.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn chunk(&mut self, bytes: &[u8]) -> Result<(), CheckpointError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        open.chunk(bytes).map_err(|source| CheckpointError { path: open.path.clone(), doing: "written", source })
    }

    /// Ends the checkpoint, which needs the frames from number `lowest` on; it is durable when this returns, and older ones
    /// than the one before it are removed.
    ///
    /// # Errors
    /// The file cannot be written; then the ones before it are still there.
    pub fn finish(mut self, manifest: &[u8], lowest: u64) -> Result<Finished, CheckpointError> {
        let Some(open) = &mut self.open else { return Ok(Finished { bytes: 0, truncate_before: Some(lowest) }) };
        let finished =
            open.finish(manifest, lowest).map_err(|source| CheckpointError { path: open.path.clone(), doing: "written", source });
        if finished.is_ok() {
            self.open = None;
        }
        finished
    }
}

impl Drop for CheckpointWriter {
    fn drop(&mut self) {
        if let Some(open) = &self.open {
            let _ = fs::remove_file(&open.path);
        }
    }
}

impl Open {
    fn chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(&(bytes.len() as u64).to_le_bytes())?;
        self.file.write_all(&xxh3_64_with_seed(bytes, self.chunks).to_le_bytes())?;
        self.file.write_all(bytes)?;
        self.chunks += 1;
        self.bytes += 16 + bytes.len() as u64;
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= SYNC_BYTES {
            self.unsynced = 0;
            self.file.flush()?;
            self.file.get_ref().sync_data()?;
        }
        Ok(())
    }

    fn finish(&mut self, manifest: &[u8], lowest: u64) -> io::Result<Finished> {
        let mut footer = Vec::with_capacity(FOOTER);
        for number in [lowest, self.chunks, manifest.len() as u64, xxh3_64(manifest)] {
            footer.extend_from_slice(&number.to_le_bytes());
        }
        footer.extend_from_slice(&xxh3_64(&footer).to_le_bytes());
        footer.extend_from_slice(MAGIC);
        self.file.write_all(manifest)?;
        self.file.write_all(&footer)?;
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        fs::rename(&self.path, name(&self.folder, self.number))?;
        File::open(&self.folder)?.sync_all()?;
        // Durable from here on: what fails now costs room, not the checkpoint.
        let kept = numbers(&self.folder)?;
        let (old, kept) = kept.split_at(kept.len().saturating_sub(KEPT));
        for number in old {
            let _ = fs::remove_file(name(&self.folder, *number));
        }
        let lowests: Vec<u64> = kept.iter().filter_map(|&number| read_footer(&name(&self.folder, number)).ok()).map(|f| f.lowest).collect();
        let truncate_before = if lowests.len() == KEPT { lowests.into_iter().min() } else { None };
        Ok(Finished { bytes: self.bytes + (manifest.len() + FOOTER) as u64, truncate_before })
    }
}

/// A checkpoint that was read through and is whole.
#[derive(Debug)]
pub struct Loaded {
    /// What was given to [`CheckpointWriter::finish`].
    pub manifest: Vec<u8>,
    /// The first frame that it needs.
    pub lowest: u64,
    /// Newer ones that are damaged, in words: to be said at start.
    pub damaged: Vec<String>,
    chunks: Chunks,
}

impl Loaded {
    /// The chunks, as they were written.
    pub fn chunks(self) -> Chunks {
        self.chunks
    }
}

/// Reads the chunks of a checkpoint, each checked.
#[derive(Debug)]
pub struct Chunks {
    path: PathBuf,
    file: BufReader<File>,
    next: u64,
    n: u64,
}

impl Iterator for Chunks {
    type Item = Result<Vec<u8>, CheckpointError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == self.n {
            return None;
        }
        let chunk = self.read_chunk();
        self.next = if chunk.is_ok() { self.next + 1 } else { self.n };
        Some(chunk.map_err(|source| CheckpointError { path: self.path.clone(), doing: "read", source }))
    }
}

impl Chunks {
    fn open(path: &Path, n: u64) -> io::Result<Self> {
        let mut file = BufReader::with_capacity(1 << 18, File::open(path)?);
        let mut magic = [0; 8];
        file.read_exact(&mut magic)?;
        if magic != *MAGIC {
            return Err(invalid("it does not begin as a checkpoint"));
        }
        Ok(Self { path: path.to_owned(), file, next: 0, n })
    }

    fn read_chunk(&mut self) -> io::Result<Vec<u8>> {
        let length = take_u64(&mut self.file)?;
        let checksum = take_u64(&mut self.file)?;
        let mut bytes = Vec::new();
        // Not allocated ahead: the length itself may be damaged.
        self.file.by_ref().take(length).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != length || xxh3_64_with_seed(&bytes, self.next) != checksum {
            return Err(invalid("the checksum of a chunk does not match"));
        }
        Ok(bytes)
    }
}

/// The newest checkpoint that is whole. A damaged one is set aside (its name ends in `.damaged` then) and named in
/// [`Loaded::damaged`]; where none is whole, that is an error of the newest. Leftovers of unfinished ones are removed.
///
/// # Errors
/// There are checkpoints, and all are damaged.
pub fn load_newest(dir: &DataDir) -> Result<Option<Loaded>, CheckpointError> {
    let Some(folder) = dir.path().map(|path| path.join(FOLDER)).filter(|folder| folder.exists()) else { return Ok(None) };
    let found = numbers(&folder).map_err(|source| CheckpointError { path: folder.clone(), doing: "read", source })?;
    for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "tmp") {
            let _ = fs::remove_file(entry.path());
        }
    }
    let (mut damaged, mut first) = (Vec::new(), None);
    for number in found.into_iter().rev() {
        let path = name(&folder, number);
        match read_through(&path) {
            Ok((manifest, lowest, chunks)) => {
                // Only now that another one serves: else its file is what a person may still look at.
                for path in damaged.iter().map(|(path, _): &(PathBuf, String)| path) {
                    let _ = fs::rename(path, path.with_extension("damaged"));
                }
                let damaged = damaged.into_iter().map(|(_, words)| words).collect();
                return Ok(Some(Loaded { manifest, lowest, damaged, chunks }));
            }
            Err(source) => {
                damaged.push((path.clone(), format!("checkpoint {} is damaged: {source}", path.display())));
                first.get_or_insert(CheckpointError { path, doing: "read", source });
            }
        }
    }
    first.map_or(Ok(None), Err)
}

fn read_through(path: &Path) -> io::Result<(Vec<u8>, u64, Chunks)> {
    let footer = read_footer(path)?;
    let mut chunks = Chunks::open(path, footer.chunks)?;
    for chunk in chunks.by_ref() {
        chunk.map_err(|error| error.source)?;
    }
    let mut manifest = Vec::new();
    chunks.file.take(footer.manifest_bytes).read_to_end(&mut manifest)?;
    if manifest.len() as u64 != footer.manifest_bytes || xxh3_64(&manifest) != footer.manifest_checksum {
        return Err(invalid("the checksum of its manifest does not match"));
    }
    Ok((manifest, footer.lowest, Chunks::open(path, footer.chunks)?))
}

struct Footer {
    lowest: u64,
    chunks: u64,
    manifest_bytes: u64,
    manifest_checksum: u64,
}

fn read_footer(path: &Path) -> io::Result<Footer> {
    let mut file = File::open(path)?;
    let mut footer = [0; FOOTER];
    file.seek(SeekFrom::End(-(FOOTER as i64))).map_err(|_| invalid("it is cut"))?;
    file.read_exact(&mut footer)?;
    let mut words = &footer[..];
    let footer_read = Footer {
        lowest: take_u64(&mut words)?,
        chunks: take_u64(&mut words)?,
        manifest_bytes: take_u64(&mut words)?,
        manifest_checksum: take_u64(&mut words)?,
    };
    if take_u64(&mut words)? != xxh3_64(&footer[..32]) || words != MAGIC {
        return Err(invalid("it does not end as a checkpoint"));
    }
    Ok(footer_read)
}

fn take_u64(from: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    from.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn name(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:020}.checkpoint"))
}

/// The numbers of the finished checkpoints, oldest first.
fn numbers(folder: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "checkpoint") {
            numbers.extend(path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u64>().ok()));
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &DataDir, chunks: &[&[u8]], manifest: &[u8], lowest: u64) -> Finished {
        let mut writer = CheckpointWriter::begin(dir).unwrap();
        chunks.iter().for_each(|chunk| writer.chunk(chunk).unwrap());
        writer.finish(manifest, lowest).unwrap()
    }

    fn files(dir: &DataDir) -> Vec<String> {
        let folder = dir.path().unwrap().join(FOLDER);
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn loaded(dir: &DataDir) -> (Vec<u8>, u64, Vec<Vec<u8>>, Vec<String>) {
        let loaded = load_newest(dir).unwrap().unwrap();
        let (manifest, lowest, damaged) = (loaded.manifest.clone(), loaded.lowest, loaded.damaged.clone());
        (manifest, lowest, loaded.chunks().map(Result::unwrap).collect(), damaged)
    }

    #[test]
    fn the_newest_is_loaded_and_two_are_kept() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temp.path()).unwrap();
        assert!(load_newest(&dir).unwrap().is_none());
        assert_eq!(write(&dir, &[b"a"], b"one", 3).truncate_before, None, "the log must do while there is only one");
        let big = vec![7; 9 << 20];
        let finished = write(&dir, &[b"", &big], b"two", 2);
        assert_eq!(finished.truncate_before, Some(2));
        assert_eq!(finished.bytes, name(&dir.path().unwrap().join(FOLDER), 2).metadata().unwrap().len());
        assert_eq!(loaded(&dir), (b"two".to_vec(), 2, vec![vec![], big], vec![]));
        assert_eq!(write(&dir, &[], b"", 9).truncate_before, Some(2));
        assert_eq!(files(&dir), ["00000000000000000002.checkpoint", "00000000000000000003.checkpoint"]);
        assert_eq!(loaded(&dir), (vec![], 9, vec![], vec![]));
    }

    #[test]
    fn a_damaged_newest_falls_back_and_says_so_wherever_the_damage_is() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temp.path()).unwrap();
        write(&dir, &[b"old"], b"one", 1);
        write(&dir, &[b"new", b"newer"], b"two", 2);
        let path = name(&temp.path().join(FOLDER), 2);
        let whole = fs::read(&path).unwrap();
        let mut broken: Vec<_> = (0..whole.len()).map(|at| (at, whole.clone())).collect();
        broken.iter_mut().for_each(|(at, bytes)| bytes[*at] ^= 0x40);
        broken.extend((0..whole.len()).map(|length| (length, whole[..length].to_vec())));
        for (at, bytes) in broken {
            fs::write(&path, bytes).unwrap();
            let (manifest, lowest, chunks, damaged) = loaded(&dir);
            assert_eq!((&manifest[..], lowest, chunks), (&b"one"[..], 1, vec![b"old".to_vec()]), "{at}");
            assert!(damaged.len() == 1 && damaged[0].contains("2.checkpoint is damaged: "), "{at}: {damaged:?}");
            assert_eq!(files(&dir), ["00000000000000000001.checkpoint", "00000000000000000002.damaged"]);
        }
        fs::write(name(&temp.path().join(FOLDER), 1), b"").unwrap();
        let error = load_newest(&dir).unwrap_err().to_string();
        assert!(error.ends_with("1.checkpoint cannot be read: it is cut"), "{error}");
    }

    #[test]
    fn one_that_was_not_finished_leaves_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temp.path()).unwrap();
        write(&dir, &[], b"one", 1);
        let mut writer = CheckpointWriter::begin(&dir).unwrap();
        writer.chunk(b"half").unwrap();
        drop(writer);
        // What a kill leaves.
        fs::write(temp.path().join(FOLDER).join("00000000000000000002.tmp"), b"half").unwrap();
        assert_eq!(loaded(&dir).0, b"one");
        assert_eq!(files(&dir), ["00000000000000000001.checkpoint"]);
    }

    #[test]
    fn in_memory_nothing_is_kept_and_the_log_may_be_truncated() {
        let dir = DataDir::memory();
        assert_eq!(write(&dir, &[b"a"], b"m", 5).truncate_before, Some(5));
        assert!(load_newest(&dir).unwrap().is_none());
    }
}
