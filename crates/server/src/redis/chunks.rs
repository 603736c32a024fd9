//! Something large on Redis, in chunks, which counts when its manifest does: a checkpoint, a copy of the store.
//!
//! Chunks lie under keys that name the owner and a number, so that a zombie overwrites nobody's; a script checks the lease and that the
//! number rises, sets the manifest, and trims the stream that the chunks make up for. Chunks whose manifest never comes expire.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{Fence, Link, RedisError, Script, keys};

/// How long chunks without a manifest are kept.
const ORPHANS_SECONDS: u64 = 3600;

/// KEYS: chunk, what proves the owner. ARGV: token, bytes, seconds to live. Also without room: what it makes up for is more.
static CHUNK: Script = Script::new(
    "writing a chunk",
    "#!lua flags=allow-oom
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1",
);

/// KEYS: manifest, what proves the owner, stream, then the chunks. ARGV: token, number, manifest, the least id of the stream that is kept
/// (empty: all). Answers 2; 0 where it is not ours, 1 where the number does not rise or a chunk is gone. The chunks before expire.
static FINISH: Script = Script::new(
    "finishing a manifest",
    "#!lua flags=allow-oom
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
local before = redis.call('GET', KEYS[1])
if before and tonumber(cjson.decode(before).number) >= tonumber(ARGV[2]) then return 1 end
for i = 4, #KEYS do
  if redis.call('PERSIST', KEYS[i]) == 0 then return 1 end
end
redis.call('SET', KEYS[1], ARGV[3])
-- Not at once: somebody may just be reading them.
if before then
  for _, chunk in ipairs(cjson.decode(before).chunks) do redis.call('EXPIRE', chunk.key, 60) end
end
if ARGV[4] ~= '' then redis.call('XTRIM', KEYS[3], 'MINID', ARGV[4]) end
return 2",
);

/// What is kept in chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The engine's state, which makes up for the log.
    Checkpoint,
    /// The state of the engine of one partition, whose log is Kafka's.
    CheckpointOf(u32),
    /// A copy of the store, which makes up for the journal.
    Snapshot,
}

impl Kind {
    /// The key of its manifest; those of its chunks begin with it.
    fn manifest(&self) -> Vec<u8> {
        match self {
            Self::Checkpoint => keys::CHECKPOINT.to_vec(),
            Self::CheckpointOf(partition) => keys::checkpoint_of(*partition),
            Self::Snapshot => keys::SNAPSHOT.to_vec(),
        }
    }

    /// The stream whose beginning is not needed any more once it is there.
    fn stream(&self) -> Option<&'static [u8]> {
        match self {
            Self::Checkpoint => Some(keys::LOG),
            Self::CheckpointOf(_) => None,
            Self::Snapshot => Some(keys::JOURNAL),
        }
    }
}

/// What a manifest says.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Manifest {
    /// Rises with each.
    pub number: u64,
    /// The first entry of the stream that is still needed.
    pub lowest: u64,
    /// What the chunks are written in, where there is more than one format.
    #[serde(default)]
    pub format: u8,
    /// The chunks, in order.
    pub chunks: Vec<Chunk>,
}

/// A chunk: where it is, and its checksum (XXH3, seeded with its place).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Chunk {
    pub key: String,
    pub checksum: u64,
}

/// Writes one.
#[derive(Debug)]
pub struct ChunkWriter {
    kind: Kind,
    fence: Fence,
    manifest: Manifest,
    bytes: u64,
}

/// Why something in chunks was not written or read.
#[derive(Debug, thiserror::Error)]
pub enum ChunksError {
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error("another processor has taken over")]
    Deposed,
    #[error("another one was finished meanwhile, or a chunk has expired")]
    Overtaken,
    #[error("its manifest cannot be read: {0}")]
    Manifest(String),
    #[error("chunk {number} of {of} is {what}")]
    Damaged { number: usize, of: usize, what: &'static str },
}

