//! A small protected file system made of files of this machine, and the launcher that runs programs in it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Seek, SeekFrom};
use std::ops::ControlFlow;
use std::os::unix::fs::{symlink, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::OnceLock;

use sconify_shield::build::{Builder, Content, Metadata};
use sconify_shield::{FileSystemKey, RegionKind, RootTag};

use super::run::Run;

const KEY: [u8; 32] = [7; 32];
/// Where the packs begin in the file of an embedded world.
pub const EMBEDDED_AT: u64 = 4096;
/// Seconds after which a program that hangs is killed.
const PATIENCE: &str = "60";

/// A protected file system on the disk.
pub struct World {
    /// Where everything of it stands, except programs and libraries of this machine.
    pub root: PathBuf,
    tag: RootTag,
    is_embedded: bool,
}

/// Collects what a [`World`] shall hold.
pub struct Plan {
    root: PathBuf,
    builder: Builder<Vec<u8>>,
    /// Whether all of it is in one file, as in a binary, and everything may be changed.
    is_embedded: bool,
    pack: u32,
    /// The pack of `scratch`, once something is in it.
    scratch: Option<u32>,
    known: BTreeSet<PathBuf>,
    inode: u64,
}

impl Plan {
    /// A world with `app` (encrypted), `plain` (authenticated), `host` and `scratch` (ephemeral), the probe as `app/probe` and `app/static`, and a shell.
    pub fn new() -> Self {
        let regions = ["usr", "bin", "lib", "lib64"].map(|name| (name, RegionKind::Authenticated));
        let own = [
            ("app", RegionKind::Encrypted),
            ("plain", RegionKind::Authenticated),
            ("scratch", RegionKind::Ephemeral),
        ];
        Self::with(&regions, &own, false)
    }

    /// The same, all of which is embedded, but for `host`.
    pub fn embedded() -> Self {
        Self::with(&[("", RegionKind::Ephemeral)], &[], true)
    }

    /// With these regions in the root directory and in that of the world.
    fn with(regions: &[(&str, RegionKind)], own: &[(&str, RegionKind)], is_embedded: bool) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let root =
            std::env::temp_dir().join(format!("sconify-world-{}-{number}", std::process::id()));
        fs::create_dir(&root).unwrap();
        let mut builder = Builder::new(FileSystemKey::new(KEY));
        let app = root.join("app");
        let kernel = ["proc", "sys", "dev"].map(|name| (name, RegionKind::Host));
        for (name, kind) in regions.iter().chain(&kernel) {
            let prefix = format!("/{name}");
            builder
                .add_region(prefix.as_bytes(), *kind, "test")
                .unwrap();
        }
        for (name, kind) in own.iter().chain(&[("host", RegionKind::Host)]) {
            fs::create_dir(root.join(name)).unwrap();
            builder
                .add_region(bytes(&root.join(name)), *kind, "test")
                .unwrap();
        }
        let pack = builder
            .add_pack(bytes(&app), bytes(&root.join("pack")))
            .unwrap();
        let mut plan = Self {
            root,
            builder,
            is_embedded,
            pack,
            scratch: None,
            known: BTreeSet::new(),
            inode: 100,
        };
        plan.directory("/".as_ref());
        for name in ["app", "plain", "scratch"][..if is_embedded { 3 } else { 2 }].iter() {
            plan.directory(&plan.root.join(name));
        }
        for (name, (content, _)) in ["probe", "static", "calls"].into_iter().zip(probes()) {
            plan.encrypted(name, content, 0o755);
        }
        for library in &probes()[0].1 {
            plan.of_this_machine(library);
        }
        for program in ["/bin/sh", "/bin/cat", "/usr/bin/env"] {
            plan.with_libraries(program.as_ref());
        }
        plan
    }

    /// A path beneath the root, as text.
    pub fn path(&self, name: &str) -> String {
        self.root.join(name).to_str().unwrap().to_owned()
    }

    /// Adds an encrypted file beneath `app`, which the disk does not have.
    pub fn encrypted(&mut self, name: &str, content: &[u8], mode: u32) {
        let path = self.root.join("app").join(name);
        self.parents(&path);
        let metadata = self.metadata(mode);
        let content = Content::File {
            size: content.len() as u64,
            source: content.to_vec(),
            pack: Some(self.pack),
        };
        self.builder
            .add_entry(bytes(&path), metadata, content)
            .unwrap();
    }

    /// Adds a file that `scratch` has at the start.
    pub fn seeded(&mut self, name: &str, content: &[u8]) {
        let (scratch, file) = (self.root.join("scratch"), self.root.join("pack-scratch"));
        let pack = *self.scratch.get_or_insert_with(|| {
            self.builder
                .add_pack(bytes(&scratch), bytes(&file))
                .unwrap()
        });
        let path = scratch.join(name);
        self.parents(&path);
        let metadata = self.metadata(0o644);
        let content = Content::File {
            size: content.len() as u64,
            source: content.to_vec(),
            pack: Some(pack),
        };
        self.builder
            .add_entry(bytes(&path), metadata, content)
            .unwrap();
    }

    /// Adds an ephemeral region.
    pub fn ephemeral(&mut self, prefix: &str) {
        self.builder
            .add_region(prefix.as_bytes(), RegionKind::Ephemeral, "test")
            .unwrap();
    }

    /// Adds a volume beneath the root, and the directory that holds its store.
    pub fn volume(&mut self, name: &str) {
        let path = self.root.join(name);
        self.directory(&path);
        self.builder
            .add_region(bytes(&path), RegionKind::Volume, "test")
            .unwrap();
    }

    /// Adds an authenticated file beneath `plain`.
    pub fn plain(&mut self, name: &str, content: &[u8]) {
        let path = self.root.join("plain").join(name);
        self.parents(&path);
        fs::write(&path, content).unwrap();
        let metadata = self.metadata(0o644);
        let content = Content::File {
            size: content.len() as u64,
            source: content.to_vec(),
            pack: None,
        };
        self.builder
            .add_entry(bytes(&path), metadata, content)
            .unwrap();
    }

    /// Adds a symbolic link beneath the root.
    pub fn link(&mut self, name: &str, target: &str) {
        let path = self.root.join(name);
        self.parents(&path);
        let metadata = self.metadata(0o777);
        self.builder
            .add_entry(bytes(&path), metadata, Content::Symlink(target.into()))
            .unwrap();
    }

    /// Adds a directory with these permissions beneath the root.
    pub fn directory_with_mode(&mut self, name: &str, mode: u32) {
        let path = self.root.join(name);
        self.parents(&path);
        self.known.insert(path.clone());
        fs::create_dir_all(&path).unwrap();
        let metadata = self.metadata(mode);
        self.builder
            .add_entry(bytes(&path), metadata, Content::Directory)
            .unwrap();
    }

    /// Notes a path of the native image that was left out.
    pub fn omitted(&mut self, path: &str) {
        self.builder.add_omitted(path.as_bytes()).unwrap();
    }

    /// Writes everything.
    pub fn build(mut self) -> World {
        if self.is_embedded {
            self.builder.digest_chunks();
        }
        let names = ["pack", "pack-scratch"];
        let mut packs: Vec<_> = names[..1 + usize::from(self.scratch.is_some())]
            .iter()
            .map(|name| fs::File::create(self.root.join(name)).unwrap())
            .collect();
        if self.is_embedded {
            packs[0].seek(SeekFrom::Start(EMBEDDED_AT)).unwrap();
        }
        let built = self
            .builder
            .finish(&mut packs, 1, &mut |_| ControlFlow::Continue(()))
            .unwrap();
        fs::write(self.root.join("index"), built.index).unwrap();
        fs::write(self.root.join("digests"), built.digests.as_flattened()).unwrap();
        World {
            root: self.root,
            tag: built.tag,
            is_embedded: self.is_embedded,
        }
    }

    fn metadata(&mut self, mode: u32) -> Metadata {
        self.inode += 1;
        Metadata {
            mode,
            mtime: 1_600_000_000,
            mtime_nsec: 5,
            inode: self.inode,
            ..Metadata::default()
        }
    }

    fn parents(&mut self, path: &Path) {
        let parent = path.parent().unwrap().to_owned();
        self.directory(&parent);
    }

    fn directory(&mut self, path: &Path) {
        if self.known.insert(path.to_owned()) {
            if let Some(parent) = path.parent() {
                self.directory(parent);
            }
            if !self.is_embedded {
                fs::create_dir_all(path).unwrap();
            }
            let metadata = self.metadata(0o755);
            self.builder
                .add_entry(bytes(path), metadata, Content::Directory)
                .unwrap();
        }
    }

    /// Adds a program of this machine with all that it loads.
    pub fn with_libraries(&mut self, program: &Path) {
        self.of_this_machine(program);
        for library in libraries(program) {
            self.of_this_machine(&library);
        }
    }

    /// Adds a file of this machine, with the links on the way to it.
    fn of_this_machine(&mut self, path: &Path) {
        let mut walked = PathBuf::from("/");
        let mut parts = path.components();
        parts.next();
        while let Some(part) = parts.next() {
            walked.push(part);
            let status = fs::symlink_metadata(&walked).unwrap();
            if status.is_symlink() {
                let target = fs::read_link(&walked).unwrap();
                if self.known.insert(walked.clone()) {
                    self.parents(&walked);
                    let metadata = self.metadata(0o777);
                    self.builder
                        .add_entry(
                            bytes(&walked),
                            metadata,
                            Content::Symlink(bytes(&target).to_vec()),
                        )
                        .unwrap();
                }
                let next = walked.parent().unwrap().join(target).join(parts.as_path());
                return self.of_this_machine(&normal(&next));
            }
            if status.is_dir() {
                self.directory(&walked);
            } else if self.known.insert(walked.clone()) {
                let content = fs::read(&walked).unwrap();
                let metadata = Metadata {
                    mode: status.mode() & 0o7777,
                    inode: self.metadata(0).inode,
                    ..Metadata::default()
                };
                let content = Content::File {
                    size: content.len() as u64,
                    source: content,
                    pack: self.is_embedded.then_some(self.pack),
                };
                self.builder
                    .add_entry(bytes(&walked), metadata, content)
                    .unwrap();
            }
        }
    }
}

