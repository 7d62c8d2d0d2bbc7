//! Hashes the plain files on all processors.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;

use ring::digest;

use super::layout::{Input, Layout};
use super::progress::{Progress, INTERVAL};
use super::source::{check_size, read_exactly};
use crate::error::ShieldError;
use crate::read_at::ReadAt;

const BUFFER_SIZE: usize = 1 << 18;

/// What the workers and the thread that waits for them share.
struct Meter {
    /// Bytes that were hashed and not reported yet.
    bytes: AtomicU64,
    /// Set when the results are not wanted any more.
    stop: AtomicBool,
}

/// The SHA-256 of each of [`Layout::plain`].
pub(super) fn hash_plain_files<S: ReadAt + Sync>(
    layout: &Layout<'_, S>,
    threads: usize,
    progress: &mut Progress<'_>,
) -> Result<Vec<[u8; 32]>, ShieldError> {
    let inputs = &layout.plain;
    let mut hashes = vec![[0; 32]; inputs.len()];
    let next = AtomicUsize::new(0);
    let meter = Meter {
        bytes: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    };
    thread::scope(|scope| {
        let (sender, results) = mpsc::channel();
        for _ in 0..threads.min(inputs.len()) {
            let sender = sender.clone();
            let (next, meter) = (&next, &meter);
            scope.spawn(move || {
                let mut buffer = vec![0; BUFFER_SIZE];
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(input) = inputs.get(number) else {
                        return;
                    };
                    let result = hash(input, &mut buffer, meter);
                    if sender.send((number, result)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let collected = collect(&results, &mut hashes, &meter, progress);
        meter.stop.store(true, Ordering::Relaxed);
        collected
    })?;
    Ok(hashes)
}

fn collect(
    results: &mpsc::Receiver<(usize, Result<[u8; 32], ShieldError>)>,
    hashes: &mut [[u8; 32]],
    meter: &Meter,
    progress: &mut Progress<'_>,
) -> Result<(), ShieldError> {
    loop {
        match results.recv_timeout(INTERVAL) {
            Ok((number, hash)) => hashes[number] = hash?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        progress.advance(meter.bytes.swap(0, Ordering::Relaxed))?;
    }
}

fn hash<S: ReadAt>(
    input: &Input<'_, S>,
    buffer: &mut [u8],
    meter: &Meter,
) -> Result<[u8; 32], ShieldError> {
    check_size(input)?;
    let mut context = digest::Context::new(&digest::SHA256);
    let mut position = 0;
    while position < input.size {
        if meter.stop.load(Ordering::Relaxed) {
            return Err(ShieldError::Cancelled);
        }
        let count = (input.size - position).min(buffer.len() as u64) as usize;
        read_exactly(input, &mut buffer[..count], position)?;
        context.update(&buffer[..count]);
        position += count as u64;
        meter.bytes.fetch_add(count as u64, Ordering::Relaxed);
    }
    Ok(context
        .finish()
        .as_ref()
        .try_into()
        .expect("SHA-256 gives 32 bytes"))
}
