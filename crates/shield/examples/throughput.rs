//! Measures the format on this machine: `cargo run --release -p sconify-shield --example throughput [DIRECTORY [MEGABYTES]]`.
//! Writes a pack of mixed content and one of incompressible content to DIRECTORY and reads them back.

use std::fs::File;
use std::io::{self, BufWriter};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use sconify_shield::build::{Builder, Built, Content, Metadata};
use sconify_shield::{FileSystemKey, Index, PackReader, ReadAt, RegionKind};

/// Bytes in each file.
const FILE_SIZE: u64 = 1 << 25;
const ENTRIES: u64 = 10_000;

/// Content that costs next to nothing to make: noise from a fixed buffer, of which some parts repeat.
struct Generated<'a> {
    noise: &'a [u8],
    seed: u64,
    /// Of ten blocks of 4096 bytes, how many are noise; the others are like text.
    noisy: u64,
}

impl ReadAt for Generated<'_> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        const TEXT: &[u8] = b"The quick brown fox jumps over the lazy dog; 0123456789 and so on, line after line.\n";
        const BLOCK: u64 = 4096;
        let count = (buf.len() as u64)
            .min(BLOCK - offset % BLOCK)
            .min(FILE_SIZE - offset) as usize;
        let block = (offset / BLOCK)
            .wrapping_add(self.seed)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let start = (block >> 20) as usize % (self.noise.len() - BLOCK as usize)
            + (offset % BLOCK) as usize;
        buf[..count].copy_from_slice(&self.noise[start..start + count]);
        if (block >> 50) % 10 >= self.noisy {
            for (at, byte) in buf[..count].iter_mut().enumerate() {
                // Most of each line repeats, some bytes do not.
                if *byte > 40 {
                    *byte = TEXT[(start + at) % TEXT.len()];
                }
            }
        }
        Ok(count)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(FILE_SIZE)
    }
}

fn key() -> FileSystemKey {
    FileSystemKey::new([1; 32])
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let directory = arguments
        .next()
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let megabytes = arguments
        .next()
        .map_or(Ok(1024), |text| text.to_string_lossy().parse::<u64>())?;
    let mut state = 1_u64;
    let noise: Vec<u8> = (0..1 << 22)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
        })
        .collect();
    for (name, noisy) in [("mixed", 3), ("incompressible", 10)] {
        let path = directory.join(format!("throughput-{name}.pack"));
        measure(&path, name, megabytes, |seed| Generated {
            noise: &noise,
            seed,
            noisy,
        })?;
        std::fs::remove_file(path)?;
    }
    Ok(())
}

fn measure<'a>(
    path: &Path,
    name: &str,
    megabytes: u64,
    source: impl Fn(u64) -> Generated<'a>,
) -> Result<(), Box<dyn std::error::Error>> {
    let files = (megabytes << 20) / FILE_SIZE;
    let megabytes = (files * FILE_SIZE) as f64 / 1e6;
    let start = Instant::now();
    let built = build(path, files, source)?;
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{name}: built {megabytes:.0} MB into {:.0} MB: {:.0} MB/s, peak memory {}",
        built.packs[0].stored_bytes as f64 / 1e6,
        megabytes / seconds,
        peak_memory()
    );

    let start = Instant::now();
    let index = Index::open(&built.index, &key(), &built.tag)?;
    println!(
        "{name}: opened {} entries in {:.2?}",
        index.entries().len(),
        start.elapsed()
    );
    let start = Instant::now();
    for entry in index.entries() {
        std::hint::black_box(index.resolve(entry.path(), true)?);
    }
    println!(
        "{name}: resolved a path in {:.2?}",
        start.elapsed() / index.entries().len() as u32
    );

    let reader = PackReader::open(File::open(path)?, &index, 0)?;
    let mut target = vec![0; FILE_SIZE as usize];
    for threads in [1, 2] {
        let start = Instant::now();
        for number in 0..files {
            let entry = index
                .lookup(file_path(number).as_bytes())
                .ok_or("the file is missing")?;
            reader.read_file(entry, &mut target, threads)?;
        }
        println!(
            "{name}: read with {threads} threads: {:.0} MB/s",
            megabytes / start.elapsed().as_secs_f64()
        );
    }
    Ok(())
}

fn build<'a>(
    path: &Path,
    files: u64,
    source: impl Fn(u64) -> Generated<'a>,
) -> Result<Built, Box<dyn std::error::Error>> {
    let mut builder = Builder::new(key());
    builder.add_region(b"/", RegionKind::Encrypted, "all")?;
    let pack = builder.add_pack(b"/", b"/pack")?;
    let metadata = |inode| Metadata {
        mode: 0o755,
        inode,
        ..Metadata::default()
    };
    builder.add_entry(b"/", metadata(1), Content::Directory)?;
    for number in 0..ENTRIES {
        let (path, content) = match number {
            _ if number < files => (
                file_path(number),
                Content::File {
                    source: source(number * 8191),
                    size: FILE_SIZE,
                    pack: Some(pack),
                },
            ),
            _ if number % 100 == 0 => (
                format!("/directory-{:04}", number / 100),
                Content::Directory,
            ),
            _ if number < 100 + files => (
                format!("/link-{number}"),
                Content::Symlink(b"file-0000".to_vec()),
            ),
            _ => (
                format!("/directory-{:04}/link-{number}", number / 100 % 100),
                Content::Symlink(b"/file-0000".to_vec()),
            ),
        };
        let at = number + 2;
        if let Err(error) = builder.add_entry(path.as_bytes(), metadata(at), content) {
            return Err(error.into());
        }
    }
    let mut outputs = [BufWriter::new(File::create(path)?)];
    Ok(builder.finish(&mut outputs, 0, &mut |_| ControlFlow::Continue(()))?)
}

fn file_path(number: u64) -> String {
    format!("/file-{number:04}")
}

/// The largest resident set so far, from `/proc/self/status`.
fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .map_or("unknown", str::trim)
        .to_owned()
}
