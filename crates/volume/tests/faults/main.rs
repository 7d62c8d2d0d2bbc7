//! Full disks and failing ones: a program gets the right error number, nothing that was committed is lost, and the volume is
//! used on as soon as the disk allows.
//!
//! Errors and delays of the disk are injected into a process of its own by a preloaded library; the full disk is a small tmpfs in
//! a mount namespace of its own. Where no namespace is allowed the latter says so.

#[path = "../harness/mod.rs"]
mod harness;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::{assert_sound, create, create_file, key, new, read_file, reopen, Random};
use rustix::io::Errno;
use sconify_volume::{NewKind, Options, Volume, VolumeError, ROOT_INODE};

fn main() {
    let arguments = std::env::args().collect::<Vec<_>>();
    match arguments.as_slice() {
        [_, role, directory] if role == "failing-disk" => {
            return failing_disk(Path::new(directory))
        }
        [_, role, directory] if role == "losing-disk" => return losing_disk(Path::new(directory)),
        [_, role, directory] if role == "full-disk" => return full_disk(Path::new(directory)),
        _ => {}
    }
    let scratch = tempfile::tempdir().unwrap();
    let library = scratch.path().join("faults.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/faults.c");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&library, &source])
        .status();
    assert!(compiled.unwrap().success());
    for role in ["failing-disk", "losing-disk"] {
        let directory = scratch.path().join(role);
        fs::create_dir(&directory).unwrap();
        let mut subject = Command::new(std::env::current_exe().unwrap());
        subject.args([role.as_ref(), directory.as_os_str()]);
        subject
            .env("LD_PRELOAD", &library)
            .env("SCONIFY_FAULT", fault_file(&directory));
        assert!(subject.status().unwrap().success(), "with a {role}");
        println!("a {role}: ok");
    }
    match on_small_disk(scratch.path()) {
        None => println!("a full disk: not tested, this machine allows no mount namespace"),
        Some(status) => {
            assert!(status.success(), "with a full disk");
            println!("a full disk: ok");
        }
    }
}

fn fault_file(directory: &Path) -> PathBuf {
    directory.parent().unwrap().join("fault")
}

fn failing_disk(directory: &Path) {
    let fault = fault_file(directory);
    let volume = create(directory);
    let inode = create_file(&volume, "file", &[1; 100_000]);
    volume.commit().unwrap();
    let mut content = vec![1; 100_000];
    let errors = [Errno::IO, Errno::NOSPC, Errno::IO, Errno::DQUOT];
    for (round, errno) in errors.into_iter().enumerate() {
        let byte = round as u8 + 2;
        let state = volume.state();
        fs::write(&fault, errno.raw_os_error().to_string()).unwrap();
        volume.write_at(inode, 50_000, &[byte; 30_000]).unwrap();
        create_file(&volume, &format!("new-{round}"), &[byte; 3_000]);
        for _ in 0..3 {
            let error = volume.commit().unwrap_err();
            let expected = error.errno() == errno || error.errno() == Errno::IO;
            assert!(
                expected && (errno != Errno::NOSPC || error.errno() == errno),
                "{error}"
            );
            assert_eq!(volume.state(), state);
        }
        // Programs read what they wrote.
        content[50_000..80_000].fill(byte);
        assert!(read_file(&volume, "file").unwrap() == content);
        assert!(read_file(&volume, &format!("new-{round}")).unwrap() == [byte; 3_000]);
        fs::remove_file(&fault).unwrap();
        let after = volume.commit().unwrap();
        assert!(after.counter > state.counter);
        assert_sound(&volume);
    }
    // Nobody waits for a slow disk but who asked for it: not for content that must be read from it, nor to write.
    fs::write(&fault, "-1500").unwrap();
    std::thread::scope(|scope| {
        create_file(&volume, "slow", &[1; 3_000]);
        let begin = Instant::now();
        let committer = scope.spawn(|| volume.commit().unwrap());
        std::thread::sleep(Duration::from_millis(200));
        assert!(read_file(&volume, "file").unwrap() == content);
        assert!(read_file(&volume, "slow").unwrap() == [1; 3_000]);
        create_file(&volume, "meanwhile", b"content");
        volume.unlink(ROOT_INODE, b"meanwhile").unwrap();
        assert!(
            begin.elapsed() < Duration::from_millis(1_200),
            "{:?}",
            begin.elapsed()
        );
        committer.join().unwrap();
        assert!(begin.elapsed() >= Duration::from_millis(1_400));
    });
    fs::remove_file(&fault).unwrap();
    // More than is kept in memory: the writer is told, not the memory filled.
    fs::write(&fault, Errno::NOSPC.raw_os_error().to_string()).unwrap();
    let refused =
        (0..100).find_map(|part| volume.write_at(inode, part * 100_000, &[9; 100_000]).err());
    assert_eq!(refused.expect("all was taken").errno(), Errno::NOSPC);
    drop(volume);
    // What a failed commit leaves behind is no half of it.
    fs::remove_file(&fault).unwrap();
    let volume = reopen(directory);
    assert_sound(&volume);
    assert!(read_file(&volume, "file").unwrap() == content);
}

