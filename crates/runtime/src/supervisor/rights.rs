//! Who may do what to a file: the kernel's rules, by mode bits, owners and capabilities.

use rustix::fs::FileType;
use rustix::io::Errno;

use super::task::Credentials;
use super::tree::Metadata;

const CAP_CHOWN: u64 = 1;
const CAP_DAC_OVERRIDE: u64 = 1 << 1;
const CAP_DAC_READ_SEARCH: u64 = 1 << 2;
const CAP_FOWNER: u64 = 1 << 3;
const CAP_FSETID: u64 = 1 << 4;
const CAP_SYS_ADMIN: u64 = 1 << 21;

/// What may be wanted of a file, as bits.
pub mod want {
    /// To execute, or to search a directory.
    pub const EXECUTE: u32 = 1;
    /// To write.
    pub const WRITE: u32 = 2;
    /// To read.
    pub const READ: u32 = 4;
}

/// Set-user-id, set-group-id, sticky.
pub const SET_USER: u32 = 0o4000;
/// See [`SET_USER`].
pub const SET_GROUP: u32 = 0o2000;
/// See [`SET_USER`].
pub const STICKY: u32 = 0o1000;
/// The group's right to execute; only with it the set-group-id bit is one.
const GROUP_EXECUTE: u32 = 0o010;

/// Whose ids count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Those that the kernel checks files by.
    FileSystem,
    /// The real ones, for `access`.
    Real,
}

/// Who wants something.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    groups: &'a [u32],
    capabilities: u64,
}

impl<'a> Subject<'a> {
    /// The caller, by these of its ids.
    pub fn new(credentials: &'a Credentials, identity: Identity) -> Self {
        let (uid, gid, capabilities) = match identity {
            Identity::FileSystem => (
                credentials.uid.file_system,
                credentials.gid.file_system,
                credentials.capabilities,
            ),
            // As in the kernel: with a real user other than root no capability counts, with root all that are permitted.
            Identity::Real if credentials.uid.real == 0 => {
                (0, credentials.gid.real, credentials.permitted)
            }
            Identity::Real => (credentials.uid.real, credentials.gid.real, 0),
        };
        Self {
            uid,
            gid,
            groups: &credentials.groups,
            capabilities,
        }
    }

    fn has(&self, capability: u64) -> bool {
        self.capabilities & capability != 0
    }

    fn is_in(&self, group: u32) -> bool {
        group == self.gid || self.groups.contains(&group)
    }

    /// Whether it is the owner, or as good as that.
    pub fn owns(&self, metadata: &Metadata) -> bool {
        self.uid == metadata.uid || self.has(CAP_FOWNER)
    }

    /// Whether the mode bits, or capabilities, give all that is wanted.
    pub fn may(&self, metadata: &Metadata, wanted: u32) -> bool {
        let mode = metadata.mode;
        let granted = if self.uid == metadata.uid {
            mode >> 6
        } else if self.is_in(metadata.gid) {
            mode >> 3
        } else {
            mode
        };
        if granted & wanted == wanted {
            return true;
        }
        let is_directory = metadata.is(FileType::Directory);
        let may_override = self.has(CAP_DAC_OVERRIDE)
            && (is_directory || wanted & want::EXECUTE == 0 || mode & 0o111 != 0);
        let may_look = self.has(CAP_DAC_READ_SEARCH)
            && if is_directory {
                wanted & want::WRITE == 0
            } else {
                wanted == want::READ
            };
        may_override || may_look
    }

    /// Whether a name in a directory may be taken from a file: in a sticky directory only by one of the owners.
    pub fn may_take(&self, directory: &Metadata, file: &Metadata) -> bool {
        directory.mode & STICKY == 0
            || self.uid == file.uid
            || self.uid == directory.uid
            || self.has(CAP_FOWNER)
    }

    /// Whether one more name may be given to a file of somebody else: `protected_hardlinks`.
    pub fn may_link(&self, metadata: &Metadata) -> bool {
        let is_group_program =
            metadata.mode & (SET_GROUP | GROUP_EXECUTE) == SET_GROUP | GROUP_EXECUTE;
        let is_safe = metadata.is(FileType::RegularFile)
            && metadata.mode & SET_USER == 0
            && !is_group_program
            && self.may(metadata, want::READ | want::WRITE);
        is_safe || self.owns(metadata)
    }

    /// The mode that a file gets when its owner asks for this one.
    ///
    /// # Errors
    /// `EPERM`.
    pub fn change_mode(&self, metadata: &Metadata, mode: u32) -> Result<u32, Errno> {
        if !self.owns(metadata) {
            return Err(Errno::PERM);
        }
        let mode = mode & 0o7777;
        Ok(if self.is_in(metadata.gid) || self.has(CAP_FSETID) {
            mode
        } else {
            mode & !SET_GROUP
        })
    }

