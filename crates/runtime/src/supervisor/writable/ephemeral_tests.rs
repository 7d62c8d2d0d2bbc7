use std::ops::ControlFlow;

use rustix::fs::OFlags;
use rustix::io::{pread, pwrite};

use sconify_shield::build::{Builder, Content as Given, Metadata as Attributes};
use sconify_shield::{FileSystemKey, RegionKind};

use super::super::{reopen, Kind, Time};
use super::*;

fn new(kind: Kind) -> New {
    New {
        kind,
        mode: 0o644,
        uid: 1,
        gid: 2,
    }
}

/// An empty file system and its root.
fn system(memories: usize) -> (Ephemeral, u64) {
    let ephemeral = Ephemeral::new(None, memories, u64::MAX);
    let root = {
        let mut state = ephemeral.state();
        let number = state.next;
        state.make(number, &new(Kind::Directory), false)
    };
    (ephemeral, root)
}

fn memory(system: &Ephemeral, number: u64) -> Arc<OwnedFd> {
    match system.content(number).unwrap() {
        Content::Memory(memory) => memory,
        Content::Initial(_) => panic!("nothing is in an image"),
    }
}

#[test]
fn contents_that_nobody_has_open_give_their_memory_files_back() {
    let (system, root) = system(8);
    let time: Time = (1_000_000_000, 5);
    let numbers: Vec<_> = (0..100_u32)
        .map(|number| {
            let name = number.to_string();
            let file = system
                .create(root, name.as_bytes(), &new(Kind::File))
                .unwrap();
            pwrite(&*memory(&system, file), name.as_bytes(), 0).unwrap();
            system
                .change(file, Change::Times(Some(time), Some(time)))
                .unwrap();
            file
        })
        .collect();
    let kept = system.state().by_memory.len();
    assert!(kept <= 16, "{kept} memory files are kept");
    for (number, file) in numbers.into_iter().enumerate() {
        assert_eq!(system.metadata(file).unwrap().modified, time);
        let mut text = [0; 4];
        let count = pread(&*memory(&system, file), &mut text, 0).unwrap();
        assert_eq!(&text[..count], number.to_string().as_bytes());
        assert_eq!(system.metadata(file).unwrap().modified, time);
    }
}

#[test]
fn a_file_without_a_name_ends_when_it_is_closed() {
    let (system, root) = system(8);
    let file = system.create(root, b"file", &new(Kind::File)).unwrap();
    let open = reopen(&memory(&system, file), OFlags::RDWR).unwrap();
    system.remove(root, b"file", false).unwrap();
    system.forget(file);
    assert!(system.sweep(), "it is open");
    assert_eq!(system.metadata(file).unwrap().links, 0);
    drop(open);
    assert!(!system.sweep());
    assert_eq!(system.metadata(file), Err(Errno::NOENT));
    assert!(system.state().by_memory.is_empty());
}

#[test]
fn a_file_that_has_lost_its_last_name_ends_when_it_is_forgotten() {
    let (system, root) = system(8);
    let file = system.create(root, b"one", &new(Kind::File)).unwrap();
    drop(memory(&system, file));
    system.link(file, root, b"two").unwrap();
    system.remove(root, b"one", false).unwrap();
    assert_eq!(system.metadata(file).unwrap().links, 1);
    system.forget(file);
    system.remove(root, b"two", false).unwrap();
    assert_eq!(system.metadata(file).unwrap().links, 0);
    system.forget(file);
    assert_eq!(system.metadata(file), Err(Errno::NOENT));
    assert!(!system.has_garbage());
}

#[test]
fn nothing_comes_to_stand_beneath_itself() {
    let (system, root) = system(8);
    let above = system.create(root, b"a", &new(Kind::Directory)).unwrap();
    let below = system.create(above, b"b", &new(Kind::Directory)).unwrap();
    let rename = |from: (u64, &[u8]), to: (u64, &[u8])| system.rename(from, to, Renaming::Replace);
    assert_eq!(rename((root, b"a"), (below, b"c")), Err(Errno::INVAL));
    assert_eq!(rename((above, b"b"), (root, b"a")), Err(Errno::NOTEMPTY));
    assert_eq!(rename((above, b"b"), (root, b"b")), Ok(()));
    assert_eq!(system.parent(below), Ok(root));
    assert_eq!(system.metadata(above).unwrap().links, 2);
    assert_eq!(system.metadata(root).unwrap().links, 4);
    system.remove(root, b"b", true).unwrap();
    assert_eq!(
        system.create(below, b"x", &new(Kind::File)),
        Err(Errno::NOENT)
    );
}

