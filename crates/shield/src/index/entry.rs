//! One entry of the index, decoded on demand from the verified body.

use std::ops::Range;

/// The number of an entry in its index: the rank of its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId(pub u32);

impl EntryId {
    /// The root directory, which every index has.
    pub const ROOT: Self = Self(0);
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A regular file.
    File {
        /// Bytes of content.
        size: u64,
        /// Where the content is.
        storage: Storage<'a>,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// What it points to: never empty, at most 4095 bytes.
        target: &'a [u8],
    },
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// Where the content of a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage<'a> {
    /// Encrypted, in a pack.
    Packed {
        /// The pack's number.
        pack: u32,
        /// Offset in the pack's plaintext.
        offset: u64,
    },
    /// A plain file at the same path in the image.
    Plain {
        /// SHA-256 of the whole content.
        sha256: &'a [u8; 32],
    },
}

/// Type bytes, as in `ls -l`.
pub(crate) mod type_byte {
    pub(crate) const FILE: u8 = b'-';
    pub(crate) const DIRECTORY: u8 = b'd';
    pub(crate) const SYMLINK: u8 = b'l';
    pub(crate) const CHAR_DEVICE: u8 = b'c';
    pub(crate) const BLOCK_DEVICE: u8 = b'b';
    pub(crate) const FIFO: u8 = b'p';
}

/// Storage numbers.
pub(crate) const STORAGE_PACKED: u8 = 1;
/// See [`STORAGE_PACKED`].
pub(crate) const STORAGE_PLAIN: u8 = 2;

/// Where the parts of an entry stand in the body, and what is known about its neighbours.
pub(super) struct Record {
    /// The path.
    pub(super) path: Range<u32>,
    /// The fields that depend on the type.
    pub(super) content: u32,
    /// Where the next entry begins.
    pub(super) end: u32,
    pub(super) parent: EntryId,
    /// `st_nlink`.
    pub(super) links: u32,
}

impl Record {
    pub(super) fn path<'a>(&self, body: &'a [u8]) -> &'a [u8] {
        &body[self.path.start as usize..self.path.end as usize]
    }
}

/// One entry of an index.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    body: &'a [u8],
    record: &'a Record,
    id: EntryId,
}

impl<'a> Entry<'a> {
    pub(super) fn new(body: &'a [u8], record: &'a Record, id: EntryId) -> Self {
        Self { body, record, id }
    }

    /// The entry's number.
    pub fn id(&self) -> EntryId {
        self.id
    }

    /// The absolute, normal path.
    pub fn path(&self) -> &'a [u8] {
        self.record.path(self.body)
    }

    /// What the entry is, with its content fields.
    pub fn kind(&self) -> Kind<'a> {
        let content = self.record.content as usize;
        match self.type_byte() {
            type_byte::FILE => Kind::File {
                size: u64::from_le_bytes(self.at(content + 1)),
                storage: self.storage(content),
            },
            type_byte::DIRECTORY => Kind::Directory,
            type_byte::SYMLINK => {
                let length = u32::from_le_bytes(self.at(content)) as usize;
                Kind::Symlink {
                    target: &self.body[content + 4..content + 4 + length],
                }
            }
            type_byte::FIFO => Kind::Fifo,
            device => {
                let major = u32::from_le_bytes(self.at(content));
                let minor = u32::from_le_bytes(self.at(content + 4));
                if device == type_byte::CHAR_DEVICE {
                    Kind::CharDevice { major, minor }
                } else {
                    Kind::BlockDevice { major, minor }
                }
            }
        }
    }

    /// Whether the entry is a directory.
    pub fn is_directory(&self) -> bool {
        self.type_byte() == type_byte::DIRECTORY
    }

    /// Permission bits, set-id and sticky bits: at most `0o7777`.
    pub fn mode(&self) -> u32 {
        u32::from_le_bytes(self.field(1))
    }

    /// `st_mode`: the type bits and [`Entry::mode`].
    pub fn st_mode(&self) -> u32 {
        let type_bits = match self.type_byte() {
            type_byte::FILE => 0o100_000,
            type_byte::DIRECTORY => 0o040_000,
            type_byte::SYMLINK => 0o120_000,
            type_byte::CHAR_DEVICE => 0o020_000,
            type_byte::BLOCK_DEVICE => 0o060_000,
            _ => 0o010_000,
        };
        type_bits | self.mode()
    }

    /// The owner.
    pub fn uid(&self) -> u32 {
        u32::from_le_bytes(self.field(5))
    }

    /// The group.
    pub fn gid(&self) -> u32 {
        u32::from_le_bytes(self.field(9))
    }

    /// Time of the last change, in seconds since 1970.
    pub fn mtime(&self) -> i64 {
        i64::from_le_bytes(self.field(13))
    }

    /// Nanoseconds within the second of [`Entry::mtime`].
    pub fn mtime_nsec(&self) -> u32 {
        u32::from_le_bytes(self.field(21))
    }

    /// The inode number, never 0; hard links of each other share it.
    pub fn inode(&self) -> u64 {
        u64::from_le_bytes(self.field(25))
    }

    /// `st_size`: bytes of content, the length of a link's target, otherwise 0.
    pub fn size(&self) -> u64 {
        match self.kind() {
            Kind::File { size, .. } => size,
            Kind::Symlink { target } => target.len() as u64,
            _ => 0,
        }
    }

    /// `st_nlink`: for directories 2 and one for each subdirectory, otherwise the number of hard links in the index.
    pub fn nlink(&self) -> u32 {
        self.record.links
    }

    /// Extended attributes as name and value, sorted by name.
    pub fn xattrs(&self) -> Xattrs<'a> {
        let count = u32::from_le_bytes(self.field(33));
        Xattrs {
            body: &self.body[self.record.path.end as usize + FIXED_SIZE..],
            left: count,
        }
    }

    /// The value of one extended attribute.
    pub fn xattr(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.xattrs()
            .find(|(found, _)| *found == name)
            .map(|(_, value)| value)
    }

    fn storage(&self, content: usize) -> Storage<'a> {
        if self.body[content] == STORAGE_PACKED {
            Storage::Packed {
                pack: u32::from_le_bytes(self.at(content + 9)),
                offset: u64::from_le_bytes(self.at(content + 13)),
            }
        } else {
            Storage::Plain {
                sha256: self.body[content + 9..]
                    .first_chunk()
                    .expect("checked when the index was parsed"),
            }
        }
    }

    fn type_byte(&self) -> u8 {
        self.body[self.record.path.end as usize]
    }

    /// A fixed field at this offset after the path.
    fn field<const N: usize>(&self, offset: usize) -> [u8; N] {
        self.at(self.record.path.end as usize + offset)
    }

    fn at<const N: usize>(&self, position: usize) -> [u8; N] {
        *self.body[position..]
            .first_chunk()
            .expect("checked when the index was parsed")
    }
}

/// Bytes from the type to the number of extended attributes: 1 + 4 + 4 + 4 + 8 + 4 + 8 + 4.
pub(super) const FIXED_SIZE: usize = 37;

/// The extended attributes of an entry.
pub struct Xattrs<'a> {
    body: &'a [u8],
    left: u32,
}

impl<'a> Iterator for Xattrs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let mut bytes = || {
            let (length, rest) = self
                .body
                .split_first_chunk()
                .expect("checked when the index was parsed");
            let (bytes, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
            self.body = rest;
            bytes
        };
        Some((bytes(), bytes()))
    }
}
