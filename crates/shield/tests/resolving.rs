//! Paths resolve as the kernel resolves them; where regions of the host begin, the walk ends.

mod sample;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{symlink, MetadataExt};
use std::path::Path;

use proptest::prelude::*;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use sconify_shield::build::{Builder, Content};
use sconify_shield::{Index, RegionKind, ResolveError, Resolved};

/// One thing of a tree.
#[derive(Clone, Debug)]
enum Node {
    Directory,
    File,
    Symlink(String),
}

type Tree = BTreeMap<String, Node>;

fn index_of(tree: &Tree, regions: &[(&str, RegionKind)]) -> Index {
    let mut builder = Builder::new(sample::key());
    for (prefix, kind) in regions {
        builder.add_region(prefix.as_bytes(), *kind, "").unwrap();
    }
    builder
        .add_entry(b"/", sample::metadata(1, 0o755), Content::Directory)
        .unwrap();
    for (number, (path, node)) in tree.iter().enumerate() {
        let content = match node {
            Node::Directory => Content::Directory,
            Node::File => sample::file(b"", None),
            Node::Symlink(target) => Content::Symlink(target.clone().into_bytes()),
        };
        builder
            .add_entry(
                path.as_bytes(),
                sample::metadata(number as u64 + 2, 0o755),
                content,
            )
            .unwrap();
    }
    let (built, _) = sample::finish(builder, 0, 1);
    Index::open(&built.index, &sample::key(), &built.tag).unwrap()
}

fn write_tree(root: &Path, tree: &Tree) {
    for (path, node) in tree {
        let path = root.join(&path[1..]);
        match node {
            Node::Directory => fs::create_dir(path).unwrap(),
            Node::File => fs::write(path, b"").unwrap(),
            Node::Symlink(target) => symlink(target, path).unwrap(),
        }
    }
}

fn component() -> impl Strategy<Value = &'static str> {
    prop_oneof![8 => prop_oneof![Just("a"), Just("b"), Just("c"), Just("d")], 3 => Just(".."), 1 => Just("."), 1 => Just("")]
}

fn any_path() -> impl Strategy<Value = String> {
    (any::<bool>(), proptest::collection::vec(component(), 1..6)).prop_map(
        |(absolute, components)| {
            let path = format!(
                "{}{}",
                if absolute { "/" } else { "" },
                components.join("/")
            );
            if path.is_empty() {
                ".".to_owned()
            } else {
                path
            }
        },
    )
}

fn any_tree() -> impl Strategy<Value = Tree> {
    let node = prop_oneof![
        3 => Just(Node::Directory),
        1 => Just(Node::File),
        3 => any_path().prop_map(Node::Symlink),
    ];
    let name = prop_oneof![Just("a"), Just("b"), Just("c"), Just("d")];
    let paths = proptest::collection::vec((proptest::collection::vec(name, 1..4), node), 0..14);
    paths.prop_map(|wanted| {
        let mut tree = Tree::new();
        for (names, node) in wanted {
            let mut path = String::new();
            let above = &names[..names.len() - 1];
            let free = above.iter().all(|name| {
                path = format!("{path}/{name}");
                matches!(
                    tree.entry(path.clone()).or_insert(Node::Directory),
                    Node::Directory
                )
            });
            if free {
                tree.entry(format!("{path}/{}", names[names.len() - 1]))
                    .or_insert(node);
            }
        }
        tree
    })
}

