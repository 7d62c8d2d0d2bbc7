//! The body of an index: every rule of the format is checked here, once, so that nothing can fail later.

use std::ops::Range;

use super::entry::{type_byte, EntryId, Record, FIXED_SIZE, STORAGE_PACKED, STORAGE_PLAIN};
use super::{Index, Pack, Region, RegionKind};
use crate::error::{display, ShieldError};
use crate::keys::FileSystemKey;
use crate::path;
use crate::wire::Decoder;

/// Bytes of the shortest possible element of each list.
const LEAST_REGION: usize = 4 + 1 + 1 + 4;
const LEAST_ENTRY: usize = 4 + 1 + FIXED_SIZE;
const LEAST_PATH: usize = 4 + 1;

pub(super) fn corrupt(reason: String) -> ShieldError {
    ShieldError::CorruptIndex(reason)
}

impl Index {
    /// Parses a body that has been authenticated. Reserves memory for what is there, never for what a count claims.
    pub(crate) fn parse(body: Vec<u8>, key: &FileSystemKey) -> Result<Self, ShieldError> {
        let mut decoder = Decoder::new(&body);
        let regions = parse_regions(&mut decoder)?;
        let count = decoder.u32()?;
        let mut packs = Vec::new();
        for number in 0..count {
            packs.push(Pack::parse(&mut decoder, number, key)?);
        }
        let records = parse_entries(&mut decoder)?;
        let omitted = parse_omitted(&mut decoder)?;
        decoder.finish()?;
        let mut index = Self {
            body,
            regions,
            packs,
            records,
            children: Vec::new(),
            child_ranges: Vec::new(),
            omitted,
        };
        index.check_packs()?;
        index.check_regions()?;
        let first_links = index.count_links()?;
        index.check_contents(&first_links)?;
        index.link_children();
        Ok(index)
    }

    fn check_packs(&self) -> Result<(), ShieldError> {
        for (number, pack) in self.packs.iter().enumerate() {
            let earlier = &self.packs[..number];
            if earlier
                .iter()
                .any(|other| other.name() == pack.name() || other.file() == pack.file())
            {
                return Err(corrupt(format!(
                    "two packs have the name or the file of {}",
                    display(pack.name())
                )));
            }
        }
        Ok(())
    }

    fn check_regions(&self) -> Result<(), ShieldError> {
        for region in &self.regions {
            let above = path::parent(region.prefix()).unwrap_or(b"/");
            if !self.lookup(above).is_some_and(|entry| entry.is_directory()) {
                return Err(corrupt(format!(
                    "the directory above the region {} is not listed",
                    display(region.prefix())
                )));
            }
        }
        Ok(())
    }

    /// Sets the link counts of all entries but directories; says for each entry whether it is the first of its inode.
    fn count_links(&mut self) -> Result<Vec<bool>, ShieldError> {
        let mut by_inode: Vec<(u64, u32)> = self
            .entries()
            .map(|entry| (entry.inode(), entry.id().0))
            .collect();
        by_inode.sort_unstable();
        let mut first = vec![false; self.records.len()];
        for group in by_inode.chunk_by(|left, right| left.0 == right.0) {
            let leader = group[0].1;
            first[leader as usize] = true;
            if group.len() > 1 {
                for &(_, other) in &group[1..] {
                    if self.entry(EntryId(leader)).is_directory()
                        || self.fields(leader) != self.fields(other)
                    {
                        return Err(corrupt(format!(
                            "{} and {} share an inode but are not hard links of each other",
                            display(self.entry(EntryId(leader)).path()),
                            display(self.entry(EntryId(other)).path())
                        )));
                    }
                }
                for &(_, id) in group {
                    self.records[id as usize].links = group.len() as u32;
                }
            }
        }
        Ok(first)
    }

    /// Everything of an entry but its path.
    fn fields(&self, id: u32) -> &[u8] {
        let record = &self.records[id as usize];
        &self.body[record.path.end as usize..record.end as usize]
    }

