//! Finds the launch manifest in the runtime's own ELF file and computes the digest of the runtime. No I/O.

use object::elf::FileHeader64;
use object::read::elf::{ElfFile, FileHeader as _};
use object::{LittleEndian, Object as _, ObjectSection as _};
use ring::digest::{Context, SHA256};

/// The section that holds the launch manifest.
const SECTION: &[u8] = b".sconify.manifest";

/// Header fields that appending a section changes: `e_shoff`, and `e_shnum` with `e_shstrndx`. They count as zero in the digest.
const CHANGED_FIELDS: [std::ops::Range<usize>; 2] = [0x28..0x30, 0x3c..0x40];

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
    #[error("the file has more than one section .sconify.manifest")]
    Ambiguous,
}

/// The launch manifest of a file, not yet parsed, and the digest of the runtime before it.
#[derive(Debug, PartialEq, Eq)]
pub struct Section<'a> {
    /// The content of the section.
    pub manifest: &'a [u8],
    /// SHA-256 of all that stands before the section, see docs/protocol.md section 1.
    pub runtime: [u8; 32],
}

/// Finds the manifest section of an ELF file and digests what stands before it.
pub fn read(file: &[u8]) -> Result<Section<'_>, ElfError> {
    let malformed = |error: object::Error| ElfError::Malformed(error.to_string());
    let elf = ElfFile::<FileHeader64<LittleEndian>>::parse(file).map_err(malformed)?;
    elf.elf_header().endian().map_err(malformed)?;

    let mut found = None;
    for section in elf.sections() {
        if section.name_bytes().map_err(malformed)? == SECTION && found.replace(section).is_some() {
            return Err(ElfError::Ambiguous);
        }
    }
    let section = found.ok_or(ElfError::Absent)?;
    let manifest = section.data().map_err(malformed)?;
    let start = section
        .file_range()
        .and_then(|(offset, _)| usize::try_from(offset).ok())
        .and_then(|offset| file.get(..offset))
        .filter(|before| before.len() >= CHANGED_FIELDS[1].end)
        .ok_or_else(|| ElfError::Malformed("the manifest overlaps the ELF header".to_owned()))?;
    Ok(Section {
        manifest,
        runtime: digest(start),
    })
}

fn digest(before: &[u8]) -> [u8; 32] {
    let mut header = [0; CHANGED_FIELDS[1].end];
    header.copy_from_slice(&before[..CHANGED_FIELDS[1].end]);
    for field in CHANGED_FIELDS {
        header[field].fill(0);
    }
    let mut context = Context::new(&SHA256);
    context.update(&header);
    context.update(&before[header.len()..]);
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
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
        let file = elf(&[(b".text", b"code"), (SECTION, b"{}")]);
        let section = read(&file).unwrap();
        assert_eq!(section.manifest, b"{}");
        let mut before = file[..68].to_vec();
        before[0x28..0x30].fill(0);
        before[0x3c..0x40].fill(0);
        assert_eq!(
            section.runtime,
            ring::digest::digest(&SHA256, &before).as_ref()
        );
    }

    #[test]
    fn a_changed_byte_of_the_runtime_changes_the_digest() {
        let file = elf(&[(b".text", b"code"), (SECTION, b"{}")]);
        let mut changed = file.clone();
        changed[65] ^= 1;
        assert_ne!(
            read(&changed).unwrap().runtime,
            read(&file).unwrap().runtime
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
        let file = elf(&[(SECTION, b"{}"), (SECTION, b"{}")]);
        assert_eq!(read(&file), Err(ElfError::Ambiguous));
    }

    #[test]
    fn a_manifest_over_the_header_is_refused() {
        let mut file = elf(&[(SECTION, b"{}")]);
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
            let mut file = elf(&[(b".text", b"code"), (SECTION, b"{}")]);
            let at = at % file.len();
            file[at] = value;
            if let Ok(section) = read(&file) {
                prop_assert!(section.manifest.len() <= file.len());
            }
        }
    }
}
