//! Writes that the supervisor makes in the caller's place.
//!
//! Those that return when they are durable: `O_SYNC`, `O_DSYNC`, and the flags of `pwritev2` that mean the same. A write to a memory file is not seen, so such
//! an open file gets one of the highest numbers below 1024, for which the filter asks us, as it does for the standard streams, which shells redirect. The file
//! is stored before the call is answered.
//!
//! And those at an offset within a file, as databases make them: what was written is noted, so that the next `fsync` need not look for it.

use std::sync::{Mutex, PoisonError};

use rustix::fs::{fstat, OFlags};
use rustix::io::{pwrite, Errno};

use crate::kernel::filter::SYNCHRONOUS;

use super::call::{Answer, Call, Reply};
use super::durability::of_descriptor;
use super::redirect;
use super::writable::{Inode, VolumeSystem};
use super::Shield;

/// Bytes that are taken from the caller at once.
const PIECE: usize = 1 << 20;
/// Most pieces of memory that one call may name.
const MOST_VECTORS: usize = 1024;

/// One placement, or one write that moves a position, at a time.
static ONE: Mutex<()> = Mutex::new(());

/// What a write is of: where it goes, and what makes it synchronous.
#[derive(Clone, Copy)]
pub struct Write {
    /// The argument with the offset; none if the position of the open file counts.
    pub offset: Option<usize>,
    /// Whether the memory is named by an array of vectors.
    pub is_vectored: bool,
    /// The argument with flags that may ask for it.
    pub flags: Option<usize>,
}

/// Gives the caller an open file whose writes are seen.
///
/// # Errors
/// `EMFILE` if none of the numbers is free.
pub fn give(call: &Call, file: std::os::fd::OwnedFd, close_on_exec: bool) -> Reply {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let used = call.task.numbers("fd")?;
    let limit = call
        .task
        .descriptor_limit(None)?
        .current
        .unwrap_or(u64::MAX);
    let number = SYNCHRONOUS
        .rev()
        .find(|number| !used.contains(number) && u64::from(number.unsigned_abs()) < limit)
        .ok_or(Errno::MFILE)?;
    let listener = &call.shield.listener;
    listener.install_at(call.notification.id, &file, number, close_on_exec)?;
    Ok(Answer::Value(number.into()))
}

/// Serves a write: one that need not be durable is the kernel's.
pub fn write(call: &Call, write: Write) -> Reply {
    const RWF_DSYNC: i32 = 2;
    const RWF_SYNC: i32 = 4;
    const RWF_APPEND: i32 = 16;
    let descriptor = call.int(0);
    let Some((volume, inode)) = of_descriptor(call, descriptor) else {
        return Ok(Answer::Pass);
    };
    let flags = write.flags.map_or(0, |index| call.int(index));
    let position = call.task.descriptor_position(descriptor)?;
    let is_durable = flags & (RWF_DSYNC | RWF_SYNC) != 0 || is_synchronous(position.flags);
    // Opened for reading only: the kernel refuses it.
    let writes = position.flags & OFlags::ACCMODE != OFlags::RDONLY;
    if !writes || !(is_durable || write.offset.is_some()) {
        return Ok(Answer::Pass);
    }
    let appends = position.flags.contains(OFlags::APPEND) || flags & RWF_APPEND != 0;
    let is_plain = !appends && flags & !(RWF_DSYNC | RWF_SYNC) == 0;
    if let (Some(index), true) = (write.offset, is_plain) {
        if let Some(count) = write_within(call, volume, inode, index, write.is_vectored)? {
            if is_durable {
                volume.sync(inode.number)?;
            }
            return Ok(Answer::Value(count));
        }
    }
    if !is_durable {
        return Ok(Answer::Pass);
    }
    let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let given = write.offset.map(|index| call.address(index) as i64);
    // An offset of -1 means the position, for `pwritev2`.
    let offset = given.filter(|offset| write.flags.is_none() || *offset != -1);
    let content = call.shield.content(inode)?;
    let mut at = match offset {
        Some(offset) => u64::try_from(offset).map_err(|_| Errno::INVAL)?,
        None => call.task.descriptor_position(descriptor)?.offset,
    };
    if appends {
        at = fstat(&*content)?.st_size as u64;
    }
    let mut total = 0;
    for (address, length) in vectors(call, write.is_vectored)? {
        let mut done = 0;
        while done < length {
            let mut piece = vec![0; (length - done).min(PIECE)];
            let memories = &call.shield.memories;
            memories.read_exact(call.task, address + done as u64, &mut piece)?;
            let mut rest = &piece[..];
            while !rest.is_empty() {
                let count = pwrite(&*content, rest, at)?;
                (rest, at) = (&rest[count..], at + count as u64);
            }
            done += piece.len();
        }
        total += length;
    }
    volume.sync(inode.number)?;
    let total = i64::try_from(total).map_err(|_| Errno::INVAL)?;
    if offset.is_some() {
        return Ok(Answer::Value(total));
    }
    let reply = redirect::seek(call, descriptor, at, total);
    drop(one);
    reply
}

