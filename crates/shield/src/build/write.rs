//! Writes packs. Every thread reads, seals and writes: whoever seals the segment that is to be written next writes it, and those
//! behind it that are sealed already. So no thread waits for another, unless it is too far ahead, which bounds memory.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::layout::Layout;
use super::progress::{Progress, INTERVAL};
use super::seal::{SealedChunk, SealedSegment, Sealing, Worker};
use super::source::{Segment, Segments};
use super::{Builder, NewPack};
use crate::error::{display, ShieldError};
use crate::index::pack;
use crate::read_at::ReadAt;

/// How many segments may be on their way beside the one that each thread has: sealed ones wait for those before them.
const SEGMENTS_AHEAD: u64 = 16;

/// A pack that was written.
pub(super) struct SealedPack {
    pub(super) chunks: Vec<SealedChunk>,
    pub(super) stored_bytes: u64,
}

/// Writes each pack of a layout to its output.
pub(super) fn write_packs<S: ReadAt + Sync, W: Write + Send>(
    builder: &Builder<S>,
    layout: &Layout<'_, S>,
    outputs: &mut [W],
    threads: usize,
    progress: &mut Progress<'_>,
) -> Result<Vec<SealedPack>, ShieldError> {
    let sealing = Sealing::new(builder);
    let queue = Queue {
        state: Mutex::new(State {
            segments: Segments::new(layout),
            sink: Some(PackSink::new(builder, layout, outputs)),
            sealed: VecDeque::new(),
            written: 0,
            spare: Vec::new(),
            stop: false,
        }),
        changed: Condvar::new(),
        ahead: SEGMENTS_AHEAD + threads as u64,
    };
    thread::scope(|scope| {
        let (sender, results) = mpsc::channel();
        for _ in 0..threads {
            let (queue, sealing, sender) = (&queue, &sealing, sender.clone());
            scope.spawn(move || {
                // Whatever makes this thread end, the others end too. There is nothing left when all goes well.
                let _end = StopAtEnd(queue);
                let done = work(queue, sealing, &sender);
                // Nobody listens any more after a failure.
                let _ = sender.send(done.map(|()| 0));
            });
        }
        drop(sender);
        let done = wait(&results, progress);
        queue.stop();
        done
    })?;
    let state = queue.state.into_inner().expect("no thread panicked");
    state.sink.expect("nobody writes any more").finish()
}

/// Adds up what is done until all threads have ended.
fn wait(
    results: &mpsc::Receiver<Result<u64, ShieldError>>,
    progress: &mut Progress<'_>,
) -> Result<(), ShieldError> {
    loop {
        match results.recv_timeout(INTERVAL) {
            Ok(bytes) => progress.advance(bytes?)?,
            Err(RecvTimeoutError::Timeout) => progress.advance(0)?,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

/// What one thread does: seal what is next, until there is nothing.
fn work<S: ReadAt + Sync, W: Write>(
    queue: &Queue<'_, S, W>,
    sealing: &Sealing<'_>,
    done: &Sender<Result<u64, ShieldError>>,
) -> Result<(), ShieldError> {
    let mut worker = Worker::new()?;
    while let Some((segment, mut sealed)) = queue.take() {
        let bytes = worker.seal(&segment, sealing, &mut sealed)?;
        queue.put(segment.number, sealed)?;
        // Nobody listens any more after a failure.
        let _ = done.send(Ok(bytes));
    }
    Ok(())
}

/// Hands segments out, and has them written in their order.
struct Queue<'a, S, W> {
    state: Mutex<State<'a, S, W>>,
    /// A segment was written, or the work ends.
    changed: Condvar,
    /// How many segments behind the last that was written may be handed out.
    ahead: u64,
}

/// Stops a queue when it is dropped.
struct StopAtEnd<'a, 'b, S: ReadAt + Sync, W: Write>(&'a Queue<'b, S, W>);

impl<S: ReadAt + Sync, W: Write> Drop for StopAtEnd<'_, '_, S, W> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

struct State<'a, S, W> {
    segments: Segments<'a, S>,
    /// None while a thread writes.
    sink: Option<PackSink<'a, W>>,
    /// Those that come next, as far as they are sealed.
    sealed: VecDeque<Option<SealedSegment>>,
    /// How many were written or are being written.
    written: u64,
    /// Memory to be used again.
    spare: Vec<SealedSegment>,
    stop: bool,
}

impl<'a, S: ReadAt + Sync, W: Write> Queue<'a, S, W> {
    fn lock(&self) -> MutexGuard<'_, State<'a, S, W>> {
        self.state.lock().expect("no thread panicked")
    }

    /// Ends the work: nothing is handed out any more.
    fn stop(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.stop = true;
        drop(state);
        self.changed.notify_all();
    }

    /// Hands out the next segment and memory for it; None if there is no more.
    fn take(&self) -> Option<(Segment<'a, S>, SealedSegment)> {
        let too_far = |state: &mut State<'a, S, W>| {
            !state.stop && state.segments.handed_out() >= state.written + self.ahead
        };
        let mut state = self
            .changed
            .wait_while(self.lock(), too_far)
            .expect("no thread panicked");
        if state.stop {
            return None;
        }
        let segment = state.segments.next()?;
        Some((segment, state.spare.pop().unwrap_or_default()))
    }

    /// Takes a segment back, sealed; writes it if it is the next one and nobody else writes.
    fn put(&self, number: u64, segment: SealedSegment) -> Result<(), ShieldError> {
        let mut state = self.lock();
        let at = (number - state.written) as usize;
        if state.sealed.len() <= at {
            state.sealed.resize_with(at + 1, || None);
        }
        state.sealed[at] = Some(segment);
        let Some(mut sink) = state.sink.take() else {
            return Ok(());
        };
        while let Some(Some(_)) = state.sealed.front() {
            let segment = state.sealed.pop_front().flatten().expect("it is there");
            state.written += 1;
            drop(state);
            let result = sink.write(&segment);
            state = self.lock();
            result?;
            state.spare.push(segment);
            self.changed.notify_all();
        }
        state.sink = Some(sink);
        Ok(())
    }
}

