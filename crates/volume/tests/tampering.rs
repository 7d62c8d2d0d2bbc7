//! Every change that a host can make to the database is refused, with a message that names what was changed, or has no effect
//! on anything that a program can read. `SCONIFY_FLIPS` sets how many bytes are flipped.

mod harness;

use std::fs;
use std::path::{Path, PathBuf};

use harness::{create, create_file, open, read_file, reopen, scale, Random};
use rusqlite::Connection;
use sconify_volume::{Expected, Volume, VolumeError, ROOT_INODE};

const NAMES: [&str; 4] = ["small", "medium", "large", "listed"];

fn content(name: &str) -> Vec<u8> {
    match name {
        "small" => b"a few bytes".to_vec(),
        "medium" => Random(1).bytes(20_000),
        "large" => Random(2).bytes(300_000),
        _ => vec![0x77; 5_000],
    }
}

/// A closed volume with some files, and the path of its database.
fn sample() -> (tempfile::TempDir, PathBuf, Expected) {
    let directory = tempfile::tempdir().unwrap();
    let volume = create(directory.path());
    for name in NAMES {
        create_file(&volume, name, &content(name));
        // Little at a time, so that only the large file's content is not in the database.
        volume.commit().unwrap();
    }
    for number in 0..150 {
        create_file(&volume, &format!("name-{number}"), b"");
    }
    volume.unlink(ROOT_INODE, b"name-0").unwrap();
    volume.commit().unwrap();
    let expected = Expected::Recorded {
        state: volume.state(),
        volume: Some(volume.id()),
        accept: sconify_volume::Accept::Exact,
    };
    std::sync::Arc::into_inner(volume).unwrap().close().unwrap();
    let path = directory.path().join("volume.sqlite");
    (directory, path, expected)
}

/// Reads all that there is; every answer is right or a refusal.
fn read_all(directory: &Path, expected: &Expected) -> Result<(), VolumeError> {
    let volume = open(directory, expected)?;
    let mut failed = None;
    for name in NAMES {
        match read_file(&volume, name) {
            Ok(read) => assert!(read == content(name), "{name}: a wrong answer"),
            Err(error) => failed = Some(error),
        }
    }
    match volume.read_directory(ROOT_INODE, 0, 1_000) {
        Ok(entries) => assert_eq!(entries.len(), 2 + NAMES.len() + 149),
        Err(error) => failed = Some(error),
    }
    let report = volume.check()?;
    if let Some(problem) = report.problems.first() {
        failed = failed.or(Some(VolumeError::NotAuthentic {
            what: problem.clone(),
            reason: String::new(),
        }));
    }
    failed.map_or(Ok(()), Err)
}

fn assert_named(error: &VolumeError, context: &str) {
    let text = error.to_string();
    let named = ["volume", "chunk", "node", "row", "database"];
    assert!(
        named.iter().any(|name| text.contains(name)),
        "{context}: {text}"
    );
}

/// What a change with the database engine does.
fn change(path: &Path, sql: &str) {
    let connection = Connection::open(path).unwrap();
    connection.execute_batch(sql).unwrap();
    connection.close().unwrap();
}

fn refusal(directory: &Path, expected: &Expected, context: &str) -> String {
    let error = read_all(directory, expected).expect_err(context);
    assert_named(&error, context);
    error.to_string()
}

#[test]
fn every_flipped_byte_is_refused_or_without_effect() {
    let (directory, path, expected) = sample();
    read_all(directory.path(), &expected).unwrap();
    let bytes = fs::read(&path).unwrap();
    let flips = scale("SCONIFY_FLIPS", 150).max(1);
    let step = (bytes.len() as u64 / flips).max(1) as usize;
    let (mut refused, mut tried) = (0, 0);
    let mut random = Random(9);
    for start in (0..bytes.len()).step_by(step) {
        let position = (start + random.below(step as u64) as usize).min(bytes.len() - 1);
        let mut changed = bytes.clone();
        changed[position] ^= 1 << random.below(8);
        fs::write(&path, &changed).unwrap();
        tried += 1;
        if let Err(error) = read_all(directory.path(), &expected) {
            assert_named(&error, &format!("byte {position}"));
            refused += 1;
        }
        let _ = fs::remove_file(directory.path().join("volume.sqlite-wal"));
    }
    // What is not refused are bytes that hold nothing: the rest of pages that are not full.
    assert!(
        refused * 100 > tried * 70,
        "{refused} of {tried} were refused"
    );
}

