//! A protected file system in our own file. The packs stay mapped; a chunk is copied, compared with its measured digest, and decrypted when it is needed.

use std::fs::File;
use std::io;
use std::sync::Arc;

use sconify_shield::{Index, PackReader, ReadAt, ShieldError};

use crate::executor::Embedded;
use crate::kernel::mapping::Mapping;

/// The packs of an embedded file system.
pub struct EmbeddedPacks {
    mapping: Arc<Mapping>,
    digests: Vec<[u8; 32]>,
    /// By number: where the pack begins, and the number of its first digest.
    starts: Vec<(usize, usize)>,
}

/// The bytes of one pack.
pub enum PackSource {
    /// A file of its own.
    Disk(File),
    /// A part of our file.
    Embedded {
        /// All packs.
        mapping: Arc<Mapping>,
        /// Where this one begins.
        start: usize,
        /// How many bytes it has.
        size: usize,
    },
}

impl EmbeddedPacks {
    /// Finds the packs that an index describes.
    ///
    /// # Errors
    /// What does not fit, if packs or digests are more or fewer than the index has.
    pub fn new(index: &Index, embedded: Embedded) -> Result<Self, String> {
        let (mut start, mut chunks) = (0, 0);
        let mut starts = Vec::with_capacity(index.packs().len());
        for pack in index.packs() {
            starts.push((start, chunks));
            start += pack.stored_len() as usize;
            chunks += pack.chunk_count() as usize;
        }
        let (found, digests) = (embedded.packs.size(), embedded.digests.len());
        if found != start {
            return Err(format!("its packs have {found} bytes, expected {start}"));
        }
        if digests != chunks {
            return Err(format!(
                "it has {digests} digests of chunks, expected {chunks}"
            ));
        }
        Ok(Self {
            mapping: Arc::new(embedded.packs),
            digests: embedded.digests,
            starts,
        })
    }

    /// Opens a pack.
    ///
    /// # Errors
    /// If its header is not the one that the index describes.
    pub fn open(&self, index: &Index, number: u32) -> Result<PackReader<PackSource>, ShieldError> {
        let pack = &index.packs()[number as usize];
        let (start, first) = self.starts[number as usize];
        let source = PackSource::Embedded {
            mapping: Arc::clone(&self.mapping),
            start,
            size: pack.stored_len() as usize,
        };
        let digests = &self.digests[first..][..pack.chunk_count() as usize];
        PackReader::open(source, index, number)?.measured(digests)
    }
}

impl ReadAt for PackSource {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        match self {
            Self::Disk(file) => file.read_at(buf, offset),
            Self::Embedded {
                mapping,
                start,
                size,
            } => {
                let offset = usize::try_from(offset).unwrap_or(*size).min(*size);
                let count = buf.len().min(size - offset);
                Ok(mapping.copy(start + offset, &mut buf[..count]))
            }
        }
    }

    fn size(&self) -> io::Result<u64> {
        match self {
            Self::Disk(file) => file.size(),
            Self::Embedded { size, .. } => Ok(*size as u64),
        }
    }
}
