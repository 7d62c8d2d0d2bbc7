//! Large contents that are opened again and again move to huge pages, behind the program's back.
//!
//! Not when they are decrypted: memory in such pieces may have to be made free first, or be fetched from a hypervisor, which takes longer than decrypting.

use std::os::fd::AsFd;
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::{Arc, OnceLock, Weak};
use std::thread;

use rustix::io::Errno;

use crate::kernel::mapping::use_huge_pages;

use super::memory_file::MemoryFile;

/// Takes what shall move. The thread that moves starts with the first one.
#[derive(Default)]
pub struct HugePages(OnceLock<Sender<Weak<MemoryFile>>>);

impl HugePages {
    /// Notes that a file is opened once more than it was made for.
    pub fn opened_again(&self, file: &Arc<MemoryFile>) {
        if file.is_due_to_move() {
            // Nobody takes it where the kernel can't.
            let _ = self.0.get_or_init(start).send(Arc::downgrade(file));
        }
    }
}

fn start() -> Sender<Weak<MemoryFile>> {
    let (sender, receiver) = channel();
    let work = || move_all(receiver);
    if let Err(error) = thread::Builder::new().name("move".to_owned()).spawn(work) {
        warn!("contents stay in small pages: {error}");
    }
    sender
}

fn move_all(files: Receiver<Weak<MemoryFile>>) {
    // What has been dropped meanwhile is gone.
    for file in files.iter().filter_map(|file| file.upgrade()) {
        match use_huge_pages(file.descriptor().as_fd(), file.size) {
            Ok(()) => file.has_moved(),
            // A small page is in use just now, or no huge one is free.
            Err(Errno::AGAIN | Errno::NOMEM | Errno::BUSY) => {}
            Err(error) => {
                debug!("contents stay in small pages: {error}");
                return;
            }
        }
    }
}
