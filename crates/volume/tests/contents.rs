//! The contents file: what a host can do to it is refused with a message that names the file in the volume, slots are used again, and
//! no slot is written that a state on the disk names.

mod harness;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use harness::{
    assert_sound, create, create_file, key, open, read_file, reopen, scale, small, Random,
};
use sconify_volume::{Accept, Access, Expected, Options, Volume, VolumeError, ROOT_INODE};

const CHUNK: usize = 16_384;
/// Content that one commit puts into slots.
const LARGE: usize = 30 * CHUNK;

fn contents(directory: &Path) -> PathBuf {
    directory.join("volume.contents")
}

fn slots(directory: &Path) -> usize {
    let length = fs::metadata(contents(directory)).unwrap().len() as usize;
    assert_eq!(length % CHUNK, 0);
    length / CHUNK
}

fn close(volume: Arc<Volume>) {
    Arc::into_inner(volume).unwrap().close().unwrap();
}

fn recorded(volume: &Volume) -> Expected {
    Expected::Recorded {
        state: volume.state(),
        volume: Some(volume.id()),
        accept: Accept::Exact,
    }
}

/// Large enough for any commit of these tests, so that none comes unasked.
fn roomy() -> Options {
    Options {
        dirty_bytes: 4 << 20,
        ..small()
    }
}

/// A closed volume with two large files.
fn sample() -> (tempfile::TempDir, Expected) {
    let directory = tempfile::tempdir().unwrap();
    let volume = create(directory.path());
    for (name, seed) in [("one", 1), ("two", 2)] {
        create_file(&volume, name, &Random(seed).bytes(LARGE));
        volume.commit().unwrap();
    }
    let expected = recorded(&volume);
    close(volume);
    assert_eq!(slots(directory.path()), 60);
    (directory, expected)
}

/// The messages of both files, and of a check of the whole volume.
fn refusals(directory: &Path, expected: &Expected) -> Vec<String> {
    let volume = match open(directory, expected) {
        Ok(volume) => volume,
        Err(error) => return vec![error.to_string()],
    };
    let mut refused = Vec::new();
    for (name, seed) in [("one", 1), ("two", 2)] {
        match read_file(&volume, name) {
            Ok(read) => assert!(read == Random(seed).bytes(LARGE), "{name}: a wrong answer"),
            Err(error) => {
                assert_eq!(error.errno(), rustix::io::Errno::IO);
                refused.push(error.to_string());
            }
        }
    }
    refused.extend(volume.check().unwrap().problems);
    refused
}

#[test]
fn every_flipped_byte_is_refused_by_the_name_of_the_file() {
    let (directory, expected) = sample();
    let path = contents(directory.path());
    let bytes = fs::read(&path).unwrap();
    assert_eq!(refusals(directory.path(), &expected), Vec::<String>::new());
    let flips = scale("SCONIFY_FLIPS", 150).clamp(1, bytes.len() as u64) as usize;
    let mut random = Random(9);
    for start in (0..bytes.len()).step_by(bytes.len() / flips) {
        let position =
            start + random.below((bytes.len() / flips).min(bytes.len() - start) as u64) as usize;
        let mut changed = bytes.clone();
        changed[position] ^= 1 << random.below(8);
        fs::write(&path, &changed).unwrap();
        let refused = refusals(directory.path(), &expected);
        let name = if position < LARGE {
            "/one: chunk"
        } else {
            "/two: chunk"
        };
        assert_eq!(refused.len(), 2, "byte {position}: {refused:?}");
        assert!(
            refused
                .iter()
                .all(|text| text.contains(name) && text.contains("slot")),
            "{refused:?}"
        );
    }
}

#[test]
fn slots_that_are_moved_or_of_another_state_are_refused() {
    let (directory, expected) = sample();
    let path = contents(directory.path());
    let bytes = fs::read(&path).unwrap();
    let mut swapped = bytes.clone();
    let (before, after) = swapped.split_at_mut(LARGE);
    before[..CHUNK].swap_with_slice(&mut after[..CHUNK]);
    fs::write(&path, &swapped).unwrap();
    let refused = refusals(directory.path(), &expected).join(" ");
    assert!(
        refused.contains("/one: chunk 0") && refused.contains("/two: chunk 0"),
        "{refused}"
    );

    // The same content again, so that every answer would still be right; it is encrypted anew.
    fs::write(&path, &bytes).unwrap();
    let database = fs::read(directory.path().join("volume.sqlite")).unwrap();
    let volume = reopen(directory.path());
    let inode = volume.lookup(ROOT_INODE, b"one").unwrap().inode;
    for _ in 0..2 {
        volume.write_at(inode, 0, &Random(1).bytes(LARGE)).unwrap();
        volume.commit().unwrap();
    }
    let newer = recorded(&volume);
    close(volume);
    let new_contents = fs::read(&path).unwrap();
    fs::write(&path, &bytes).unwrap();
    let refused = refusals(directory.path(), &newer).join(" ");
    assert!(
        refused.contains("truncated") || refused.contains("/one: chunk 0"),
        "{refused}"
    );
    // The other way round, even for somebody who accepts every state.
    fs::write(&path, &new_contents).unwrap();
    fs::write(directory.path().join("volume.sqlite"), &database).unwrap();
    let refused = refusals(directory.path(), &Expected::Any).join(" ");
    assert!(refused.contains("/one: chunk 0"), "{refused}");
    let refused = refusals(directory.path(), &newer).join(" ");
    assert!(refused.contains("older"), "{refused}");
}

