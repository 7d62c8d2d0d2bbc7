//! What the program holds as an inotify descriptor: a pipe of events, each written as a packet of its own, so that a read never gets half of one.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::{ioctl_fionread, write, Errno};
use rustix::pipe::{fcntl_setpipe_size, pipe_with, PipeFlags};

use super::super::tree::Node;

/// Events that may wait, as in the kernel.
const QUEUE_LIMIT: usize = 16_384;
/// Bytes of memory that a pipe may take: a slot of a page for each event.
const PIPE_SIZE: usize = 1 << 20;
/// What a watch asks for: the kinds of events, and two ways of asking.
const KEPT: u32 = libc::IN_ALL_EVENTS | libc::IN_ONESHOT | libc::IN_EXCL_UNLINK;
/// What a watch is told whatever it asks for.
const ALWAYS: u32 = libc::IN_IGNORED | libc::IN_UNMOUNT | libc::IN_Q_OVERFLOW;
/// Names are padded to a multiple of this: `sizeof(struct inotify_event)`.
const HEAD: usize = 16;

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// Something of ours. What is protected never changes.
    Node(Node),
    /// Something of the host's, by the kernel's number.
    Host(i32),
}

/// Something that happened: `struct inotify_event` without the number of the watch.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// What.
    pub mask: u32,
    /// Joins the two halves of a move.
    pub cookie: u32,
    /// In a directory: to what.
    pub name: &'a [u8],
}

impl Event<'_> {
    fn encode(&self, watch: i32) -> Vec<u8> {
        let padded = match self.name.len() {
            0 => 0,
            length => (length + 1).next_multiple_of(HEAD),
        };
        let mut record = Vec::with_capacity(HEAD + padded);
        record.extend(watch.to_ne_bytes());
        record.extend(self.mask.to_ne_bytes());
        record.extend(self.cookie.to_ne_bytes());
        record.extend((padded as u32).to_ne_bytes());
        record.extend_from_slice(self.name);
        record.resize(HEAD + padded, 0);
        record
    }
}

/// An inotify instance.
pub struct Instance {
    /// The end that events are written to.
    pub pipe: OwnedFd,
    /// The kernel's instance, for what is the host's.
    pub host: Option<OwnedFd>,
    last: i32,
    watches: BTreeMap<i32, (Subject, u32)>,
    by_subject: HashMap<Subject, i32>,
    waiting: VecDeque<Vec<u8>>,
    latest: Vec<u8>,
}