/// Writes sealed segments: pack after pack, each with its header.
struct PackSink<'a, W> {
    packs: &'a [NewPack],
    outputs: &'a mut [W],
    counts: Vec<u32>,
    sealed: Vec<SealedPack>,
}

impl<'a, W: Write> PackSink<'a, W> {
    fn new<S: ReadAt + Sync>(
        builder: &'a Builder<S>,
        layout: &Layout<'_, S>,
        outputs: &'a mut [W],
    ) -> Self {
        let counts = layout
            .packs
            .iter()
            .map(|pack| pack.chunk_lengths().len() as u32);
        Self {
            packs: &builder.packs,
            outputs,
            counts: counts.collect(),
            sealed: Vec::new(),
        }
    }

    /// Writes the next segment.
    fn write(&mut self, segment: &SealedSegment) -> Result<(), ShieldError> {
        self.begin_up_to(segment.pack)?;
        self.outputs[segment.pack]
            .write_all(&segment.stored)
            .map_err(|error| self.failed(segment.pack, error))?;
        let sealed = &mut self.sealed[segment.pack];
        sealed.stored_bytes += segment.stored.len() as u64;
        sealed.chunks.extend_from_slice(&segment.chunks);
        Ok(())
    }

    /// Ends the pack before and begins all up to this one. Outputs may be parts of one file, so each is flushed at its end.
    fn begin_up_to(&mut self, number: usize) -> Result<(), ShieldError> {
        while self.sealed.len() <= number {
            let next = self.sealed.len();
            if let Some(last) = next.checked_sub(1) {
                self.outputs[last]
                    .flush()
                    .map_err(|error| self.failed(last, error))?;
            }
            let header = pack::header(&pack::pack_id(&self.packs[next].name), self.counts[next]);
            self.outputs[next]
                .write_all(&header)
                .map_err(|error| self.failed(next, error))?;
            self.sealed.push(SealedPack {
                chunks: Vec::with_capacity(self.counts[next] as usize),
                stored_bytes: header.len() as u64,
            });
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<SealedPack>, ShieldError> {
        if let Some(last) = self.packs.len().checked_sub(1) {
            self.begin_up_to(last)?;
            self.outputs[last]
                .flush()
                .map_err(|error| self.failed(last, error))?;
        }
        Ok(self.sealed)
    }

    fn failed(&self, pack: usize, error: std::io::Error) -> ShieldError {
        ShieldError::io(format!("pack {}", display(&self.packs[pack].name)), error)
    }
}
