//! The packs on the disk, opened at their first use. Small files share chunks, and programs open the files of a directory together: so the last chunks are kept.

use std::collections::VecDeque;
use std::num::NonZero;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::available_parallelism;

use rustix::io::Errno;
use sconify_shield::{Entry, Index, PackReader, CHUNK_SIZE};

use super::contents::{open_regular, ContentError};
use super::embedded::{EmbeddedPacks, PackSource};

/// How many decrypted chunks are kept, 8 MiB: an interpreter at its start goes to and fro between the modules of some directories.
const KEPT: usize = 128;
/// Files up to this size are taken from kept chunks; bigger ones share little with others.
const SMALL: usize = 2 * CHUNK_SIZE;

type Chunk = Arc<Vec<u8>>;

/// The packs of one index.
pub struct Packs {
    readers: Vec<OnceLock<PackReader<PackSource>>>,
    /// Where they are embedded, if not in files of their own.
    embedded: Option<EmbeddedPacks>,
    /// Pack, number and plaintext; the latest used last.
    recent: Mutex<VecDeque<(u32, u32, Chunk)>>,
}

impl Packs {
    /// The packs of an index, none of them opened yet.
    pub fn new(index: &Index, embedded: Option<EmbeddedPacks>) -> Self {
        Self {
            readers: index.packs().iter().map(|_| OnceLock::new()).collect(),
            embedded,
            recent: Mutex::default(),
        }
    }

    /// Fills `target` with the content of a file that stands at `offset` of a pack.
    ///
    /// # Errors
    /// If the pack can't be opened or does not verify; `target` is worthless then.
    pub fn read(
        &self,
        index: &Index,
        entry: Entry<'_>,
        (pack, offset): (u32, u64),
        target: &mut [u8],
    ) -> Result<(), ContentError> {
        let reader = self.reader(index, pack)?;
        if target.len() > SMALL {
            let threads = available_parallelism().map_or(1, NonZero::get);
            return Ok(reader.read_file(entry, target, threads)?);
        }
        let mut done = 0;
        while done < target.len() {
            let at = offset + done as u64;
            let number = u32::try_from(at / CHUNK_SIZE as u64).map_err(|_| Errno::IO)?;
            let chunk = self.chunk(reader, pack, number)?;
            let start = (at % CHUNK_SIZE as u64) as usize;
            let available = chunk
                .get(start..)
                .filter(|bytes| !bytes.is_empty())
                .ok_or(Errno::IO)?;
            let count = available.len().min(target.len() - done);
            target[done..done + count].copy_from_slice(&available[..count]);
            done += count;
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
