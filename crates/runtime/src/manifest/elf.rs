//! Finds the launch manifest, and the embedded file system if there is one, in the runtime's own ELF file, and computes, when they are asked for, the
//! digests of what stands around them. No I/O.

use std::ops::Range;

use object::elf::FileHeader64;
use object::read::elf::{ElfFile, FileHeader as _};
use object::{LittleEndian, Object as _, ObjectSection as _};
use ring::digest::{Context, SHA256};

/// The section that holds the launch manifest.
const MANIFEST: &[u8] = b".sconify.manifest";
/// The sections of an embedded file system: its index, the digests of all chunks, its packs.
const INDEX: &[u8] = b".sconify.index";
const DIGESTS: &[u8] = b".sconify.digests";
const PACKS: &[u8] = b".sconify.packs";

/// Header fields that appending a section changes: `e_shoff`, and `e_shnum` with `e_shstrndx`. They count as zero in the digest of the runtime.
const CHANGED_FIELDS: [Range<usize>; 2] = [0x28..0x30, 0x3c..0x40];
/// Bytes of a section header.
const SECTION_HEADER: u64 = 64;
/// What the packs are aligned to.
const PAGE: u64 = 4096;

/// Why a file has no usable launch manifest.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// The file is no 64-bit little-endian ELF file, or a broken one.
    #[error("the file is no well-formed 64-bit little-endian ELF file: {0}")]
    Malformed(String),
    /// The file is the bare runtime.
    #[error("the file has no section .sconify.manifest")]
    Absent,
    /// Two manifests: which one counts is nobody's to guess.
    #[error("the file has more than one section {0}")]
    Ambiguous(String),
}

/// The launch manifest of a file, not yet parsed, and what goes with it.
#[derive(Debug, PartialEq, Eq)]
pub struct Sections<'a> {
    /// The content of the section.
    pub manifest: &'a [u8],
    /// All that stands before the section.
    before: &'a [u8],
    /// The embedded file system.
    pub embedded: Option<EmbeddedSections<'a>>,
}

impl Sections<'_> {
    /// SHA-256 of all that stands before the manifest, see docs/protocol.md section 1.
    pub fn runtime(&self) -> [u8; 32] {
        let (own, rest) = self.before.split_at(CHANGED_FIELDS[1].end);
        let mut header = [0; CHANGED_FIELDS[1].end];
        header.copy_from_slice(own);
        for field in CHANGED_FIELDS {
            header[field].fill(0);
        }
        let mut context = Context::new(&SHA256);
        context.update(&header);
        context.update(rest);
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        digest
    }
}

/// An embedded file system, all but its packs.
#[derive(Debug, PartialEq, Eq)]
pub struct EmbeddedSections<'a> {
    /// The index, encrypted.
    pub index: &'a [u8],
    /// SHA-256 of each chunk, pack after pack.
    pub digests: &'a [u8],
    /// Where the packs stand in the file: up to its end.
    pub packs: Range<u64>,
    /// The header fields that lead to the sections.
    fields: [&'a [u8]; 2],
    /// All that stands between the manifest and the packs.
    rest: &'a [u8],
}

impl EmbeddedSections<'_> {
    /// SHA-256 of all that stands before the packs and is not of the runtime, see docs/protocol.md section 1; `manifest` is the one whose own digest is zeros.
    pub fn digest(&self, manifest: &[u8]) -> [u8; 32] {
        let [first, second] = self.fields;
        let mut context = Context::new(&SHA256);
        for part in [first, second, manifest, self.rest] {
            context.update(part);
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        digest
    }
}

/// How much of a file [`read`] needs, by its ELF header: everything up to the packs, or all of it.
pub fn head_length(header: &[u8; 64]) -> u64 {
    let table = u64::from_le_bytes(header[0x28..0x30].try_into().expect("8 bytes"));
    let count = u16::from_le_bytes(header[0x3c..0x3e].try_into().expect("2 bytes"));
    table
        .saturating_add(u64::from(count) * SECTION_HEADER)
        .checked_next_multiple_of(PAGE)
        .unwrap_or(u64::MAX)
}