#[test]
fn a_contents_file_that_is_cut_missing_or_of_another_volume_is_refused() {
    let (directory, expected) = sample();
    let path = contents(directory.path());
    let bytes = fs::read(&path).unwrap();
    for length in [0, 1, CHUNK, LARGE, bytes.len() - 1] {
        fs::write(&path, &bytes[..length]).unwrap();
        for access in [Access::ReadWrite, Access::ReadOnly, Access::Ephemeral] {
            let options = Options { access, ..small() };
            let error = Volume::open(directory.path(), &key(), &expected, &options)
                .err()
                .unwrap();
            assert!(
                error.to_string().contains("contents file: it is truncated"),
                "{error}"
            );
        }
    }
    fs::write(&path, vec![0; bytes.len()]).unwrap();
    assert!(refusals(directory.path(), &expected)[0].contains("/one: chunk 0"));
    fs::remove_file(&path).unwrap();
    let refused = refusals(directory.path(), &expected).join(" ");
    assert!(
        refused.contains("contents file") && refused.contains("missing"),
        "{refused}"
    );
    let other = tempfile::tempdir().unwrap();
    let volume = create(other.path());
    create_file(&volume, "other", &Random(1).bytes(2 * LARGE));
    close(volume);
    fs::copy(contents(other.path()), &path).unwrap();
    assert!(refusals(directory.path(), &expected)[0].contains("/one: chunk 0"));
    // What is behind the last slot means nothing.
    fs::write(&path, [bytes.as_slice(), &[7; 100_000]].concat()).unwrap();
    assert_eq!(refusals(directory.path(), &expected), Vec::<String>::new());
}

#[test]
fn a_file_that_is_cut_under_a_running_volume_is_refused() {
    let (directory, _) = sample();
    let volume = reopen(directory.path());
    let file = fs::File::options()
        .write(true)
        .open(contents(directory.path()))
        .unwrap();
    file.set_len(40 * CHUNK as u64 + 5).unwrap();
    assert!(read_file(&volume, "one").is_ok());
    let error = read_file(&volume, "two").map(drop).unwrap_err().to_string();
    assert!(
        error.contains("/two: chunk 10") && error.contains("truncated"),
        "{error}"
    );
    // What is written anew is whole again.
    let inode = volume.lookup(ROOT_INODE, b"two").unwrap().inode;
    volume.write_at(inode, 0, &Random(3).bytes(LARGE)).unwrap();
    volume.commit().unwrap();
    close(volume);
    let volume = reopen(directory.path());
    assert!(read_file(&volume, "two").unwrap() == Random(3).bytes(LARGE));
    assert_sound(&volume);
}

#[test]
fn small_commits_do_not_touch_the_file_and_large_ones_do_not_fill_the_database() {
    let directory = tempfile::tempdir().unwrap();
    let volume = Arc::new(Volume::create(directory.path(), &key(), &roomy()).unwrap());
    create_file(&volume, "small", &Random(1).bytes(3 * CHUNK));
    volume.commit().unwrap();
    assert_eq!(slots(directory.path()), 0);
    create_file(&volume, "large", &Random(2).bytes(100 * CHUNK));
    volume.commit().unwrap();
    let facts = volume.facts().unwrap();
    assert_eq!(facts.contents_bytes, 100 * CHUNK as u64);
    assert!(facts.database_bytes < 40 * CHUNK as u64, "{facts:?}");
    assert_eq!(facts.chunk_bytes, 103 * CHUNK as u64);
    // Chunks move between the two, and are counted where they are.
    let inode = volume.lookup(ROOT_INODE, b"large").unwrap().inode;
    volume
        .write_at(inode, 0, &Random(3).bytes(2 * CHUNK))
        .unwrap();
    volume.commit().unwrap();
    assert_sound(&volume);
    assert_eq!(volume.facts().unwrap().chunk_bytes, 103 * CHUNK as u64);
    volume
        .write_at(inode, 0, &Random(4).bytes(50 * CHUNK))
        .unwrap();
    volume.commit().unwrap();
    assert_sound(&volume);
    close(volume);
    let volume = reopen(directory.path());
    let content = read_file(&volume, "large").unwrap();
    assert!(content[..50 * CHUNK] == Random(4).bytes(50 * CHUNK));
    assert!(content[50 * CHUNK..] == Random(2).bytes(100 * CHUNK)[50 * CHUNK..]);
    assert_sound(&volume);
}

