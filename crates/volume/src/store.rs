//! The database: rows of ciphertext, read by many threads while one commits.
//!
//! The file is the host's. SQLite is given no chance to be led: the schema must be ours to the letter, triggers and views
//! are off, lengths are limited, the write-ahead log's index is in our memory instead of a shared file, nothing is
//! mapped. What the rows hold is judged by the callers, who authenticate each.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::error::{Result, VolumeError};
use crate::log::{self, WriteBack};
use crate::rows::{execute, select, write_rows};
use crate::schema;
pub(crate) use crate::schema::Table;

/// The name of the database in the volume's directory.
pub(crate) const FILE_NAME: &str = "volume.sqlite";

/// Bytes of a page: one holds one node.
pub(crate) const PAGE_SIZE: u32 = 8_192;
/// No row is longer than this.
const MAX_LENGTH: i32 = 1 << 20;
/// Keeps the log's index in memory and lets the connections of one process share the file that it locks.
const EXCLUSIVE_VFS: &str = "unix-excl";

/// Rows that wait to be written, by table and number; None removes a row.
pub(crate) type Batch = BTreeMap<(Table, u64), Option<Arc<[u8]>>>;

#[derive(Default)]
enum Writer {
    /// Nobody may change the rows, or it was closed.
    #[default]
    None,
    /// The disk has failed, and not yet let the database be opened anew.
    Lost,
    Open(Box<(WriteBack, Connection)>),
}

impl Writer {
    fn open(&mut self) -> Result<(&mut WriteBack, &mut Connection)> {
        match self {
            Self::Open(open) => {
                let (log, connection) = &mut **open;
                Ok((log, connection))
            }
            _ => Err(VolumeError::ReadOnly),
        }
    }
}

/// The rows of one volume.
pub(crate) struct Store {
    path: PathBuf,
    /// Whether nobody may change the file, so that it is read without locks.
    immutable: bool,
    readers: Mutex<Vec<Connection>>,
    /// Held for reading by whoever has a connection for reading.
    reading: RwLock<()>,
    writer: Mutex<Writer>,
    /// Whether the disk has failed to take what was written back.
    failed: Arc<AtomicBool>,
    /// How often the database was opened anew for that.
    recoveries: AtomicU64,
    /// Of an ephemeral volume: where changed rows go, for as long as the process lives.
    scratch: Option<Mutex<Connection>>,
    unsaved: RwLock<Batch>,
}