/// Finds the sections of an ELF file, of which `head` is the first part, and what stands around them.
pub fn read(head: &[u8]) -> Result<Sections<'_>, ElfError> {
    let malformed = |error: object::Error| ElfError::Malformed(error.to_string());
    let broken = |reason: &str| ElfError::Malformed(reason.to_owned());
    let elf = ElfFile::<FileHeader64<LittleEndian>>::parse(head).map_err(malformed)?;
    elf.elf_header().endian().map_err(malformed)?;

    let mut found = [None, None, None, None];
    for section in elf.sections() {
        let name = section.name_bytes().map_err(malformed)?;
        let known = [MANIFEST, INDEX, DIGESTS, PACKS];
        if let Some(at) = known.iter().position(|known| *known == name) {
            let (offset, size) = section
                .file_range()
                .ok_or_else(|| broken("a section of ours has no place in the file"))?;
            let end = offset
                .checked_add(size)
                .ok_or_else(|| broken("a section of ours is too big"))?;
            if found[at].replace(offset..end).is_some() {
                return Err(ElfError::Ambiguous(
                    String::from_utf8_lossy(name).into_owned(),
                ));
            }
        }
    }
    let bytes = |range: &Range<u64>| {
        let start = usize::try_from(range.start).ok()?;
        head.get(start..usize::try_from(range.end).ok()?)
    };
    let outside = || broken("a section of ours is outside of the file");
    let [manifest, index, digests, packs] = found;
    let manifest = manifest.ok_or(ElfError::Absent)?;
    let before = bytes(&(0..manifest.start))
        .filter(|before| before.len() >= CHANGED_FIELDS[1].end)
        .ok_or_else(|| broken("the manifest overlaps the ELF header"))?;
    let embedded = match (index, digests, packs) {
        (None, None, None) => None,
        (Some(index), Some(digests), Some(packs)) => {
            let is_in_order = manifest.end == index.start
                && index.end == digests.start
                && digests.end <= packs.start
                && packs.start == head.len() as u64;
            if !is_in_order {
                return Err(broken(
                    "the sections of the embedded file system are not where they belong",
                ));
            }
            Some(EmbeddedSections {
                index: bytes(&index).ok_or_else(outside)?,
                digests: bytes(&digests).ok_or_else(outside)?,
                fields: CHANGED_FIELDS.map(|field| &head[field]),
                rest: bytes(&(manifest.end..packs.start)).ok_or_else(outside)?,
                packs,
            })
        }
        _ => return Err(broken("a section of the embedded file system is missing")),
    };
    Ok(Sections {
        manifest: bytes(&manifest).ok_or_else(outside)?,
        before,
        embedded,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The smallest ELF file with these sections, after the null section and before the name table.
    fn elf(sections: &[(&[u8], &[u8])]) -> Vec<u8> {
        let mut file = vec![0; 64];
        file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        file[16..18].copy_from_slice(&3u16.to_le_bytes());
        file[18..20].copy_from_slice(&62u16.to_le_bytes());
        file[20..24].copy_from_slice(&1u32.to_le_bytes());
        file[52..54].copy_from_slice(&64u16.to_le_bytes());
        file[58..60].copy_from_slice(&64u16.to_le_bytes());
        let mut names = vec![0];
        let mut headers = vec![[0u8; 64]];
        let mut header = |file: &mut Vec<u8>, name: u32, kind: u32, data: &[u8]| {
            let mut header = [0; 64];
            header[..4].copy_from_slice(&name.to_le_bytes());
            header[4..8].copy_from_slice(&kind.to_le_bytes());
            header[24..32].copy_from_slice(&(file.len() as u64).to_le_bytes());
            header[32..40].copy_from_slice(&(data.len() as u64).to_le_bytes());
            file.extend_from_slice(data);
            headers.push(header);
        };
        for (name, data) in sections {
            let offset = names.len() as u32;
            names.extend_from_slice(name);
            names.push(0);
            header(&mut file, offset, 1, data);
        }
        header(&mut file, 0, 3, &names);
        let table = file.len() as u64;
        let count = headers.len() as u16;
        file.extend(headers.into_iter().flatten());
        file[0x28..0x30].copy_from_slice(&table.to_le_bytes());
        file[0x3c..0x3e].copy_from_slice(&count.to_le_bytes());
        file[0x3e..0x40].copy_from_slice(&(count - 1).to_le_bytes());
        file
    }

    #[test]
    fn the_manifest_is_found_and_what_stands_before_it_is_digested() {
        let file = elf(&[(b".text", b"code"), (MANIFEST, b"{}")]);
        let section = read(&file).unwrap();
        assert_eq!(section.manifest, b"{}");
        let mut before = file[..68].to_vec();
        before[0x28..0x30].fill(0);
        before[0x3c..0x40].fill(0);
        assert_eq!(
            section.runtime(),
            ring::digest::digest(&SHA256, &before).as_ref()
        );
    }

    #[test]
    fn a_changed_byte_of_the_runtime_changes_the_digest() {
        let file = elf(&[(b".text", b"code"), (MANIFEST, b"{}")]);
        let mut changed = file.clone();
        changed[65] ^= 1;
        assert_ne!(
            read(&changed).unwrap().runtime(),
            read(&file).unwrap().runtime()
        );
    }

    #[test]
    fn a_file_without_a_manifest_is_told_from_a_broken_one() {
        assert_eq!(read(&elf(&[(b".text", b"code")])), Err(ElfError::Absent));
        assert!(matches!(read(b"#!/bin/sh\n"), Err(ElfError::Malformed(_))));
        assert!(matches!(read(b""), Err(ElfError::Malformed(_))));
    }

    #[test]
    fn two_manifests_are_refused() {
        let file = elf(&[(MANIFEST, b"{}"), (MANIFEST, b"{}")]);
        assert_eq!(
            read(&file),
            Err(ElfError::Ambiguous(".sconify.manifest".to_owned()))
        );
    }

    #[test]
    fn a_manifest_over_the_header_is_refused() {
        let mut file = elf(&[(MANIFEST, b"{}")]);
        let table = file.len() - 3 * 64;
        file[table + 64 + 24..table + 64 + 32].copy_from_slice(&0x20u64.to_le_bytes());
        assert!(matches!(read(&file), Err(ElfError::Malformed(_))));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = read(&bytes);
        }

        #[test]
        fn no_damage_makes_it_panic_or_read_beyond_the_file(at in 0usize..400, value: u8) {
            let mut file = elf(&[(b".text", b"code"), (MANIFEST, b"{}")]);
            let at = at % file.len();
            file[at] = value;
            if let Ok(sections) = read(&file) {
                prop_assert!(sections.manifest.len() <= file.len());
            }
        }
    }
}
