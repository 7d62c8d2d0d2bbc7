//! Packs that are written by several threads, of which some are slow, fail or panic.

mod sample;

use std::io;
use std::ops::ControlFlow;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::time::Duration;

use sconify_shield::build::{Builder, Content};
use sconify_shield::{ReadAt, RegionKind};

/// Chunks that one thread takes at once.
const SEGMENT: u64 = 8 * 65_536;

/// A content that takes long to read here and there, or ends the thread that reads it.
struct Uneven {
    size: u64,
    slow: bool,
    panics_at: u64,
}

impl ReadAt for Uneven {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let number = offset / SEGMENT;
        assert!(number != self.panics_at, "the source broke");
        if self.slow && number % 5 == 0 {
            std::thread::sleep(Duration::from_millis(3));
        }
        let count = buf.len().min((self.size - offset) as usize);
        for (at, byte) in buf[..count].iter_mut().enumerate() {
            *byte = ((offset + at as u64) / 50 + number) as u8;
        }
        Ok(count)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.size)
    }
}

/// Three packs of some dozens of segments, the last of each not full.
fn builder(slow: bool, panics_at: u64) -> Builder<Uneven> {
    let mut builder = Builder::new(sample::key());
    builder.add_region(b"/", RegionKind::Encrypted, "").unwrap();
    builder
        .add_entry(b"/", sample::metadata(1, 0o755), Content::Directory)
        .unwrap();
    for number in 0..3 {
        let path = format!("/{number}");
        let pack = builder
            .add_pack(path.as_bytes(), format!("/pack{number}").as_bytes())
            .unwrap();
        let size = (20 + 7 * number) * SEGMENT + 100_001 * number;
        let source = Uneven {
            size,
            slow,
            panics_at,
        };
        let content = Content::File {
            source,
            size,
            pack: Some(pack),
        };
        builder
            .add_entry(
                path.as_bytes(),
                sample::metadata(2 + number, 0o644),
                content,
            )
            .unwrap();
    }
    builder.digest_chunks();
    builder
}

#[test]
fn segments_that_are_ready_out_of_order_are_written_in_order() {
    let finish = |slow, threads| {
        let mut packs = vec![Vec::new(); 3];
        let built = builder(slow, u64::MAX)
            .finish(&mut packs, threads, &mut |_| ControlFlow::Continue(()))
            .unwrap();
        (built.index, built.digests, packs)
    };
    let expected = finish(false, 1);
    for threads in [2, 5] {
        assert!(finish(true, threads) == expected, "{threads} threads");
    }
}

#[test]
fn all_bytes_are_reported_once() {
    let mut last = 0;
    let built = builder(true, u64::MAX)
        .finish(&mut [io::sink(); 3], 2, &mut |done| {
            assert!(done >= last);
            last = done;
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(
        last,
        built.packs.iter().map(|pack| pack.plaintext_bytes).sum()
    );
}

#[test]
fn a_thread_that_panics_ends_the_others() {
    let work = || {
        let _ =
            builder(false, 3).finish(&mut [io::sink(); 3], 4, &mut |_| ControlFlow::Continue(()));
    };
    assert!(catch_unwind(AssertUnwindSafe(work)).is_err());
}
