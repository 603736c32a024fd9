//! Looks at the tail of a write-ahead log before SQLite does.
//!
//! SQLite takes a WAL up to the last commit before the first frame whose salt or checksum is wrong, and says nothing of what
//! comes behind. Frames there that carry this WAL's salts were written after its last restart. One commit among them, at the
//! very end, may be an append that was under way when the power went; more than one were acknowledged.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use crate::sqlite::{WAL_FRAME_HEADER as FRAME_HEADER, WAL_HEADER as HEADER};

/// What SQLite will drop of a write-ahead log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dropped {
    /// Commits whose end can still be seen.
    pub(crate) commits: u64,
    /// Bytes behind the last commit that SQLite takes, up to the last that belong to this WAL.
    pub(crate) bytes: u64,
    /// The file's header itself is damaged: all of it will be dropped.
    pub(crate) header: bool,
}

/// Reads the file; nothing is dropped where there is none.
pub(crate) fn look(path: &Path) -> io::Result<Dropped> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Dropped::default()),
        other => other?,
    };
    let length = file.metadata()?.len();
    let mut file = BufReader::with_capacity(1 << 20, file);
    let mut header = [0; HEADER];
    if length < HEADER as u64 {
        return Ok(Dropped::default());
    }
    file.read_exact(&mut header)?;
    let magic = be(&header, 0);
    let little = magic == 0x377f_0682;
    let page = be(&header, 8) as usize;
    let sum = checksum((0, 0), &header[..24], little);
    if magic & !1 != 0x377f_0682 || sum != (be(&header, 24), be(&header, 28)) || !(512..=65536).contains(&page) {
        // A file of zeros is one that was never written.
        let header = header != [0; HEADER];
        return Ok(Dropped { header, bytes: if header { length } else { 0 }, ..Dropped::default() });
    }
    let mut frame = vec![0; FRAME_HEADER + page];
    let (mut running, mut intact) = (sum, true);
    let (mut at, mut taken, mut last, mut commits) = (HEADER as u64, HEADER as u64, HEADER as u64, 0);
    while at + frame.len() as u64 <= length {
        file.read_exact(&mut frame)?;
        at += frame.len() as u64;
        let ours = frame[8..16] == header[16..24];
        let is_commit = be(&frame, 4) != 0;
        if intact {
            running = checksum(checksum(running, &frame[..8], little), &frame[FRAME_HEADER..], little);
            intact = ours && be(&frame, 0) != 0 && running == (be(&frame, 16), be(&frame, 20));
        }
        if intact && is_commit {
            taken = at;
        }
        if ours {
            last = at;
            commits += u64::from(!intact && is_commit);
        }
    }
    // Whole frames without a commit behind them are an append under way: only damage counts.
    let bytes = if intact { 0 } else { last.saturating_sub(taken) };
    Ok(Dropped { commits, bytes, header: false })
}

fn checksum((mut a, mut b): (u32, u32), bytes: &[u8], little: bool) -> (u32, u32) {
    let word = |four: &[u8]| {
        let four = four.try_into().unwrap_or_default();
        if little { u32::from_le_bytes(four) } else { u32::from_be_bytes(four) }
    };
    for pair in bytes.chunks_exact(8) {
        a = a.wrapping_add(word(&pair[..4])).wrapping_add(b);
        b = b.wrapping_add(word(&pair[4..])).wrapping_add(a);
    }
    (a, b)
}

fn be(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap_or_default())
}
