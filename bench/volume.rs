//! Measures a volume next to a plain directory and to gocryptfs, on one disk in one run, and prints ratios:
//! `cargo bench --package sconify-volume`.
//!
//! Each figure is the median of rounds that take turns. The directory to measure in is the first argument, or the current
//! one; a second one is a part of the names of those to measure. Without FUSE or gocryptfs the comparison with it is left out, and the output says why.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sconify_volume::{FileSystemKey, New, NewKind, Options, Volume, ROOT_INODE};

/// Rounds at least, and the time that all of them should take at least: what is short is measured more often.
const ROUNDS: usize = 5;
const MIN_TIME: Duration = Duration::from_secs(4);
const LARGE: usize = 128 << 20;
const BLOCK: usize = 1 << 20;
const PAGE: usize = 4096;
const RANDOM_WRITES: u64 = 4_000;
const SYNCED_WRITES: u64 = 200;
const SMALL_FILES: u64 = 1_000;
const TRANSACTIONS: u64 = 150;

/// Files by name: what a volume, a directory and gocryptfs have in common.
trait Subject {
    fn write(&mut self, name: &str, offset: u64, data: &[u8]);
    fn read(&mut self, name: &str, offset: u64, buffer: &mut [u8]);
    fn truncate(&mut self, name: &str, size: u64);
    fn sync(&mut self, name: &str);
    fn remove(&mut self, name: &str);
    /// Forgets what is cached, as far as possible.
    fn cool(&mut self);
}

struct Directory {
    path: PathBuf,
    /// Where the bytes are in the end, the directory itself first.
    stored: Vec<PathBuf>,
    open: Vec<(String, File)>,
}

impl Directory {
    fn file(&mut self, name: &str) -> &File {
        if let Some(found) = self.open.iter().position(|(other, _)| other == name) {
            return &self.open[found].1;
        }
        if self.open.len() > 64 {
            self.open.remove(0);
        }
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(self.path.join(name)).unwrap();
        self.open.push((name.to_owned(), file));
        &self.open.last().unwrap().1
    }
}

impl Subject for Directory {
    fn write(&mut self, name: &str, offset: u64, data: &[u8]) {
        self.file(name).write_all_at(data, offset).unwrap();
    }
    fn read(&mut self, name: &str, offset: u64, buffer: &mut [u8]) {
        self.file(name).read_exact_at(buffer, offset).unwrap();
    }
    fn truncate(&mut self, name: &str, size: u64) {
        self.file(name).set_len(size).unwrap();
    }
    fn sync(&mut self, name: &str) {
        self.file(name).sync_data().unwrap();
    }
    fn remove(&mut self, name: &str) {
        self.open.retain(|(other, _)| other != name);
        fs::remove_file(self.path.join(name)).unwrap();
    }
    fn cool(&mut self) {
        self.open.clear();
        forget(&self.stored);
    }
}

struct OnVolume {
    path: PathBuf,
    volume: Option<Volume>,
}

impl OnVolume {
    fn volume(&self) -> &Volume {
        self.volume.as_ref().unwrap()
    }

    fn inode(&self, name: &str) -> u64 {
        let new = New {
            kind: NewKind::Regular,
            mode: 0o644,
            uid: 0,
            gid: 0,
        };
        match self.volume().lookup(ROOT_INODE, name.as_bytes()) {
            Ok(found) => found.inode,
            Err(_) => {
                let made = self
                    .volume()
                    .create_inode(ROOT_INODE, name.as_bytes(), &new);
                made.unwrap().inode
            }
        }
    }
}

fn key() -> FileSystemKey {
    FileSystemKey::new([7; 32])
}

