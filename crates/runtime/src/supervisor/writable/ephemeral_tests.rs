use rustix::fs::OFlags;
use rustix::io::{pread, pwrite};

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
    let ephemeral = Ephemeral::new(memories);
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
    assert!(system.sweep(), "it is open");
    assert_eq!(system.metadata(file).unwrap().links, 0);
    drop(open);
    assert!(!system.sweep());
    assert_eq!(system.metadata(file), Err(Errno::NOENT));
    assert!(system.state().by_memory.is_empty());
}

#[test]
fn a_file_that_is_not_open_ends_with_its_last_name() {
    let (system, root) = system(8);
    let file = system.create(root, b"one", &new(Kind::File)).unwrap();
    drop(memory(&system, file));
    system.link(file, root, b"two").unwrap();
    system.remove(root, b"one", false).unwrap();
    assert_eq!(system.metadata(file).unwrap().links, 1);
    system.remove(root, b"two", false).unwrap();
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
