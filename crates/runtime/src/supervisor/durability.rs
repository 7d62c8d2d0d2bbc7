//! Volumes of a program: what mounts them, and the calls that make files durable.
//!
//! Each of those calls returns when the store has what was written; what was written elsewhere is the kernel's.

use std::sync::Arc;
use std::thread;

use rustix::fs::OFlags;
use sconify_shield::{Index, RegionKind};

use crate::failure::Code;
use crate::volumes::OpenVolume;

use super::call::{Answer, Call, Reply};
use super::init::end;
use super::room::budget;
use super::serve::Workers;
use super::tree::Node;
use super::writable::{Inode, VolumeSystem};
use super::{objects, unsupported, Shield, SupervisorError};

/// Mode of the top of a volume where the image has no directory.
const TOP_MODE: u32 = 0o755;

/// Makes file systems of the volumes; each must be where the image expects one, and none may be lacking.
///
/// # Errors
/// [`SupervisorError::Volume`].
pub fn mount(
    volumes: Vec<OpenVolume>,
    index: &Index,
) -> Result<Vec<Arc<VolumeSystem>>, SupervisorError> {
    let failed = |path: &[u8], reason: String| SupervisorError::Volume {
        path: String::from_utf8_lossy(path).into_owned(),
        reason,
    };
    let expected = index
        .regions()
        .iter()
        .filter(|region| region.kind() == RegionKind::Volume);
    for region in expected {
        if !volumes.iter().any(|volume| volume.path == region.prefix()) {
            let reason = "the image expects one here, but the session mounts none";
            return Err(failed(region.prefix(), reason.to_owned()));
        }
    }
    // No content may take more than half of the container's memory.
    let limit = budget().saturating_mul(2);
    let mut mounted = Vec::new();
    for (volume, number) in volumes.into_iter().zip(1..) {
        let (path, is_new) = (volume.path.clone(), volume.is_new);
        let region = index
            .regions()
            .iter()
            .find(|region| region.prefix() == path);
        if !region.is_some_and(|region| region.kind() == RegionKind::Volume) {
            let reason = format!(
                "the session mounts {} here, but the image was converted without --volume={}:{}",
                volume.name,
                volume.name,
                String::from_utf8_lossy(&path)
            );
            return Err(failed(&path, reason));
        }
        let system = VolumeSystem::new(volume, number, limit)
            .map_err(|error| unsupported(format!("no random numbers: {error}")))?;
        if is_new {
            let entry = index.lookup(&path).filter(|entry| entry.is_directory());
            let (mode, uid, gid) = entry.map_or_else(
                || {
                    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
                    (TOP_MODE, uid.as_raw(), gid.as_raw())
                },
                |entry| (entry.mode(), entry.uid(), entry.gid()),
            );
            system.adopt(mode, uid, gid).map_err(|error| {
                failed(&path, format!("its top directory can't be made: {error}"))
            })?;
        }
        mounted.push(Arc::new(system));
    }
    Ok(mounted)
}

/// Starts what stores and reports in the background.
pub fn keep(workers: &Workers) {
    for volume in workers.shield().tree.writable.volumes() {
        let (keeper, reporter) = (Arc::clone(volume), Arc::clone(volume));
        let threads = [
            thread::Builder::new()
                .name("store".to_owned())
                .spawn(move || keeper.keep_for_ever()),
            thread::Builder::new()
                .name("report".to_owned())
                .spawn(move || reporter.report_for_ever()),
        ];
        if let Some(error) = threads.into_iter().find_map(Result::err) {
            fatal!("volume {} can't be kept: {error}", volume.name());
            end(Code::Bug as i32);
        }
    }
}

/// Stores everything, after the last process of the program has ended.
pub fn finish(shield: &Shield) {
    for volume in shield.tree.writable.volumes() {
        volume.finish();
    }
}

/// The volume, and the file in it, that a descriptor of the caller shows.
pub fn of_descriptor<'a>(call: &Call<'a>, descriptor: i32) -> Option<(&'a VolumeSystem, Inode)> {
    match call.node_of_descriptor(descriptor)? {
        Node::Writable(inode) => Some((call.shield.tree.writable.volume(inode)?, inode)),
        _ => None,
    }
}

/// As [`of_descriptor`], for the first argument, unless it holds a place only, which the kernel refuses.
fn opened<'a>(call: &Call<'a>) -> Option<(&'a VolumeSystem, Inode)> {
    let found = of_descriptor(call, call.int(0))?;
    (call.task.holds_place(call.int(0)) == Ok(false)).then_some(found)
}

/// Serves `fsync`, `fdatasync` and `sync_file_range`.
pub fn sync_file(call: &Call) -> Reply {
    match opened(call) {
        Some((volume, inode)) => volume.sync(inode.number).map(|()| Answer::Value(0)),
        None => Ok(Answer::Pass),
    }
}

/// Serves `syncfs`.
pub fn sync_file_system(call: &Call) -> Reply {
    match opened(call) {
        Some((volume, _)) => volume.sync_all(false).map(|()| Answer::Value(0)),
        None => Ok(Answer::Pass),
    }
}

/// Serves `sync`, which tells no errors.
pub fn sync_all(call: &Call) -> Reply {
    for volume in call.shield.tree.writable.volumes() {
        if let Err(error) = volume.sync_all(false) {
            debug!("sync of volume {}: {error}", volume.name());
        }
    }
    Ok(Answer::Pass)
}

/// Serves `msync` with `MS_SYNC`: everything that is mapped is stored, then the kernel checks the arguments.
pub fn sync_mappings(call: &Call) -> Reply {
    for volume in call.shield.tree.writable.volumes() {
        volume.sync_all(true)?;
    }
    Ok(Answer::Pass)
}

/// Serves `mmap` of a file that is shared or to be executed.
pub fn map(call: &Call) -> Reply {
    let (protection, flags) = (call.int(2), call.int(3));
    if flags & libc::MAP_SHARED != 0 {
        let descriptor = call.int(4);
        if let Some((volume, inode)) = of_descriptor(call, descriptor) {
            // Through a file that is open for reading only, nothing can be written, not even after `mprotect`.
            let flags = call.task.descriptor_position(descriptor)?.flags;
            if flags & OFlags::ACCMODE != OFlags::RDONLY {
                volume.note_mapping(inode.number);
            }
        }
    }
    if protection & libc::PROT_EXEC != 0 {
        return objects::map(call);
    }
    Ok(Answer::Pass)
}
