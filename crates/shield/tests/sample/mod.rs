//! A small file system that has one of everything, used by several tests and by the test vectors.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use sconify_shield::build::{Builder, Built, Content, Metadata};
use sconify_shield::{FileSystemKey, RegionKind};

pub const ENCRYPTED: u32 = 0;
pub const SECOND: u32 = 1;

/// The key of the sample: 00 01 02 … 1f.
pub fn key() -> FileSystemKey {
    FileSystemKey::new(std::array::from_fn(|at| at as u8))
}

/// Bytes that don't compress, the same on every machine.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

pub fn metadata(inode: u64, mode: u32) -> Metadata {
    Metadata {
        mode,
        uid: 10,
        gid: 20,
        mtime: 1_700_000_000,
        mtime_nsec: 5,
        inode,
        xattrs: BTreeMap::new(),
    }
}

pub fn file(content: &[u8], pack: Option<u32>) -> Content<Vec<u8>> {
    Content::File {
        source: content.to_vec(),
        size: content.len() as u64,
        pack,
    }
}

/// The contents of the sample's files by path.
pub fn contents() -> BTreeMap<&'static str, Vec<u8>> {
    BTreeMap::from([
        ("/app/a", b"hello".to_vec()),
        ("/app/a!b", b"sorts between /app/a and /app/a/".to_vec()),
        (
            "/app/big",
            [noise(66_000, 1), b"abc ".repeat(30_000), noise(3_000, 2)].concat(),
        ),
        ("/app/empty", Vec::new()),
        ("/app/hard", b"linked".to_vec()),
        ("/app/hardlink", b"linked".to_vec()),
        ("/app/lib/inner", b"inner content".to_vec()),
        ("/lib/plain.so", b"\x7fELF plain".to_vec()),
        ("/srv/data", noise(1_000, 3)),
    ])
}

pub fn builder() -> Builder<Vec<u8>> {
    let mut builder = Builder::new(key());
    for (prefix, kind, reason) in [
        ("/app", RegionKind::Encrypted, "--dir /app"),
        ("/data", RegionKind::Volume, "--volume"),
        ("/dev", RegionKind::Host, "devices"),
        ("/lib", RegionKind::Authenticated, "shared objects"),
        ("/proc", RegionKind::Host, "processes"),
        ("/srv", RegionKind::Encrypted, "--dir /srv"),
        ("/tmp", RegionKind::Ephemeral, "scratch"),
    ] {
        builder.add_region(prefix.as_bytes(), kind, reason).unwrap();
    }
    assert_eq!(
        builder.add_pack(b"/app", b"/.sconify/app.pack").unwrap(),
        ENCRYPTED
    );
    assert_eq!(
        builder.add_pack(b"/srv", b"/.sconify/srv.pack").unwrap(),
        SECOND
    );
    let mut inode = 1;
    let mut add = |path: &str, mode: u32, content: Content<Vec<u8>>| {
        builder
            .add_entry(path.as_bytes(), metadata(inode, mode), content)
            .unwrap();
        inode += 1;
    };
    for directory in ["/", "/app", "/app/lib", "/lib", "/proc", "/srv", "/tmp"] {
        add(directory, 0o755, Content::Directory);
    }
    for (path, target) in [
        ("/app/absolute", "/app/lib"),
        ("/app/dangling", "nowhere"),
        ("/app/loop", "loop"),
        ("/app/outside", "/proc/self"),
        ("/app/relative", "lib/../lib/inner"),
        ("/bin", "app/lib"),
    ] {
        add(path, 0o777, Content::Symlink(target.into()));
    }
    add("/app/null", 0o666, Content::CharDevice(1, 3));
    add("/app/disk", 0o660, Content::BlockDevice(8, 1));
    add("/app/pipe", 0o600, Content::Fifo);
    for (path, content) in contents() {
        let pack = match path {
            "/lib/plain.so" => None,
            "/srv/data" => Some(SECOND),
            _ => Some(ENCRYPTED),
        };
        let number = if path.starts_with("/app/hard") {
            1000
        } else {
            inode
        };
        let mut metadata = metadata(number, 0o644);
        if path == "/app/a" {
            metadata.mode = 0o4755;
            metadata.mtime = -1;
            metadata
                .xattrs
                .insert(b"security.capability".to_vec(), vec![1, 0, 0, 2]);
            metadata.xattrs.insert(b"user.empty".to_vec(), Vec::new());
        }
        builder
            .add_entry(path.as_bytes(), metadata, file(&content, pack))
            .unwrap();
        inode += 1;
    }
    for path in ["/etc/shadow", "/root"] {
        builder.add_omitted(path.as_bytes()).unwrap();
    }
    builder
}

/// Finishes a builder into memory: what was built, and its packs.
pub fn finish(builder: Builder<Vec<u8>>, packs: usize, threads: usize) -> (Built, Vec<Vec<u8>>) {
    let mut outputs = vec![Vec::new(); packs];
    let built = builder
        .finish(&mut outputs, threads, &mut |_| ControlFlow::Continue(()))
        .unwrap();
    (built, outputs)
}
