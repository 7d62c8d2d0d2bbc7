//! Watching files: inotify.
//!
//! The kernel knows neither the names in writable regions nor what becomes of them, and can't be told. So the program's inotify descriptors are pipes of ours
//! ([`Instance`]), into which we write what the kernel would: what happens to names and attributes, because we do it; what happens to contents, because the
//! kernel tells us of their memory files; what happens in the host's part, because the kernel tells us of that, too. See
//! `docs/decisions/0018-inotify.md`.

pub mod calls;
mod instance;
mod state;

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use rustix::event::epoll;
use rustix::fs::{fstat, inotify};
use rustix::io::{fcntl_dupfd_cloexec, Errno};

use super::writable::{Inode, Spot};

use instance::{Event, Instance, Subject};
use state::{Content, Place, State};

/// What the kernel tells of memory files.
const OF_CONTENTS: u32 = libc::IN_ACCESS
    | libc::IN_MODIFY
    | libc::IN_CLOSE_WRITE
    | libc::IN_CLOSE_NOWRITE
    | libc::IN_OPEN;
/// What the instance for contents is called in the list of what is waited for.
const CONTENTS: u64 = u64::MAX;
/// Room for what one read gives.
const EVENTS: usize = 16_384;

/// The kernel's side of it.
struct Kernel {
    contents: OwnedFd,
    waiting: OwnedFd,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    kernel: OnceLock<Kernel>,
    /// How many files of writable regions are watched: none, mostly.
    count: AtomicUsize,
}

/// All inotify instances.
#[derive(Clone, Default)]
pub struct Watches(Arc<Shared>);

impl Watches {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing of ours is watched.
    pub fn are_idle(&self) -> bool {
        self.0.count.load(Ordering::Relaxed) == 0
    }

    /// Duplicates of the watched contents that may be given up soon, so that they are not closed then, but in [`Watches::catch_up`].
    pub fn removed_contents(&self) -> Vec<OwnedFd> {
        let Some(mut state) = self.watched() else {
            return Vec::new();
        };
        let mut duplicates = Vec::new();
        for content in state.contents.values_mut().filter(|one| one.is_removed) {
            let memory = content.memory.upgrade();
            let duplicate = memory.and_then(|memory| fcntl_dupfd_cloexec(&*memory, 0).ok());
            content.is_held = duplicate.is_some();
            duplicates.extend(duplicate);
        }
        duplicates
    }

    /// Takes what the kernel has told so far of those contents: that they are closed after this is not the program's doing.
    pub fn catch_up(&self, held: Vec<OwnedFd>) {
        if let Some(mut state) = self.watched() {
            for content in state.contents.values_mut() {
                content.is_held = false;
            }
        }
        drop(held);
    }