impl Store {
    /// Makes an empty database; nothing may be in its place.
    pub(crate) fn create(directory: &Path) -> Result<Self> {
        let path = directory.join(FILE_NAME);
        let store = Self::new(path, false, None);
        let connection =
            store.connect(OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
        connection.pragma_update(None, "page_size", PAGE_SIZE)?;
        *lock(&store.writer) = store.writer(connection)?;
        Ok(store)
    }

    /// Opens a database for reading and writing.
    pub(crate) fn open(directory: &Path) -> Result<Self> {
        let store = Self::new(directory.join(FILE_NAME), false, None);
        let complete = !log::is_left(directory);
        if !complete {
            log::renew(directory)?;
        }
        let connection = store.connect(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        schema::check(&connection)?;
        if connection.is_readonly("main")? {
            let reason = "its header says that it is not to be written";
            return Err(VolumeError::forged("the volume's database", reason));
        }
        if complete {
            store.check_length(&connection)?;
        }
        *lock(&store.writer) = store.writer(connection)?;
        Ok(store)
    }

    /// Opens a database that nobody changes, for reading.
    ///
    /// # Errors
    /// [`VolumeError::InUse`] if the last writer left a write-ahead log behind that must be applied first.
    pub(crate) fn open_immutable(directory: &Path) -> Result<Self> {
        if log::is_left(directory) {
            return Err(VolumeError::InUse {
                directory: directory.display().to_string(),
                reason: "its last writer was killed; open it for writing once",
            });
        }
        let store = Self::new(directory.join(FILE_NAME), true, None);
        let connection = store.connect(OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        schema::check(&connection)?;
        store.check_length(&connection)?;
        lock(&store.readers).push(connection);
        Ok(store)
    }

    /// Opens a database for reading; what is written goes to a file without a name and ends with the process.
    pub(crate) fn open_ephemeral(directory: &Path) -> Result<Self> {
        let scratch = Connection::open("")?;
        scratch.pragma_update(None, "page_size", PAGE_SIZE)?;
        scratch.pragma_update(None, "synchronous", "OFF")?;
        for table in Table::ALL {
            scratch.execute(&table.schema(), ())?;
        }
        let mut store = Self::open_immutable(directory)?;
        store.scratch = Some(Mutex::new(scratch));
        Ok(store)
    }

    fn new(path: PathBuf, immutable: bool, scratch: Option<Mutex<Connection>>) -> Self {
        Self {
            path,
            immutable,
            readers: Mutex::default(),
            reading: RwLock::default(),
            writer: Mutex::default(),
            failed: Arc::default(),
            recoveries: AtomicU64::default(),
            scratch,
            unsaved: RwLock::default(),
        }
    }

    fn writer(&self, connection: Connection) -> Result<Writer> {
        log::set_up(&connection)?;
        let other = self.connect(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let log = WriteBack::new(self.directory(), other, Arc::clone(&self.failed))?;
        Ok(Writer::Open(Box::new((log, connection))))
    }

    /// How often what the disk had failed to take was written back again.
    pub(crate) fn recoveries(&self) -> u64 {
        self.recoveries.load(Ordering::Relaxed)
    }

    /// Whether what was read after this many recoveries may be something that the disk had failed to take, and can be read again.
    ///
    /// # Errors
    /// If the disk still fails.
    pub(crate) fn has_recovered(&self, recoveries: u64) -> Result<bool> {
        let mut writer = lock(&self.writer);
        let _ = writer.open().map(|(log, _)| log.has_failed());
        self.recover(&mut writer)?;
        Ok(self.recoveries() != recoveries)
    }

    /// Opens the database anew if the disk has failed to take what was written back, so that all of the log is written back again.
    fn recover(&self, writer: &mut Writer) -> Result<()> {
        if !self.failed.load(Ordering::Relaxed) || matches!(writer, Writer::None) {
            return Ok(());
        }
        // As long as there is a connection, others have its view of what is written back.
        let _nobody = self.reading.write().unwrap_or_else(PoisonError::into_inner);
        lock(&self.readers).clear();
        if let Writer::Open(open) = std::mem::replace(writer, Writer::Lost) {
            let (log, connection) = *open;
            log.abandon(connection)?;
        }
        if log::is_left(self.directory()) {
            log::renew(self.directory())?;
        }
        *writer = self.writer(self.connect(OpenFlags::SQLITE_OPEN_READ_WRITE)?)?;
        self.failed.store(false, Ordering::Relaxed);
        self.recoveries.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Whether changes are kept.
    pub(crate) fn is_durable(&self) -> bool {
        !self.immutable
    }

    /// The directory of the database.
    pub(crate) fn directory(&self) -> &Path {
        self.path.parent().expect("the database has a name")
    }

    fn connect(&self, flags: OpenFlags) -> Result<Connection> {
        let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = if self.immutable {
            let uri = immutable_uri(&self.path);
            Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)
        } else {
            Connection::open_with_flags_and_vfs(&self.path, flags, EXCLUSIVE_VFS)
        };
        let connection = connection.map_err(|error| self.explain(error))?;
        connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, MAX_LENGTH)?;
        connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 1)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false)?;
        connection
            .execute_batch("PRAGMA cell_size_check=ON; PRAGMA mmap_size=0; PRAGMA cache_size=-2048; PRAGMA temp_store=MEMORY")
            .map_err(|error| self.explain(error))?;
        Ok(connection)
    }

    /// Connects for reading. If nobody else is connected, SQLite keeps the log's index in memory only for one that may write.
    fn connect_to_read(&self) -> Result<Connection> {
        if self.immutable {
            return self.connect(OpenFlags::SQLITE_OPEN_READ_ONLY);
        }
        let connection = self.connect(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(connection)
    }

    fn explain(&self, error: rusqlite::Error) -> VolumeError {
        match error.sqlite_error_code() {
            Some(ErrorCode::CannotOpen) if !self.path.exists() => VolumeError::Missing {
                directory: self.directory().display().to_string(),
                reason: format!("got no file {FILE_NAME}"),
            },
            Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
                VolumeError::io(
                    self.path.display().to_string(),
                    std::fs::OpenOptions::new()
                        .read(true)
                        .write(!self.immutable)
                        .open(&self.path)
                        .err()
                        .unwrap_or_else(|| std::io::Error::other(error.to_string())),
                )
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => VolumeError::InUse {
                directory: self.directory().display().to_string(),
                reason: "another process has its database open",
            },
            _ => error.into(),
        }
    }

    /// Calls `read` with a row, if there is one.
    pub(crate) fn read<T>(
        &self,
        table: Table,
        id: u64,
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>> {
        let unsaved = self
            .unsaved
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&(table, id))
            .cloned();
        if let Some(row) = unsaved {
            return Ok(row.map(|row| read(&row)));
        }
        let mut read = Some(read);
        if let Some(scratch) = &self.scratch {
            if let Some(value) = select(&lock(scratch), table, id, &mut read)? {
                return Ok(Some(value));
            }
        }
        self.with_reader(|connection| select(connection, table, id, &mut read))
            .map_err(|error| self.doubt(error))
    }

    /// What went wrong, if SQLite says that the database was changed: it says so too where the disk gives an error for a page.
    fn doubt(&self, error: VolumeError) -> VolumeError {
        let can_be_read = || {
            let mut file = std::fs::File::open(&self.path)?;
            std::io::copy(&mut file, &mut std::io::sink())
        };
        match error {
            VolumeError::NotAuthentic { .. } => match can_be_read() {
                Ok(_) => error,
                Err(source) => VolumeError::io(self.path.display().to_string(), source),
            },
            other => other,
        }
    }

    /// Bytes of the database's pages that hold nothing.
    pub(crate) fn free_bytes(&self) -> Result<u64> {
        self.pages("freelist_count")
    }

    /// Bytes of all the database's pages.
    pub(crate) fn database_bytes(&self) -> Result<u64> {
        self.pages("page_count")
    }

    /// Bytes by which database and log will grow without more being written.
    pub(crate) fn growth(&self) -> Result<u64> {
        let length = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
        let log = log::WRITE_BACK.saturating_sub(length(&self.path.with_file_name(log::FILE_NAME)));
        Ok(log + self.database_bytes()?.saturating_sub(length(&self.path)))
    }

    fn pages(&self, pragma: &str) -> Result<u64> {
        self.with_reader(|connection| {
            let pages = connection.pragma_query_value(None, pragma, |row| row.get::<_, u32>(0))?;
            Ok(u64::from(pages) * u64::from(PAGE_SIZE))
        })
    }

    /// Refuses a database, all of whose pages are in its file, if that has another length.
    fn check_length(&self, connection: &Connection) -> Result<()> {
        let pages =
            connection.pragma_query_value(None, "page_count", |row| row.get::<_, u32>(0))?;
        let expected = u64::from(pages) * u64::from(PAGE_SIZE);
        let found = std::fs::metadata(&self.path)
            .map_err(|error| VolumeError::io(self.path.display().to_string(), error))?
            .len();
        if found != expected {
            return Err(VolumeError::forged(
                "the volume's database",
                format!("it is truncated or extended: got {found} bytes, expected {expected}"),
            ));
        }
        Ok(())
    }

    /// Whether a directory holds a database.
    pub(crate) fn is_in(directory: &Path) -> bool {
        directory.join(FILE_NAME).exists()
    }

    fn with_reader<T>(&self, read: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let _reading = self.reading();
        let pooled = lock(&self.readers).pop();
        let connection = pooled.map_or_else(|| self.connect_to_read(), Ok)?;
        let value = read(&connection);
        lock(&self.readers).push(connection);
        value
    }

    fn reading(&self) -> RwLockReadGuard<'_, ()> {
        self.reading.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The numbers of all saved rows of a table, sorted.
    pub(crate) fn ids(&self, table: Table) -> Result<Vec<u64>> {
        let _reading = self.reading();
        let connection = self.connect_to_read()?;
        let mut statement =
            connection.prepare(&format!("SELECT id FROM {} ORDER BY id", table.name()))?;
        let ids = statement.query_map((), |row| row.get::<_, i64>(0))?;
        ids.map(|id| Ok(u64::from_ne_bytes(id?.to_ne_bytes())))
            .collect()
    }

    /// Lets rows wait for [`Store::save`]; they are read as if they were saved.
    pub(crate) fn queue(&self, rows: Batch) {
        self.unsaved
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(rows);
    }

    /// All rows that wait.
    pub(crate) fn waiting(&self) -> Batch {
        self.unsaved
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Writes rows in one transaction that is on the disk when this returns. They wait no longer then; on failure they
    /// still do, and the database is as it was.
    pub(crate) fn save(&self, rows: &Batch) -> Result<()> {
        match &self.scratch {
            Some(scratch) => write_rows(&mut lock(scratch), rows)?,
            None => self.save_durably(rows)?,
        }
        let mut unsaved = self.unsaved.write().unwrap_or_else(PoisonError::into_inner);
        for (place, row) in rows {
            let same = |waiting: &Option<Arc<[u8]>>| match (waiting, row) {
                (Some(waiting), Some(row)) => Arc::ptr_eq(waiting, row),
                (None, None) => true,
                _ => false,
            };
            if unsaved.get(place).is_some_and(same) {
                unsaved.remove(place);
            }
        }
        Ok(())
    }

    fn save_durably(&self, rows: &Batch) -> Result<()> {
        let mut writer = lock(&self.writer);
        let mut again = true;
        loop {
            self.recover(&mut writer)?;
            let (log, connection) = writer.open()?;
            match log.write(|| write_rows(connection, rows)) {
                Ok(()) => {
                    let pages = |row: &Arc<[u8]>| row.len() as u64 / u64::from(PAGE_SIZE) + 1;
                    log.committed(rows.values().flatten().map(pages).sum(), connection);
                    // It is committed. What fails now is tried again with the next commit.
                    let _ = self.recover(&mut writer);
                    return Ok(());
                }
                // The log may have room once its pages were written back.
                Err(VolumeError::Full(_)) if again => log.begin_anew(connection),
                Err(VolumeError::NotAuthentic { .. }) if again && log.has_failed() => {}
                Err(error) => {
                    log.fail();
                    return Err(self.doubt(error));
                }
            }
            again = false;
        }
    }

    /// Creates the tables of a new database together with its first rows, in one transaction.
    pub(crate) fn initialise(&self, rows: &Batch) -> Result<()> {
        let mut writer = lock(&self.writer);
        let (_, connection) = writer.open()?;
        let transaction = connection.transaction()?;
        schema::create(&transaction)?;
        execute(&transaction, rows)?;
        Ok(transaction.commit()?)
    }

    /// Writes a copy of the saved rows to a new database file, compacted, while the volume may be in use.
    pub(crate) fn copy_to(&self, path: &Path) -> Result<()> {
        let _reading = self.reading();
        let source = self.connect_to_read()?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let mut copy = Connection::open_with_flags_and_vfs(path, flags, EXCLUSIVE_VFS)?;
        let backup = rusqlite::backup::Backup::new(&source, &mut copy)?;
        // All pages in one step: a step that is interrupted by a commit would begin anew.
        backup.step(-1)?;
        drop(backup);
        copy.pragma_update(None, "journal_mode", "DELETE")?;
        copy.close().map_err(|(_, error)| error)?;
        Ok(())
    }

    /// Writes the log back and removes it, so that the database is one file. What a failing disk does not take stays in the log.
    pub(crate) fn close(&self) -> Result<()> {
        let mut writer = std::mem::take(&mut *lock(&self.writer));
        self.recover(&mut writer)?;
        lock(&self.readers).clear();
        let Writer::Open(open) = writer else {
            return Ok(());
        };
        let (log, connection) = *open;
        // The last connection writes all back.
        drop(log);
        connection.close().map_err(|(_, error)| error.into())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // Whoever opens it next does what can't be done now.
        let _ = self.close();
    }
}

/// A database that is read without locks and without a log: nobody may write to it meanwhile.
fn immutable_uri(path: &Path) -> String {
    use std::fmt::Write;
    use std::os::unix::ffi::OsStrExt;
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                uri.push(char::from(*byte));
            }
            _ => write!(uri, "%{byte:02X}").expect("strings grow"),
        }
    }
    uri + "?immutable=1"
}

/// Locks a mutex whatever became of a thread that held it: what it guards is consistent between calls.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
