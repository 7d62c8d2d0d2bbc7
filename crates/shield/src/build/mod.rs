//! Building indexes and packs: collect entries, lay their contents out, seal the packs, encode the index.

mod cache;
mod digest;
mod encode;
mod layout;
mod progress;
mod seal;
mod source;
mod write;

use std::collections::btree_map::Entry as Slot;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::ops::ControlFlow;
use std::thread;

use crate::error::ShieldError;
use crate::index::{RegionKind, BODY_LIMIT};
use crate::keys::{FileSystemKey, RootTag};
use crate::path;
use crate::read_at::ReadAt;
pub use cache::{CompressionCache, Store};
use layout::Layout;
use progress::Progress;

/// Bytes of a SHA-256 digest.
const DIGEST_SIZE: usize = 32;

/// Owner, permissions and the like of an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Permission bits, set-id and sticky bits: at most `0o7777`.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Time of the last change, in seconds since 1970.
    pub mtime: i64,
    /// Nanoseconds within that second.
    pub mtime_nsec: u32,
    /// The inode number, not 0. Entries that share one are hard links of each other and agree in all but their path.
    pub inode: u64,
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What an entry is, and where its content comes from.
#[derive(Clone, Debug)]
pub enum Content<S> {
    /// A regular file.
    File {
        /// Where the content is read from; it must have exactly `size` bytes.
        source: S,
        /// Bytes of content.
        size: u64,
        /// The number of the pack to put it into; `None` for an authenticated plain file, which is only hashed.
        pack: Option<u32>,
    },
    /// A directory.
    Directory,
    /// A symbolic link to this target.
    Symlink(Vec<u8>),
    /// A character device of this major and minor number.
    CharDevice(u32, u32),
    /// A block device of this major and minor number.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
}

struct NewEntry<S> {
    metadata: Metadata,
    content: Content<S>,
}

struct NewPack {
    name: Vec<u8>,
    file: Vec<u8>,
}

/// What [`Builder::finish`] made.
#[derive(Clone, Debug)]
pub struct Built {
    /// The index.
    pub index: Vec<u8>,
    /// Its tag, which the policy keeps.
    pub tag: RootTag,
    /// How many entries the index has.
    pub entries: u32,
    /// One for each pack, by number.
    pub packs: Vec<PackStatistics>,
    /// SHA-256 of each chunk as it is stored, by pack and number; empty unless [`Builder::digest_chunks`] asked for it.
    pub digests: Vec<[u8; DIGEST_SIZE]>,
}

/// The size of a pack that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackStatistics {
    /// The pack's name.
    pub name: Vec<u8>,
    /// Bytes written, header included.
    pub stored_bytes: u64,
    /// Bytes of content.
    pub plaintext_bytes: u64,
    /// Files with content of their own; hard links count once.
    pub files: u32,
    /// Chunks.
    pub chunks: u32,
}

/// Collects what a protected file system shall hold, then writes it. `S` is where file contents come from.
///
/// The result depends on the key and on what was added alone: neither on the order of the calls nor on threads.
pub struct Builder<S> {
    key: FileSystemKey,
    regions: BTreeMap<Vec<u8>, (RegionKind, String)>,
    packs: Vec<NewPack>,
    entries: BTreeMap<Vec<u8>, NewEntry<S>>,
    omitted: BTreeSet<Vec<u8>>,
    digests: bool,
    fresh_key: bool,
    cache: Option<CompressionCache>,
}

impl<S: ReadAt + Sync> Builder<S> {
    /// Begins an empty file system under this key.
    pub fn new(key: FileSystemKey) -> Self {
        Self {
            key,
            regions: BTreeMap::new(),
            packs: Vec::new(),
            entries: BTreeMap::new(),
            omitted: BTreeSet::new(),
            digests: false,
            fresh_key: false,
            cache: None,
        }
    }

    /// Says that the key was made at random for this file system and encrypts nothing else, ever. Then chunks have their
    /// numbers for nonces, which spares the hash that makes one from each content.
    pub fn key_is_fresh(&mut self) {
        self.fresh_key = true;
    }

    /// Has [`Builder::finish`] compute [`Built::digests`].
    pub fn digest_chunks(&mut self) {
        self.digests = true;
    }

    /// Lets a cache remember how contents compress. The result is the same with and without.
    pub fn use_cache(&mut self, cache: CompressionCache) {
        self.cache = Some(cache);
    }

    /// Declares a region; `reason` is for people.
    ///
    /// # Errors
    /// [`ShieldError::BadInput`] if `prefix` is not normal or declared already.
    pub fn add_region(
        &mut self,
        prefix: &[u8],
        kind: RegionKind,
        reason: &str,
    ) -> Result<(), ShieldError> {
        check_path(prefix)?;
        check_length(prefix, reason.as_bytes())?;
        match self.regions.entry(prefix.to_vec()) {
            Slot::Occupied(_) => Err(ShieldError::input(prefix, "the region is declared twice")),
            Slot::Vacant(slot) => {
                slot.insert((kind, reason.to_owned()));
                Ok(())
            }
        }
    }

