//! Where each content goes: hard links once, pack by pack in the order of the index.

use std::collections::HashMap;

use super::{Builder, Content, NewEntry};
use crate::error::ShieldError;
use crate::read_at::ReadAt;
use crate::CHUNK_SIZE;

/// A content to read.
pub(super) struct Input<'a, S> {
    pub(super) path: &'a [u8],
    pub(super) source: &'a S,
    pub(super) size: u64,
}

/// What goes into one pack.
pub(super) struct PackContent<'a, S> {
    pub(super) files: Vec<Input<'a, S>>,
    pub(super) size: u64,
}

impl<S> PackContent<'_, S> {
    /// Plaintext lengths of the chunks.
    pub(super) fn chunk_lengths(&self) -> impl ExactSizeIterator<Item = u32> {
        let size = self.size;
        let count = size.div_ceil(CHUNK_SIZE as u64) as u32;
        (0..count).map(move |number| {
            (size - u64::from(number) * CHUNK_SIZE as u64).min(CHUNK_SIZE as u64) as u32
        })
    }
}

/// Where the content of a file is, as far as it is known before anything is read.
#[derive(Clone, Copy)]
pub(super) enum Place {
    /// At this offset of the pack's plaintext.
    Packed { pack: u32, offset: u64 },
    /// In [`Layout::plain`] at this position, where its hash will be found too.
    Plain(usize),
}

/// The places of all contents.
pub(super) struct Layout<'a, S> {
    pub(super) packs: Vec<PackContent<'a, S>>,
    pub(super) plain: Vec<Input<'a, S>>,
    /// The places of all files, in the order of the index.
    pub(super) places: Vec<Place>,
}

impl<'a, S: ReadAt + Sync> Layout<'a, S> {
    pub(super) fn new(builder: &'a Builder<S>) -> Result<Self, ShieldError> {
        let packs = builder.packs.iter().map(|_| PackContent {
            files: Vec::new(),
            size: 0,
        });
        let mut layout = Self {
            packs: packs.collect(),
            plain: Vec::new(),
            places: Vec::new(),
        };
        let mut by_inode = HashMap::new();
        for (path, NewEntry { metadata, content }) in &builder.entries {
            let Content::File { source, size, pack } = content else {
                continue;
            };
            let place = match by_inode.get(&metadata.inode) {
                None => layout.place(
                    Input {
                        path,
                        source,
                        size: *size,
                    },
                    *pack,
                )?,
                Some((first, place)) if first == pack => *place,
                Some(_) => {
                    return Err(ShieldError::input(
                        path,
                        "it and its hard link differ in the pack",
                    ));
                }
            };
            by_inode.insert(metadata.inode, (*pack, place));
            layout.places.push(place);
        }
        Ok(layout)
    }

    fn place(&mut self, input: Input<'a, S>, pack: Option<u32>) -> Result<Place, ShieldError> {
        let Some(pack) = pack else {
            self.plain.push(input);
            return Ok(Place::Plain(self.plain.len() - 1));
        };
        let content = &mut self.packs[pack as usize];
        let offset = content.size;
        let limit = u64::from(u32::MAX) * CHUNK_SIZE as u64;
        content.size = offset
            .checked_add(input.size)
            .filter(|size| *size <= limit)
            .ok_or_else(|| {
                ShieldError::input(
                    input.path,
                    "its pack would have more than 4,294,967,295 chunks",
                )
            })?;
        content.files.push(input);
        Ok(Place::Packed { pack, offset })
    }
}
