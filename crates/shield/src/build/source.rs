//! Cuts the contents of all packs into segments, and reads them.

use super::layout::{Input, Layout, PackContent};
use crate::error::{display, ShieldError};
use crate::read_at::{read_full, ReadAt};
use crate::CHUNK_SIZE;

/// Chunks in a row that one thread works on, and that the cache keeps together.
const SEGMENT_SIZE: usize = 8 * CHUNK_SIZE;

/// Where the content of a segment is.
pub(super) struct Segment<'a, S> {
    /// Its place among all segments.
    pub(super) number: u64,
    pub(super) pack: usize,
    /// Number of its first chunk.
    pub(super) first: u32,
    parts: Vec<Part<'a, S>>,
}

/// A piece of a file.
struct Part<'a, S> {
    input: &'a Input<'a, S>,
    position: u64,
    length: usize,
}

impl<S: ReadAt> Segment<'_, S> {
    /// Reads the content; may be done by any thread.
    pub(super) fn read(&self, text: &mut Vec<u8>) -> Result<(), ShieldError> {
        text.resize(self.parts.iter().map(|part| part.length).sum(), 0);
        let mut rest = &mut text[..];
        for part in &self.parts {
            if part.position == 0 {
                check_size(part.input)?;
            }
            let (place, behind) = rest.split_at_mut(part.length);
            read_exactly(part.input, place, part.position)?;
            rest = behind;
        }
        Ok(())
    }
}

/// All segments, in the order in which the packs are written. Nothing is read here.
pub(super) struct Segments<'a, S> {
    packs: std::iter::Enumerate<std::slice::Iter<'a, PackContent<'a, S>>>,
    current: Option<PackSegments<'a, S>>,
    count: u64,
}

/// What is left of one pack.
struct PackSegments<'a, S> {
    pack: usize,
    files: std::slice::Iter<'a, Input<'a, S>>,
    /// The file whose rest comes next, and where that begins.
    file: Option<(&'a Input<'a, S>, u64)>,
    position: u64,
    size: u64,
}

impl<'a, S: ReadAt + Sync> Segments<'a, S> {
    pub(super) fn new(layout: &'a Layout<'a, S>) -> Self {
        Self {
            packs: layout.packs.iter().enumerate(),
            current: None,
            count: 0,
        }
    }

    /// How many there were so far.
    pub(super) fn handed_out(&self) -> u64 {
        self.count
    }
}

impl<'a, S> Iterator for Segments<'a, S> {
    type Item = Segment<'a, S>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(pack) = &mut self.current {
                if pack.position < pack.size {
                    let number = self.count;
                    self.count += 1;
                    return Some(pack.cut(number));
                }
            }
            let (pack, content) = self.packs.next()?;
            self.current = Some(PackSegments {
                pack,
                files: content.files.iter(),
                file: None,
                position: 0,
                size: content.size,
            });
        }
    }
}

impl<'a, S> PackSegments<'a, S> {
    fn cut(&mut self, number: u64) -> Segment<'a, S> {
        let first = (self.position / CHUNK_SIZE as u64) as u32;
        let mut missing = (self.size - self.position).min(SEGMENT_SIZE as u64);
        self.position += missing;
        let mut parts = Vec::new();
        while missing > 0 {
            let next = self.file.take().or_else(|| Some((self.files.next()?, 0)));
            let (input, position) = next.expect("the pack is as long as its files");
            let length = (input.size - position).min(missing);
            missing -= length;
            parts.push(Part {
                input,
                position,
                length: length as usize,
            });
            if position + length < input.size {
                self.file = Some((input, position + length));
            }
        }
        Segment {
            number,
            pack: self.pack,
            first,
            parts,
        }
    }
}

/// Checks that a source still has the size that was given for it.
pub(super) fn check_size<S: ReadAt>(input: &Input<'_, S>) -> Result<(), ShieldError> {
    let found = input
        .source
        .size()
        .map_err(|error| ShieldError::io(display(input.path), error))?;
    if found == input.size {
        return Ok(());
    }
    Err(ShieldError::BadSource {
        path: display(input.path),
        reason: format!("its source has {found} bytes, expected {}", input.size),
    })
}

/// Fills `buffer` from a source.
pub(super) fn read_exactly<S: ReadAt>(
    input: &Input<'_, S>,
    buffer: &mut [u8],
    position: u64,
) -> Result<(), ShieldError> {
    let count = read_full(input.source, buffer, position)
        .map_err(|error| ShieldError::io(display(input.path), error))?;
    if count == buffer.len() {
        return Ok(());
    }
    Err(ShieldError::BadSource {
        path: display(input.path),
        reason: format!(
            "its source ends after {} bytes, expected {}",
            position + count as u64,
            input.size
        ),
    })
}
