//! The index: what exists, with which metadata and content, and which region each path belongs to (format, section 3).

mod entry;
pub(crate) mod pack;
mod parse;
mod region;

use std::ops::Range;
use std::sync::Arc;

pub(crate) use entry::{type_byte, STORAGE_PACKED, STORAGE_PLAIN};
pub use entry::{Entry, EntryId, Kind, Storage};
pub(crate) use pack::Chunk;
pub use pack::Pack;
pub use region::{Region, RegionKind};

use crate::cipher::{Cipher, NONCE_SIZE, TAG_SIZE};
use crate::error::ShieldError;
use crate::keys::{FileSystemKey, RootTag};
use crate::path;
use entry::Record;

/// The first bytes of an index, and its associated data.
pub(crate) const MAGIC: &[u8; 8] = b"SCNINDX1";
/// The longest body of an index.
pub(crate) const BODY_LIMIT: u64 = 1 << 30;

/// A verified index. All paths that it takes and gives are absolute and normal, except in [`Index::resolve`].
pub struct Index {
    /// The decompressed body; everything else holds offsets into it.
    body: Vec<u8>,
    regions: Vec<Region>,
    packs: Vec<Arc<Pack>>,
    /// Sorted by path.
    records: Vec<Record>,
    /// The children of all directories, those of one directory in a row and sorted by name.
    children: Vec<EntryId>,
    /// Where in `children` those of entry `i` stand: from `[i]` to `[i + 1]`.
    child_ranges: Vec<u32>,
    /// Sorted.
    omitted: Vec<Range<u32>>,
}

impl Index {
    /// Verifies an index, decrypts and parses it.
    ///
    /// # Errors
    /// [`ShieldError::WrongTag`] if the index does not end with `tag`, [`ShieldError::IndexNotAuthentic`] if it does not
    /// decrypt, [`ShieldError::Truncated`] and [`ShieldError::CorruptIndex`] if it is not of this format.
    pub fn open(bytes: &[u8], key: &FileSystemKey, tag: &RootTag) -> Result<Self, ShieldError> {
        const OVERHEAD: usize = MAGIC.len() + NONCE_SIZE + TAG_SIZE;
        if bytes.len() < OVERHEAD {
            return Err(ShieldError::Truncated {
                what: "the index".to_owned(),
                found: bytes.len() as u64,
                expected: OVERHEAD as u64,
            });
        }
        let (magic, rest) = bytes.split_at(MAGIC.len());
        let (nonce, rest) = rest.split_at(NONCE_SIZE);
        let (ciphertext, found) = rest.split_at(rest.len() - TAG_SIZE);
        if magic != MAGIC {
            return Err(ShieldError::CorruptIndex(format!(
                "it begins with \"{}\", expected \"{}\"",
                magic.escape_ascii(),
                MAGIC.escape_ascii()
            )));
        }
        let found = RootTag::new(found.try_into().expect("split at the size of a tag"));
        if found != *tag {
            return Err(ShieldError::WrongTag {
                found,
                expected: *tag,
            });
        }
        let mut plaintext = ciphertext.to_vec();
        Cipher::new(&key.derive(&[b"sconify index v1 encryption"]))
            .open(
                nonce.try_into().expect("split at the size of a nonce"),
                MAGIC,
                *tag.as_bytes(),
                &mut plaintext,
            )
            .map_err(|_| ShieldError::IndexNotAuthentic)?;
        Self::parse(decompress(&plaintext)?, key)
    }

    /// The entry at exactly this normal path; no symbolic link is followed.
    pub fn find(&self, path: &[u8]) -> Option<EntryId> {
        let found = self
            .records
            .binary_search_by(|record| self.path_of(record).cmp(path))
            .ok()?;
        Some(EntryId(
            u32::try_from(found).expect("the index counts entries in 32 bits"),
        ))
    }