/// A file system that begins with `count` files of 1000 bytes in `/d`, and `/one` and `/other/two`, which are one file; and its root.
fn with_image(count: u64, bytes: u64) -> (Ephemeral, u64) {
    let key = FileSystemKey::new([1; 32]);
    let mut builder = Builder::new(key.clone());
    builder
        .add_region(b"/", RegionKind::Ephemeral, "test")
        .unwrap();
    let pack = builder.add_pack(b"/", b"/pack").unwrap();
    let mut add = |path: &str, inode, given| {
        let attributes = Attributes {
            mode: 0o755,
            inode,
            ..Attributes::default()
        };
        builder
            .add_entry(path.as_bytes(), attributes, given)
            .unwrap();
    };
    let file = || Given::File {
        source: vec![7; 1000],
        size: 1000,
        pack: Some(pack),
    };
    for (path, inode) in [("/", 1), ("/d", 2), ("/other", 3)] {
        add(path, inode, Given::Directory);
    }
    add("/one", 4, file());
    add("/other/two", 4, file());
    for number in 0..count {
        add(&format!("/d/{number}"), 5 + number, file());
    }
    let built = builder
        .finish(&mut [Vec::new()], 1, &mut |_| ControlFlow::Continue(()))
        .unwrap();
    let index = Index::open(&built.index, &key, &built.tag).unwrap();
    let ephemeral = Ephemeral::new(Some(Arc::new(index)), 1000, bytes);
    let root = ephemeral.plant(b"/");
    (ephemeral, root)
}

/// Gives a file of the image its memory file.
fn load(system: &Ephemeral, number: u64) -> Arc<OwnedFd> {
    match system.content(number).unwrap() {
        Content::Memory(memory) => memory,
        Content::Initial(_) => {
            let memory = create(b"test").unwrap();
            pwrite(&memory, &[7; 1000], 0).unwrap();
            system.load(number, memory).unwrap()
        }
    }
}

#[test]
fn what_the_image_has_is_given_up_when_nobody_has_it_open_unless_it_was_changed() {
    let (system, root) = with_image(40, 10_000);
    let directory = system.lookup(root, b"d").unwrap().unwrap();
    let number = |name: u64| {
        let name = name.to_string();
        system.lookup(directory, name.as_bytes()).unwrap().unwrap()
    };
    let before = system.metadata(number(0)).unwrap();
    let open = reopen(&load(&system, number(0)), OFlags::RDONLY).unwrap();
    drop(load(&system, number(1)));
    system.spoil(number(1));
    for name in 2..40 {
        drop(load(&system, number(name)));
    }
    let kept = system.state().by_memory.len();
    assert!(kept <= 15, "{kept} memory files are kept");
    let is_held = |name| matches!(system.content(number(name)).unwrap(), Content::Memory(_));
    assert!(is_held(0) && is_held(1) && !is_held(2));
    assert!(system.pristine(number(0)).is_some() && system.pristine(number(1)).is_none());
    assert_eq!(system.metadata(number(0)).unwrap(), before);
    drop(open);
}

#[test]
fn all_names_of_a_file_of_the_image_are_known_before_one_is_taken_away() {
    let (system, root) = with_image(0, u64::MAX);
    let number = system.lookup(root, b"one").unwrap().unwrap();
    assert_eq!(system.metadata(number).unwrap().links, 2);
    system.remove(root, b"one", false).unwrap();
    let other = system.lookup(root, b"other").unwrap().unwrap();
    assert_eq!(system.lookup(other, b"two").unwrap(), Some(number));
    assert_eq!(system.metadata(number).unwrap().links, 1);
    assert!(system.pristine(number).is_some());
    assert_eq!(system.remove(root, b"other", true), Err(Errno::NOTEMPTY));
}

#[test]
fn the_root_of_a_region_is_not_forgotten_although_it_has_no_name() {
    let (system, root) = system(8);
    let directory = system
        .create(root, b"directory", &new(Kind::Directory))
        .unwrap();
    system.forget(root);
    assert_eq!(system.metadata(root).unwrap().links, 3);
    system.remove(root, b"directory", true).unwrap();
    system.forget(directory);
    assert_eq!(system.metadata(directory).unwrap_err(), Errno::NOENT);
}