    /// The state, after what the kernel has told so far; `None` if nothing of ours is watched.
    fn watched(&self) -> Option<MutexGuard<'_, State>> {
        if self.are_idle() {
            return None;
        }
        let mut state = self.lock();
        self.take_contents(&mut state);
        Some(state)
    }

    /// A name was made, for something new or for a file that has others already.
    pub fn created(&self, spot: &Spot, linked: Option<Inode>, is_directory: bool) {
        let Some(mut state) = self.watched() else {
            return;
        };
        if let Some(file) = linked {
            state.tell(file, libc::IN_ATTRIB);
            state.add_place(file, spot);
        }
        state.tell_place(
            spot.directory,
            &spot.name,
            libc::IN_CREATE | directory(is_directory),
            0,
        );
        self.wait_for_room(&mut state);
    }

    /// A name was taken away, `is_last` if it was the file's last one, which is about to be given up.
    pub fn losing(&self, file: Inode, is_directory: bool, is_last: bool) {
        let Some(mut state) = self.watched() else {
            return;
        };
        if !is_directory {
            state.tell(file, libc::IN_ATTRIB);
        }
        if is_last {
            state.lost(file);
        }
    }

    /// A file that lost its last name was given up, unless it is open: that it is gone is told now, not when the kernel says so.
    ///
    /// The thread that frees files may have a duplicate of the memory file just now, for which the kernel would wait.
    pub fn given_up(&self, file: Inode) {
        if let Some(mut state) = self.watched() {
            state.given_up(file);
            self.wait_for_room(&mut state);
        }
    }

    /// A name was taken away, and the file given up if that was its last one.
    pub fn removed(&self, spot: &Spot, is_directory: bool) {
        let Some(mut state) = self.watched() else {
            return;
        };
        let what = libc::IN_DELETE | directory(is_directory);
        state.tell_place(spot.directory, &spot.name, what, 0);
        self.recount(&mut state);
    }

    /// A file has another name now; `victim` is what lost that name to it, and whether it was its last.
    pub fn moved(
        &self,
        (file, is_directory): (Inode, bool),
        from: &Spot,
        to: &Spot,
        victim: Option<(Inode, bool)>,
    ) {
        let Some(mut state) = self.watched() else {
            return;
        };
        state.cookie += 1;
        let cookie = state.cookie;
        let kind = directory(is_directory);
        state.tell_place(
            from.directory,
            &from.name,
            libc::IN_MOVED_FROM | kind,
            cookie,
        );
        state.tell_place(to.directory, &to.name, libc::IN_MOVED_TO | kind, cookie);
        if let Some((victim, _)) = victim {
            state.tell(victim, libc::IN_ATTRIB);
        }
        state.tell(file, libc::IN_MOVE_SELF);
        let old = (from.directory, from.name.clone());
        let new = (to.directory, to.name.clone());
        if let Some(content) = state.content(file) {
            content.places.retain(|place| *place != old);
            content.places.push(new);
        }
        if let Some((victim, true)) = victim {
            state.lost(victim);
        }
        self.recount(&mut state);
    }

    /// Attributes of a file were changed; `place` is one of its names.
    pub fn changed(&self, file: Inode, place: Option<Place>, is_directory: bool) {
        let Some(mut state) = self.watched() else {
            return;
        };
        let what = libc::IN_ATTRIB | directory(is_directory);
        if let Some((above, name)) = place {
            state.tell_place(above, &name, what, 0);
        }
        state.tell(file, what);
        self.wait_for_room(&mut state);
    }

    /// A content is about to be opened, by a name.
    pub fn opening(&self, file: Inode, spot: Option<&Spot>, memory: &Arc<OwnedFd>) {
        if let Some(mut state) = self.watched() {
            let place = spot.map(|spot| (spot.directory, spot.name.clone()));
            let is_wanted = state.wanted(file, place.iter()) != 0;
            if is_wanted || state.by_file.contains_key(&file) {
                self.follow(&mut state, file, place, memory);
            }
        }
    }

    /// Has the kernel tell us of a content.
    fn follow(&self, state: &mut State, file: Inode, place: Option<Place>, memory: &Arc<OwnedFd>) {
        if let Some(content) = state.content(file) {
            let is_new = |place: &Place| !content.places.contains(place);
            if let Some(place) = place.filter(is_new) {
                content.places.push(place);
            }
            self.retune(state);
            return;
        }
        let places = Vec::from_iter(place);
        let mask = state.wanted(file, places.iter());
        if let Some(number) = self.ask(memory, mask) {
            state.by_file.insert(file, number);
            let content = Content {
                file,
                places,
                memory: Arc::downgrade(memory),
                mask,
                is_removed: false,
                is_held: false,
            };
            state.contents.insert(number, content);
        }
    }

    /// Asks the kernel to tell of a memory file.
    fn ask(&self, memory: &OwnedFd, mask: u32) -> Option<i32> {
        let kernel = self.0.kernel.get().filter(|_| mask != 0)?;
        let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
        let flags = inotify::WatchFlags::from_bits_retain(mask);
        inotify::add_watch(&kernel.contents, path, flags)
            .inspect_err(|error| warn!("what happens to a watched file will not be told: {error}"))
            .ok()
    }

    /// Asks the kernel for what is wanted of contents now.
    fn retune(&self, state: &mut State) {
        let mut contents = std::mem::take(&mut state.contents);
        contents.retain(|&number, content| {
            let mask = state.wanted_of(content);
            if mask == 0 {
                state.by_file.remove(&content.file);
                if let Some(kernel) = self.0.kernel.get() {
                    let _ = inotify::remove_watch(&kernel.contents, number);
                }
                return false;
            }
            if mask != content.mask {
                if let Some(memory) = content.memory.upgrade() {
                    self.ask(&memory, mask);
                    content.mask = mask;
                }
            }
            true
        });
        state.contents = contents;
    }

    /// Takes what the kernel has told of contents.
    fn take_contents(&self, state: &mut State) {
        let Some(kernel) = self.0.kernel.get() else {
            return;
        };
        let mut room = [MaybeUninit::uninit(); EVENTS];
        let mut events = inotify::Reader::new(&kernel.contents, &mut room);
        while let Ok(event) = events.next() {
            state.happened(event.wd(), event.events().bits());
        }
        self.wait_for_room(state);
    }

    /// Takes what the kernel has told of the host's part.
    fn take_host(state: &mut State, pipe: u64) {
        let Some(instance) = state.instances.get_mut(&pipe) else {
            return;
        };
        let Some(host) = instance.host.take() else {
            return;
        };
        let mut room = [MaybeUninit::uninit(); EVENTS];
        let mut events = inotify::Reader::new(&host, &mut room);
        while let Ok(event) = events.next() {
            let subject = Subject::Host(event.wd());
            let mask = event.events().bits();
            if mask & libc::IN_IGNORED != 0 {
                instance
                    .number(subject)
                    .and_then(|number| instance.remove(number));
                continue;
            }
            let name = event.file_name().map_or(&b""[..], |name| name.to_bytes());
            let cookie = event.cookie();
            instance.tell(subject, Event { mask, cookie, name });
        }
        instance.host = Some(host);
    }

    /// Has the thread that serves the pipes look at those in which no event finds room.
    fn wait_for_room(&self, state: &mut State) {
        let Some(kernel) = self.0.kernel.get() else {
            return;
        };
        for (&number, instance) in &mut state.instances {
            let flags = if instance.flush() {
                epoll::EventFlags::OUT
            } else {
                epoll::EventFlags::empty()
            };
            let data = epoll::EventData::new_u64(number << 1);
            let _ = epoll::modify(&kernel.waiting, &instance.pipe, data, flags);
        }
    }

    /// After watches came or went: what the kernel must tell us of contents.
    fn recount(&self, state: &mut State) {
        let count = state.instances.values().map(Instance::count).sum();
        self.0.count.store(count, Ordering::Relaxed);
        self.retune(state);
        self.wait_for_room(state);
    }

    /// The kernel's side, which is made when it is needed first.
    fn kernel(&self) -> Result<&Kernel, Errno> {
        if let Some(kernel) = self.0.kernel.get() {
            return Ok(kernel);
        }
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let kernel = Kernel {
            contents: inotify::init(flags)?,
            waiting: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        };
        let data = epoll::EventData::new_u64(CONTENTS);
        epoll::add(
            &kernel.waiting,
            &kernel.contents,
            data,
            epoll::EventFlags::IN,
        )?;
        let mut is_first = false;
        let kernel = self.0.kernel.get_or_init(|| {
            is_first = true;
            kernel
        });
        if is_first {
            let watches = self.clone();
            let started = thread::Builder::new().name("watch".to_owned());
            started
                .spawn(move || watches.serve())
                .map_err(|_| Errno::AGAIN)?;
        }
        Ok(kernel)
    }

    /// Passes on what the kernel tells, for ever.
    fn serve(&self) {
        let Some(kernel) = self.0.kernel.get() else {
            return;
        };
        let mut events = Vec::with_capacity(64);
        loop {
            events.clear();
            let result = epoll::wait(
                &kernel.waiting,
                rustix::buffer::spare_capacity(&mut events),
                None,
            );
            if result.is_err() {
                continue;
            }
            let mut state = self.lock();
            for event in &events {
                let epoll::Event { flags, data } = *event;
                let data = data.u64();
                if data == CONTENTS {
                    self.take_contents(&mut state);
                } else if data & 1 == 1 {
                    Self::take_host(&mut state, data >> 1);
                } else if flags.intersects(epoll::EventFlags::ERR) {
                    // Nobody has the other end any more.
                    state.instances.remove(&(data >> 1));
                    self.recount(&mut state);
                }
            }
            self.wait_for_room(&mut state);
        }
    }

    /// Makes an instance; returns what the program gets.
    fn instance(&self, waits: bool) -> Result<OwnedFd, Errno> {
        let kernel = self.kernel()?;
        let (instance, end) = Instance::new(waits)?;
        let number = fstat(&instance.pipe)?.st_ino;
        let mut state = self.lock();
        let data = epoll::EventData::new_u64(number << 1);
        epoll::add(
            &kernel.waiting,
            &instance.pipe,
            data,
            epoll::EventFlags::empty(),
        )?;
        state.instances.insert(number, instance);
        Ok(end)
    }

    /// The kernel's instance behind one of ours, for what is the host's.
    fn host<'a>(&self, instance: &'a mut Instance, pipe: u64) -> Result<&'a OwnedFd, Errno> {
        if instance.host.is_none() {
            let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
            let host = inotify::init(flags)?;
            let data = epoll::EventData::new_u64(pipe << 1 | 1);
            epoll::add(&self.kernel()?.waiting, &host, data, epoll::EventFlags::IN)?;
            instance.host = Some(host);
        }
        instance.host.as_ref().ok_or(Errno::IO)
    }
}

fn directory(is_directory: bool) -> u32 {
    if is_directory {
        libc::IN_ISDIR
    } else {
        0
    }
}