#[test]
fn every_row_counts() {
    let (directory, path, expected) = sample();
    let bytes = fs::read(&path).unwrap();
    for table in ["volume", "node", "chunk"] {
        let ids = {
            let connection = Connection::open(&path).unwrap();
            let mut statement = connection
                .prepare(&format!("SELECT id FROM {table}"))
                .unwrap();
            let ids = statement.query_map((), |row| row.get::<_, i64>(0)).unwrap();
            ids.map(Result::unwrap).collect::<Vec<_>>()
        };
        assert!(!ids.is_empty());
        for id in ids {
            for sql in [
                format!("UPDATE {table} SET data = zeroblob(length(data)) WHERE id = {id}"),
                format!(
                    "UPDATE {table} SET data = substr(data, 1, length(data) - 1) WHERE id = {id}"
                ),
                format!("UPDATE {table} SET data = CAST(data || x'00' AS BLOB) WHERE id = {id}"),
                format!("DELETE FROM {table} WHERE id = {id}"),
            ] {
                change(&path, &sql);
                let text = refusal(directory.path(), &expected, &sql);
                if table == "chunk" {
                    assert!(text.contains('/'), "the file is not named: {text}");
                }
                fs::write(&path, &bytes).unwrap();
            }
        }
    }
}

#[test]
fn swapped_rows_are_refused() {
    let (directory, path, expected) = sample();
    let bytes = fs::read(&path).unwrap();
    for (table, one, other) in [("chunk", 1, 2), ("node", 0, 1), ("volume", 0, 1)] {
        change(
            &path,
            &format!(
                "UPDATE {table} SET id = -1 WHERE id = {one}; UPDATE {table} SET id = {one} WHERE id = {other};
                 UPDATE {table} SET id = {other} WHERE id = -1"
            ),
        );
        refusal(directory.path(), &expected, table);
        fs::write(&path, &bytes).unwrap();
    }
}

#[test]
fn rows_of_an_older_state_are_refused() {
    let (directory, path, _) = sample();
    let older = directory.path().join("older");
    fs::copy(&path, &older).unwrap();
    let volume = reopen(directory.path());
    for name in NAMES {
        let inode = volume.lookup(ROOT_INODE, name.as_bytes()).unwrap().inode;
        // The same content, so that every answer is still right; it is encrypted anew.
        volume.write_at(inode, 0, &content(name)).unwrap();
        volume.commit().unwrap();
    }
    std::sync::Arc::into_inner(volume).unwrap().close().unwrap();
    let bytes = fs::read(&path).unwrap();
    for table in ["volume", "node", "chunk"] {
        change(
            &path,
            &format!(
                "ATTACH '{}' AS older; UPDATE {table} SET data =
                 (SELECT data FROM older.{table} AS other WHERE other.id = {table}.id)",
                older.display()
            ),
        );
        // Even to somebody who accepts every state.
        refusal(directory.path(), &Expected::Any, table);
        fs::write(&path, &bytes).unwrap();
    }
}

#[test]
fn a_truncated_database_is_refused() {
    let (directory, path, expected) = sample();
    let bytes = fs::read(&path).unwrap();
    for length in [
        0,
        1,
        100,
        8_191,
        8_192,
        bytes.len() / 2,
        bytes.len() - 8_192,
        bytes.len() - 1,
    ] {
        fs::write(&path, &bytes[..length]).unwrap();
        refusal(directory.path(), &expected, &format!("{length} bytes"));
    }
}

#[test]
fn pages_in_another_order_are_refused() {
    let (directory, path, expected) = sample();
    let bytes = fs::read(&path).unwrap();
    let pages = bytes.len() / 8_192;
    let mut random = Random(3);
    for _ in 0..20 {
        let (one, other) = (
            random.below(pages as u64) as usize,
            random.below(pages as u64) as usize,
        );
        let (mut changed, range) = (bytes.clone(), |page: usize| {
            page * 8_192..(page + 1) * 8_192
        });
        changed[range(one)].copy_from_slice(&bytes[range(other)]);
        changed[range(other)].copy_from_slice(&bytes[range(one)]);
        fs::write(&path, &changed).unwrap();
        if one != other {
            let free = |page: usize| bytes[range(page)].iter().all(|byte| *byte == 0);
            if !free(one) && !free(other) {
                // Pages that hold nothing any more may move; every other page is missed.
                if let Err(error) = read_all(directory.path(), &expected) {
                    assert_named(&error, &format!("pages {one} and {other}"));
                }
            }
        }
        let _ = fs::remove_file(directory.path().join("volume.sqlite-wal"));
    }
}