impl Subject for OnVolume {
    fn write(&mut self, name: &str, offset: u64, data: &[u8]) {
        let inode = self.inode(name);
        assert_eq!(
            self.volume().write_at(inode, offset, data).unwrap(),
            data.len()
        );
    }
    fn read(&mut self, name: &str, offset: u64, buffer: &mut [u8]) {
        let inode = self.inode(name);
        assert_eq!(
            self.volume().read_at(inode, offset, buffer).unwrap(),
            buffer.len()
        );
    }
    fn truncate(&mut self, name: &str, size: u64) {
        self.volume().truncate(self.inode(name), size).unwrap();
    }
    fn sync(&mut self, _name: &str) {
        self.volume().commit().unwrap();
    }
    fn remove(&mut self, name: &str) {
        self.volume().unlink(ROOT_INODE, name.as_bytes()).unwrap();
    }
    fn cool(&mut self) {
        self.volume.take().unwrap().close().unwrap();
        forget(std::slice::from_ref(&self.path));
        let expected = sconify_volume::Expected::Any;
        let volume = Volume::open(&self.path, &key(), &expected, &Options::default());
        self.volume = Some(volume.unwrap());
    }
}

/// Lets the kernel forget what it keeps of the files in these directories.
fn forget(directories: &[PathBuf]) {
    for directory in directories {
        for entry in fs::read_dir(directory).unwrap() {
            let file = File::open(entry.unwrap().path()).unwrap();
            file.sync_all().unwrap();
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        }
    }
}

/// Unmounts when dropped.
struct Gocryptfs(PathBuf);

impl Gocryptfs {
    fn mount(cipher: &Path, plain: &Path) -> Result<Self, String> {
        let password = cipher.with_extension("password");
        fs::write(&password, "benchmark").unwrap();
        let run = |arguments: &[&std::ffi::OsStr]| {
            let done = Command::new("gocryptfs")
                .args(arguments)
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .output()
                .map_err(|error| format!("gocryptfs can't be run: {error}"))?;
            if done.status.success() {
                return Ok(());
            }
            let text = String::from_utf8_lossy(&done.stderr);
            Err(text.lines().last().unwrap_or("gocryptfs failed").to_owned())
        };
        let passfile = std::ffi::OsStr::new("-passfile");
        let quick = std::ffi::OsStr::new("-scryptn=10");
        run(&[
            "-init".as_ref(),
            "-q".as_ref(),
            quick,
            passfile,
            password.as_ref(),
            cipher.as_ref(),
        ])?;
        run(&[
            "-q".as_ref(),
            passfile,
            password.as_ref(),
            cipher.as_ref(),
            plain.as_ref(),
        ])?;
        Ok(Self(plain.to_owned()))
    }
}

impl Drop for Gocryptfs {
    fn drop(&mut self) {
        let _ = Command::new("fusermount").arg("-u").arg(&self.0).status();
    }
}

/// Numbers that look random (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (number ^ (number >> 27)) % end
    }
}

fn sequential_write(subject: &mut dyn Subject) {
    let block = vec![0x61; BLOCK];
    for position in (0..LARGE).step_by(BLOCK) {
        subject.write("large", position as u64, &block);
    }
    subject.sync("large");
}

fn sequential_read(subject: &mut dyn Subject) {
    let mut block = vec![0; BLOCK];
    for position in (0..LARGE).step_by(BLOCK) {
        subject.read("large", position as u64, &mut block);
    }
}

fn random_read(subject: &mut dyn Subject) {
    let (mut page, mut random) = (vec![0; PAGE], Random(1));
    for _ in 0..RANDOM_WRITES {
        let position = random.below((LARGE / PAGE) as u64) * PAGE as u64;
        subject.read("large", position, &mut page);
    }
}

fn random_write(subject: &mut dyn Subject) {
    let (page, mut random) = (vec![0x62; PAGE], Random(2));
    for _ in 0..RANDOM_WRITES {
        let position = random.below((LARGE / PAGE) as u64) * PAGE as u64;
        subject.write("large", position, &page);
    }
    subject.sync("large");
}

fn synced_write(subject: &mut dyn Subject) {
    let (page, mut random) = (vec![0x63; PAGE], Random(3));
    for _ in 0..SYNCED_WRITES {
        let position = random.below((LARGE / PAGE) as u64) * PAGE as u64;
        subject.write("large", position, &page);
        subject.sync("large");
    }
}

fn small_files(subject: &mut dyn Subject) {
    for number in 0..SMALL_FILES {
        subject.write(&format!("small-{number}"), 0, &[0x64; 2_000]);
    }
    subject.sync("small-0");
    for number in 0..SMALL_FILES {
        subject.remove(&format!("small-{number}"));
    }
}

