//! The store of the compression cache: a directory with one file for each entry.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use sconify_shield::build::Store;

/// Files named by the hex digits of their entry; the time of change is that of the last use. Whatever can't be read or written is as good as absent.
pub struct Directory {
    path: PathBuf,
    drafts: AtomicU64,
}

impl Directory {
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            drafts: AtomicU64::new(0),
        }
    }

    fn file(&self, name: &[u8; 32]) -> PathBuf {
        self.path.join(
            name.iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>(),
        )
    }
}

impl Store for Directory {
    fn load(&self, name: &[u8; 32]) -> Option<Vec<u8>> {
        let file = self.file(name);
        let entry = fs::read(&file).ok()?;
        let _ = File::options()
            .append(true)
            .open(&file)
            .and_then(|file| file.set_modified(SystemTime::now()));
        Some(entry)
    }

    fn save(&self, name: &[u8; 32], entry: &[u8]) {
        let number = self.drafts.fetch_add(1, Ordering::Relaxed);
        let draft = self
            .path
            .join(format!(".draft-{}-{number}", std::process::id()));
        let written = File::create_new(&draft)
            .and_then(|mut file| file.write_all(entry))
            .and_then(|()| fs::rename(&draft, self.file(name)));
        if written.is_err() {
            let _ = fs::remove_file(&draft);
        }
    }
}
