//! The write-ahead log: what a commit waits for, and how its pages get to the database.
//!
//! A thread writes them back while programs go on; a commit waits only for the log itself. If the thread does not keep up, a commit writes back what is left, so
//! that the log stays bounded.
//!
//! What the disk fails to take may be lost although it takes everything afterwards: the kernel counts pages that it could not write as written, tells so once, and
//! SQLite goes on after what it took for written back. The log still has it all then, and is written back from its beginning, by connections that are opened anew.

use std::fs::File;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{sync_channel, SyncSender};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode};
use rustix::fs::{fadvise, statvfs, Advice};

use crate::error::{Result, VolumeError};
use crate::store::{lock, PAGE_SIZE};

/// The name of the log in the volume's directory.
pub(crate) const FILE_NAME: &str = "volume.sqlite-wal";
/// Bytes that were committed since the last time, at which the log is written back.
pub(crate) const WRITE_BACK: u64 = 16 << 20;
/// Bytes of the log at which a commit waits until it may begin anew, on a disk with room.
const LIMIT: u64 = 64 << 20;
/// The part of the room on the disk that the log may take.
const SHARE: u64 = 16;

/// Makes commits go to a log.
pub(crate) fn set_up(connection: &Connection) -> Result<()> {
    let mode: String = connection.query_row("PRAGMA journal_mode=WAL", (), |row| row.get(0))?;
    if mode != "wal" {
        return Err(VolumeError::io(
            "the volume's database",
            std::io::Error::other(format!(
                "its file system allows no write-ahead log: got {mode}"
            )),
        ));
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.query_row("PRAGMA wal_autocheckpoint=0", (), |_| Ok(()))?;
    Ok(())
}

/// Whether a log is left whose pages are not in the database.
pub(crate) fn is_left(directory: &Path) -> bool {
    std::fs::metadata(directory.join(FILE_NAME)).is_ok_and(|log| log.len() > 0)
}

/// Forgets what of the database is in the kernel's memory alone, and writes the log that was left to the disk once more.
///
/// Pages that could not be written count as written for the kernel, and ext4 also leaves the blocks of such a page marked as never written when the page is written
/// again: only a page that is dropped before is good. Pages that are still to be written are not dropped, thus the first `fsync`, whose failure is no news.
///
/// # Errors
/// If the log can't be read or written.
pub(crate) fn renew(directory: &Path) -> Result<()> {
    let path = directory.join(FILE_NAME);
    let renew = || {
        let database = File::open(directory.join(crate::store::FILE_NAME))?;
        let _ = database.sync_data();
        fadvise(&database, 0, None, Advice::DontNeed)?;
        let log = File::options().read(true).write(true).open(&path)?;
        let _ = log.sync_data();
        let mut buffer = vec![0; 1 << 20];
        let mut offset = 0;
        loop {
            let read = log.read_at(&mut buffer, offset)?;
            let Some(length) = NonZeroU64::new(read as u64) else {
                return log.sync_all();
            };
            fadvise(&log, offset, Some(length), Advice::DontNeed)?;
            log.write_all_at(&buffer[..read], offset)?;
            offset += length.get();
        }
    };
    renew().map_err(|error| VolumeError::io(path.display().to_string(), error))
}

/// What writes the log back.
pub(crate) struct WriteBack {
    /// Until there is a thread, which is when there is something to write back for the first time: a small volume needs none.
    connection: Option<Connection>,
    thread: Option<(SyncSender<()>, JoinHandle<()>)>,
    state: Arc<State>,
    /// The file of the database, opened before anything is written.
    database: File,
    /// Bytes of the log at which it begins anew.
    limit: u64,
}

#[derive(Default)]
struct State {
    /// Held while the log is written back: SQLite allows one at a time, and makes nobody wait for another.
    turn: Mutex<()>,
    filled: Mutex<Filled>,
    /// Whether something that was written back may be lost: the database must be opened anew.
    failed: Arc<AtomicBool>,
}

/// Bytes of pages that commits have put into the log.
#[derive(Clone, Copy, Default)]
struct Filled {
    /// All; none if the log begins anew with the next commit.
    length: u64,
    /// Those that are not in the database.
    behind: u64,
}

impl State {
    /// Writes back what no reader needs as it was. Once the disk has failed, nothing is.
    fn write_back(&self, connection: &Connection, mode: &str) {
        let _turn = lock(&self.turn);
        if self.failed.load(Ordering::Relaxed) {
            return;
        }
        let before = lock(&self.filled).length;
        let pragma = format!("PRAGMA wal_checkpoint({mode})");
        let pages = connection.query_row(&pragma, (), |row| {
            Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        });
        let (all, done) = match pages {
            Ok(pages) => pages,
            Err(error) => {
                if error.sqlite_error_code() != Some(ErrorCode::DatabaseBusy) {
                    self.failed.store(true, Ordering::Relaxed);
                }
                return;
            }
        };
        let bytes = |pages: i64| u64::try_from(pages).unwrap_or(0) * u64::from(PAGE_SIZE);
        let mut filled = lock(&self.filled);
        // Of commits that were made meanwhile the database may have nothing, and the log goes on after them.
        let since = filled.length.saturating_sub(before);
        let goes_on = done < all || since > 0;
        *filled = Filled {
            length: if goes_on { bytes(all) + since } else { 0 },
            behind: bytes(all - done) + since,
        };
    }
}

impl WriteBack {
    /// Takes a connection of its own to the database in this directory. A log that is there is to be written back.
    /// If the disk fails, `failed` is set: something of what was written back may be lost, and the database must be opened anew.
    ///
    /// # Errors
    /// If the disk can't be asked for its room.
    pub(crate) fn new(
        directory: &Path,
        connection: Connection,
        failed: Arc<AtomicBool>,
    ) -> Result<Self> {
        let disk = statvfs(directory)
            .map_err(|errno| VolumeError::io(directory.display().to_string(), errno.into()))?;
        let database = File::open(directory.join(crate::store::FILE_NAME))
            .map_err(|error| VolumeError::io(directory.display().to_string(), error))?;
        let length = std::fs::metadata(directory.join(FILE_NAME)).map_or(0, |log| log.len());
        Ok(Self {
            connection: Some(connection),
            thread: None,
            state: Arc::new(State {
                filled: Mutex::new(Filled {
                    length,
                    behind: length,
                }),
                failed,
                ..State::default()
            }),
            database,
            limit: (disk.f_bavail * disk.f_frsize / SHARE).clamp(WRITE_BACK, LIMIT),
        })
    }

    /// Tells that a commit was made of this many bytes, on this connection.
    pub(crate) fn committed(&mut self, bytes: u64, connection: &Connection) {
        let Filled { length, behind } = {
            let mut filled = lock(&self.state.filled);
            filled.length += bytes;
            filled.behind += bytes;
            *filled
        };
        if length >= self.limit {
            self.begin_anew(connection);
        } else if behind >= WRITE_BACK {
            self.wake();
        }
    }

    /// Whether the disk has failed to take something that was written back. The kernel tells each user of a file once.
    pub(crate) fn has_failed(&self) -> bool {
        if self.database.sync_data().is_err() {
            self.fail();
        }
        self.state.failed.load(Ordering::Relaxed)
    }

    /// Notes that the disk has failed to take something.
    pub(crate) fn fail(&self) {
        self.state.failed.store(true, Ordering::Relaxed);
    }

    /// Ends with this connection, the last but those that are dropped with it, and leaves the log as it is.
    ///
    /// # Errors
    /// If SQLite fails.
    pub(crate) fn abandon(self, connection: Connection) -> Result<()> {
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        drop(self);
        drop(connection);
        Ok(())
    }

    fn wake(&mut self) {
        if let Some(connection) = self.connection.take() {
            let state = Arc::clone(&self.state);
            let (wake, woken) = sync_channel(1);
            let work = move || {
                while woken.recv().is_ok() {
                    state.write_back(&connection, "PASSIVE");
                }
            };
            // Without a thread, commits do it when the log has its full size.
            let thread = Builder::new().name("log".to_owned()).spawn(work);
            self.thread = thread.ok().map(|thread| (wake, thread));
        }
        if let Some((wake, _)) = &self.thread {
            // If it is awake, it is at work on that.
            let _ = wake.try_send(());
        }
    }

    /// Writes the whole log back, so that the next commit begins it anew.
    pub(crate) fn begin_anew(&self, connection: &Connection) {
        self.state.write_back(connection, "RESTART");
    }
}

impl Drop for WriteBack {
    fn drop(&mut self) {
        if let Some((wake, thread)) = self.thread.take() {
            drop(wake);
            let _ = thread.join();
        }
    }
}
