//! Random writes, truncates, holes and reads of one file, against a plain array of bytes; the same on a native file
//! proves that the test asks for what a file system does. `SCONIFY_FSX_STEPS` makes it longer.

mod harness;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use harness::{create, create_file, reopen, scale, Random};
use rustix::fs::{fallocate, seek, FallocateFlags, SeekFrom};
use sconify_volume::Volume;

const SPAN: u64 = 600 << 10;

/// What the test does to a file.
trait Subject {
    fn read(&mut self, offset: u64, length: usize) -> Vec<u8>;
    fn write(&mut self, offset: u64, data: &[u8]);
    fn append(&mut self, data: &[u8]);
    fn truncate(&mut self, size: u64);
    fn punch(&mut self, offset: u64, length: u64);
    fn allocate(&mut self, offset: u64, length: u64);
    fn size(&mut self) -> u64;
    fn seek_data(&mut self, offset: u64) -> Option<u64>;
    fn seek_hole(&mut self, offset: u64) -> Option<u64>;
    fn sync(&mut self);
    fn reopen(&mut self);
}

struct OnVolume {
    directory: tempfile::TempDir,
    volume: Option<Arc<Volume>>,
    inode: u64,
}

impl OnVolume {
    fn volume(&self) -> &Volume {
        self.volume.as_ref().unwrap()
    }
}

impl Subject for OnVolume {
    fn read(&mut self, offset: u64, length: usize) -> Vec<u8> {
        let mut buffer = vec![0xee; length];
        let read = self
            .volume()
            .read_at(self.inode, offset, &mut buffer)
            .unwrap();
        buffer.truncate(read);
        buffer
    }
    fn write(&mut self, offset: u64, data: &[u8]) {
        assert_eq!(
            self.volume().write_at(self.inode, offset, data).unwrap(),
            data.len()
        );
    }
    fn append(&mut self, data: &[u8]) {
        let (written, end) = self.volume().append(self.inode, data).unwrap();
        assert_eq!((written, end), (data.len(), self.size()));
    }
    fn truncate(&mut self, size: u64) {
        self.volume().truncate(self.inode, size).unwrap();
    }
    fn punch(&mut self, offset: u64, length: u64) {
        self.volume()
            .punch_hole(self.inode, offset, length)
            .unwrap();
    }
    fn allocate(&mut self, offset: u64, length: u64) {
        self.volume().allocate(self.inode, offset, length).unwrap();
    }
    fn size(&mut self) -> u64 {
        self.volume().attributes(self.inode).unwrap().size
    }
    fn seek_data(&mut self, offset: u64) -> Option<u64> {
        self.volume().seek_data(self.inode, offset).ok()
    }
    fn seek_hole(&mut self, offset: u64) -> Option<u64> {
        self.volume().seek_hole(self.inode, offset).ok()
    }
    fn sync(&mut self) {
        self.volume().commit().unwrap();
    }
    fn reopen(&mut self) {
        self.sync();
        // Without a close, as after a crash: the log has the last commits.
        drop(self.volume.take());
        self.volume = Some(reopen(self.directory.path()));
    }
}

struct Native(File);

impl Subject for Native {
    fn read(&mut self, offset: u64, length: usize) -> Vec<u8> {
        let mut buffer = vec![0xee; length];
        let read = self.0.read_at(&mut buffer, offset).unwrap();
        buffer.truncate(read);
        buffer
    }
    fn write(&mut self, offset: u64, data: &[u8]) {
        self.0.write_all_at(data, offset).unwrap();
    }
    fn append(&mut self, data: &[u8]) {
        let size = self.size();
        self.write(size, data);
    }
    fn truncate(&mut self, size: u64) {
        self.0.set_len(size).unwrap();
    }
    fn punch(&mut self, offset: u64, length: u64) {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&self.0, flags, offset, length).unwrap();
    }
    fn allocate(&mut self, offset: u64, length: u64) {
        fallocate(&self.0, FallocateFlags::empty(), offset, length).unwrap();
    }
    fn size(&mut self) -> u64 {
        self.0.metadata().unwrap().len()
    }
    fn seek_data(&mut self, offset: u64) -> Option<u64> {
        seek(&self.0, SeekFrom::Data(offset)).ok()
    }
    fn seek_hole(&mut self, offset: u64) -> Option<u64> {
        seek(&self.0, SeekFrom::Hole(offset)).ok()
    }
    fn sync(&mut self) {}
    fn reopen(&mut self) {}
}

