//! The packs on the disk, opened at their first use. Small files share chunks, and programs open the files of a directory together: so the last chunks are kept.

use std::collections::VecDeque;
use std::io;
use std::num::NonZero;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::available_parallelism;

use rustix::io::Errno;
use sconify_shield::{copy_plain, Entry, Index, Kind, PackReader, Storage, CHUNK_SIZE};

use super::content_error::ContentError;
use super::contents::open_regular;
use super::embedded::{EmbeddedPacks, PackSource};

/// How many decrypted chunks are kept, 8 MiB: an interpreter at its start goes to and fro between the modules of some directories.
const KEPT: usize = 128;
/// Files up to this size are taken from kept chunks; bigger ones share little with others.
const SMALL: u64 = 2 * CHUNK_SIZE as u64;

type Chunk = Arc<Vec<u8>>;

/// The packs of one index.
pub struct Packs {
    readers: Vec<OnceLock<PackReader<PackSource>>>,
    /// Where they are embedded, if not in files of their own.
    embedded: Option<EmbeddedPacks>,
    /// Pack, number and plaintext; the latest used last.
    recent: Mutex<VecDeque<(u32, u32, Chunk)>>,
    /// How many threads a big file is worth.
    threads: usize,
}

impl Packs {
    /// The packs of an index, none of them opened yet.
    pub fn new(index: &Index, embedded: Option<EmbeddedPacks>) -> Self {
        Self {
            readers: index.packs().iter().map(|_| OnceLock::new()).collect(),
            embedded,
            recent: Mutex::default(),
            // Asked for once: it reads some files of /proc and /sys.
            threads: available_parallelism().map_or(1, NonZero::get),
        }
    }

    /// Hands the content of a file to `sink`, piece after piece with its offset, in no order.
    ///
    /// # Errors
    /// If the file, or its pack, can't be opened or does not verify, or `sink` fails; what `sink` got is worthless then.
    pub fn copy(
        &self,
        index: &Index,
        entry: Entry<'_>,
        sink: &(dyn Fn(u64, &[u8]) -> io::Result<()> + Sync),
    ) -> Result<(), ContentError> {
        match entry.kind() {
            Kind::File {
                size,
                storage: Storage::Packed { pack, offset },
            } => {
                let reader = self.reader(index, pack)?;
                if size > SMALL {
                    return Ok(reader.copy_file(entry, self.threads, sink)?);
                }
                self.pieces(reader, (pack, offset), size, |done, piece| {
                    sink(done, piece).map_err(|_| Errno::IO.into())
                })
            }
            Kind::File {
                storage: Storage::Plain { .. },
                ..
            } => {
                let file = open_regular(entry.path())?;
                Ok(copy_plain(entry, &file, self.threads, sink)?)
            }
            _ => Err(ContentError::Kernel(Errno::ACCESS)),
        }
    }

    /// Up to `length` bytes of a packed file from `offset` on; fewer only at the end.
    ///
    /// # Errors
    /// As [`Packs::copy`].
    pub fn piece(
        &self,
        index: &Index,
        entry: Entry<'_>,
        offset: u64,
        length: usize,
    ) -> Result<Vec<u8>, ContentError> {
        let Kind::File {
            size,
            storage:
                Storage::Packed {
                    pack,
                    offset: start,
                },
        } = entry.kind()
        else {
            return Err(ContentError::Kernel(Errno::ACCESS));
        };
        let length = size.saturating_sub(offset).min(length as u64);
        let mut bytes = Vec::with_capacity(length as usize);
        let reader = self.reader(index, pack)?;
        self.pieces(
            reader,
            (pack, start.saturating_add(offset)),
            length,
            |_, piece| {
                bytes.extend_from_slice(piece);
                Ok(())
            },
        )?;
        Ok(bytes)
    }

    /// Hands `length` bytes from `offset` of a pack on to `sink`, from kept chunks.
    fn pieces(
        &self,
        reader: &PackReader<PackSource>,
        (pack, offset): (u32, u64),
        length: u64,
        mut sink: impl FnMut(u64, &[u8]) -> Result<(), ContentError>,
    ) -> Result<(), ContentError> {
        let mut done = 0;
        while done < length {
            let at = offset + done;
            let number = u32::try_from(at / CHUNK_SIZE as u64).map_err(|_| Errno::IO)?;
            let chunk = self.chunk(reader, pack, number)?;
            let start = (at % CHUNK_SIZE as u64) as usize;
            let available = chunk
                .get(start..)
                .filter(|bytes| !bytes.is_empty())
                .ok_or(Errno::IO)?;
            let count = available.len().min((length - done) as usize);
            sink(done, &available[..count])?;
            done += count as u64;
        }
        Ok(())
    }

    fn chunk(
        &self,
        reader: &PackReader<PackSource>,
        pack: u32,
        number: u32,
    ) -> Result<Chunk, ContentError> {
        let lock = || self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let found = {
            let mut recent = lock();
            let position = recent
                .iter()
                .position(|kept| (kept.0, kept.1) == (pack, number));
            position
                .and_then(|position| recent.remove(position))
                .inspect(|kept| {
                    recent.push_back((kept.0, kept.1, Arc::clone(&kept.2)));
                })
        };
        if let Some((.., chunk)) = found {
            return Ok(chunk);
        }
        let start = u64::from(number) * CHUNK_SIZE as u64;
        let length = reader
            .pack()
            .plaintext_len()
            .saturating_sub(start)
            .min(CHUNK_SIZE as u64);
        let mut text = vec![0; length as usize];
        reader.read(start, &mut text)?;
        let chunk = Arc::new(text);
        let mut recent = lock();
        if recent.len() >= KEPT {
            recent.pop_front();
        }
        recent.push_back((pack, number, Arc::clone(&chunk)));
        Ok(chunk)
    }

    fn reader(&self, index: &Index, number: u32) -> Result<&PackReader<PackSource>, ContentError> {
        let cell = self.readers.get(number as usize).ok_or(Errno::IO)?;
        if let Some(reader) = cell.get() {
            return Ok(reader);
        }
        let reader = match &self.embedded {
            Some(embedded) => embedded.open(index, number)?,
            None => {
                let file = open_regular(index.packs()[number as usize].file())?;
                PackReader::open(PackSource::Disk(file), index, number)?
            }
        };
        Ok(cell.get_or_init(|| reader))
    }
}