/// What the kernel finds at `path` if `root` is its root: an inode, or an error.
fn kernel_resolve(root: &Path, path: &str, follow_last: bool) -> Result<u64, Errno> {
    let directory = fs::File::open(root).unwrap();
    let flags = OFlags::PATH
        | if follow_last {
            OFlags::empty()
        } else {
            OFlags::NOFOLLOW
        };
    let found = rustix::fs::openat2(
        &directory,
        path,
        flags,
        Mode::empty(),
        ResolveFlags::IN_ROOT,
    )?;
    Ok(rustix::fs::fstat(found)?.st_ino)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_kernel_agrees(tree in any_tree(), paths in proptest::collection::vec(any_path(), 20)) {
        let root = tempfile::tempdir().unwrap();
        write_tree(root.path(), &tree);
        let index = index_of(&tree, &[("/", RegionKind::Authenticated)]);
        for path in paths.iter().map(|path| format!("/{path}")) {
            for follow_last in [false, true] {
                let expected = kernel_resolve(root.path(), &path, follow_last);
                let resolved = index.resolve(path.as_bytes(), follow_last);
                let got = match &resolved {
                    Ok(Resolved::Entry { id }) => {
                        let found = std::str::from_utf8(index.entry(*id).path()).unwrap();
                        Ok(fs::symlink_metadata(root.path().join(&found[1..])).unwrap().ino())
                    }
                    Ok(Resolved::Missing { path: leaf, parent }) => {
                        let leaf = std::str::from_utf8(leaf).unwrap();
                        let above = std::str::from_utf8(index.entry(*parent).path()).unwrap();
                        prop_assert_eq!(Path::new(leaf).parent().unwrap(), Path::new(above));
                        prop_assert!(index.find(leaf.as_bytes()).is_none());
                        Err(Errno::NOENT)
                    }
                    Ok(other) => panic!("{other:?}"),
                    Err(ResolveError::NoEntry) => Err(Errno::NOENT),
                    Err(ResolveError::NotDirectory) => Err(Errno::NOTDIR),
                    Err(ResolveError::Loop) => Err(Errno::LOOP),
                    Err(ResolveError::NameTooLong) => Err(Errno::NAMETOOLONG),
                };
                prop_assert_eq!(got, expected, "{} (follow: {}) is {:?}", path, follow_last, resolved);
            }
        }
    }

    #[test]
    fn what_the_kernel_gets_stays_in_its_region(
        tree in any_tree(),
        kinds in proptest::collection::vec(0_usize..5, 6),
        paths in proptest::collection::vec(any_path(), 20),
    ) {
        let prefixes = ["/", "/a", "/a/b", "/b", "/c", "/d"];
        let regions: Vec<_> = prefixes
            .iter()
            .zip(kinds)
            .skip(tree.len() % 2)
            .filter(|(prefix, _)| **prefix != "/a/b" || matches!(tree.get("/a"), Some(Node::Directory)))
            .map(|(prefix, kind)| (*prefix, RegionKind::ALL[kind]))
            .map(|(prefix, kind)| (prefix, if kind == RegionKind::Encrypted { RegionKind::Authenticated } else { kind }))
            .collect();
        let index = index_of(&tree, &regions);
        for path in paths.iter().map(|path| format!("/{path}")) {
            match index.resolve(path.as_bytes(), true) {
                Ok(Resolved::Host { path }) => stays_within(&index, &path, RegionKind::Host)?,
                Ok(Resolved::Writable { path, kind }) => {
                    prop_assert_eq!(index.region_of(&path).map(|region| region.kind()), Some(kind));
                }
                Ok(Resolved::Entry { id }) => {
                    let kind = index.region_of(index.entry(id).path()).map(|region| region.kind());
                    prop_assert!(matches!(kind, None | Some(RegionKind::Authenticated)));
                }
                Ok(Resolved::Missing { path, .. }) => {
                    prop_assert_eq!(index.region_of(&path).unwrap().kind(), RegionKind::Authenticated);
                }
                Ok(Resolved::Undeclared { .. }) | Err(_) => {}
            }
        }
    }
}

/// Checks that a path lies in a region of this kind at every step, taken by name, and enters no other one.
fn stays_within(index: &Index, path: &[u8], kind: RegionKind) -> Result<(), TestCaseError> {
    let mut normal: Vec<&[u8]> = Vec::new();
    for component in path.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => continue,
            b".." => drop(normal.pop()),
            name => normal.push(name),
        }
    }
    let whole = [b"/", &normal.join(&b'/')[..]].concat();
    let found = index.region_of(&whole).map(|region| region.kind());
    prop_assert_eq!(found, Some(kind), "{}", path.escape_ascii());
    Ok(())
}

fn sample_index() -> Index {
    let (built, _) = sample::finish(sample::builder(), 2, 1);
    Index::open(&built.index, &sample::key(), &built.tag).unwrap()
}

#[track_caller]
fn entry_at(index: &Index, path: &str, follow_last: bool) -> String {
    match index.resolve(path.as_bytes(), follow_last) {
        Ok(Resolved::Entry { id }) => String::from_utf8(index.entry(id).path().to_vec()).unwrap(),
        other => panic!("{path}: {other:?}"),
    }
}

#[test]
fn links_and_dots_are_followed() {
    let index = sample_index();
    assert_eq!(entry_at(&index, "/", true), "/");
    assert_eq!(
        entry_at(&index, "//app/./lib//inner", true),
        "/app/lib/inner"
    );
    assert_eq!(entry_at(&index, "/bin/inner", true), "/app/lib/inner");
    assert_eq!(entry_at(&index, "/bin/../a", true), "/app/a");
    assert_eq!(entry_at(&index, "/app/relative", true), "/app/lib/inner");
    assert_eq!(entry_at(&index, "/app/relative", false), "/app/relative");
    assert_eq!(entry_at(&index, "/app/absolute/", false), "/app/lib");
    assert_eq!(entry_at(&index, "/../..", true), "/");
    assert_eq!(entry_at(&index, "/app/loop", false), "/app/loop");
}

#[test]
fn errors_are_those_of_the_kernel() {
    let index = sample_index();
    let error = |path: &str| index.resolve(path.as_bytes(), true).unwrap_err();
    assert_eq!(error("/app/loop"), ResolveError::Loop);
    assert_eq!(error("/app/a/"), ResolveError::NotDirectory);
    assert_eq!(error("/app/a/."), ResolveError::NotDirectory);
    assert_eq!(error("/app/a/.."), ResolveError::NotDirectory);
    assert_eq!(error("/app/relative/x"), ResolveError::NotDirectory);
    assert_eq!(error("/app/nothing/x"), ResolveError::NoEntry);
    assert_eq!(error("/app/dangling/x"), ResolveError::NoEntry);
    assert_eq!(error(""), ResolveError::NoEntry);
    assert_eq!(error("app"), ResolveError::NoEntry);
    assert_eq!(
        error(&format!("/app/{}", "x".repeat(256))),
        ResolveError::NameTooLong
    );
    assert_eq!(error(&"/app".repeat(1024)), ResolveError::NameTooLong);
}

