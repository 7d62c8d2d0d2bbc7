//! Old, forked and foreign states, as a host would put them in place.

mod harness;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use harness::{assert_sound, create, create_file, key, open, read_file, small};
use sconify_volume::{
    Accept, Accepted, Access, Expected, FileSystemKey, Options, Stale, State, Volume, VolumeError,
    ROOT_INODE,
};

/// What the policy service would say.
fn recorded(volume: &Volume, accept: Accept) -> Expected {
    Expected::Recorded {
        state: volume.state(),
        volume: Some(volume.id()),
        accept,
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(to).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn refusal(directory: &Path, expected: &Expected) -> Stale {
    match open(directory, expected) {
        Err(VolumeError::Stale {
            stale,
            directory: named,
        }) => {
            assert_eq!(named, directory.display().to_string());
            stale
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("the state was accepted"),
    }
}

#[test]
fn each_commit_has_a_new_root_and_only_changes_make_one() {
    let directory = tempfile::tempdir().unwrap();
    let volume = create(directory.path());
    let mut states = vec![volume.state()];
    assert_eq!(volume.commit().unwrap(), states[0]);
    for round in 0..5 {
        // The same content again is a new state, too.
        create_file(&volume, &format!("file-{round}"), b"content");
        volume.write_at(2, 0, b"content").unwrap();
        assert!(volume.is_dirty());
        states.push(volume.commit().unwrap());
        assert!(!volume.is_dirty());
        assert_eq!(volume.state(), states[round + 1]);
    }
    for (number, state) in states.iter().enumerate() {
        assert_eq!(state.counter, number as u64 + 1);
        assert!(states[..number]
            .iter()
            .all(|other| other.root != state.root));
    }
}

#[test]
fn the_recorded_state_and_its_successors_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let volume = create(directory.path());
    create_file(&volume, "file", b"1");
    volume.commit().unwrap();
    let (exact, successors) = (
        recorded(&volume, Accept::Exact),
        recorded(&volume, Accept::Successors),
    );
    drop(volume);
    assert_eq!(
        open(directory.path(), &exact).unwrap().accepted(),
        Accepted::Same
    );
    let volume = open(directory.path(), &successors).unwrap();
    assert_eq!(volume.accepted(), Accepted::Same);
    for number in 2..5 {
        volume.write_at(2, 0, &[number]).unwrap();
        volume.commit().unwrap();
    }
    drop(volume);
    let volume = open(directory.path(), &successors).unwrap();
    assert_eq!(volume.accepted(), Accepted::Successor(3));
    drop(volume);
    let refused = refusal(directory.path(), &exact);
    assert!(
        matches!(
            refused,
            Stale::Newer {
                found: 5,
                expected: 2
            }
        ),
        "{refused}"
    );
}

#[test]
fn an_older_copy_is_refused_and_the_owner_may_accept_it() {
    let (directory, old) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let volume = create(directory.path());
    create_file(&volume, "file", b"old");
    volume.commit().unwrap();
    copy(directory.path(), old.path());
    volume.write_at(2, 0, b"new").unwrap();
    volume.commit().unwrap();
    let expected = recorded(&volume, Accept::Successors);
    drop(volume);
    copy(old.path(), directory.path());
    let refused = refusal(directory.path(), &expected);
    assert!(matches!(
        refused,
        Stale::Older {
            found: 2,
            expected: 3
        }
    ));
    assert!(
        refused
            .to_string()
            .contains("older: got commit 2, expected 3"),
        "{refused}"
    );
    let volume = open(directory.path(), &Expected::Any).unwrap();
    assert_eq!(volume.accepted(), Accepted::Unchecked);
    assert_eq!(read_file(&volume, "file").unwrap(), b"old");
}

#[test]
fn two_copies_that_were_both_used_are_forks_of_each_other() {
    let (directory, fork) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let volume = create(directory.path());
    create_file(&volume, "file", b"0");
    volume.commit().unwrap();
    copy(directory.path(), fork.path());
    let other = open(fork.path(), &Expected::Any).unwrap();
    for (volume, commits) in [(&volume, 2), (&other, 4)] {
        for number in 0..commits {
            volume.write_at(2, 0, &[number]).unwrap();
            volume.commit().unwrap();
        }
    }
    let (ours, theirs) = (
        recorded(&volume, Accept::Successors),
        recorded(&other, Accept::Successors),
    );
    drop((volume, other));
    // The fork is further on, but its fourth commit is not the one that was recorded.
    let refused = refusal(fork.path(), &ours);
    assert!(
        matches!(
            refused,
            Stale::Forked {
                found: 6,
                expected: 4
            }
        ),
        "{refused}"
    );
    let refused = refusal(directory.path(), &theirs);
    assert!(
        matches!(
            refused,
            Stale::Older {
                found: 4,
                expected: 6
            }
        ),
        "{refused}"
    );
    let state = |counter| {
        let volume = open(fork.path(), &Expected::Any).unwrap();
        State {
            counter,
            root: volume.state().root,
        }
    };
    let expected = Expected::Recorded {
        state: state(4),
        volume: None,
        accept: Accept::Successors,
    };
    assert!(matches!(
        refusal(directory.path(), &expected),
        Stale::Forked {
            found: 4,
            expected: 4
        }
    ));
}

#[test]
fn another_volume_is_foreign() {
    let (directory, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let volume = create(directory.path());
    let expected = recorded(&volume, Accept::Successors);
    drop(volume);
    // Under the same key: the name tells.
    drop(create(other.path()));
    assert!(matches!(
        refusal(other.path(), &expected),
        Stale::Foreign { .. }
    ));
    // Under another key: it does not open.
    fs::remove_file(other.path().join("volume.sqlite")).unwrap();
    let key = FileSystemKey::new([1; 32]);
    drop(Volume::create(other.path(), &key, &small()).unwrap());
    let refused = refusal(other.path(), &expected);
    assert!(matches!(refused, Stale::ForeignKey { .. }), "{refused}");
}

#[test]
fn a_volume_without_a_record_must_be_unused() {
    let directory = tempfile::tempdir().unwrap();
    let volume = create(directory.path());
    drop(volume);
    let volume = open(directory.path(), &Expected::Unused).unwrap();
    create_file(&volume, "file", b"content");
    volume.commit().unwrap();
    drop(volume);
    let refused = refusal(directory.path(), &Expected::Unused);
    assert!(
        matches!(refused, Stale::Unrecorded { found: 2 }),
        "{refused}"
    );
}

#[test]
fn a_missing_database_is_no_new_volume() {
    let directory = tempfile::tempdir().unwrap();
    let error = open(directory.path(), &Expected::Any).err().unwrap();
    assert!(matches!(error, VolumeError::Missing { .. }), "{error}");
    // Neither is one that was emptied.
    fs::write(directory.path().join("volume.sqlite"), b"").unwrap();
    let error = open(directory.path(), &Expected::Any).err().unwrap();
    assert!(matches!(error, VolumeError::Missing { .. }), "{error}");
    let nowhere = directory.path().join("nowhere");
    let error = open(&nowhere, &Expected::Any).err().unwrap();
    assert!(error.to_string().contains("got no directory"), "{error}");
    // What an interrupted creation left does not stand in the way of the next one.
    let volume = create(directory.path());
    assert_eq!(volume.state().counter, 1);
    drop(volume);
    let again = Volume::create(directory.path(), &key(), &small())
        .err()
        .unwrap();
    assert!(matches!(again, VolumeError::Exists { .. }), "{again}");
}

#[test]
fn the_history_reaches_back_over_many_commits() {
    let directory = tempfile::tempdir().unwrap();
    let volume = create(directory.path());
    create_file(&volume, "file", b"");
    let mut states = Vec::new();
    for number in 0..300_u32 {
        volume.write_at(2, 0, &number.to_le_bytes()).unwrap();
        states.push(volume.commit().unwrap());
    }
    assert_sound(&volume);
    drop(volume);
    for state in states.iter().step_by(37) {
        let expected = |root| Expected::Recorded {
            state: State {
                counter: state.counter,
                root,
            },
            volume: None,
            accept: Accept::Successors,
        };
        let volume = open(directory.path(), &expected(state.root)).unwrap();
        let newer = states.last().unwrap().counter - state.counter;
        assert_eq!(volume.accepted(), Accepted::Successor(newer));
        drop(volume);
        let refused = refusal(directory.path(), &expected([9; 32]));
        assert!(matches!(refused, Stale::Forked { .. }), "{refused}");
    }
}

#[test]
fn one_writer_or_many_readers() {
    let directory = tempfile::tempdir().unwrap();
    let volume = create(directory.path());
    create_file(&volume, "file", b"content");
    let in_use = |access| {
        let options = Options { access, ..small() };
        let opened = Volume::open(directory.path(), &key(), &Expected::Any, &options);
        matches!(opened, Err(VolumeError::InUse { .. }))
    };
    volume.commit().unwrap();
    assert!(in_use(Access::ReadWrite) && in_use(Access::ReadOnly) && in_use(Access::Ephemeral));
    let volume = Arc::into_inner(volume).unwrap();
    volume.close().unwrap();
    let reader = |access| {
        let options = Options { access, ..small() };
        Volume::open(directory.path(), &key(), &Expected::Any, &options).unwrap()
    };
    let readers = [Access::ReadOnly, Access::ReadOnly, Access::Ephemeral].map(reader);
    assert!(in_use(Access::ReadWrite));
    for reader in &readers {
        assert_eq!(read_file(reader, "file").unwrap(), b"content");
        assert_sound(reader);
    }
    let error = readers[0].write_at(2, 0, b"x").unwrap_err();
    assert_eq!(error.errno(), rustix::io::Errno::ROFS);
    assert!(readers[0].unlink(ROOT_INODE, b"file").is_err());
}

#[test]
fn a_reader_applies_what_a_killed_writer_left() {
    let directory = tempfile::tempdir().unwrap();
    let volume = create(directory.path());
    create_file(&volume, "file", b"content");
    volume.commit().unwrap();
    // As if it had been killed: the log is there.
    let copied = tempfile::tempdir().unwrap();
    copy(directory.path(), copied.path());
    let log = copied.path().join("volume.sqlite-wal");
    assert!(fs::metadata(&log).unwrap().len() > 0);
    let options = Options {
        access: Access::ReadOnly,
        ..small()
    };
    let exact = recorded(&volume, Accept::Exact);
    let reader = Volume::open(copied.path(), &key(), &exact, &options).unwrap();
    assert_eq!(read_file(&reader, "file").unwrap(), b"content");
}

#[test]
fn an_ephemeral_volume_forgets() {
    let directory = tempfile::tempdir().unwrap();
    let volume = create(directory.path());
    create_file(&volume, "file", &[7; 100_000]);
    volume.commit().unwrap();
    let expected = recorded(&volume, Accept::Exact);
    Arc::into_inner(volume).unwrap().close().unwrap();
    let before = fs::read(directory.path().join("volume.sqlite")).unwrap();
    for _ in 0..2 {
        let options = Options {
            access: Access::Ephemeral,
            ..small()
        };
        let volume = Volume::open(directory.path(), &key(), &expected, &options).unwrap();
        assert_eq!(read_file(&volume, "file").unwrap(), [7; 100_000]);
        volume.write_at(2, 50_000, &[8; 100_000]).unwrap();
        create_file(&volume, "other", &[9; 3_000_000]);
        volume.commit().unwrap();
        volume.truncate(2, 60_000).unwrap();
        volume.commit().unwrap();
        let expected = [vec![7; 50_000], vec![8; 10_000]].concat();
        assert_eq!(read_file(&volume, "file").unwrap(), expected);
        assert_eq!(read_file(&volume, "other").unwrap(), [9; 3_000_000]);
        assert_sound(&volume);
        volume.close().unwrap();
    }
    assert!(fs::read(directory.path().join("volume.sqlite")).unwrap() == before);
}

#[test]
fn a_rotated_key_opens_and_the_old_one_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let volume = create(directory.path());
    create_file(&volume, "file", b"content");
    let new_key = FileSystemKey::new([0xb7; 32]);
    let wrong = FileSystemKey::new([1; 32]);
    assert!(volume.rotate(&wrong, &new_key).is_err());
    let old_header = tempfile::tempdir().unwrap();
    volume.commit().unwrap();
    copy(directory.path(), old_header.path());
    let before = volume.state();
    let state = volume.rotate(&key(), &new_key).unwrap();
    assert_eq!(state.counter, before.counter + 1);
    assert_eq!(volume.facts().unwrap().key_generation, 1);
    drop(volume);
    assert!(matches!(
        refusal(directory.path(), &Expected::Any),
        Stale::ForeignKey { .. }
    ));
    let expected = Expected::Recorded {
        state: before,
        volume: None,
        accept: Accept::Successors,
    };
    let volume = Volume::open(directory.path(), &new_key, &expected, &small()).unwrap();
    assert_eq!(read_file(&volume, "file").unwrap(), b"content");
    assert_sound(&volume);
}

#[test]
fn a_backup_is_the_state_that_it_says() {
    let (directory, backup) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let volume = create(directory.path());
    create_file(&volume, "file", &[5; 200_000]);
    let state = volume.backup(backup.path()).unwrap();
    assert_eq!(state, volume.state());
    volume.write_at(2, 0, b"later").unwrap();
    volume.commit().unwrap();
    assert!(matches!(
        volume.backup(backup.path()),
        Err(VolumeError::Exists { .. })
    ));
    let expected = Expected::Recorded {
        state,
        volume: Some(volume.id()),
        accept: Accept::Exact,
    };
    let copy = open(backup.path(), &expected).unwrap();
    assert_eq!(read_file(&copy, "file").unwrap(), [5; 200_000]);
    assert_sound(&copy);
}

#[test]
fn a_log_that_was_extended_ahead_ends_with_the_last_commit() {
    let directory = tempfile::tempdir().unwrap();
    let volume = create(directory.path());
    let inode = create_file(&volume, "file", b"");
    let log = directory.path().join("volume.sqlite-wal");
    let (mut lengths, mut round) = (std::collections::BTreeSet::new(), 0);
    while fs::metadata(&log).map_or(0, |log| log.len()) < 3 << 20 {
        round += 1;
        volume.write_at(inode, 0, &[round; 40_000]).unwrap();
        volume.commit().unwrap();
        lengths.insert(fs::metadata(&log).unwrap().len());
    }
    assert!(
        lengths.len() < usize::from(round),
        "each commit made the log longer"
    );
    let bytes = fs::read(&log).unwrap();
    assert!(bytes.ends_with(&[0; 8_192]));
    // As after a kill.
    let copied = tempfile::tempdir().unwrap();
    copy(directory.path(), copied.path());
    let copy = open(copied.path(), &recorded(&volume, Accept::Exact)).unwrap();
    assert_eq!(read_file(&copy, "file").unwrap(), [round; 40_000]);
    assert_sound(&copy);
}
