//! Large contents that are opened again move to huge pages, behind the program's back.
//!
//! Not when they are decrypted: so much memory in one piece may have to be made free first, or be fetched from a hypervisor, which takes longer than decrypting.

use std::os::fd::AsFd;
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, OnceLock, Weak};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;

use crate::kernel::mapping::use_huge_pages;

use super::memory_file::MemoryFile;

/// What is in use just now is tried again after this time, after twice of it, and so on.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(64);

/// Takes what shall move. The thread that moves starts with the first one.
#[derive(Default)]
pub struct HugePages(OnceLock<Sender<Weak<MemoryFile>>>);

impl HugePages {
    /// Notes that a file is opened once more than it was made for.
    pub fn opened_again(&self, file: &Arc<MemoryFile>) {
        if file.may_move() {
            // Where the thread could not be started nobody takes it.
            let _ = self.0.get_or_init(start).send(Arc::downgrade(file));
        }
    }
}

fn start() -> Sender<Weak<MemoryFile>> {
    let (sender, receiver) = channel();
    let work = move || move_all(&receiver);
    if let Err(error) = thread::Builder::new().name("move".to_owned()).spawn(work) {
        warn!("contents stay in small pages: {error}");
    }
    sender
}

fn move_all(files: &Receiver<Weak<MemoryFile>>) {
    let mut left = Vec::new();
    let mut pause = FIRST_PAUSE;
    loop {
        let next = if left.is_empty() {
            files.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            files.recv_timeout(pause)
        };
        match next {
            Ok(file) => {
                left.push(file);
                pause = FIRST_PAUSE;
            }
            Err(RecvTimeoutError::Timeout) => pause = LONGEST_PAUSE.min(2 * pause),
            Err(RecvTimeoutError::Disconnected) => return,
        }
        // What has been dropped meanwhile is gone.
        left.retain(|file| file.upgrade().is_some_and(|file| !has_moved(&file)));
    }
}

/// Whether a file has been moved, or never can be.
fn has_moved(file: &MemoryFile) -> bool {
    let moved = use_huge_pages(file.descriptor().as_fd(), file.size);
    debug!("memory file {} moves to huge pages: {moved:?}", file.inode);
    moved != Err(Errno::AGAIN)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::memory_file::{create, write};
    use super::*;

    const SIZE: u64 = 3 << 20;

    fn file() -> Arc<MemoryFile> {
        let draft = create(b"test").unwrap();
        write(&draft, 0, &vec![7; SIZE as usize]).unwrap();
        Arc::new(MemoryFile::seal(&draft, SIZE).unwrap())
    }

    /// Waits until nobody but the caller wants the file.
    fn wait_until_left_alone(file: &Arc<MemoryFile>) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Arc::weak_count(file) > 0 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!((Arc::strong_count(file), Arc::weak_count(file)), (1, 0));
    }

    #[test]
    fn a_file_is_moved_once_and_keeps_its_content() {
        let pages = HugePages::default();
        let (file, dropped) = (file(), file());
        for _ in 0..3 {
            pages.opened_again(&file);
        }
        pages.opened_again(&dropped);
        drop(dropped);
        wait_until_left_alone(&file);
        assert!(file.bytes(0, SIZE as usize + 1) == vec![7; SIZE as usize]);
        pages.opened_again(&file);
        assert_eq!(Arc::weak_count(&file), 0, "it was moved already");
    }
}
