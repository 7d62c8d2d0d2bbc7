//! Contents as extents of files of this machine. Thousands of extents share few files, so these stay open.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use sconify_shield::{ReadAt, ShieldError};

/// How many files stay open.
const OPEN_LIMIT: usize = 64;

/// A file that extents lie in.
pub struct Container {
    path: PathBuf,
    /// What the file was when it was first opened.
    stamp: OnceLock<Stamp>,
}

/// What changes when a file is changed or replaced: device, inode, size, time of change in seconds and nanoseconds.
type Stamp = (u64, u64, u64, i64, i64);

/// The files that were used last, the latest one at the end.
#[derive(Default)]
pub struct OpenFiles(Mutex<Vec<(Arc<Container>, Arc<File>)>>);

/// A part of a file; without a file, nothing.
pub struct Extent {
    pub container: Option<Arc<Container>>,
    pub files: Arc<OpenFiles>,
    pub offset: u64,
    pub size: u64,
}

impl Container {
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            stamp: OnceLock::new(),
        }
    }

    /// Refuses a file that was read and is another one by now.
    pub fn check_unchanged(&self) -> Result<(), ShieldError> {
        let Some(stamp) = self.stamp.get() else {
            return Ok(());
        };
        let metadata =
            std::fs::metadata(&self.path).map_err(|error| crate::io_error(&self.path, error))?;
        if stamp_of(&metadata) == *stamp {
            return Ok(());
        }
        Err(changed(&self.path))
    }

    fn open(&self) -> io::Result<File> {
        let file = File::open(&self.path)?;
        let stamp = stamp_of(&file.metadata()?);
        if *self.stamp.get_or_init(|| stamp) == stamp {
            return Ok(file);
        }
        Err(io::Error::other("it was changed while it was read"))
    }
}

impl OpenFiles {
    fn get(&self, container: &Arc<Container>) -> io::Result<Arc<File>> {
        let mut files = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(at) = files
            .iter()
            .rposition(|(open, _)| Arc::ptr_eq(open, container))
        {
            let found = files.remove(at);
            let file = Arc::clone(&found.1);
            files.push(found);
            return Ok(file);
        }
        let file = Arc::new(container.open()?);
        if files.len() == OPEN_LIMIT {
            files.remove(0);
        }
        files.push((Arc::clone(container), Arc::clone(&file)));
        Ok(file)
    }
}

impl ReadAt for Extent {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let Some(container) = &self.container else {
            return Ok(0);
        };
        let count = self.size.saturating_sub(offset).min(buf.len() as u64) as usize;
        if count == 0 {
            return Ok(0);
        }
        let file = self.files.get(container)?;
        std::os::unix::fs::FileExt::read_at(&*file, &mut buf[..count], self.offset + offset)
    }

    fn size(&self) -> io::Result<u64> {
        let Some(container) = &self.container else {
            return Ok(0);
        };
        let length = self.files.get(container)?.metadata()?.len();
        Ok(length.saturating_sub(self.offset).min(self.size))
    }
}

fn changed(path: &Path) -> ShieldError {
    ShieldError::BadSource {
        path: path.display().to_string(),
        reason: "it was changed while it was read".to_owned(),
    }
}

fn stamp_of(metadata: &std::fs::Metadata) -> Stamp {
    (
        metadata.dev(),
        metadata.ino(),
        metadata.len(),
        metadata.mtime(),
        metadata.mtime_nsec(),
    )
}