impl Instance {
    /// A new one, and the end of its pipe that the program reads.
    ///
    /// # Errors
    /// `EMFILE` and the like.
    pub fn new(waits: bool) -> Result<(Self, OwnedFd), Errno> {
        let (read, pipe) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::DIRECT | PipeFlags::NONBLOCK)?;
        let flags = if waits {
            rustix::fs::OFlags::empty()
        } else {
            rustix::fs::OFlags::NONBLOCK
        };
        rustix::fs::fcntl_setfl(&read, flags)?;
        // Fewer events fit in if this is refused; the others wait here.
        let _ = fcntl_setpipe_size(&pipe, PIPE_SIZE);
        let instance = Self {
            pipe,
            host: None,
            last: 0,
            watches: BTreeMap::new(),
            by_subject: HashMap::new(),
            waiting: VecDeque::new(),
            latest: Vec::new(),
        };
        Ok((instance, read))
    }

    /// Watches something; returns the number of the watch.
    ///
    /// # Errors
    /// `EEXIST` if it is watched already and `IN_MASK_CREATE` is asked for.
    pub fn add(&mut self, subject: Subject, mask: u32) -> Result<i32, Errno> {
        if let Some(&number) = self.by_subject.get(&subject) {
            if mask & libc::IN_MASK_CREATE != 0 {
                return Err(Errno::EXIST);
            }
            if let Some((_, old)) = self.watches.get_mut(&number) {
                let kept = if mask & libc::IN_MASK_ADD != 0 {
                    *old
                } else {
                    0
                };
                *old = kept | mask & KEPT;
            }
            return Ok(number);
        }
        self.last += 1;
        self.watches.insert(self.last, (subject, mask & KEPT));
        self.by_subject.insert(subject, self.last);
        Ok(self.last)
    }

    /// Ends a watch; returns what was watched.
    pub fn remove(&mut self, number: i32) -> Option<Subject> {
        let (subject, _) = self.watches.remove(&number)?;
        self.by_subject.remove(&subject);
        let event = Event {
            mask: libc::IN_IGNORED,
            cookie: 0,
            name: b"",
        };
        self.push(number, event);
        Some(subject)
    }

    /// What is asked for about something.
    pub fn mask(&self, subject: Subject) -> u32 {
        let number = self.by_subject.get(&subject);
        let watch = number.and_then(|number| self.watches.get(number));
        watch.map_or(0, |(_, mask)| *mask)
    }

    /// How many things of ours are watched.
    pub fn count(&self) -> usize {
        let is_ours = |subject: &&Subject| matches!(subject, Subject::Node(_));
        self.by_subject.keys().filter(is_ours).count()
    }

    /// The number of the watch of something.
    pub fn number(&self, subject: Subject) -> Option<i32> {
        self.by_subject.get(&subject).copied()
    }

    /// Tells of an event, if that is asked for.
    pub fn tell(&mut self, subject: Subject, event: Event) {
        let mask = self.mask(subject);
        let Some(number) = self.number(subject) else {
            return;
        };
        if event.mask & (mask & libc::IN_ALL_EVENTS | ALWAYS) == 0 {
            return;
        }
        self.push(number, event);
        if mask & libc::IN_ONESHOT != 0 {
            self.remove(number);
        }
    }

    fn push(&mut self, number: i32, event: Event) {
        let record = event.encode(number);
        self.flush();
        // The same as the one before, which nobody has read yet.
        let is_unread = !self.waiting.is_empty()
            || ioctl_fionread(self.pipe.as_fd()).is_ok_and(|bytes| bytes > 0);
        if is_unread && record == self.latest {
            return;
        }
        let record = if self.waiting.len() < QUEUE_LIMIT {
            record
        } else {
            let overflow = Event {
                mask: libc::IN_Q_OVERFLOW,
                cookie: 0,
                name: b"",
            };
            overflow.encode(-1)
        };
        if self.waiting.len() <= QUEUE_LIMIT {
            self.latest.clone_from(&record);
            self.waiting.push_back(record);
            self.flush();
        }
    }

    /// Writes what waits, as far as there is room; returns whether something still waits.
    pub fn flush(&mut self) -> bool {
        while let Some(record) = self.waiting.front() {
            if write(&self.pipe, record).is_err() {
                return true;
            }
            self.waiting.pop_front();
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::read;

    const NODE: Subject = Subject::Node(Node::Injected(0));

    fn event(name: &[u8]) -> Event<'_> {
        Event {
            mask: libc::IN_CREATE,
            cookie: 0,
            name,
        }
    }

    fn names(end: &OwnedFd) -> Vec<String> {
        let mut names = Vec::new();
        let mut record = [0; 512];
        while let Ok(length) = read(end, &mut record) {
            assert_eq!(length % HEAD, 0);
            let name = String::from_utf8_lossy(&record[HEAD..length]).into_owned();
            names.push(name.trim_end_matches('\0').to_owned());
        }
        names
    }

    #[test]
    fn events_wait_in_their_order_until_there_is_room() {
        let (mut instance, end) = Instance::new(false).unwrap();
        instance.add(NODE, libc::IN_CREATE).unwrap();
        for number in 0..2_000 {
            instance.tell(NODE, event(number.to_string().as_bytes()));
        }
        let mut seen = names(&end);
        while seen.len() < 2_000 {
            instance.flush();
            seen.extend(names(&end));
        }
        let expected: Vec<_> = (0..2_000).map(|number: i32| number.to_string()).collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn what_was_not_read_yet_is_not_told_twice() {
        let (mut instance, end) = Instance::new(false).unwrap();
        instance.add(NODE, libc::IN_CREATE).unwrap();
        for name in [&b"a"[..], b"a", b"b", b"a"] {
            instance.tell(NODE, event(name));
        }
        assert_eq!(names(&end), ["a", "b", "a"]);
        instance.tell(NODE, event(b"a"));
        assert_eq!(names(&end), ["a"]);
    }

    #[test]
    fn too_many_events_are_told_as_such() {
        let (mut instance, end) = Instance::new(false).unwrap();
        instance.add(NODE, libc::IN_CREATE).unwrap();
        for number in 0..40_000 {
            instance.tell(NODE, event(number.to_string().as_bytes()));
        }
        let mut seen = names(&end);
        while instance.flush() {
            seen.extend(names(&end));
        }
        seen.extend(names(&end));
        assert!(seen.len() > QUEUE_LIMIT && seen.len() < 20_000);
        assert_eq!(seen.last().map(String::as_str), Some(""));
    }
}
