//! The nodes of the tree: what stands in a row of the table `node` once it is decrypted (volume format, section 5).

use crate::error::Result;
use crate::seal::Tag;
use crate::wire::Decoder;

/// Bytes of every encoded node, padded: with salt and record header it fills one page of the database.
pub(crate) const NODE_SIZE: usize = 8_064;
/// Bytes of the longest value of a record; three of them fit into a node, so every split succeeds.
pub(crate) const MAX_VALUE: usize = 2_048;

const PREFIX: usize = 3;
const KEY_SIZE: usize = 17;
const LINK_SIZE: usize = KEY_SIZE + 24;

/// What a record describes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub(crate) enum Kind {
    /// The attributes of an inode.
    Attributes = 1,
    /// An entry of a directory.
    Entry = 2,
    /// A part of a symbolic link's target.
    Target = 3,
    /// A part of the extended attributes.
    Xattrs = 4,
    /// Where a chunk of a file's content is.
    Chunk = 5,
    /// A file without a name, kept while it is open.
    Orphan = 6,
    /// Roots of earlier commits.
    History = 7,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        [
            Self::Attributes,
            Self::Entry,
            Self::Target,
            Self::Xattrs,
            Self::Chunk,
            Self::Orphan,
            Self::History,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

/// The key of a record; records are sorted by it, so all of an inode stand together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Key {
    pub(crate) inode: u64,
    pub(crate) kind: Kind,
    pub(crate) sub: u64,
}

impl Key {
    pub(crate) fn new(inode: u64, kind: Kind, sub: u64) -> Self {
        Self { inode, kind, sub }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.inode.to_le_bytes());
        out.push(self.kind as u8);
        out.extend(self.sub.to_le_bytes());
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<Self> {
        let inode = decoder.u64()?;
        let kind = Kind::from_byte(decoder.u8()?)
            .ok_or_else(|| decoder.malformed("a record has an unknown kind"))?;
        let sub = decoder.u64()?;
        Ok(Self { inode, kind, sub })
    }
}

/// Where a node or chunk is stored, and the tag that it must have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Link {
    pub(crate) id: u64,
    pub(crate) tag: Tag,
}

impl Link {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.id.to_le_bytes());
        out.extend(self.tag);
    }

    pub(crate) fn decode(decoder: &mut Decoder<'_>) -> Result<Self> {
        Ok(Self {
            id: decoder.u64()?,
            tag: decoder.array()?,
        })
    }
}

/// A node: records at level 0, links to nodes of the level below elsewhere.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Node {
    Leaf(Vec<(Key, Box<[u8]>)>),
    /// Each child holds keys from its own key on; the first child also those before it.
    Inner(u8, Vec<(Key, Link)>),
}

impl Node {
    pub(crate) fn level(&self) -> u8 {
        match self {
            Self::Leaf(_) => 0,
            Self::Inner(level, _) => *level,
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Leaf(records) => records.len(),
            Self::Inner(_, children) => children.len(),
        }
    }

    /// Bytes of the encoding without padding.
    pub(crate) fn size(&self) -> usize {
        PREFIX
            + match self {
                Self::Leaf(records) => records
                    .iter()
                    .map(|(_, value)| KEY_SIZE + 2 + value.len())
                    .sum::<usize>(),
                Self::Inner(_, children) => children.len() * LINK_SIZE,
            }
    }

    pub(crate) fn first_key(&self) -> Option<Key> {
        match self {
            Self::Leaf(records) => records.first().map(|(key, _)| *key),
            Self::Inner(_, children) => children.first().map(|(key, _)| *key),
        }
    }

    /// Moves about half of the bytes to a new node behind this one.
    pub(crate) fn split(&mut self) -> Self {
        match self {
            Self::Leaf(records) => {
                let (mut bytes, half) = (0, records_size(records) / 2);
                let middle = records
                    .iter()
                    .position(|(_, value)| {
                        bytes += KEY_SIZE + 2 + value.len();
                        bytes > half
                    })
                    .unwrap_or(0)
                    .clamp(1, records.len() - 1);
                Self::Leaf(records.split_off(middle))
            }
            Self::Inner(level, children) => {
                Self::Inner(*level, children.split_off(children.len() / 2))
            }
        }
    }

