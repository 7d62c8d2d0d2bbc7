//! The protected-file format, version 1, as `docs/format.md` specifies it: an encrypted *index* that describes a whole
//! tree of paths, and *packs* that hold the encrypted contents.
//!
//! The crate does no I/O of its own: packs and files come through [`ReadAt`], outputs go through [`std::io::Write`].
//! Reading begins with [`Index::open`]; what it returns is verified. Building is the work of [`build::Builder`].
#![forbid(unsafe_code)]

pub mod build;
mod cipher;
mod error;
mod index;
mod keys;
mod pack;
mod path;
mod plain;
mod read_at;
mod resolve;
mod wire;

pub use error::ShieldError;
pub use index::{Entry, EntryId, Index, Kind, Pack, Region, RegionKind, Storage};
pub use keys::{FileSystemKey, RootTag};
pub use pack::PackReader;
pub use plain::{copy_plain, read_plain};
pub use read_at::ReadAt;
pub use resolve::{ResolveError, Resolved};

/// Plaintext bytes in every chunk of a pack but the last one.
pub const CHUNK_SIZE: usize = 65_536;
