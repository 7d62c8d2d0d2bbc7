//! Tests of the memory files.

use std::ops::ControlFlow;

use sconify_shield::build::{Builder, Content, Metadata};
use sconify_shield::{FileSystemKey, Index, RegionKind};

use super::*;

const SIZE: usize = 1000;

/// A tree of `count` files of [`SIZE`] bytes, whose pack stands on the disk.
fn tree(name: &str, count: u8) -> (Tree, std::path::PathBuf) {
    tree_of(name, count, SIZE)
}

fn tree_of(name: &str, count: u8, size: usize) -> (Tree, std::path::PathBuf) {
    let pack = std::env::temp_dir().join(format!("sconify-contents-{}-{name}", std::process::id()));
    let key = FileSystemKey::new([1; 32]);
    let mut builder = Builder::new(key.clone());
    builder
        .add_region(b"/", RegionKind::Encrypted, "test")
        .unwrap();
    let number = builder
        .add_pack(b"/", pack.to_str().unwrap().as_bytes())
        .unwrap();
    let metadata = |inode| Metadata {
        mode: 0o755,
        inode,
        ..Metadata::default()
    };
    builder
        .add_entry(b"/", metadata(1), Content::Directory)
        .unwrap();
    for file in 0..count {
        let content = Content::File {
            source: vec![file; size],
            size: size as u64,
            pack: Some(number),
        };
        builder
            .add_entry(
                format!("/{file:03}").as_bytes(),
                metadata(u64::from(file) + 2),
                content,
            )
            .unwrap();
    }
    let mut output = File::create(&pack).unwrap();
    let built = builder
        .finish(std::slice::from_mut(&mut output), 1, &mut |_| {
            ControlFlow::Continue(())
        })
        .unwrap();
    let index = Index::open(&built.index, &key, &built.tag).unwrap();
    (Tree::new(index, Vec::new(), 1000, Vec::new()), pack)
}

fn node(tree: &Tree, number: u8) -> Node {
    Node::Entry(
        tree.index()
            .find(format!("/{number:03}").as_bytes())
            .unwrap(),
    )
}

#[test]
fn files_that_nobody_has_open_are_dropped_and_made_again() {
    let (tree, pack) = tree("evict", 100);
    let contents = Contents::new(Packs::new(tree.index(), None), 20 * SIZE as u64, 1000).unwrap();
    let held = contents
        .get(&tree, node(&tree, 0), Form::Data)
        .unwrap()
        .reopen(OFlags::RDONLY)
        .unwrap();
    for number in 0..100 {
        let file = contents
            .get(&tree, node(&tree, number), Form::Data)
            .unwrap();
        assert_eq!(file.bytes(0, 2 * SIZE), vec![number; SIZE]);
    }
    assert!(contents.used.load(Ordering::Relaxed) <= 21 * SIZE as u64);
    let status = fstat(&held).unwrap();
    assert_eq!(
        contents.node_of(status.st_ino),
        Some((node(&tree, 0), Form::Data))
    );
    let again = contents.get(&tree, node(&tree, 0), Form::Data).unwrap();
    assert_eq!(
        fstat(again.descriptor()).unwrap().st_ino,
        status.st_ino,
        "it was open all the time"
    );
    std::fs::remove_file(pack).unwrap();
}

#[test]
fn few_descriptors_make_files_dear() {
    let (tree, pack) = tree("dear", 50);
    let contents = Contents::new(Packs::new(tree.index(), None), 1 << 30, 10).unwrap();
    for number in 0..50 {
        contents
            .get(&tree, node(&tree, number), Form::Data)
            .unwrap();
    }
    assert!(contents.slots.lock().unwrap().len() <= 11);
    std::fs::remove_file(pack).unwrap();
}

#[test]
fn memory_files_can_not_be_written() {
    let (tree, pack) = tree("sealed", 1);
    let contents = Contents::new(Packs::new(tree.index(), None), 1 << 20, 10).unwrap();
    let file = contents.get(&tree, node(&tree, 0), Form::Data).unwrap();
    let writable = file.reopen(OFlags::RDWR).unwrap();
    assert_eq!(rustix::io::write(&writable, b"x"), Err(Errno::PERM));
    assert_eq!(rustix::fs::ftruncate(&writable, 0), Err(Errno::PERM));
    std::fs::remove_file(pack).unwrap();
}

#[test]
fn only_what_is_large_and_opened_again_may_move_to_huge_pages() {
    const LARGE: usize = 1 << 20;
    for (size, times, may_move) in [(LARGE, 1, true), (LARGE, 2, false), (LARGE - 1, 1, false)] {
        let (tree, pack) = tree_of("huge", 1, size);
        let contents = Contents::new(Packs::new(tree.index(), None), 1 << 30, 10).unwrap();
        let get = || contents.get(&tree, node(&tree, 0), Form::Data).unwrap();
        for _ in 1..times {
            get();
        }
        assert_eq!(get().may_move(), may_move, "{size} {times}");
        std::fs::remove_file(pack).unwrap();
    }
}

#[test]
fn what_nobody_has_open_makes_room_and_no_more_is_taken_than_there_is() {
    let (tree, pack) = tree("room", 2);
    let contents = Contents::new(Packs::new(tree.index(), None), 1 << 30, 10).unwrap();
    let held = contents.get(&tree, node(&tree, 0), Form::Data).unwrap();
    contents.get(&tree, node(&tree, 1), Form::Data).unwrap();
    assert!(contents.find_room(&tree, LARGE).is_ok());
    assert_eq!(contents.slots.lock().unwrap().len(), 2);

    let refused = contents.find_room(&tree, 1 << 60).unwrap_err();
    assert!(!refused.is_tampering());
    assert_eq!(refused.errno(), Errno::NOMEM);
    assert!(refused
        .to_string()
        .starts_with("it has 1152921504606846976 bytes, and the container has "));
    assert_eq!(contents.slots.lock().unwrap().len(), 1);
    drop(held);
    std::fs::remove_file(pack).unwrap();
}
