//! Identities of single threads. The C library changes all threads of a process at once; the system calls change one.

use rustix::io::Errno;

use super::check;

/// Runs `work` with the file system identity of another user, so that the checks of `/proc` see that user.
///
/// Without the privilege to change, `work` runs as before.
pub fn with_file_system_identity<T>(uid: u32, gid: u32, work: impl FnOnce() -> T) -> T {
    // SAFETY: both calls take numbers, affect this thread only and return what was before.
    let (uid_before, gid_before) = unsafe {
        let gid_before = libc::syscall(libc::SYS_setfsgid, gid);
        (libc::syscall(libc::SYS_setfsuid, uid), gid_before)
    };
    let result = work();
    // SAFETY: as above, with the values that were before.
    unsafe {
        libc::syscall(libc::SYS_setfsuid, uid_before);
        libc::syscall(libc::SYS_setfsgid, gid_before);
    }
    result
}

/// Runs `work` with the real identity of another user, which is what tracing asks for.
///
/// # Errors
/// `EPERM` without the privilege to change.
pub fn with_real_identity<T>(uid: u32, gid: u32, work: impl FnOnce() -> T) -> Result<T, Errno> {
    const KEEP: libc::c_long = -1;
    // SAFETY: no arguments but numbers; only this thread changes.
    let (uid_before, gid_before) = unsafe { (libc::getuid(), libc::getgid()) };
    // SAFETY: as above.
    check(unsafe { libc::syscall(libc::SYS_setresgid, libc::c_long::from(gid), KEEP, KEEP) })?;
    // SAFETY: as above.
    let changed =
        check(unsafe { libc::syscall(libc::SYS_setresuid, libc::c_long::from(uid), KEEP, KEEP) });
    let result = changed.map(|_| work());
    // SAFETY: as above, with the values that were before.
    unsafe {
        libc::syscall(
            libc::SYS_setresuid,
            libc::c_long::from(uid_before),
            KEEP,
            KEEP,
        );
        libc::syscall(
            libc::SYS_setresgid,
            libc::c_long::from(gid_before),
            KEEP,
            KEEP,
        );
    }
    result
}