fn exercise(subject: &mut dyn Subject, seed: u64, steps: u64) {
    let mut random = Random(seed);
    let mut model: Vec<u8> = Vec::new();
    for step in 0..steps {
        let offset = random.below(SPAN);
        let length = match random.below(4) {
            0 => random.below(100_000),
            1 => 4096,
            _ => random.below(3000),
        } as usize;
        let context = format!("seed {seed}, step {step}");
        match random.below(24) {
            0..=6 => {
                let offset = offset / if random.below(2) == 0 { 4096 } else { 1 };
                let data = random.bytes(length.max(1));
                let end = offset as usize + data.len();
                model.resize(model.len().max(end), 0);
                model[offset as usize..end].copy_from_slice(&data);
                subject.write(offset, &data);
            }
            7 | 8 => {
                let data = random.bytes(length.clamp(1, 20_000));
                model.extend_from_slice(&data);
                subject.append(&data);
                if model.len() > 2 * SPAN as usize {
                    model.truncate(SPAN as usize / 2);
                    subject.truncate(SPAN / 2);
                }
            }
            9 | 10 => {
                model.resize(offset as usize, 0);
                subject.truncate(offset);
            }
            11..=13 => {
                let end = (offset as usize + length.max(1)).min(model.len());
                if let Some(hole) = model.get_mut(offset as usize..end) {
                    hole.fill(0);
                }
                subject.punch(offset, length.max(1) as u64);
            }
            14 => {
                model.resize(model.len().max(offset as usize + length.max(1)), 0);
                subject.allocate(offset, length.max(1) as u64);
            }
            15..=20 => {
                let begin = (offset as usize).min(model.len());
                let end = (begin + length).min(model.len());
                assert!(
                    subject.read(begin as u64, length) == model[begin..end],
                    "{context}"
                );
            }
            21 => {
                // Where a hole is said to be there are zeros; where data begins, nothing before it was missed.
                let hole = subject.seek_hole(offset);
                assert_eq!(hole.is_some(), offset < model.len() as u64, "{context}");
                match subject.seek_data(offset) {
                    Some(data) => {
                        let skipped = &model[offset as usize..data as usize];
                        assert!(skipped.iter().all(|byte| *byte == 0), "{context}");
                    }
                    None => {
                        let rest = model.get(offset as usize..).unwrap_or_default();
                        assert!(rest.iter().all(|byte| *byte == 0), "{context}");
                    }
                }
            }
            22 => subject.sync(),
            _ => subject.reopen(),
        }
        assert_eq!(subject.size(), model.len() as u64, "{context}");
    }
    assert!(
        subject.read(0, model.len() + 1) == model,
        "seed {seed}, at the end"
    );
}

#[test]
fn a_file_on_a_volume_is_an_array_of_bytes() {
    for seed in 0..4 {
        let directory = tempfile::tempdir().unwrap();
        let volume = create(directory.path());
        let inode = create_file(&volume, "file", b"");
        let mut subject = OnVolume {
            directory,
            volume: Some(volume),
            inode,
        };
        exercise(&mut subject, seed, scale("SCONIFY_FSX_STEPS", 400));
        harness::assert_sound(subject.volume());
    }
}

#[test]
fn a_native_file_is_the_same() {
    for seed in 0..4 {
        let file = tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        exercise(&mut Native(file), seed, scale("SCONIFY_FSX_STEPS", 400));
    }
}