/// The kernel tells once that the disk did not take what was written back from the log, and drops it: it must be written back again.
fn losing_disk(directory: &Path) {
    let fault = fault_file(directory);
    let volume = Volume::create(directory, &key(), &Options::default())
        .map(Arc::new)
        .unwrap();
    let mut random = Random(7);
    let mut content = move || {
        let words = (0..1 << 17).flat_map(|_| random.next().to_le_bytes());
        words.collect::<Vec<_>>()
    };
    let contents = (0..120).map(|_| content()).collect::<Vec<_>>();
    let inode = create_file(&volume, "count", &[0; 8]);
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Commits all the time: what is written back is then seldom all that the log has.
        scope.spawn(|| {
            for number in 0_u64.. {
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                volume.write_at(inode, 0, &number.to_le_bytes()).unwrap();
                volume.commit().unwrap();
            }
        });
        for (number, content) in contents.iter().enumerate() {
            match number {
                20 => fs::write(&fault, "lose").unwrap(),
                50 => fs::remove_file(&fault).unwrap(),
                _ => {}
            }
            create_file(&volume, &format!("file-{number}"), content);
            volume.commit().unwrap();
        }
        ended.store(true, Ordering::Relaxed);
    });
    let check = |volume: &Volume| {
        assert_sound(volume);
        for (number, content) in contents.iter().enumerate() {
            assert!(read_file(volume, &format!("file-{number}")).unwrap() == *content);
        }
    };
    check(&volume);
    Arc::into_inner(volume).unwrap().close().unwrap();
    check(&reopen(directory));
}

/// Runs [`full_disk`] on a file system of 48 MiB; None if that can't be mounted.
fn on_small_disk(scratch: &Path) -> Option<ExitStatus> {
    let script = r#"mount -t tmpfs -o size=48m none "$2" || exit 99; exec "$0" "$1" "$2""#;
    let disk = scratch.join("disk");
    fs::create_dir(&disk).unwrap();
    let status = Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .args(["full-disk".as_ref(), disk.as_os_str()])
        .status();
    status
        .ok()
        .filter(|status| !matches!(status.code(), Some(1 | 99)))
}

fn full_disk(directory: &Path) {
    let options = Options {
        dirty_bytes: 1 << 20,
        ..Options::default()
    };
    let volume = Volume::create(directory, &key(), &options).unwrap();
    let full = |error: &VolumeError| error.errno() == Errno::NOSPC;
    for round in 1..=3_u8 {
        // Filled by a program that syncs, and by one that does not.
        let mut files = Vec::new();
        let error = 'fill: loop {
            let name = format!("file-{}", files.len());
            let made = volume.create_inode(ROOT_INODE, name.as_bytes(), &new(NewKind::Regular));
            match made {
                Ok(made) => files.push((name, made.inode, 0)),
                Err(error) => break error,
            }
            let (_, inode, size) = files.last_mut().unwrap();
            for part in 0..16_u64 {
                match volume.write_at(*inode, part * 65_536, &[round; 65_536]) {
                    Ok(written) => *size += written,
                    Err(error) => break 'fill error,
                }
            }
            if round != 2 {
                volume.commit().unwrap();
            }
        };
        assert!(full(&error), "{error}");
        assert!(files.len() > 5, "only {} MiB found room", files.len());
        // What was accepted is kept, and a commit finds room for it.
        volume.commit().unwrap();
        for (name, _, size) in &files {
            let content = read_file(&volume, name).unwrap();
            assert!(
                content.len() == *size && content.iter().all(|byte| *byte == round),
                "{name}"
            );
        }
        // Room comes back, every round as much.
        for (name, _, _) in &files {
            volume.unlink(ROOT_INODE, name.as_bytes()).unwrap();
        }
        volume.commit().unwrap();
        assert_sound(&volume);
    }
}
