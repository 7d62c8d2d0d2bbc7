//! The record of a chunk: where its content is, and what authenticates it (volume format, section 5).

use crate::error::Result;
use crate::node::Link;
use crate::seal::Salt;
use crate::wire::Decoder;

/// Where the content of a chunk is.
pub(crate) enum ChunkRecord<'a> {
    /// In the database.
    Row(Link),
    /// In the contents file.
    Slot(Link, Salt),
    /// In the record itself, without the zeros at its end.
    Inline(&'a [u8]),
}

/// Where the content of a chunk is, without what it takes to read it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    Inline,
    Row(u64),
    Slot(u64),
}

impl<'a> ChunkRecord<'a> {
    pub(crate) fn place(&self) -> Stored {
        match self {
            Self::Inline(_) => Stored::Inline,
            Self::Row(link) => Stored::Row(link.id),
            Self::Slot(link, _) => Stored::Slot(link.id),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Row(link) => {
                out.push(1);
                link.encode(&mut out);
            }
            Self::Slot(link, salt) => {
                out.push(3);
                link.encode(&mut out);
                out.extend(salt);
            }
            Self::Inline(bytes) => {
                out.push(2);
                out.extend_from_slice(bytes);
            }
        }
        out
    }

    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self> {
        let mut decoder = Decoder::new("a chunk record of the volume's tree", bytes);
        match decoder.u8()? {
            1 => {
                let link = Link::decode(&mut decoder)?;
                decoder.end()?;
                Ok(Self::Row(link))
            }
            2 => Ok(Self::Inline(decoder.rest())),
            3 => {
                let (link, salt) = (Link::decode(&mut decoder)?, decoder.array()?);
                decoder.end()?;
                Ok(Self::Slot(link, salt))
            }
            _ => Err(decoder.malformed("its storage is unknown")),
        }
    }
}