    /// Checks that the packs hold exactly the contents of the files, in the order of the index.
    fn check_contents(&self, first_links: &[bool]) -> Result<(), ShieldError> {
        use super::{Kind, Storage};
        let mut filled = vec![0_u64; self.packs.len()];
        for (entry, first) in self.entries().zip(first_links) {
            let Kind::File { size, storage } = entry.kind() else {
                continue;
            };
            let Storage::Packed { pack, offset } = storage else {
                if self
                    .region_of(entry.path())
                    .is_some_and(|region| region.kind() == RegionKind::Encrypted)
                {
                    return Err(corrupt(format!(
                        "{} is in an encrypted region but in no pack",
                        display(entry.path())
                    )));
                }
                continue;
            };
            let Some(position) = filled.get_mut(pack as usize) else {
                return Err(corrupt(format!(
                    "{} is in pack {pack}, which does not exist",
                    display(entry.path())
                )));
            };
            if !first {
                continue;
            }
            if offset != *position {
                return Err(corrupt(format!(
                    "{} begins at offset {offset} of its pack, expected {position}",
                    display(entry.path())
                )));
            }
            *position = position
                .checked_add(size)
                .ok_or_else(|| corrupt(format!("{} is too long", display(entry.path()))))?;
        }
        for (pack, filled) in self.packs.iter().zip(filled) {
            if pack.plaintext_len() != filled {
                return Err(corrupt(format!(
                    "the chunks of pack {} hold {} bytes, its files {filled}",
                    display(pack.name()),
                    pack.plaintext_len()
                )));
            }
        }
        Ok(())
    }

    /// Builds the lists of children. Entries are sorted by path, so the children of a directory come sorted by name.
    fn link_children(&mut self) {
        let mut ranges = vec![0_u32; self.records.len() + 1];
        for record in &self.records[1..] {
            ranges[record.parent.0 as usize + 1] += 1;
        }
        for at in 1..ranges.len() {
            ranges[at] += ranges[at - 1];
        }
        let mut next = ranges.clone();
        let mut children = vec![EntryId::ROOT; self.records.len() - 1];
        for (id, record) in self.records.iter().enumerate().skip(1) {
            let slot = &mut next[record.parent.0 as usize];
            children[*slot as usize] = EntryId(id as u32);
            *slot += 1;
        }
        self.child_ranges = ranges;
        self.children = children;
    }
}

fn parse_regions(decoder: &mut Decoder<'_>) -> Result<Vec<Region>, ShieldError> {
    let count = decoder.u32()?;
    let mut regions: Vec<Region> = Vec::with_capacity(decoder.room_for(count, LEAST_REGION));
    for _ in 0..count {
        let prefix = decoder.path()?;
        let kind = decoder.u8()?;
        let kind = RegionKind::from_number(kind).ok_or_else(|| {
            corrupt(format!(
                "the region {} is of the unknown kind {kind}",
                display(prefix)
            ))
        })?;
        let reason = std::str::from_utf8(decoder.bytes()?).map_err(|_| {
            corrupt(format!(
                "the reason of the region {} is not UTF-8",
                display(prefix)
            ))
        })?;
        check_order(regions.last().map(Region::prefix), prefix, "region")?;
        regions.push(Region::new(prefix, kind, reason));
    }
    Ok(regions)
}

fn parse_omitted(decoder: &mut Decoder<'_>) -> Result<Vec<Range<u32>>, ShieldError> {
    let count = decoder.u32()?;
    let mut omitted = Vec::with_capacity(decoder.room_for(count, LEAST_PATH));
    let mut last = None;
    for _ in 0..count {
        let path = decoder.path()?;
        check_order(last, path, "omitted path")?;
        omitted.push(span(decoder.position() - path.len(), path.len()));
        last = Some(path);
    }
    Ok(omitted)
}

