//! Each rule of the format is enforced: a body that breaks one alone is refused, and the message says which.

mod spec;

use sconify_shield::{FileSystemKey, Index, ShieldError};

const KEY: [u8; 32] = [9; 32];

/// The parts of a body, encoded by hand.
#[derive(Clone)]
struct Body {
    regions: Vec<Vec<u8>>,
    packs: Vec<Vec<u8>>,
    entries: Vec<Vec<u8>>,
    omitted: Vec<Vec<u8>>,
    rest: Vec<u8>,
}

fn counted(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_le_bytes()[..], bytes].concat()
}

fn region(prefix: &str, kind: u8, reason: &[u8]) -> Vec<u8> {
    [&counted(prefix.as_bytes())[..], &[kind], &counted(reason)].concat()
}

fn chunk(stored: u32, plain: u32, compressed: u8) -> Vec<u8> {
    [
        &stored.to_le_bytes()[..],
        &plain.to_le_bytes(),
        &[compressed],
        &[0; 28],
    ]
    .concat()
}

fn pack(name: &str, file: &str, chunks: &[Vec<u8>]) -> Vec<u8> {
    let count = (chunks.len() as u32).to_le_bytes();
    [
        &counted(name.as_bytes())[..],
        &counted(file.as_bytes()),
        &count,
        &chunks.concat(),
    ]
    .concat()
}

/// The fields of an entry, all valid until a test changes one.
#[derive(Clone)]
struct Fields {
    path: &'static str,
    kind: u8,
    mode: u32,
    nanoseconds: u32,
    inode: u64,
    xattrs: Vec<&'static [u8]>,
    content: Vec<u8>,
}

impl Fields {
    fn new(path: &'static str, kind: u8, inode: u64, content: &[u8]) -> Self {
        let (mode, nanoseconds, xattrs) = (0o755, 0, Vec::new());
        Self {
            path,
            kind,
            mode,
            nanoseconds,
            inode,
            xattrs,
            content: content.to_vec(),
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = counted(self.path.as_bytes());
        out.push(self.kind);
        out.extend(self.mode.to_le_bytes());
        out.extend([0; 4 + 4 + 8]);
        out.extend(self.nanoseconds.to_le_bytes());
        out.extend(self.inode.to_le_bytes());
        out.extend((self.xattrs.len() as u32).to_le_bytes());
        for name in &self.xattrs {
            out.extend(counted(name));
            out.extend(counted(b"value"));
        }
        out.extend(&self.content);
        out
    }
}

fn packed(size: u64, pack: u32, offset: u64) -> Vec<u8> {
    [
        &[1][..],
        &size.to_le_bytes(),
        &pack.to_le_bytes(),
        &offset.to_le_bytes(),
    ]
    .concat()
}

fn plain(size: u64) -> Vec<u8> {
    [&[2][..], &size.to_le_bytes(), &[7; 32]].concat()
}

impl Body {
    /// A valid body: directories `/` and `/a`, and in the latter the files `f` (10 bytes) and `g` (65,536 bytes).
    fn valid() -> Self {
        Self {
            regions: vec![region("/a", 1, b"why"), region("/b", 5, b"")],
            packs: vec![pack(
                "/a",
                "/pack",
                &[chunk(57_344, 65_536, 1), chunk(10, 10, 0)],
            )],
            entries: vec![
                Fields::new("/", b'd', 1, b"").encode(),
                Fields::new("/a", b'd', 2, b"").encode(),
                Fields::new("/a/f", b'-', 3, &packed(10, 0, 0)).encode(),
                Fields::new("/a/g", b'-', 4, &packed(65_536, 0, 10)).encode(),
            ],
            omitted: vec![counted(b"/x"), counted(b"/y")],
            rest: Vec::new(),
        }
    }