impl ChunkWriter {
    /// Begins one behind the newest.
    ///
    /// # Errors
    /// Redis is away, or its manifest cannot be read.
    pub fn begin(link: &mut Link, kind: Kind, fence: &Fence) -> Result<Self, ChunksError> {
        let number = newest(link, &kind)?.map_or(1, |manifest| manifest.number + 1);
        Ok(Self { kind, fence: fence.clone(), manifest: Manifest { number, ..Manifest::default() }, bytes: 0 })
    }

    /// Names the format of its chunks.
    pub fn in_format(mut self, format: u8) -> Self {
        self.manifest.format = format;
        self
    }

    /// That format.
    pub fn format(&self) -> u8 {
        self.manifest.format
    }

    /// Writes a chunk.
    ///
    /// # Errors
    /// Redis is away, or has no room.
    pub fn chunk(&mut self, link: &mut Link, bytes: &[u8]) -> Result<(), ChunksError> {
        let place = self.manifest.chunks.len();
        let (manifest, token) = (self.kind.manifest(), self.fence.token());
        let key = format!("{}:{token}:{}:{place}", String::from_utf8_lossy(&manifest), self.manifest.number);
        let seconds = ORPHANS_SECONDS.to_string();
        let args: [&[u8]; 3] = [token.as_bytes(), bytes, seconds.as_bytes()];
        if link.eval::<u8>(&CHUNK, &[key.as_bytes(), self.fence.key()], &args)? == 0 {
            return Err(ChunksError::Deposed);
        }
        self.manifest.chunks.push(Chunk { key, checksum: xxh3_64_with_seed(bytes, place as u64) });
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Makes it count, with entries of the stream from `lowest` on; returns its bytes. The one before goes.
    ///
    /// # Errors
    /// The lease is somebody else's, Redis is away.
    pub fn finish(mut self, link: &mut Link, lowest: u64) -> Result<u64, ChunksError> {
        self.manifest.lowest = lowest;
        let manifest = serde_json::to_string(&self.manifest).map_err(|fault| ChunksError::Manifest(fault.to_string()))?;
        let number = self.manifest.number.to_string();
        let least = self.kind.stream().map_or_else(String::new, |_| format!("{lowest}-0"));
        let key = self.kind.manifest();
        let mut keys: Vec<&[u8]> = vec![&key, self.fence.key(), self.kind.stream().unwrap_or(&key)];
        keys.extend(self.manifest.chunks.iter().map(|chunk| chunk.key.as_bytes()));
        let args: [&[u8]; 4] = [self.fence.token().as_bytes(), number.as_bytes(), manifest.as_bytes(), least.as_bytes()];
        match link.eval_durable::<u8>(&FINISH, &keys, &args)? {
            0 => Err(ChunksError::Deposed),
            1 => Err(ChunksError::Overtaken),
            _ => Ok(self.bytes),
        }
    }
}

/// The manifest of the newest that counts.
///
/// # Errors
/// Redis is away, or it cannot be read.
pub fn newest(link: &mut Link, kind: &Kind) -> Result<Option<Manifest>, ChunksError> {
    let text: Option<String> = link.query(redis::cmd("GET").arg(kind.manifest()))?;
    text.map(|text| serde_json::from_str(&text).map_err(|fault| ChunksError::Manifest(fault.to_string()))).transpose()
}

/// Reads the chunks of a manifest one after the other, each checked.
pub fn chunks(link: &mut Link, manifest: Manifest) -> impl Iterator<Item = Result<Vec<u8>, ChunksError>> {
    let of = manifest.chunks.len();
    manifest.chunks.into_iter().enumerate().map(move |(number, chunk)| {
        let bytes: Option<Vec<u8>> = link.query(redis::cmd("GET").arg(&chunk.key))?;
        let damaged = |what| ChunksError::Damaged { number, of, what };
        let bytes = bytes.ok_or_else(|| damaged("gone"))?;
        if xxh3_64_with_seed(&bytes, number as u64) == chunk.checksum { Ok(bytes) } else { Err(damaged("damaged")) }
    })
}
