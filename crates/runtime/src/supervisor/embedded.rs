//! A protected file system in our own file. A chunk is read, compared with its measured digest, and decrypted when it is needed.
//!
//! The file is read, not mapped: a chunk is copied before it is checked in either case, a read costs no page faults, and a file that the host cuts meanwhile
//! gives an end of file that names it, not a signal.

use std::fs::File;
use std::io;
use std::sync::Arc;

use sconify_shield::{Index, PackReader, ReadAt, ShieldError};

use crate::executor::Embedded;

/// The packs of an embedded file system.
pub struct EmbeddedPacks {
    file: Arc<File>,
    digests: Vec<[u8; 32]>,
    /// By number: where the pack begins in the file, and the number of its first digest.
    starts: Vec<(u64, usize)>,
}

/// The bytes of one pack.
pub enum PackSource {
    /// A file of its own.
    Disk(File),
    /// A part of our file.
    Embedded {
        /// The file.
        file: Arc<File>,
        /// Where the pack begins.
        start: u64,
        /// How many bytes it has.
        size: u64,
    },
}

impl EmbeddedPacks {
    /// Finds the packs that an index describes.
    ///
    /// # Errors
    /// What does not fit, if packs or digests are more or fewer than the index has.
    pub fn new(index: &Index, embedded: Embedded) -> Result<Self, String> {
        let (mut end, mut chunks) = (embedded.packs.start, 0);
        let mut starts = Vec::with_capacity(index.packs().len());
        for pack in index.packs() {
            starts.push((end, chunks));
            end += pack.stored_len();
            chunks += pack.chunk_count() as usize;
        }
        let digests = embedded.digests.len();
        if embedded.packs.end != end {
            let sizes = [embedded.packs.end, end].map(|end| end - embedded.packs.start);
            return Err(format!(
                "its packs have {} bytes, expected {}",
                sizes[0], sizes[1]
            ));
        }
        if digests != chunks {
            return Err(format!(
                "it has {digests} digests of chunks, expected {chunks}"
            ));
        }
        Ok(Self {
            file: Arc::new(embedded.file),
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
            file: Arc::clone(&self.file),
            start,
            size: pack.stored_len(),
        };
        let digests = &self.digests[first..][..pack.chunk_count() as usize];
        PackReader::open(source, index, number)?.measured(digests)
    }
}

impl ReadAt for PackSource {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        match self {
            Self::Disk(file) => file.read_at(buf, offset),
            Self::Embedded { file, start, size } => {
                let left = size.saturating_sub(offset);
                let count = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
                file.read_at(&mut buf[..count], start + offset)
            }
        }
    }

    fn size(&self) -> io::Result<u64> {
        match self {
            Self::Disk(file) => file.size(),
            Self::Embedded { file, start, size } => {
                Ok(file.size()?.saturating_sub(*start).min(*size))
            }
        }
    }
}