/// Makes a write that lies within the file, so that it is known what was written. None if it does not: that is the kernel's, as are all errors.
fn write_within(
    call: &Call,
    volume: &VolumeSystem,
    inode: Inode,
    offset: usize,
    is_vectored: bool,
) -> Result<Option<i64>, Errno> {
    let Ok(vectors) = vectors(call, is_vectored) else {
        return Ok(None);
    };
    let length = vectors
        .iter()
        .try_fold(0_usize, |sum, (_, length)| sum.checked_add(*length));
    let (Some(length), Ok(at)) = (length, u64::try_from(call.address(offset) as i64)) else {
        return Ok(None);
    };
    let memories = &call.shield.memories;
    let written = volume.write(inode.number, at, length, |window| {
        let mut done = 0;
        for (address, length) in vectors {
            let end = done + length;
            while done < end {
                let from = address + (length - (end - done)) as u64;
                match memories.copy(call.task, from, window, at as usize + done, end - done) {
                    Ok(count) => done += count,
                    // As the kernel does: what was written so far counts.
                    Err(_) => return Ok(done),
                }
            }
        }
        Ok(done)
    });
    // A file that can't be mapped is written by the kernel.
    Ok(written.unwrap_or(None).map(|count| count as i64))
}

fn is_synchronous(flags: OFlags) -> bool {
    flags.intersects(OFlags::SYNC | OFlags::DSYNC)
}

/// The memory that a call writes from.
fn vectors(call: &Call, is_vectored: bool) -> Result<Vec<(u64, usize)>, Errno> {
    let (address, count) = (call.address(1), call.address(2) as usize);
    if !is_vectored {
        return Ok(vec![(address, count)]);
    }
    if count > MOST_VECTORS {
        return Err(Errno::INVAL);
    }
    let mut bytes = vec![0; 16 * count];
    call.shield
        .memories
        .read_exact(call.task, address, &mut bytes)?;
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    let all = bytes.chunks_exact(16);
    Ok(all
        .map(|vector| (word(&vector[..8]), word(&vector[8..]) as usize))
        .collect())
}

/// Serves calls that move bytes within the kernel: their callers write, where this is refused.
pub fn refuse_copies(call: &Call, target: usize) -> Reply {
    match synchronous_of(call, call.int(target)) {
        true => Err(Errno::INVAL),
        false => Ok(Answer::Pass),
    }
}

/// Serves `dup` and its kin: the duplicate must have a number at which its writes are seen. `number` is the one that is asked for.
pub fn duplicate(call: &Call, number: Option<i32>) -> Reply {
    let is_seen =
        number.is_some_and(|number| (0..3).contains(&number) || SYNCHRONOUS.contains(&number));
    if is_seen || !synchronous_of(call, call.int(0)) {
        return Ok(Answer::Pass);
    }
    warn!("a file that is open with O_SYNC on a volume can be duplicated to the numbers 0, 1 and 2 only");
    Err(Errno::MFILE)
}

fn synchronous_of(call: &Call, descriptor: i32) -> bool {
    of_descriptor(call, descriptor).is_some()
        && call
            .task
            .descriptor_position(descriptor)
            .is_ok_and(|position| is_synchronous(position.flags))
}

/// Whether files of a volume that are opened with these flags go through here.
pub fn concerns(shield: &Shield, inode: Inode, flags: OFlags) -> bool {
    let writes = flags & OFlags::ACCMODE != OFlags::RDONLY;
    writes && is_synchronous(flags) && shield.tree.writable.volume(inode).is_some()
}