    /// The mode that a file gets with a new owner or group; `None` stays as it is.
    ///
    /// # Errors
    /// `EPERM`.
    pub fn change_owner(
        &self,
        metadata: &Metadata,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> Result<u32, Errno> {
        let is_owner = self.uid == metadata.uid;
        let keeps_user = uid.is_none_or(|uid| is_owner && uid == metadata.uid);
        let keeps_group =
            gid.is_none_or(|gid| is_owner && (self.is_in(gid) || gid == metadata.gid));
        let is_allowed = keeps_user && keeps_group || self.has(CAP_CHOWN);
        if !is_allowed {
            return Err(Errno::PERM);
        }
        let mut mode = metadata.mode & 0o7777;
        if !metadata.is(FileType::Directory) && (uid.is_some() || gid.is_some()) {
            mode &= !SET_USER;
            if mode & GROUP_EXECUTE != 0 {
                mode &= !SET_GROUP;
            }
        }
        Ok(mode)
    }

    /// Whether extended attributes that are the administrator's may be set.
    pub fn administers(&self) -> bool {
        self.has(CAP_SYS_ADMIN)
    }

    /// Whether a file without a name may be given one by its descriptor.
    pub fn may_link_descriptors(&self) -> bool {
        self.has(CAP_DAC_READ_SEARCH)
    }

    /// Owner, group and mode of something new in a directory.
    pub fn new_file(&self, directory: &Metadata, mode: u32, kind: FileType) -> (u32, u32, u32) {
        if directory.mode & SET_GROUP == 0 {
            return (self.uid, self.gid, mode);
        }
        let mode = match kind {
            FileType::Directory => mode | SET_GROUP,
            _ if mode & (SET_GROUP | GROUP_EXECUTE) == SET_GROUP | GROUP_EXECUTE
                && !self.is_in(directory.gid)
                && !self.has(CAP_FSETID) =>
            {
                mode & !SET_GROUP
            }
            _ => mode,
        };
        (self.uid, directory.gid, mode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::task::Ids;

    fn credentials(id: u32, groups: &[u32], capabilities: u64) -> Credentials {
        let ids = Ids {
            real: id,
            effective: id,
            file_system: id,
        };
        Credentials {
            process: 1,
            uid: ids,
            gid: ids,
            groups: groups.to_vec(),
            capabilities,
            permitted: capabilities,
            umask: 0,
        }
    }

    fn file(mode: u32) -> Metadata {
        Metadata {
            mode: FileType::RegularFile.as_raw_mode() | mode,
            uid: 1,
            gid: 2,
            ..Metadata::default()
        }
    }

    #[test]
    fn the_first_class_that_fits_decides() {
        let of = |id: u32, groups: &[u32], wanted| {
            let credentials = credentials(id, groups, 0);
            Subject::new(&credentials, Identity::FileSystem).may(&file(0o407), wanted)
        };
        assert!(of(1, &[2], want::READ) && !of(1, &[2], want::WRITE));
        assert!(!of(3, &[2], want::READ) && of(3, &[], want::READ | want::WRITE | want::EXECUTE));
    }

    #[test]
    fn capabilities_override_but_execute_only_what_is_executable() {
        let credentials = credentials(9, &[], CAP_DAC_OVERRIDE);
        let subject = Subject::new(&credentials, Identity::FileSystem);
        assert!(subject.may(&file(0), want::READ | want::WRITE));
        assert!(!subject.may(&file(0), want::EXECUTE));
        assert!(subject.may(&file(0o100), want::EXECUTE));
    }

    #[test]
    fn owners_and_groups_change_within_limits() {
        let (owner, other) = (credentials(1, &[5], 0), credentials(3, &[5], 0));
        let owner = Subject::new(&owner, Identity::FileSystem);
        let other = Subject::new(&other, Identity::FileSystem);
        let file = file(0o6755);
        assert_eq!(owner.change_owner(&file, None, Some(5)), Ok(0o755));
        assert_eq!(owner.change_owner(&file, Some(1), None), Ok(0o755));
        assert_eq!(owner.change_owner(&file, Some(7), None), Err(Errno::PERM));
        assert_eq!(owner.change_owner(&file, None, Some(6)), Err(Errno::PERM));
        assert_eq!(other.change_owner(&file, None, Some(5)), Err(Errno::PERM));
        assert_eq!(
            owner.change_mode(&file, 0o2700),
            Ok(0o700),
            "not in group 2"
        );
        assert_eq!(other.change_mode(&file, 0o700), Err(Errno::PERM));
    }
}