    /// Appends a node of the same level, all of whose keys are greater.
    pub(crate) fn append(&mut self, other: &Self) {
        match (self, other) {
            (Self::Leaf(records), Self::Leaf(others)) => records.extend_from_slice(others),
            (Self::Inner(_, children), Self::Inner(_, others)) => {
                children.extend_from_slice(others);
            }
            _ => unreachable!("siblings have one level"),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(NODE_SIZE);
        out.push(self.level());
        out.extend(
            u16::try_from(self.len())
                .expect("a node has less than 200 parts")
                .to_le_bytes(),
        );
        match self {
            Self::Leaf(records) => {
                for (key, value) in records {
                    key.encode(&mut out);
                    let length = u16::try_from(value.len()).expect("values are short");
                    out.extend(length.to_le_bytes());
                    out.extend_from_slice(value);
                }
            }
            Self::Inner(_, children) => {
                for (key, link) in children {
                    key.encode(&mut out);
                    link.encode(&mut out);
                }
            }
        }
        debug_assert!(out.len() <= NODE_SIZE);
        out.resize(NODE_SIZE, 0);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut decoder = Decoder::new("a node of the volume's tree", bytes);
        let level = decoder.u8()?;
        let count = decoder.u16()?;
        let mut before = None;
        let mut key = |decoder: &mut Decoder<'_>| {
            let key = Key::decode(decoder)?;
            if before.replace(key).is_some_and(|before| before >= key) {
                return Err(decoder.malformed("its records are not sorted"));
            }
            Ok(key)
        };
        let node = if level == 0 {
            let mut records = Vec::with_capacity(count.into());
            for _ in 0..count {
                let key = key(&mut decoder)?;
                let length = decoder.u16()?;
                records.push((key, decoder.take(length.into())?.into()));
            }
            Self::Leaf(records)
        } else {
            if count == 0 {
                return Err(decoder.malformed("an inner node is empty"));
            }
            let mut children = Vec::with_capacity(count.into());
            for _ in 0..count {
                children.push((key(&mut decoder)?, Link::decode(&mut decoder)?));
            }
            Self::Inner(level, children)
        };
        decoder.padding()?;
        Ok(node)
    }
}

fn records_size(records: &[(Key, Box<[u8]>)]) -> usize {
    records
        .iter()
        .map(|(_, value)| KEY_SIZE + 2 + value.len())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn leaf(values: &[usize]) -> Node {
        let record = |(number, length): (usize, &usize)| {
            let key = Key::new(1, Kind::Entry, number as u64);
            (key, vec![number as u8; *length].into_boxed_slice())
        };
        Node::Leaf(values.iter().enumerate().map(record).collect())
    }

    #[test]
    fn nodes_are_encoded_in_one_size() {
        let inner = Node::Inner(
            2,
            vec![(
                Key::new(0, Kind::History, 64),
                Link {
                    id: 9,
                    tag: [3; 16],
                },
            )],
        );
        for node in [leaf(&[]), leaf(&[0, 5, 2_048]), inner] {
            let bytes = node.encode();
            assert_eq!(bytes.len(), NODE_SIZE);
            assert_eq!(Node::decode(&bytes).unwrap(), node);
        }
    }

    #[test]
    fn malformed_nodes_are_refused() {
        let good = leaf(&[1, 1]).encode();
        let mut unsorted = good.clone();
        unsorted[3 + 9] = 9;
        let mut padded = good.clone();
        *padded.last_mut().unwrap() = 1;
        let mut kind = good.clone();
        kind[3 + 8] = 99;
        let empty_inner = [&[1, 0, 0][..], &[0; NODE_SIZE - 3]].concat();
        for (bad, expected) in [
            (unsorted, "sorted"),
            (padded, "padding"),
            (kind, "unknown kind"),
            (empty_inner, "empty"),
            (good[..20].to_vec(), "passes its end"),
        ] {
            let message = Node::decode(&bad).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    proptest! {
        #[test]
        fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Node::decode(&bytes);
        }

        #[test]
        fn both_halves_of_a_split_have_room(lengths in proptest::collection::vec(0..=MAX_VALUE, 3..40)) {
            // As the tree does: a node that was full gets one more record.
            let mut values = Vec::new();
            for length in lengths {
                values.push(length);
                let mut node = leaf(&values);
                if node.size() > NODE_SIZE {
                    let right = node.split();
                    prop_assert!(node.size() <= NODE_SIZE && right.size() <= NODE_SIZE);
                    break;
                }
            }
        }
    }
}
