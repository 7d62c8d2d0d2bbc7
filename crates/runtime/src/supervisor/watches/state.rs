//! Who watches what, and whom an event is told.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Weak;

use super::super::tree::Node;
use super::super::writable::{Inode, Spot, EPHEMERAL};
use super::instance::{Event, Instance, Subject};
use super::OF_CONTENTS;

/// A name in a directory, as events give it.
pub type Place = (Inode, Vec<u8>);

/// A content whose memory file the kernel tells us of.
pub struct Content {
    /// The file whose content it is.
    pub file: Inode,
    /// Its names, as far as they are known.
    pub places: Vec<Place>,
    /// Its memory file, while there is one.
    pub memory: Weak<OwnedFd>,
    /// What the kernel was asked for.
    pub mask: u32,
    /// Whether the file has lost its last name.
    pub is_removed: bool,
    /// Whether a duplicate keeps it open that is not the program's.
    pub is_held: bool,
}

/// All of it.
#[derive(Default)]
pub struct State {
    /// The instances, by the inode number of the pipe.
    pub instances: HashMap<u64, Instance>,
    /// The contents that the kernel tells of, by its number of the watch.
    pub contents: HashMap<i32, Content>,
    /// Those numbers by the file.
    pub by_file: HashMap<Inode, i32>,
    /// The last one that joined the two halves of a move.
    pub cookie: u32,
}

impl State {
    /// What is known of a content, if the kernel tells of it.
    pub fn content(&mut self, file: Inode) -> Option<&mut Content> {
        self.contents.get_mut(self.by_file.get(&file)?)
    }

    /// What somebody asks for about the content of a file that has these names.
    pub fn wanted<'a>(&self, file: Inode, places: impl Iterator<Item = &'a Place>) -> u32 {
        let of = |file: Inode| {
            let subject = Subject::Node(Node::Writable(file));
            let masks = self
                .instances
                .values()
                .map(|instance| instance.mask(subject));
            masks.fold(0, |one, other| one | other)
        };
        let above = places.fold(0, |mask, (directory, _)| mask | of(*directory));
        // Volumes read contents themselves, to store them.
        let told = if file.system == EPHEMERAL {
            OF_CONTENTS
        } else {
            OF_CONTENTS & !libc::IN_ACCESS
        };
        (of(file) | above) & told
    }

    /// What somebody asks for about a content.
    pub fn wanted_of(&self, content: &Content) -> u32 {
        self.wanted(content.file, content.places.iter())
    }

    /// A file has one more name.
    pub fn add_place(&mut self, file: Inode, spot: &Spot) {
        if let Some(content) = self.content(file) {
            content.places.push((spot.directory, spot.name.clone()));
        }
    }

    fn tell_all(&mut self, file: Inode, event: Event) {
        let subject = Subject::Node(Node::Writable(file));
        for instance in self.instances.values_mut() {
            instance.tell(subject, event);
        }
    }

    /// Tells those who watch a file itself.
    pub fn tell(&mut self, file: Inode, mask: u32) {
        let event = Event {
            mask,
            cookie: 0,
            name: b"",
        };
        self.tell_all(file, event);
    }

    /// Tells those who watch a directory of a name in it.
    pub fn tell_place(&mut self, above: Inode, name: &[u8], mask: u32, cookie: u32) {
        self.tell_all(above, Event { mask, cookie, name });
    }

    /// A file has lost its last name: it is gone as soon as nobody has it open.
    pub fn lost(&mut self, file: Inode) {
        match self.content(file) {
            Some(content) => content.is_removed = true,
            None => self.gone(file),
        }
    }

    /// A file may have been given up: if so, it is gone, whoever of us still has a duplicate of its memory file.
    pub fn given_up(&mut self, file: Inode) {
        let is_given_up =
            |content: &Content| content.is_removed && content.memory.strong_count() == 0;
        let number = self.by_file.get(&file).copied();
        if let Some(number) =
            number.filter(|number| self.contents.get(number).is_some_and(is_given_up))
        {
            self.end(number, file);
        }
    }

    /// The kernel tells no more of a content whose file is gone.
    fn end(&mut self, number: i32, file: Inode) {
        self.contents.remove(&number);
        self.by_file.remove(&file);
        self.gone(file);
    }

    fn gone(&mut self, file: Inode) {
        self.tell(file, libc::IN_DELETE_SELF);
        let subject = Subject::Node(Node::Writable(file));
        for instance in self.instances.values_mut() {
            instance
                .number(subject)
                .and_then(|number| instance.remove(number));
        }
    }

    /// The kernel tells of a content.
    pub fn happened(&mut self, number: i32, mask: u32) {
        let Some(content) = self.contents.get(&number) else {
            return;
        };
        let file = content.file;
        if mask & libc::IN_IGNORED != 0 {
            if content.is_removed {
                self.end(number, file);
            } else {
                self.contents.remove(&number);
                self.by_file.remove(&file);
            }
            return;
        }
        let is_given_up = content.memory.strong_count() == 0 && !content.is_held;
        if mask & libc::IN_CLOSE_WRITE != 0 && is_given_up {
            // We have given it up.
            return;
        }
        let is_removed = content.is_removed;
        for (above, name) in content.places.clone() {
            let subject = Subject::Node(Node::Writable(above));
            for instance in self.instances.values_mut() {
                let excludes = instance.mask(subject) & libc::IN_EXCL_UNLINK != 0;
                if !(is_removed && excludes) {
                    let name = &name;
                    instance.tell(
                        subject,
                        Event {
                            mask,
                            cookie: 0,
                            name,
                        },
                    );
                }
            }
        }
        self.tell(file, mask);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{memfd_create, MemfdFlags};
    use rustix::io::read;
    use std::sync::Arc;

    const FILE: Inode = Inode {
        system: EPHEMERAL,
        number: 7,
    };
    const CONTENT: i32 = 3;

    /// The masks of what was told since the last time.
    fn told(end: &OwnedFd) -> Vec<u32> {
        let mut masks = Vec::new();
        let mut record = [0; 512];
        while read(end, &mut record).is_ok() {
            masks.push(u32::from_ne_bytes(record[4..8].try_into().unwrap()));
        }
        masks
    }

    #[test]
    fn that_a_file_is_gone_is_told_when_it_is_given_up_though_the_kernel_says_so_later() {
        let (mut instance, end) = Instance::new(false).unwrap();
        let subject = Subject::Node(Node::Writable(FILE));
        instance.add(subject, libc::IN_ALL_EVENTS).unwrap();
        let memory = Arc::new(memfd_create("content", MemfdFlags::CLOEXEC).unwrap());
        let mut state = State::default();
        state.instances.insert(1, instance);
        state.by_file.insert(FILE, CONTENT);
        let content = Content {
            file: FILE,
            places: Vec::new(),
            memory: Arc::downgrade(&memory),
            mask: libc::IN_ALL_EVENTS,
            is_removed: false,
            is_held: true,
        };
        state.contents.insert(CONTENT, content);

        state.given_up(FILE);
        state.lost(FILE);
        state.given_up(FILE);
        assert!(told(&end).is_empty(), "it has a name, then it is open");
        drop(memory);
        state.given_up(FILE);
        assert_eq!(told(&end), [libc::IN_DELETE_SELF, libc::IN_IGNORED]);
        state.happened(CONTENT, libc::IN_IGNORED);
        state.given_up(FILE);
        assert!(told(&end).is_empty(), "once is enough");
    }
}