    /// Declares a pack that will stand at `file` in the image; returns its number.
    ///
    /// # Errors
    /// [`ShieldError::BadInput`] if `name` or `file` is not normal or used by another pack.
    pub fn add_pack(&mut self, name: &[u8], file: &[u8]) -> Result<u32, ShieldError> {
        check_path(name)?;
        check_path(file)?;
        if self
            .packs
            .iter()
            .any(|other| other.name == name || other.file == file)
        {
            return Err(ShieldError::input(
                name,
                "another pack has this name or file",
            ));
        }
        self.packs.push(NewPack {
            name: name.to_vec(),
            file: file.to_vec(),
        });
        Ok(self.packs.len() as u32 - 1)
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// [`ShieldError::BadInput`] if `path` is not normal or was added already, or the pack does not exist. Rules that
    /// concern several entries are checked by [`Builder::finish`].
    pub fn add_entry(
        &mut self,
        path: &[u8],
        metadata: Metadata,
        content: Content<S>,
    ) -> Result<(), ShieldError> {
        check_path(path)?;
        for (name, value) in &metadata.xattrs {
            check_length(path, name)?;
            check_length(path, value)?;
        }
        match &content {
            Content::File {
                pack: Some(pack), ..
            } if *pack as usize >= self.packs.len() => {
                return Err(ShieldError::input(path, format!("there is no pack {pack}")));
            }
            Content::Symlink(target) => check_length(path, target)?,
            _ => {}
        }
        match self.entries.entry(path.to_vec()) {
            Slot::Occupied(_) => Err(ShieldError::input(path, "it was added twice")),
            Slot::Vacant(slot) => {
                slot.insert(NewEntry { metadata, content });
                Ok(())
            }
        }
    }

    /// Notes a path of the native image that was left out, for messages; it stands for all that lies beneath it.
    ///
    /// # Errors
    /// [`ShieldError::BadInput`] if `path` is not normal.
    pub fn add_omitted(&mut self, path: &[u8]) -> Result<(), ShieldError> {
        check_path(path)?;
        self.omitted.insert(path.to_vec());
        Ok(())
    }

    /// The most bytes that the index, and the bytes that [`Built::digests`] if they are asked for, will have.
    ///
    /// # Errors
    /// [`ShieldError::BadInput`] if the format can't express what was added.
    pub fn bounds(&self) -> Result<(usize, usize), ShieldError> {
        let layout = Layout::new(self)?;
        let chunks: usize = layout
            .packs
            .iter()
            .map(|pack| pack.chunk_lengths().len())
            .sum();
        let digests = if self.digests {
            chunks * DIGEST_SIZE
        } else {
            0
        };
        Ok((encode::largest(self, &layout)?, digests))
    }

    /// Checks everything, hashes the plain files, writes one pack to each of `outputs`, and makes the index.
    ///
    /// Uses `threads` threads beside this one (0: as many as there are processors). Calls `progress` from this thread
    /// with the number of content bytes done so far, at most twenty times a second; `Break` ends the work.
    ///
    /// # Errors
    /// [`ShieldError::BadInput`] if the format can't express what was added, before anything is read;
    /// [`ShieldError::BadSource`] if a source does not have the size that was given;
    /// [`ShieldError::Io`]; [`ShieldError::Cancelled`]. The outputs are worthless then.
    ///
    /// # Panics
    /// If there are not as many outputs as packs.
    pub fn finish<W: Write + Send>(
        self,
        outputs: &mut [W],
        threads: usize,
        progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Built, ShieldError> {
        assert_eq!(outputs.len(), self.packs.len(), "one output for each pack");
        let threads = match threads {
            0 => thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let mut progress = Progress::new(progress);
        let layout = Layout::new(&self)?;
        encode::check(&self, &layout)?;
        let hashes = digest::hash_plain_files(&layout, threads, &mut progress)?;
        let sealed = write::write_packs(&self, &layout, outputs, threads, &mut progress)?;
        let contents = self.packs.iter().zip(&layout.packs);
        let statistics = contents
            .zip(&sealed)
            .map(|((pack, content), sealed)| PackStatistics {
                name: pack.name.clone(),
                stored_bytes: sealed.stored_bytes,
                plaintext_bytes: content.size,
                files: content.files.len() as u32,
                chunks: sealed.chunks.len() as u32,
            })
            .collect();
        let chunks: Vec<_> = sealed.into_iter().map(|pack| pack.chunks).collect();
        progress.finish()?;
        let body = encode::body(&self, &layout, &hashes, &chunks)?;
        let (index, tag) = encode::seal(&self.key, &body)?;
        Ok(Built {
            index,
            tag,
            entries: self.entries.len() as u32,
            packs: statistics,
            digests: match self.digests {
                true => chunks.iter().flatten().map(|chunk| chunk.digest).collect(),
                false => Vec::new(),
            },
        })
    }
}

fn check_path(path: &[u8]) -> Result<(), ShieldError> {
    path::check(path).map_err(|reason| ShieldError::input(path, reason))
}

/// Refuses what could never fit into an index, so that all lengths that are encoded fit into their fields.
fn check_length(path: &[u8], bytes: &[u8]) -> Result<(), ShieldError> {
    if bytes.len() as u64 > BODY_LIMIT {
        return Err(ShieldError::input(
            path,
            format!("a field has {} bytes", bytes.len()),
        ));
    }
    Ok(())
}
