//! The attributes of an inode (volume format, section 6).

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::io::Errno;

use crate::error::Result;
use crate::node::{Key, Kind};
use crate::volume::{Volume, Working};
use crate::wire::Decoder;

/// Blocks of 512 bytes that a stored chunk counts for.
const BLOCKS_PER_CHUNK: u64 = crate::CHUNK_SIZE as u64 / 512;
const PERMISSIONS: u32 = 0o7777;

/// The type of an inode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum FileKind {
    Regular = b'-',
    Directory = b'd',
    Symlink = b'l',
    Fifo = b'p',
    Socket = b's',
    CharDevice = b'c',
    BlockDevice = b'b',
}

impl FileKind {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        [
            Self::Regular,
            Self::Directory,
            Self::Symlink,
            Self::Fifo,
            Self::Socket,
            Self::CharDevice,
            Self::BlockDevice,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }

    /// The type's bits in `st_mode`.
    pub fn mode_bits(self) -> u32 {
        match self {
            Self::Regular => 0o100_000,
            Self::Directory => 0o040_000,
            Self::Symlink => 0o120_000,
            Self::Fifo => 0o010_000,
            Self::Socket => 0o140_000,
            Self::CharDevice => 0o020_000,
            Self::BlockDevice => 0o060_000,
        }
    }
}

/// A point in time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Time {
    /// Seconds since 1970-01-01 UTC.
    pub seconds: i64,
    /// Nanoseconds within that second, below 1,000,000,000.
    pub nanoseconds: u32,
}

impl Time {
    /// The time of the system's clock.
    pub fn now() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            seconds: since.as_secs().try_into().unwrap_or(i64::MAX),
            nanoseconds: since.subsec_nanos(),
        }
    }

    fn encode(self, out: &mut Vec<u8>) {
        out.extend(self.seconds.to_le_bytes());
        out.extend(self.nanoseconds.to_le_bytes());
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<Self> {
        Ok(Self {
            seconds: i64::from_le_bytes(decoder.array()?),
            nanoseconds: decoder.u32()?,
        })
    }
}

/// The attributes of an inode.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attributes {
    /// The number of the inode.
    pub inode: u64,
    /// Its type.
    pub kind: FileKind,
    /// Permission, set-id and sticky bits, at most 0o7777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names; of a directory 2 and one for each directory in it. 0 when it was removed but is open.
    pub links: u32,
    /// Bytes of content or of a symlink's target.
    pub size: u64,
    /// Chunks that are stored, in rows or inline.
    pub(crate) stored: u64,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Of a directory: the one above, which is itself for the top; else 0.
    pub parent: u64,
    /// Last access; set only by [`Volume::set_attributes`].
    pub atime: Time,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of the inode.
    pub ctime: Time,
    /// Creation.
    pub btime: Time,
}

impl Attributes {
    /// Those of something new and empty that has one name and is no directory.
    pub(crate) fn new(inode: u64, kind: FileKind, mode: u32, (uid, gid): (u32, u32)) -> Self {
        let now = Time::now();
        Self {
            inode,
            kind,
            mode: mode & PERMISSIONS,
            uid,
            gid,
            links: 1,
            size: 0,
            stored: 0,
            device: (0, 0),
            parent: 0,
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
        }
    }

    /// Blocks of 512 bytes that the content takes, without what is not committed yet.
    pub fn blocks(&self) -> u64 {
        self.stored * BLOCKS_PER_CHUNK
    }

    pub(crate) fn touch(&mut self) {
        self.mtime = Time::now();
        self.ctime = self.mtime;
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(112);
        out.push(self.kind as u8);
        for number in [
            self.mode,
            self.uid,
            self.gid,
            self.links,
            self.device.0,
            self.device.1,
        ] {
            out.extend(number.to_le_bytes());
        }
        for number in [self.size, self.stored, self.parent] {
            out.extend(number.to_le_bytes());
        }
        for time in [self.atime, self.mtime, self.ctime, self.btime] {
            time.encode(&mut out);
        }
        out
    }

    pub(crate) fn decode(inode: u64, bytes: &[u8]) -> Result<Self> {
        let mut decoder = Decoder::new("an inode of the volume's tree", bytes);
        let kind = FileKind::from_byte(decoder.u8()?)
            .ok_or_else(|| decoder.malformed("its type is unknown"))?;
        let attributes = Self {
            inode,
            kind,
            mode: decoder.u32()?,
            uid: decoder.u32()?,
            gid: decoder.u32()?,
            links: decoder.u32()?,
            device: (decoder.u32()?, decoder.u32()?),
            size: decoder.u64()?,
            stored: decoder.u64()?,
            parent: decoder.u64()?,
            atime: Time::decode(&mut decoder)?,
            mtime: Time::decode(&mut decoder)?,
            ctime: Time::decode(&mut decoder)?,
            btime: Time::decode(&mut decoder)?,
        };
        decoder.end()?;
        Ok(attributes)
    }
}

/// Attributes to set; None leaves one as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct Changes {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub atime: Option<Time>,
    pub mtime: Option<Time>,
}

impl Volume {
    /// The attributes of an inode.
    ///
    /// # Errors
    /// ENOENT if there is no such inode.
    pub fn attributes(&self, inode: u64) -> Result<Attributes> {
        self.find(&self.read(), inode)
    }

    /// Changes attributes, and the time of change with them.
    ///
    /// # Errors
    /// ENOENT if there is no such inode, EINVAL for a time with too many nanoseconds.
    pub fn set_attributes(&self, inode: u64, changes: &Changes) -> Result<Attributes> {
        let times = [changes.atime, changes.mtime];
        if times
            .iter()
            .flatten()
            .any(|time| time.nanoseconds >= 1_000_000_000)
        {
            return Err(Errno::INVAL.into());
        }
        let mut working = self.change()?;
        let mut attributes = self.find(&working, inode)?;
        attributes.mode = changes
            .mode
            .map_or(attributes.mode, |mode| mode & PERMISSIONS);
        attributes.uid = changes.uid.unwrap_or(attributes.uid);
        attributes.gid = changes.gid.unwrap_or(attributes.gid);
        attributes.atime = changes.atime.unwrap_or(attributes.atime);
        attributes.mtime = changes.mtime.unwrap_or(attributes.mtime);
        attributes.ctime = Time::now();
        self.put(&mut working, &attributes)?;
        Ok(attributes)
    }

    pub(crate) fn find(&self, working: &Working, inode: u64) -> Result<Attributes> {
        let key = Key::new(inode, Kind::Attributes, 0);
        let record = working.tree.get(self, key)?.ok_or(Errno::NOENT)?;
        Attributes::decode(inode, &record)
    }

    pub(crate) fn put(&self, working: &mut Working, attributes: &Attributes) -> Result<()> {
        let key = Key::new(attributes.inode, Kind::Attributes, 0);
        working.tree.put(self, key, &attributes.encode())
    }
}
