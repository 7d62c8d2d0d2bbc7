//! Encrypted volumes, format version 1, as `docs/volume-format.md` specifies it: a tree of files in one SQLite database of
//! ciphertext, under a Merkle root that changes with each commit.
//!
//! Begin with [`Volume::create`] or [`Volume::open`]. A volume is used by several threads at once; its operations are
//! those of a POSIX file system on inode numbers, without permission checks, which are the caller's. Nothing is
//! durable before [`Volume::commit`] returns, which gives the new [`State`] for the policy service.
#![forbid(unsafe_code)]

mod attributes;
mod cache;
mod check;
mod commit;
mod content;
mod directory;
mod entries;
mod error;
mod freshness;
mod keys;
mod lock;
mod log;
mod maintain;
mod names;
mod node;
mod open;
mod parts;
mod range;
mod rename;
mod rows;
mod schema;
mod seal;
mod store;
mod superblock;
mod tree;
mod unnamed;
mod volume;
mod wire;
mod write_back;
mod xattrs;

pub use attributes::{Attributes, Changes, FileKind, Time};
pub use check::Report;
pub use directory::{New, NewKind};
pub use entries::DirectoryEntry;
pub use error::{Result, VolumeError};
pub use freshness::{Accept, Accepted, Expected, Stale, State};
pub use keys::VolumeId;
pub use maintain::Facts;
pub use open::{Access, Options};
pub use rename::RenameMode;
pub use sconify_shield::FileSystemKey;
pub use volume::{OpenFile, Volume};
pub use write_back::Times;

/// The inode number of a volume's top directory.
pub const ROOT_INODE: u64 = 1;
/// Bytes of content in a chunk.
pub const CHUNK_SIZE: usize = 16_384;
/// The longest name of a directory entry, in bytes.
pub const MAX_NAME: usize = 255;
/// The longest target of a symbolic link, in bytes.
pub const MAX_TARGET: usize = 4_095;
/// The greatest size of a file, in bytes.
pub const MAX_FILE_SIZE: u64 = 1 << 60;