    /// Like [`Index::find`], but gives the entry itself.
    pub fn lookup(&self, path: &[u8]) -> Option<Entry<'_>> {
        self.find(path).map(|id| self.entry(id))
    }

    /// The entry with this number.
    ///
    /// # Panics
    /// If `id` comes from a larger index.
    pub fn entry(&self, id: EntryId) -> Entry<'_> {
        Entry::new(&self.body, &self.records[id.0 as usize], id)
    }

    /// All entries, sorted by path; the first one is the root.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = Entry<'_>> {
        self.records
            .iter()
            .enumerate()
            .map(|(number, record)| Entry::new(&self.body, record, EntryId(number as u32)))
    }

    /// The directory that holds an entry; the root holds itself.
    pub fn parent(&self, id: EntryId) -> EntryId {
        self.records[id.0 as usize].parent
    }

    /// Names and entries of a directory, sorted by name, without `.` and `..`; nothing for other kinds.
    pub fn children(&self, id: EntryId) -> impl ExactSizeIterator<Item = (&[u8], EntryId)> {
        self.child_ids(id)
            .iter()
            .map(|&child| (path::name(self.entry(child).path()), child))
    }

    /// The entry of this name in a directory.
    pub fn child(&self, directory: EntryId, name: &[u8]) -> Option<EntryId> {
        let children = self.child_ids(directory);
        // Behind the directory's path and a slash; the root is the slash.
        let length = self.path_of(&self.records[directory.0 as usize]).len();
        let start = if length == 1 { 1 } else { length + 1 };
        let name_of = |child: &EntryId| &self.path_of(&self.records[child.0 as usize])[start..];
        children
            .binary_search_by(|child| name_of(child).cmp(name))
            .ok()
            .map(|found| children[found])
    }

    /// All regions, sorted by prefix.
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// The region of a normal path: that of the longest prefix by whole components. `None`: undeclared.
    pub fn region_of(&self, path: &[u8]) -> Option<&Region> {
        path::ancestors(path).find_map(|ancestor| self.region_at(ancestor))
    }

    /// The region whose prefix is this path.
    pub(crate) fn region_at(&self, path: &[u8]) -> Option<&Region> {
        let found = self
            .regions
            .binary_search_by(|region| region.prefix().cmp(path))
            .ok()?;
        Some(&self.regions[found])
    }

    /// Whether a path of the native image was left out, itself or with a directory above it. For messages only.
    pub fn was_omitted(&self, path: &[u8]) -> bool {
        let listed = |path: &[u8]| {
            self.omitted
                .binary_search_by(|span| self.slice(span).cmp(path))
                .is_ok()
        };
        path::ancestors(path).any(listed)
    }

    /// The paths that were left out, sorted.
    pub fn omitted(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.omitted.iter().map(|span| self.slice(span))
    }

    /// All packs, by number.
    pub fn packs(&self) -> &[Arc<Pack>] {
        &self.packs
    }

    /// Whether a region begins beneath (not at) a normal path.
    pub(crate) fn has_region_beneath(&self, path: &[u8]) -> bool {
        let beneath = |region: &Region| {
            path::parent(region.prefix()).is_some_and(|p| path::ancestors(p).any(|a| a == path))
        };
        // Regions are few, and this is asked only within host and writable ones.
        self.regions.iter().any(beneath)
    }

    fn child_ids(&self, id: EntryId) -> &[EntryId] {
        let at = |entry: usize| self.child_ranges[entry] as usize;
        &self.children[at(id.0 as usize)..at(id.0 as usize + 1)]
    }

    fn path_of(&self, record: &Record) -> &[u8] {
        record.path(&self.body)
    }

    fn slice(&self, span: &Range<u32>) -> &[u8] {
        &self.body[span.start as usize..span.end as usize]
    }
}

/// Undoes the compression of an authenticated index.
fn decompress(plaintext: &[u8]) -> Result<Vec<u8>, ShieldError> {
    let corrupt = |reason: String| ShieldError::CorruptIndex(reason);
    let (length, compressed) = plaintext
        .split_first_chunk::<8>()
        .ok_or_else(|| corrupt("the length of the body is missing".to_owned()))?;
    let length = u64::from_le_bytes(*length);
    if length > BODY_LIMIT {
        return Err(corrupt(format!(
            "the body has {length} bytes, expected at most {BODY_LIMIT}"
        )));
    }
    let length = usize::try_from(length).expect("at most 1 GiB");
    let body = zstd::bulk::decompress(compressed, length).map_err(|error| {
        corrupt(format!(
            "the body does not decompress to {length} bytes: {error}"
        ))
    })?;
    if body.len() != length {
        return Err(corrupt(format!(
            "the body has {} bytes, expected {length}",
            body.len()
        )));
    }
    Ok(body)
}
