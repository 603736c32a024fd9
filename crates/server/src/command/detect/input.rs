//! Files, packed files and standard input, as something that can be read and sought in.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use anomaly_engine::parse::unpack;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::command::terminal::{fitted, harmless};

/// From which size on a file has a bar.
const SHOWN_BYTES: u64 = 1 << 20;
/// Columns of a file's name before its bar.
const NAME_COLUMNS: usize = 30;

/// An open input: the file itself, or a temporary one with what was unpacked or came by standard input.
#[derive(Debug)]
pub(super) struct Input {
    name: String,
    file: File,
    /// Where the next byte is read.
    at: u64,
    bar: ProgressBar,
}

impl Input {
    /// Opens a path, or standard input for `-`; shows how far it is if `progress`.
    ///
    /// # Errors
    /// It is not there, is a folder, may not be read; a packed file is damaged or cut.
    pub(super) fn open(path: &Path, progress: bool) -> io::Result<Self> {
        let name = path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
        if path == Path::new("-") {
            return Self::spool(io::stdin().lock(), "stdin".into(), bar(0, "standard input", progress));
        }
        let mut file = File::open(path).map_err(|error| io::Error::new(error.kind(), plain(&error)))?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "is a folder: name the files in it"));
        }
        if !metadata.is_file() {
            let bar = bar(0, &name, progress);
            return Self::spool(file, name, bar);
        }
        let bar = bar(metadata.len(), &name, progress);
        let mut start = [0; 4];
        let n = read_up_to(&mut file, &mut start)?;
        file.seek(SeekFrom::Start(0))?;
        if is_packed(&start[..n]) { Self::spool(file, name, bar) } else { Ok(Self { name, file, at: 0, bar }) }
    }

    /// Unpacks what is packed into a temporary file, which goes with the process.
    fn spool(raw: impl Read, name: String, bar: ProgressBar) -> io::Result<Self> {
        let mut file = tempfile::tempfile()?;
        let mut out = io::BufWriter::new(&mut file);
        unpack(bar.wrap_read(BufReader::new(raw)), u64::MAX, &mut out).map_err(|error| io::Error::other(error.to_string()))?;
        io::Write::flush(&mut out)?;
        drop(out);
        file.seek(SeekFrom::Start(0))?;
        bar.reset();
        bar.set_length(file.metadata()?.len());
        Ok(Self { name, file, at: 0, bar })
    }

    /// The name after which a series may be named: the file's, without folders.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Shows how far it is.
    pub(super) fn bar(&self) -> ProgressBar {
        self.bar.clone()
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.at += n as u64;
        self.bar.set_position(self.at);
        Ok(n)
    }
}

impl Seek for Input {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = self.file.seek(to)?;
        Ok(self.at)
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// How a path is told: standard input by name.
pub(super) fn shown(path: &Path) -> String {
    if path == Path::new("-") { "standard input".into() } else { path.display().to_string() }
}

/// The message of an error without the system's number for it.
fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "is not there".into(),
        io::ErrorKind::PermissionDenied => "may not be read".into(),
        _ => error.to_string(),
    }
}

/// Whether a file must go through [`unpack`] before it can be read: gzip, zstd (also behind a frame to skip), a byte order mark.
fn is_packed(start: &[u8]) -> bool {
    const STARTS: [&[u8]; 5] = [b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf"];
    let skipped = start.len() == 4 && start[0] & 0xf0 == 0x50 && start[1..] == [0x2a, 0x4d, 0x18];
    skipped || STARTS.iter().any(|known| start.starts_with(known))
}

fn read_up_to(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut n = 0;
    while n < buffer.len() {
        match file.read(&mut buffer[n..])? {
            0 => break,
            read => n += read,
        }
    }
    Ok(n)
}

/// A bar on standard error; of what has no length, a count of bytes; none for what is read in a blink.
fn bar(bytes: u64, name: &str, progress: bool) -> ProgressBar {
    if !progress || (1..SHOWN_BYTES).contains(&bytes) {
        return ProgressBar::hidden();
    }
    let (bar, template) = if bytes == 0 {
        (ProgressBar::no_length(), "{spinner} {msg}  {bytes}  {binary_bytes_per_sec}")
    } else {
        (ProgressBar::new(bytes), "{msg}  {wide_bar}  {percent:>3} %  {binary_bytes_per_sec}  {eta} left")
    };
    bar.set_draw_target(ProgressDrawTarget::stderr());
    bar.set_message(fitted(&harmless(name), NAME_COLUMNS));
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.with_style(style.progress_chars("━╸─"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_opened_is_told_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let message = |path: &Path| Input::open(path, false).map(|_| ()).unwrap_err().to_string();
        assert_eq!(message(&folder.path().join("absent.csv")), "is not there");
        assert_eq!(message(folder.path()), "is a folder: name the files in it");
    }

    #[test]
    fn packed_and_wide_text_is_told_by_its_first_bytes() {
        assert!(is_packed(b"\x1f\x8b\x08\x00") && is_packed(b"\x28\xb5\x2f\xfd") && is_packed(b"\xff\xfet\0"));
        assert!(is_packed(b"\xef\xbb\xbft") && is_packed(b"\x50\x2a\x4d\x18"));
        assert!(!is_packed(b"time") && !is_packed(b"") && !is_packed(b"\x1f"));
    }
}