#[test]
fn a_foreign_log_is_without_effect_or_refused() {
    let (directory, path, expected) = sample();
    let bytes = fs::read(&path).unwrap();
    // Of another volume, whose log is not written back.
    let other = tempfile::tempdir().unwrap();
    let volume = create(other.path());
    create_file(&volume, "file", &[1; 50_000]);
    volume.commit().unwrap();
    let log = fs::read(other.path().join("volume.sqlite-wal")).unwrap();
    fs::write(directory.path().join("volume.sqlite-wal"), &log).unwrap();
    let error = read_all(directory.path(), &expected).expect_err("another volume's log was taken");
    assert_named(&error, "log");
    // A log cut anywhere leaves an earlier commit, which is older.
    fs::write(&path, &bytes).unwrap();
    let _ = fs::remove_file(directory.path().join("volume.sqlite-wal"));
    let volume = reopen(directory.path());
    for number in 0..5 {
        create_file(&volume, &format!("later-{number}"), b"");
        volume.commit().unwrap();
    }
    let expected = Expected::Recorded {
        state: volume.state(),
        volume: None,
        accept: sconify_volume::Accept::Successors,
    };
    let cut = tempfile::tempdir().unwrap();
    let log = fs::read(directory.path().join("volume.sqlite-wal")).unwrap();
    for part in 0..8 {
        for name in ["volume.sqlite", "volume.contents"] {
            fs::copy(directory.path().join(name), cut.path().join(name)).unwrap();
        }
        fs::write(
            cut.path().join("volume.sqlite-wal"),
            &log[..log.len() * part / 8],
        )
        .unwrap();
        let error = open(cut.path(), &expected)
            .err()
            .expect("a cut log was taken");
        assert!(matches!(error, VolumeError::Stale { .. }), "{error}");
        assert!(error.to_string().contains("older"), "{error}");
    }
}

#[test]
fn a_schema_that_is_not_ours_is_refused() {
    let (directory, path, expected) = sample();
    let bytes = fs::read(&path).unwrap();
    for sql in [
        "CREATE TABLE more(id INTEGER)",
        "CREATE TRIGGER evil AFTER UPDATE ON chunk BEGIN DELETE FROM node; END",
        "CREATE VIEW evil AS SELECT * FROM chunk",
        "CREATE INDEX evil ON chunk(length(data))",
        "DROP TABLE chunk; CREATE TABLE chunk(id INTEGER PRIMARY KEY, data TEXT NOT NULL) STRICT",
        "PRAGMA user_version = 1",
        "PRAGMA user_version = 3",
        "PRAGMA application_id = 2",
    ] {
        change(&path, sql);
        let text = refusal(directory.path(), &expected, sql);
        if sql.contains("user_version") {
            assert!(text.contains("format version"), "{text}");
        }
        fs::write(&path, &bytes).unwrap();
    }
}

#[test]
fn a_change_under_a_running_volume_is_refused() {
    let (directory, path, _) = sample();
    let volume: std::sync::Arc<Volume> = reopen(directory.path());
    // The host does not respect locks: it writes into the file.
    let mut bytes = fs::read(&path).unwrap();
    for byte in &mut bytes[8_192..] {
        *byte ^= 0x10;
    }
    fs::write(&path, &bytes).unwrap();
    let error = read_file(&volume, "medium").map(drop).unwrap_err();
    assert_named(&error, "a running volume");
    assert_eq!(error.errno(), rustix::io::Errno::IO);
}

#[test]
fn a_database_that_says_it_is_not_to_be_written_is_refused() {
    let (directory, path, expected) = sample();
    let mut bytes = fs::read(&path).unwrap();
    // SQLite's "file format write version".
    bytes[18] = 3;
    fs::write(&path, &bytes).unwrap();
    let text = open(directory.path(), &expected)
        .map(drop)
        .unwrap_err()
        .to_string();
    assert!(text.contains("not to be written"), "{text}");
}
