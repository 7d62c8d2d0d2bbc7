//! The kernel's records of files as bytes: `struct stat`, `struct statx`, `struct statfs` of x86-64.

use rustix::fs::{major, makedev, minor, Stat, StatFs};

use super::tree::Metadata;

/// Which record a call wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `struct stat`, 144 bytes.
    Stat,
    /// `struct statx`, 256 bytes.
    Statx,
}

/// `STATX_BASIC_STATS`.
const STATX_BASIC: u32 = 0x7ff;
const BLOCK_SIZE: u32 = 4096;

/// The fields that both layouts have.
struct Fields {
    device: (u32, u32),
    inode: u64,
    links: u64,
    mode: u32,
    uid: u32,
    gid: u32,
    special: (u32, u32),
    size: u64,
    block_size: u32,
    blocks: u64,
    accessed: (i64, u32),
    modified: (i64, u32),
    changed: (i64, u32),
}

/// The record of something of ours.
pub fn of(metadata: &Metadata, layout: Layout) -> Vec<u8> {
    encode(
        &Fields {
            device: metadata.system,
            inode: metadata.inode,
            links: metadata.links.into(),
            mode: metadata.mode,
            uid: metadata.uid,
            gid: metadata.gid,
            special: metadata.device,
            size: metadata.size,
            block_size: BLOCK_SIZE,
            blocks: metadata.blocks,
            accessed: metadata.accessed,
            modified: metadata.modified,
            changed: metadata.changed,
        },
        layout,
    )
}

/// The record of something of the host's.
pub fn of_host(status: &Stat, layout: Layout) -> Vec<u8> {
    let split = |device| (major(device), minor(device));
    encode(
        &Fields {
            device: split(status.st_dev),
            inode: status.st_ino,
            links: status.st_nlink,
            mode: status.st_mode,
            uid: status.st_uid,
            gid: status.st_gid,
            special: split(status.st_rdev),
            size: status.st_size as u64,
            block_size: status.st_blksize as u32,
            blocks: status.st_blocks as u64,
            accessed: (status.st_atime, status.st_atime_nsec as u32),
            modified: (status.st_mtime, status.st_mtime_nsec as u32),
            changed: (status.st_ctime, status.st_ctime_nsec as u32),
        },
        layout,
    )
}

fn encode(fields: &Fields, layout: Layout) -> Vec<u8> {
    let mut bytes = Bytes(Vec::with_capacity(256));
    match layout {
        Layout::Stat => {
            bytes.u64(makedev(fields.device.0, fields.device.1));
            bytes.u64(fields.inode);
            bytes.u64(fields.links);
            bytes.u32(fields.mode);
            bytes.u32(fields.uid);
            bytes.u32(fields.gid);
            bytes.u32(0);
            bytes.u64(makedev(fields.special.0, fields.special.1));
            bytes.u64(fields.size);
            bytes.u64(fields.block_size.into());
            bytes.u64(fields.blocks);
            for (seconds, nanoseconds) in [fields.accessed, fields.modified, fields.changed] {
                bytes.u64(seconds as u64);
                bytes.u64(nanoseconds.into());
            }
            bytes.pad(144)
        }
        Layout::Statx => {
            bytes.u32(STATX_BASIC);
            bytes.u32(fields.block_size);
            bytes.u64(0); // attributes
            bytes.u32(fields.links as u32);
            bytes.u32(fields.uid);
            bytes.u32(fields.gid);
            bytes.u32(fields.mode & 0xffff); // u16, then 2 bytes of padding
            bytes.u64(fields.inode);
            bytes.u64(fields.size);
            bytes.u64(fields.blocks);
            bytes.u64(0); // attributes that are known
            let never = (0, 0); // the time of birth is not asked for
            for (seconds, nanoseconds) in [fields.accessed, never, fields.changed, fields.modified]
            {
                bytes.u64(seconds as u64);
                bytes.u64(nanoseconds.into());
            }
            for number in [
                fields.special.0,
                fields.special.1,
                fields.device.0,
                fields.device.1,
            ] {
                bytes.u32(number);
            }
            bytes.pad(256)
        }
    }
}

/// `struct statfs`.
pub fn of_file_system(status: &StatFs) -> Vec<u8> {
    let mut bytes = Bytes(Vec::with_capacity(120));
    bytes.u64(status.f_type as u64);
    bytes.u64(status.f_bsize as u64);
    for number in [
        status.f_blocks,
        status.f_bfree,
        status.f_bavail,
        status.f_files,
        status.f_ffree,
    ] {
        bytes.u64(number);
    }
    bytes.u64(0); // the file system's id
    for number in [status.f_namelen, status.f_frsize, status.f_flags] {
        bytes.u64(number as u64);
    }
    bytes.pad(120)
}

struct Bytes(Vec<u8>);

impl Bytes {
    fn u32(&mut self, number: u32) {
        self.0.extend(number.to_le_bytes());
    }

    fn u64(&mut self, number: u64) {
        self.0.extend(number.to_le_bytes());
    }

    fn pad(mut self, length: usize) -> Vec<u8> {
        self.0.resize(length, 0);
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{stat, statx, AtFlags, StatxFlags, CWD};

    #[test]
    fn the_layouts_are_those_of_the_kernel() {
        for path in ["/", "/bin/sh", "/dev/null"] {
            let status = stat(path).unwrap();
            let record = of_host(&status, Layout::Stat);
            assert_eq!(record.len(), size_of::<Stat>());
            let at = |from: usize| u64::from_le_bytes(record[from..from + 8].try_into().unwrap());
            assert_eq!(
                (at(0), at(8), at(16)),
                (status.st_dev, status.st_ino, status.st_nlink)
            );
            assert_eq!(at(24) as u32, status.st_mode);
            assert_eq!(
                (at(40), at(48) as i64, at(88) as i64),
                (status.st_rdev, status.st_size, status.st_mtime)
            );

            let extended = statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS).unwrap();
            let record = of_host(&status, Layout::Statx);
            assert_eq!(record.len(), size_of_val(&extended));
            let at = |from: usize| u64::from_le_bytes(record[from..from + 8].try_into().unwrap());
            assert_eq!(at(16) as u32, extended.stx_nlink);
            assert_eq!(
                (at(28) as u16, at(32), at(40)),
                (extended.stx_mode, extended.stx_ino, extended.stx_size)
            );
            assert_eq!(at(112) as i64, extended.stx_mtime.tv_sec);
            assert_eq!(
                (at(128) as u32, at(136) as u32),
                (extended.stx_rdev_major, extended.stx_dev_major)
            );
        }
    }
}