#[test]
fn slots_are_used_again_and_the_file_shrinks() {
    let directory = tempfile::tempdir().unwrap();
    let volume = Arc::new(Volume::create(directory.path(), &key(), &roomy()).unwrap());
    let inode = create_file(&volume, "file", b"");
    for round in 0..10 {
        volume
            .write_at(inode, 0, &Random(round).bytes(LARGE))
            .unwrap();
        volume.commit().unwrap();
        assert!(slots(directory.path()) <= 60, "round {round}");
    }
    // Free ones are found again after a restart, which does not store them.
    let two = create_file(&volume, "two", &Random(77).bytes(LARGE));
    volume.commit().unwrap();
    volume.unlink(ROOT_INODE, b"file").unwrap();
    volume.commit().unwrap();
    close(volume);
    let before = slots(directory.path());
    for round in 0..5 {
        let volume =
            Arc::new(Volume::open(directory.path(), &key(), &Expected::Any, &roomy()).unwrap());
        volume
            .write_at(two, 0, &Random(round).bytes(LARGE))
            .unwrap();
        volume.commit().unwrap();
        assert_sound(&volume);
        close(volume);
        assert!(slots(directory.path()) <= before.max(60), "round {round}");
    }
    let volume = reopen(directory.path());
    assert!(read_file(&volume, "two").unwrap() == Random(4).bytes(LARGE));
    volume.unlink(ROOT_INODE, b"two").unwrap();
    close(volume);
    assert_eq!(slots(directory.path()), 0);
}

#[test]
fn what_was_not_committed_leaves_the_last_state_whole() {
    let (directory, expected) = sample();
    let volume = open(directory.path(), &expected).unwrap();
    let inode = volume.lookup(ROOT_INODE, b"one").unwrap().inode;
    // Written to slots for want of memory, again and again.
    for round in 0..20 {
        volume
            .write_at(inode, 0, &Random(50 + round).bytes(LARGE))
            .unwrap();
    }
    assert_eq!(recorded(&volume), expected, "a commit came unasked");
    assert!(slots(directory.path()) > 90);
    assert!(read_file(&volume, "one").unwrap() == Random(69).bytes(LARGE));
    // As after a kill.
    let copied = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(directory.path()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copied.path().join(entry.file_name())).unwrap();
    }
    assert_eq!(refusals(copied.path(), &expected), Vec::<String>::new());
    let copy = reopen(copied.path());
    close(copy);
    assert_eq!(slots(copied.path()), 60);
}

#[test]
fn a_backup_has_what_its_state_names() {
    let (directory, _) = sample();
    let backup = tempfile::tempdir().unwrap();
    let volume = reopen(directory.path());
    let state = volume.backup(backup.path()).unwrap();
    for _ in 0..3 {
        let inode = volume.lookup(ROOT_INODE, b"one").unwrap().inode;
        volume.write_at(inode, 0, &Random(9).bytes(LARGE)).unwrap();
        volume.commit().unwrap();
    }
    let again = volume.backup(backup.path());
    assert!(matches!(again, Err(VolumeError::Exists { .. })));
    let copy = reopen(backup.path());
    assert_eq!(copy.state(), state);
    drop(copy);
    assert_eq!(
        refusals(backup.path(), &Expected::Any),
        Vec::<String>::new()
    );
    // Of a database alone nothing is overwritten either.
    fs::remove_file(backup.path().join("volume.sqlite")).unwrap();
    let bytes = fs::read(contents(backup.path())).unwrap();
    assert!(volume.backup(backup.path()).is_err());
    assert!(Volume::create(backup.path(), &key(), &small()).is_err());
    assert!(fs::read(contents(backup.path())).unwrap() == bytes);
}

#[test]
fn readers_and_ephemeral_writers_leave_the_file_as_it_is() {
    let (directory, expected) = sample();
    let before = fs::read(contents(directory.path())).unwrap();
    for access in [Access::ReadOnly, Access::Ephemeral] {
        let options = Options { access, ..small() };
        let volume = Volume::open(directory.path(), &key(), &expected, &options).unwrap();
        assert!(read_file(&volume, "two").unwrap() == Random(2).bytes(LARGE));
        if access == Access::Ephemeral {
            let inode = volume.lookup(ROOT_INODE, b"two").unwrap().inode;
            volume.write_at(inode, 0, &Random(8).bytes(LARGE)).unwrap();
            volume.commit().unwrap();
            assert!(read_file(&volume, "two").unwrap() == Random(8).bytes(LARGE));
            assert_sound(&volume);
        }
        volume.close().unwrap();
        assert!(fs::read(contents(directory.path())).unwrap() == before);
    }
}
