//! The superblock: the one record that is written anew by each commit, and from which the root is made
//! (volume format, section 4).

use crate::error::Result;
use crate::freshness::State;
use crate::keys::Keys;
use crate::node::{Link, NODE_SIZE};
use crate::wire::Decoder;

/// How many roots one history record of the tree has.
pub(crate) const SPILL: usize = 64;
/// How many history records are kept: roots of the last 65,536 commits, and up to 127 more in the superblock.
pub(crate) const HISTORY_RECORDS: u64 = 1_024;

const VERSION: u32 = 2;
const MAX_RECENT: usize = 2 * SPILL - 1;

/// Everything that the tree does not say of a state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Superblock {
    /// The number of the commit.
    pub(crate) counter: u64,
    /// How often the data key was wrapped anew.
    pub(crate) generation: u32,
    /// The level of the tree's root node.
    pub(crate) level: u8,
    pub(crate) tree: Link,
    pub(crate) next_inode: u64,
    pub(crate) next_node: u64,
    pub(crate) next_chunk: u64,
    /// How many chunks are stored in rows of their own.
    pub(crate) chunks: u64,
    /// How many slots the contents file has at least: all that the tree names are below.
    pub(crate) slots: u64,
    /// How many of them the tree names.
    pub(crate) slots_used: u64,
    /// Roots of the commits before this one, oldest first, the last one being that of `counter - 1`.
    pub(crate) recent: Vec<[u8; 32]>,
}

impl Superblock {
    /// The encoding, which is encrypted and stored, and from which the root is made.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(NODE_SIZE);
        out.extend(VERSION.to_le_bytes());
        out.extend(self.counter.to_le_bytes());
        out.extend(self.generation.to_le_bytes());
        out.push(self.level);
        self.tree.encode(&mut out);
        for number in [
            self.next_inode,
            self.next_node,
            self.next_chunk,
            self.chunks,
            self.slots,
            self.slots_used,
        ] {
            out.extend(number.to_le_bytes());
        }
        let count = u16::try_from(self.recent.len()).expect("few roots are recent");
        out.extend(count.to_le_bytes());
        out.extend(self.recent.iter().flatten());
        out.resize(NODE_SIZE, 0);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut decoder = Decoder::new("the volume's superblock", bytes);
        if decoder.u32()? != VERSION {
            return Err(decoder.malformed("it is of another version of the format"));
        }
        let superblock = Self {
            counter: decoder.u64()?,
            generation: decoder.u32()?,
            level: decoder.u8()?,
            tree: Link::decode(&mut decoder)?,
            next_inode: decoder.u64()?,
            next_node: decoder.u64()?,
            next_chunk: decoder.u64()?,
            chunks: decoder.u64()?,
            slots: decoder.u64()?,
            slots_used: decoder.u64()?,
            recent: {
                let count = usize::from(decoder.u16()?);
                if count > MAX_RECENT {
                    return Err(decoder.malformed("it has too many recent roots"));
                }
                (0..count).map(|_| decoder.array()).collect::<Result<_>>()?
            },
        };
        decoder.padding()?;
        if superblock.counter <= superblock.recent.len() as u64 {
            return Err(decoder.malformed("it has more roots than commits"));
        }
        if superblock.slots_used > superblock.slots {
            return Err(decoder.malformed("it has more chunks in slots than slots"));
        }
        Ok(superblock)
    }

    /// The state that this superblock stands for.
    pub(crate) fn state(&self, keys: &Keys) -> State {
        State {
            counter: self.counter,
            root: keys.root(&self.encode()),
        }
    }

    /// The counter of the oldest root in `recent`.
    pub(crate) fn first_recent(&self) -> u64 {
        self.counter - self.recent.len() as u64
    }

    /// Goes to the next commit. When too many roots are recent, the oldest ones are returned with the counter of the
    /// first: they belong into a history record of the tree.
    pub(crate) fn advance(&mut self, root: [u8; 32]) -> Option<(u64, Vec<u8>)> {
        self.counter += 1;
        self.recent.push(root);
        (self.recent.len() > MAX_RECENT).then(|| {
            let first = self.first_recent();
            (first, self.recent.drain(..SPILL).flatten().collect())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn superblock() -> Superblock {
        Superblock {
            counter: 1,
            generation: 2,
            level: 3,
            tree: Link {
                id: 4,
                tag: [5; 16],
            },
            next_inode: 6,
            next_node: 7,
            next_chunk: 8,
            chunks: 9,
            slots: 11,
            slots_used: 10,
            recent: vec![],
        }
    }

    #[test]
    fn every_root_is_recent_or_spilled() {
        let mut superblock = superblock();
        let mut spilled = Vec::new();
        for commit in 1..1000_u64 {
            assert_eq!(superblock.counter, commit);
            assert_eq!(
                Superblock::decode(&superblock.encode()).unwrap(),
                superblock
            );
            let mut root = [0; 32];
            root[..8].copy_from_slice(&commit.to_le_bytes());
            if let Some((first, roots)) = superblock.advance(root) {
                assert_eq!((roots.len(), first % SPILL as u64), (SPILL * 32, 1));
                assert_eq!(first, spilled.len() as u64 + 1);
                spilled.extend(roots.chunks(32).map(<[u8]>::to_vec));
            }
            let all = spilled.iter().map(Vec::as_slice);
            let all = all.chain(superblock.recent.iter().map(<[u8; 32]>::as_slice));
            for (number, root) in all.enumerate() {
                assert_eq!(root[..8], (number as u64 + 1).to_le_bytes());
            }
        }
    }

    #[test]
    fn malformed_superblocks_are_refused() {
        let good = superblock().encode();
        let mut version = good.clone();
        version[0] = 9;
        let mut roots = good.clone();
        roots[89] = 1;
        let mut slots = good.clone();
        slots[81] = 12;
        let mut many = good.clone();
        many[89..91].copy_from_slice(&200_u16.to_le_bytes());
        for (bad, expected) in [
            (version, "version"),
            (roots, "more roots than commits"),
            (slots, "more chunks in slots"),
            (many, "too many"),
        ] {
            let message = Superblock::decode(&bad).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