fn parse_entries(decoder: &mut Decoder<'_>) -> Result<Vec<Record>, ShieldError> {
    let count = decoder.u32()?;
    let mut records: Vec<Record> = Vec::with_capacity(decoder.room_for(count, LEAST_ENTRY));
    // The directories whose paths are byte prefixes of the last one, shortest first: a parent must be among them,
    // because all paths that begin with its bytes follow it in a row.
    let mut open: Vec<(&[u8], EntryId)> = Vec::new();
    let mut last = None;
    for number in 0..count {
        let path = decoder.path()?;
        check_order(last, path, "entry")?;
        last = Some(path);
        let path_span = span(decoder.position() - path.len(), path.len());
        let (kind, content) = parse_fields(decoder).map_err(|error| match error {
            ShieldError::CorruptIndex(reason) => corrupt(format!("{}: {reason}", display(path))),
            error => error,
        })?;
        let id = EntryId(number);
        let parent = match path::parent(path) {
            None => id,
            Some(above) => {
                while open
                    .last()
                    .is_some_and(|(directory, _)| !path.starts_with(directory))
                {
                    open.pop();
                }
                let found =
                    open.binary_search_by_key(&above.len(), |(directory, _)| directory.len());
                found
                    .map(|at| open[at].1)
                    .map_err(|_| corrupt(format!("{} has no directory above it", display(path))))?
            }
        };
        let is_directory = kind == type_byte::DIRECTORY;
        if is_directory {
            open.push((path, id));
            if let Some(record) = records.get_mut(parent.0 as usize) {
                record.links += 1;
            }
        } else if number == 0 {
            return Err(corrupt("the root is not a directory".to_owned()));
        }
        let links = if is_directory { 2 } else { 1 };
        records.push(Record {
            path: path_span,
            content,
            end: decoder.position() as u32,
            parent,
            links,
        });
    }
    if records.is_empty() {
        return Err(corrupt("the root is not listed".to_owned()));
    }
    Ok(records)
}

/// Checks everything of an entry that follows its path; returns the type and where the fields of the type begin.
fn parse_fields(decoder: &mut Decoder<'_>) -> Result<(u8, u32), ShieldError> {
    let kind = decoder.u8()?;
    let mode = decoder.u32()?;
    if mode > 0o7777 {
        return Err(corrupt(format!(
            "the mode is {mode:o}, expected at most 7777"
        )));
    }
    let (_uid, _gid, _mtime) = (decoder.u32()?, decoder.u32()?, decoder.u64()?);
    let nanoseconds = decoder.u32()?;
    if nanoseconds >= 1_000_000_000 {
        return Err(corrupt(format!("the time has {nanoseconds} nanoseconds")));
    }
    if decoder.u64()? == 0 {
        return Err(corrupt("the inode is 0".to_owned()));
    }
    let xattrs = decoder.u32()?;
    let mut last: Option<&[u8]> = None;
    for _ in 0..xattrs {
        let name = decoder.bytes()?;
        let _value = decoder.bytes()?;
        if name.is_empty() || name.len() > path::NAME_LIMIT || name.contains(&0) {
            return Err(corrupt(format!(
                "\"{}\" can't name an extended attribute",
                name.escape_ascii()
            )));
        }
        check_order(last, name, "extended attribute")?;
        last = Some(name);
    }
    let content = decoder.position() as u32;
    match kind {
        type_byte::FILE => {
            let storage = decoder.u8()?;
            let _size = decoder.u64()?;
            match storage {
                STORAGE_PACKED => decoder.take(4 + 8)?,
                STORAGE_PLAIN => decoder.take(32)?,
                other => return Err(corrupt(format!("unknown storage {other}"))),
            };
        }
        type_byte::SYMLINK => {
            let target = decoder.bytes()?;
            if target.is_empty() || target.len() > path::PATH_LIMIT || target.contains(&0) {
                return Err(corrupt(
                    "the target is empty, longer than 4095 bytes, or contains a NUL byte"
                        .to_owned(),
                ));
            }
        }
        type_byte::CHAR_DEVICE | type_byte::BLOCK_DEVICE => {
            decoder.take(4 + 4)?;
        }
        type_byte::DIRECTORY | type_byte::FIFO => {}
        other => {
            return Err(corrupt(format!(
                "unknown type \"{}\"",
                other.escape_ascii()
            )))
        }
    }
    Ok((kind, content))
}

/// Checks that `next` sorts after `last`.
fn check_order(last: Option<&[u8]>, next: &[u8], what: &str) -> Result<(), ShieldError> {
    match last {
        Some(last) if last >= next => Err(corrupt(format!(
            "the {what} {} follows {}: not sorted, or twice",
            display(next),
            display(last)
        ))),
        _ => Ok(()),
    }
}

/// A span of the body, which is at most 1 GiB long.
fn span(start: usize, length: usize) -> Range<u32> {
    start as u32..(start + length) as u32
}
