//! How many workers wait for trapped calls.
//!
//! One more is called whenever none is left that waits, since serving a call may take long, or until another call has been served. But the kernel wakes all
//! that wait for each call (`recv_wait_event` in `kernel/seccomp.c` adds no exclusive waiter), so of those that are not needed any more few go on waiting:
//! the others rest until they are called.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// As many wait although one would do: calls that come together find one each, and one more costs every call half a microsecond.
const WAITING: usize = 4;

/// Counts the workers of one listener.
#[derive(Default)]
pub struct Crew {
    /// Those that wait for a call, or are about to.
    waiting: AtomicUsize,
    resting: Mutex<Resting>,
    called: Condvar,
}

#[derive(Default)]
struct Resting {
    /// Those that rest and were not called.
    count: usize,
    /// Those that were called and rest still.
    called: usize,
}

impl Crew {
    /// Counts a worker that begins to wait.
    pub fn join(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts off a worker that was joined and could not be started.
    pub fn quit(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts off a worker that got a call; if none is left that waits, calls one that rests. Returns whether there is none: one more must join then.
    pub fn is_short_without_me(&self) -> bool {
        if self.waiting.fetch_sub(1, Ordering::Relaxed) > 1 {
            return false;
        }
        let mut resting = self.resting();
        if resting.count == 0 {
            return true;
        }
        resting.count -= 1;
        resting.called += 1;
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.called.notify_one();
        false
    }

    /// Counts a worker that has served its call, after it has rested if enough others wait.
    pub fn come_back(&self) {
        if self.wait_if_few() {
            return;
        }
        let mut resting = self.resting();
        // Whoever found none that waits meanwhile has found nobody who rests either: both are looked at under the lock.
        if self.wait_if_few() {
            return;
        }
        resting.count += 1;
        while resting.called == 0 {
            resting = self
                .called
                .wait(resting)
                .unwrap_or_else(PoisonError::into_inner);
        }
        resting.called -= 1;
    }

    fn wait_if_few(&self) -> bool {
        let more = |waiting| (waiting < WAITING).then_some(waiting + 1);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        self.waiting.fetch_update(set, fetch, more).is_ok()
    }

    fn resting(&self) -> MutexGuard<'_, Resting> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{channel, Receiver, Sender};
    use std::sync::Arc;
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    type Work = Box<dyn FnOnce() + Send>;

    /// A listener whose calls are closures, and its workers.
    struct Office {
        crew: Crew,
        calls: Mutex<Receiver<Work>>,
        size: AtomicUsize,
    }

    impl Office {
        fn open() -> (Arc<Self>, Sender<Work>) {
            let (sender, calls) = channel();
            let office = Arc::new(Self {
                crew: Crew::default(),
                calls: Mutex::new(calls),
                size: AtomicUsize::new(0),
            });
            office.add();
            (office, sender)
        }

        fn add(self: &Arc<Self>) {
            self.size.fetch_add(1, Ordering::Relaxed);
            self.crew.join();
            let office = Arc::clone(self);
            thread::spawn(move || loop {
                let call = office.calls.lock().unwrap().recv();
                let Ok(call) = call else { return };
                if office.crew.is_short_without_me() {
                    office.add();
                }
                call();
                office.crew.come_back();
            });
        }

        fn waiting(&self) -> usize {
            self.crew.waiting.load(Ordering::Relaxed)
        }
    }

    /// Sends calls each of which is served only when the next one has been.
    fn send_chain(sender: &Sender<Work>, length: usize) -> Receiver<()> {
        let (mut done, last) = channel();
        for _ in 0..length {
            let (own, next) = channel();
            let call = move || {
                let () = next.recv().unwrap();
                done.send(()).unwrap();
            };
            sender.send(Box::new(call)).unwrap();
            done = own;
        }
        sender
            .send(Box::new(move || done.send(()).unwrap()))
            .unwrap();
        last
    }

    #[test]
    fn calls_that_wait_for_others_are_served_and_few_go_on_waiting() {
        let (office, sender) = Office::open();
        let patience = Duration::from_secs(20);
        for length in [1, 40, 3, 0, 40, 7, 40].repeat(20) {
            send_chain(&sender, length).recv_timeout(patience).unwrap();
        }
        let deadline = Instant::now() + patience;
        while office.waiting() != WAITING && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(office.waiting(), WAITING);
        let size = office.size.load(Ordering::Relaxed);
        assert!(size > 40, "{size}");
        // Those that rested are called, not replaced: a few may have been on their way to rest.
        assert!(size < 80, "{size}");
    }
}