impl World {
    /// A path beneath the root, as text.
    pub fn path(&self, name: &str) -> String {
        self.root.join(name).to_str().unwrap().to_owned()
    }

    /// The launcher with its first arguments; what comes next are options or `--`, the program and its arguments.
    pub fn launcher(&self) -> Command {
        let mut command = Command::new("timeout");
        command
            .args(["--foreground", "-k", "10", PATIENCE])
            .arg(launcher())
            .arg(self.root.join("index"));
        command.args([hex(&KEY), self.tag.to_string()]);
        if self.is_embedded {
            let (file, digests) = (self.path("pack"), self.path("digests"));
            command.args(["--embedded", &file, &EMBEDDED_AT.to_string(), &digests]);
        }
        command
            .args(["--cwd", "/", "--env", "PATH=/usr/bin:/bin"])
            .env_clear();
        command
    }

    /// Runs a program beneath the root; the first word of `words` is its path and its `argv[0]`.
    pub fn run(&self, words: &[&str]) -> Run {
        self.run_with(&[], words)
    }

    /// As [`World::run`], with options of the launcher.
    pub fn run_with(&self, options: &[&str], words: &[&str]) -> Run {
        let program = if words[0].starts_with('/') {
            words[0].to_owned()
        } else {
            self.path(words[0])
        };
        let mut command = self.launcher();
        command
            .args(options)
            .arg("--")
            .arg(&program)
            .arg(&program)
            .args(&words[1..]);
        command.env("SCONE_LOG", "WARNING");
        Run::new(command.output().unwrap())
    }