#[test]
fn a_missing_leaf_is_told_from_a_missing_directory() {
    let index = sample_index();
    let missing = |path: &str, leaf: &str, parent: &str| {
        let expected = Resolved::Missing {
            path: leaf.as_bytes().to_vec(),
            parent: index.find(parent.as_bytes()).unwrap(),
        };
        assert_eq!(index.resolve(path.as_bytes(), true), Ok(expected));
    };
    missing("/app/new", "/app/new", "/app");
    missing("/app/new/", "/app/new", "/app");
    missing("/bin/new", "/app/lib/new", "/app/lib");
    missing("/app/dangling", "/app/nowhere", "/app");
}

#[test]
fn undeclared_paths_are_told() {
    let index = sample_index();
    for path in ["/etc", "/etc/passwd", "/application", "/etc/../app/a"] {
        let expected = Resolved::Undeclared {
            path: path.as_bytes().to_vec(),
        };
        assert_eq!(index.resolve(path.as_bytes(), true), Ok(expected));
    }
}

#[test]
fn the_walk_ends_where_the_host_begins() {
    let index = sample_index();
    let host = |path: &str, expected: &str| {
        let expected = Resolved::Host {
            path: expected.as_bytes().to_vec(),
        };
        assert_eq!(index.resolve(path.as_bytes(), false), Ok(expected));
    };
    host("/proc", "/proc");
    host("/proc/self/fd/../maps/", "/proc/self/fd/../maps/");
    host("/app/../proc/1", "/proc/1");
    host("/dev/null", "/dev/null");
    host("/app/outside/exe", "/proc/self/exe");
    host("/proc/../proc/./self", "/proc/./self");
    for (path, kind) in [
        ("/tmp/x/../y", RegionKind::Ephemeral),
        ("/data/db", RegionKind::Volume),
    ] {
        let expected = Resolved::Writable {
            path: path.as_bytes().to_vec(),
            kind,
        };
        assert_eq!(index.resolve(path.as_bytes(), true), Ok(expected));
    }
}

#[test]
fn no_path_reaches_protected_names_through_the_host() {
    let index = sample_index();
    assert_eq!(entry_at(&index, "/proc/../app/a", true), "/app/a");
    assert_eq!(entry_at(&index, "/proc/self/../../app/a", true), "/app/a");
    assert_eq!(entry_at(&index, "/dev/..", true), "/");
    // What `/tmp/x` is, only the writable region knows.
    let within = Resolved::Writable {
        path: b"/tmp/x/../../bin/inner".to_vec(),
        kind: RegionKind::Ephemeral,
    };
    assert_eq!(index.resolve(b"/tmp/x/../../bin/inner", true), Ok(within));
}

#[test]
fn regions_may_lie_in_each_other() {
    let tree = Tree::from([
        ("/data".to_owned(), Node::Directory),
        ("/data/secret".to_owned(), Node::Directory),
        ("/data/secret/key".to_owned(), Node::File),
        ("/data/secret/pipe".to_owned(), Node::Directory),
    ]);
    let index = index_of(
        &tree,
        &[
            ("/", RegionKind::Host),
            ("/data/secret", RegionKind::Authenticated),
            ("/data/secret/pipe", RegionKind::Host),
        ],
    );
    assert_eq!(
        entry_at(&index, "/data/secret/key", true),
        "/data/secret/key"
    );
    assert_eq!(
        entry_at(&index, "/etc/../data/secret/key", true),
        "/data/secret/key"
    );
    assert_eq!(
        entry_at(&index, "/data/secret/pipe/../key", true),
        "/data/secret/key"
    );
    for (path, expected) in [
        ("/", "/"),
        ("/data", "/data"),
        ("/data/", "/data/"),
        ("/data/.", "/data"),
        ("/data/secret/..", "/data"),
        ("/data/x/y", "/data/x/y"),
        ("/etc/passwd", "/etc/passwd"),
        ("/data/secret/pipe/x", "/data/secret/pipe/x"),
    ] {
        let expected = Resolved::Host {
            path: expected.as_bytes().to_vec(),
        };
        assert_eq!(index.resolve(path.as_bytes(), true), Ok(expected), "{path}");
    }
}

#[test]
fn forty_links_are_followed_and_no_more() {
    let mut tree = Tree::from([("/file".to_owned(), Node::File)]);
    for number in 0..41 {
        let target = if number == 0 {
            "file".to_owned()
        } else {
            format!("l{}", number - 1)
        };
        tree.insert(format!("/l{number}"), Node::Symlink(target));
    }
    let index = index_of(&tree, &[("/", RegionKind::Authenticated)]);
    assert_eq!(entry_at(&index, "/l39", true), "/file");
    assert_eq!(index.resolve(b"/l40", true), Err(ResolveError::Loop));
}