    fn encode(&self) -> Vec<u8> {
        let list =
            |list: &[Vec<u8>]| [&(list.len() as u32).to_le_bytes()[..], &list.concat()].concat();
        let lists =
            [&self.regions, &self.packs, &self.entries, &self.omitted].map(|part| list(part));
        [&lists.concat()[..], &self.rest].concat()
    }
}

fn open(body: &[u8]) -> Result<Index, ShieldError> {
    let (index, tag) = spec::seal_index(&KEY, body);
    Index::open(&index, &FileSystemKey::new(KEY), &tag)
}

/// Changes a valid body and expects the message to contain `reason`.
#[track_caller]
fn refused(reason: &str, change: impl FnOnce(&mut Body)) {
    let mut body = Body::valid();
    change(&mut body);
    match open(&body.encode()) {
        Err(ShieldError::CorruptIndex(message)) => {
            assert!(
                message.contains(reason),
                "got \"{message}\", expected \"{reason}\""
            );
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("accepted, expected \"{reason}\""),
    }
}

/// Adds an entry.
#[track_caller]
fn refused_entry(reason: &str, fields: &Fields) {
    refused(reason, |body| body.entries.push(fields.encode()));
}

#[test]
fn the_valid_body_is_accepted() {
    let index = open(&Body::valid().encode()).unwrap();
    assert_eq!(index.entries().len(), 4);
    assert_eq!(index.packs()[0].stored_len(), 32 + 57_344 + 10);
}

#[test]
fn lists_are_sorted_complete_and_nothing_follows_them() {
    refused("region /a follows /b: not sorted", |body| {
        body.regions.swap(0, 1)
    });
    refused("region /a follows /a", |body| {
        body.regions[1] = region("/a", 5, b"")
    });
    refused("entry /a/f follows /a/g", |body| body.entries.swap(2, 3));
    refused("entry /a/g follows /a/g", |body| {
        body.entries.push(body.entries[3].clone())
    });
    refused("omitted path /x follows /y", |body| body.omitted.swap(0, 1));
    refused("1 bytes follow", |body| body.rest.push(0));
    let body = Body::valid().encode();
    for length in 0..body.len() {
        assert!(
            matches!(open(&body[..length]), Err(ShieldError::CorruptIndex(_))),
            "{length} bytes"
        );
    }
}

#[test]
fn counts_reserve_no_memory_that_is_not_there() {
    for at in 0..4 {
        let mut body = Body::valid();
        let parts = [
            &mut body.regions,
            &mut body.packs,
            &mut body.entries,
            &mut body.omitted,
        ];
        parts.into_iter().skip(at).for_each(Vec::clear);
        let mut bytes = body.encode();
        let count = bytes.len() - 4 * (4 - at);
        bytes[count..count + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(open(&bytes), Err(ShieldError::CorruptIndex(_))));
    }
}

#[test]
fn regions() {
    refused("unknown kind 0", |body| {
        body.regions[1] = region("/b", 0, b"")
    });
    refused("unknown kind 6", |body| {
        body.regions[1] = region("/b", 6, b"")
    });
    refused("not UTF-8", |body| {
        body.regions[1] = region("/b", 5, b"\xff")
    });
    refused("not absolute", |body| body.regions[0] = region("a", 1, b""));
    refused("above the region /c/d is not listed", |body| {
        body.regions.push(region("/c/d", 5, b""))
    });
    refused("above the region /a/f/x is not listed", |body| {
        body.regions.insert(1, region("/a/f/x", 1, b""))
    });
    refused("in an encrypted region but in no pack", |body| {
        body.entries
            .push(Fields::new("/a/h", b'-', 5, &plain(3)).encode());
    });
}

#[test]
fn packs_and_chunks() {
    let with = |chunks: &[Vec<u8>]| pack("/a", "/pack", chunks);
    let (first, last) = (chunk(57_344, 65_536, 1), chunk(10, 10, 0));
    let cases = [
        (
            "it has 65535 bytes of content, expected 65536",
            with(&[chunk(65_535, 65_535, 0), last.clone()]),
        ),
        (
            "chunk 1 of pack /a: it has 0 bytes",
            with(&[first.clone(), chunk(0, 0, 0)]),
        ),
        (
            "it has 65537 bytes",
            with(&[first.clone(), chunk(65_537, 65_537, 0)]),
        ),
        (
            "57345 bytes are stored",
            with(&[chunk(57_345, 65_536, 1), last.clone()]),
        ),
        (
            "0 bytes are stored",
            with(&[chunk(0, 65_536, 1), last.clone()]),
        ),
        (
            "9 bytes are stored",
            with(&[first.clone(), chunk(9, 10, 0)]),
        ),
        (
            "unknown compression 2",
            with(&[first.clone(), chunk(10, 10, 2)]),
        ),
        (
            "hold 65547 bytes, its files 65546",
            with(&[first.clone(), chunk(11, 11, 0)]),
        ),
        (
            "hold 65536 bytes, its files 65546",
            with(std::slice::from_ref(&first)),
        ),
        (
            "not absolute",
            pack("a", "/pack", &[first.clone(), last.clone()]),
        ),
        (
            "component",
            pack("/a", "/pack/", &[first.clone(), last.clone()]),
        ),
    ];
    for (reason, pack) in cases {
        refused(reason, |body| body.packs[0] = pack);
    }
    refused("name or the file of /a", |body| {
        body.packs.push(pack("/a", "/other", &[]))
    });
    refused("name or the file of /b", |body| {
        body.packs.push(pack("/b", "/pack", &[]))
    });
}

#[test]
fn contents_follow_each_other_without_gaps() {
    let entry = |path, inode, content: &[u8]| Fields::new(path, b'-', inode, content).encode();
    refused("offset 11 of its pack, expected 10", |body| {
        body.entries[3] = entry("/a/g", 4, &packed(65_535, 0, 11));
    });
    refused("offset 9 of its pack, expected 10", |body| {
        body.entries[3] = entry("/a/g", 4, &packed(65_537, 0, 9));
    });
    refused("pack 1, which does not exist", |body| {
        body.entries[3] = entry("/a/g", 4, &packed(65_536, 1, 0));
    });
    refused("too long", |body| {
        body.entries[3] = entry("/a/g", 4, &packed(u64::MAX, 0, 10))
    });
    refused("unknown storage 3", |body| {
        body.entries[3] = entry("/a/g", 4, &[3; 21])
    });
}

#[test]
fn entries() {
    refused("the root is not listed", |body| {
        body.entries.clear();
        body.regions.clear();
        body.packs.clear();
    });
    refused("the root is not a directory", |body| {
        body.entries[0] = Fields::new("/", b'p', 1, b"").encode();
    });
    refused("/a has no directory above it", |body| {
        body.entries.remove(0);
    });
    refused_entry(
        "/b/c has no directory above it",
        &Fields::new("/b/c", b'd', 5, b""),
    );
    refused_entry(
        "/a/g/x has no directory above it",
        &Fields::new("/a/g/x", b'p', 5, b""),
    );
    refused_entry("unknown type \"s\"", &Fields::new("/c", b's', 5, b""));
    refused_entry("inode is 0", &Fields::new("/c", b'p', 0, b""));
    refused_entry(
        "mode is 10000",
        &Fields {
            mode: 0o10000,
            ..Fields::new("/c", b'p', 5, b"")
        },
    );
    refused_entry(
        "1000000000 nanoseconds",
        &Fields {
            nanoseconds: 1_000_000_000,
            ..Fields::new("/c", b'p', 5, b"")
        },
    );
    refused_entry(
        "the target is empty",
        &Fields::new("/c", b'l', 5, &counted(b"")),
    );
    refused_entry(
        "the target is empty",
        &Fields::new("/c", b'l', 5, &counted(b"a\0b")),
    );
    refused_entry(
        "the target is empty",
        &Fields::new("/c", b'l', 5, &counted(&[b'a'; 4096])),
    );
    let xattrs = |names: &[&'static [u8]]| Fields {
        xattrs: names.to_vec(),
        ..Fields::new("/c", b'p', 5, b"")
    };
    refused_entry("attribute b follows b", &xattrs(&[b"b", b"b"]));
    refused_entry("attribute a follows b", &xattrs(&[b"b", b"a"]));
    refused_entry("can't name an extended attribute", &xattrs(&[b""]));
    refused_entry("can't name an extended attribute", &xattrs(&[b"a\0"]));
    refused_entry("can't name an extended attribute", &xattrs(&[&[b'a'; 256]]));
}

#[test]
fn hard_links_agree_in_everything() {
    let link = Fields::new("/a/h", b'-', 3, &packed(10, 0, 0));
    let mut body = Body::valid();
    body.entries.push(link.encode());
    let index = open(&body.encode()).unwrap();
    assert_eq!(index.lookup(b"/a/f").unwrap().nlink(), 2);
    let reason = "/a/f and /a/h share an inode but are not hard links";
    refused_entry(
        reason,
        &Fields {
            mode: 0o644,
            ..link.clone()
        },
    );
    refused_entry(
        reason,
        &Fields {
            content: packed(10, 0, 5),
            ..link.clone()
        },
    );
    refused_entry(
        reason,
        &Fields {
            content: packed(9, 0, 0),
            ..link.clone()
        },
    );
    refused_entry(
        reason,
        &Fields {
            xattrs: vec![b"user.a"],
            ..link
        },
    );
    refused_entry("/a and /b share an inode", &Fields::new("/b", b'd', 2, b""));
}

#[test]
fn the_compression_of_the_body_is_checked() {
    let body = Body::valid().encode();
    let compressed = zstd::bulk::compress(&body, 3).unwrap();
    let sealed = |length: u64, compressed: &[u8]| {
        let (index, tag) =
            spec::seal_plaintext(&KEY, &[&length.to_le_bytes()[..], compressed].concat());
        Index::open(&index, &FileSystemKey::new(KEY), &tag)
    };
    let length = body.len() as u64;
    assert!(sealed(length, &compressed).is_ok());
    for (length, compressed) in [
        (length + 1, &compressed[..]),
        (length - 1, &compressed),
        (u64::MAX, &compressed),
        ((1 << 30) + 1, &compressed),
        (length, &compressed[1..]),
        (length, &compressed[..compressed.len() - 1]),
        (length, &body),
    ] {
        assert!(matches!(
            sealed(length, compressed),
            Err(ShieldError::CorruptIndex(_))
        ));
    }
}