    /// Runs the probe.
    pub fn probe(&self, words: &[&str]) -> Run {
        self.run(&[&["app/probe"], words].concat())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// The probe, dynamic and static, and the program of all calls, each with the libraries that it needs.
fn probes() -> &'static [(Vec<u8>, Vec<PathBuf>); 3] {
    static PROBES: OnceLock<[(Vec<u8>, Vec<PathBuf>); 3]> = OnceLock::new();
    PROBES.get_or_init(|| {
        [("probe", ""), ("probe", "-static"), ("calls", "")].map(|(name, option)| {
            let output = compile(name, option);
            let libraries = if option.is_empty() {
                libraries(&output)
            } else {
                Vec::new()
            };
            let content = fs::read(&output).unwrap();
            fs::remove_file(&output).unwrap();
            (content, libraries)
        })
    })
}

/// Compiles a program of these tests, one file or a directory of them, to a file of its own.
pub fn compile(name: &str, option: &str) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let output =
        std::env::temp_dir().join(format!("sconify-{name}-{}-{number}", std::process::id()));
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/supervisor");
    let mut sources = match fs::read_dir(sources.join(name)) {
        Ok(parts) => parts.map(|part| part.unwrap().path()).collect(),
        Err(_) => vec![sources.join(format!("{name}.c"))],
    };
    sources.retain(|source| source.extension().is_some_and(|extension| extension == "c"));
    let options = ["-O1", "-pthread"]
        .into_iter()
        .chain((!option.is_empty()).then_some(option));
    let status = Command::new("cc")
        .args(options)
        .arg("-o")
        .arg(&output)
        .args(sources)
        .status()
        .unwrap();
    assert!(status.success());
    output
}

fn libraries(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_ascii_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

/// The launcher, which cargo builds with the tests.
pub fn launcher() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests
        .parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("examples/launch")
}

/// Takes `.` and `..` by name.
fn normal(path: &Path) -> PathBuf {
    let mut result = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(result.pop()),
            part => result.push(part),
        }
    }
    result
}

fn bytes(path: &Path) -> &[u8] {
    std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Flips one bit of a file; `None` if the file ends before.
pub fn flip(path: &Path, offset: usize) -> Option<()> {
    let mut content = fs::read(path).unwrap();
    *content.get_mut(offset)? ^= 1;
    fs::write(path, content).unwrap();
    Some(())
}

/// Puts a link on the disk.
pub fn plant_link(target: &str, path: &Path) {
    symlink(target, path).unwrap();
}

/// Makes a file executable.
pub fn make_executable(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