/// What SQLite does for an insert with a rollback journal: the journal, then the pages, then the journal goes.
fn transactions(subject: &mut dyn Subject) {
    let (page, mut random) = (vec![0x65; PAGE], Random(4));
    subject.truncate("database", 4 << 20);
    for _ in 0..TRANSACTIONS {
        subject.write("journal", 0, &[0x66; 3 * PAGE]);
        subject.sync("journal");
        for _ in 0..2 {
            let position = random.below(1_024) * PAGE as u64;
            subject.write("database", position, &page);
        }
        subject.sync("database");
        subject.truncate("journal", 0);
    }
}

type Work = fn(&mut dyn Subject);

fn main() {
    let works: [(&str, Work, bool); 7] = [
        (
            "sequential write, 128 MiB, one fsync",
            sequential_write,
            false,
        ),
        ("sequential read, 128 MiB, cold", sequential_read, true),
        ("4,000 random 4 KiB reads, cold", random_read, true),
        ("4,000 random 4 KiB writes, one fsync", random_write, false),
        ("200 random 4 KiB writes, fsync each", synced_write, false),
        (
            "1,000 files of 2,000 bytes, made and removed",
            small_files,
            false,
        ),
        (
            "150 transactions as SQLite writes them",
            transactions,
            false,
        ),
    ];
    let mut arguments = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'));
    let (place, wanted) = (arguments.next(), arguments.next().unwrap_or_default());
    let place = place.map_or_else(|| std::env::current_dir().unwrap(), PathBuf::from);
    let scratch = tempfile::tempdir_in(place).unwrap();
    let directory = |name: &str| {
        let path = scratch.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    };
    let (plain, store, cipher, mounted) = (
        directory("plain"),
        directory("volume"),
        directory("cipher"),
        directory("gocryptfs"),
    );
    let gocryptfs = Gocryptfs::mount(&cipher, &mounted);
    let volume = Volume::create(&store, &key(), &Options::default()).unwrap();
    let mut subjects: Vec<(&str, Box<dyn Subject>)> = vec![
        (
            "plain",
            Box::new(Directory {
                stored: vec![plain.clone()],
                path: plain,
                open: vec![],
            }),
        ),
        (
            "volume",
            Box::new(OnVolume {
                path: store,
                volume: Some(volume),
            }),
        ),
    ];
    match &gocryptfs {
        Ok(_) => subjects.push((
            "gocryptfs",
            Box::new(Directory {
                stored: vec![mounted.clone(), cipher],
                path: mounted,
                open: vec![],
            }),
        )),
        Err(reason) => println!("gocryptfs is not compared: {reason}"),
    }
    println!(
        "{:46} {:>10} {:>10} {:>10}   volume is faster than",
        "", "plain", "volume", "gocryptfs"
    );
    for (name, work, cold) in works {
        if !name.contains(&wanted) {
            continue;
        }
        let mut times = vec![Vec::new(); subjects.len()];
        let begin = Instant::now();
        while times[0].len() < ROUNDS || begin.elapsed() < MIN_TIME {
            for (times, (_, subject)) in times.iter_mut().zip(&mut subjects) {
                if cold {
                    subject.cool();
                }
                let begin = Instant::now();
                work(subject.as_mut());
                times.push(begin.elapsed());
            }
        }
        let medians = times.into_iter().map(median).collect::<Vec<_>>();
        let figure = |index: usize| {
            let median = medians.get(index);
            median.map_or("-".to_owned(), |median| {
                format!("{:.1} ms", median.as_secs_f64() * 1e3)
            })
        };
        let ratio = |index: usize| {
            let median = medians.get(index);
            median.map_or("-".to_owned(), |median| {
                format!("{:.2}", median.as_secs_f64() / medians[1].as_secs_f64())
            })
        };
        println!(
            "{name:46} {:>10} {:>10} {:>10}   plain {} times, gocryptfs {} times",
            figure(0),
            figure(1),
            figure(2),
            ratio(0),
            ratio(2),
        );
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
