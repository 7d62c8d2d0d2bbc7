//! Content that a caller keeps itself, and files without a name.

mod harness;

use harness::{assert_sound, create, create_file, new, read_file, reopen};
use rustix::io::Errno;
use sconify_volume::{NewKind, Plaintext, Time, Times, VolumeError, CHUNK_SIZE, ROOT_INODE};

fn chunk(byte: u8, length: usize) -> Plaintext {
    let mut chunk = Plaintext::from(vec![0; CHUNK_SIZE]);
    chunk[..length].fill(byte);
    chunk
}

fn times(seconds: i64) -> Times {
    let time = |seconds| Time {
        seconds,
        nanoseconds: 7,
    };
    Times {
        atime: time(seconds),
        mtime: time(seconds + 1),
        ctime: time(seconds + 2),
    }
}

#[test]
fn chunks_size_and_times_are_as_they_were_given() {
    let scratch = tempfile::tempdir().unwrap();
    let volume = create(scratch.path());
    let inode = create_file(&volume, "file", &[]);
    let size = 3 * CHUNK_SIZE + 100;
    let chunks = vec![(0, chunk(1, CHUNK_SIZE)), (3, chunk(4, 100))];
    volume.put_chunks(inode, chunks, size as u64).unwrap();
    let future = times(4_000_000_000);
    volume.settle(inode, size as u64, &future).unwrap();
    volume.commit().unwrap();
    drop(volume);
    let volume = reopen(scratch.path());
    let attributes = volume.attributes(inode).unwrap();
    assert_eq!(attributes.size, size as u64);
    assert_eq!(
        (attributes.atime, attributes.mtime),
        (future.atime, future.mtime)
    );
    assert_eq!(attributes.ctime, future.ctime);
    let mut expected = vec![0; size];
    expected[..CHUNK_SIZE].fill(1);
    expected[3 * CHUNK_SIZE..].fill(4);
    assert!(read_file(&volume, "file").unwrap() == expected);
    // Zeros are holes, and what is beyond the end goes.
    let chunks = vec![(0, chunk(0, 0)), (1, chunk(9, 10))];
    volume
        .put_chunks(inode, chunks, CHUNK_SIZE as u64 + 10)
        .unwrap();
    volume
        .settle(inode, CHUNK_SIZE as u64 + 10, &times(1))
        .unwrap();
    volume.commit().unwrap();
    let attributes = volume.attributes(inode).unwrap();
    assert_eq!(attributes.blocks(), CHUNK_SIZE as u64 / 512);
    assert_eq!(
        attributes.ctime, future.ctime,
        "the later time of change stays"
    );
    let mut expected = vec![0; CHUNK_SIZE + 10];
    expected[CHUNK_SIZE..].fill(9);
    assert!(read_file(&volume, "file").unwrap() == expected);
    assert_sound(&volume);
}

#[test]
fn a_file_without_a_name_goes_when_it_is_closed_unless_it_gets_one() {
    let scratch = tempfile::tempdir().unwrap();
    let volume = create(scratch.path());
    let kept = volume.create_unnamed(&new(NewKind::Regular)).unwrap();
    let lost = volume.create_unnamed(&new(NewKind::Regular)).unwrap();
    let (kept_inode, lost_inode) = (kept.inode(), lost.inode());
    volume.write_at(kept_inode, 0, b"kept").unwrap();
    volume.write_at(lost_inode, 0, b"lost").unwrap();
    assert_eq!(volume.attributes(kept_inode).unwrap().links, 0);
    volume
        .name_unnamed(kept_inode, ROOT_INODE, b"name")
        .unwrap();
    let twice = volume.name_unnamed(kept_inode, ROOT_INODE, b"other");
    assert_eq!(twice.unwrap_err().errno(), Errno::INVAL);
    let taken = volume.name_unnamed(lost_inode, ROOT_INODE, b"name");
    assert!(matches!(taken, Err(VolumeError::Refused(Errno::EXIST))));
    volume.commit().unwrap();
    drop((kept, lost));
    assert_eq!(
        volume.attributes(lost_inode).unwrap_err().errno(),
        Errno::NOENT
    );
    assert_eq!(read_file(&volume, "name").unwrap(), b"kept");
    volume.commit().unwrap();
    assert_sound(&volume);
    drop(volume);
    let volume = reopen(scratch.path());
    assert_eq!(read_file(&volume, "name").unwrap(), b"kept");
    assert_sound(&volume);
}
