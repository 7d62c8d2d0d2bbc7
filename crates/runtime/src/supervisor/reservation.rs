//! Memory that is set aside for what is being made, so that what is made at the same time does not count on the same memory.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// All that is set aside.
#[derive(Debug, Default)]
pub struct Reservations {
    /// Bytes that are set aside and not yet written.
    open: AtomicU64,
    /// Whoever has it may set something aside.
    turn: Mutex<()>,
}

impl Reservations {
    /// Sets `size` bytes aside, if they are there: `free` says how much is free, and `make_room` is called if that does not suffice.
    ///
    /// # Errors
    /// The number of bytes that are left, if there are fewer.
    pub fn reserve(
        &self,
        size: u64,
        free: impl Fn() -> u64,
        make_room: impl FnOnce(),
    ) -> Result<Reservation<'_>, u64> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let left = || free().saturating_sub(self.open.load(Ordering::Relaxed));
        if left() < size {
            make_room();
            let left = left();
            if left < size {
                return Err(left);
            }
        }
        self.open.fetch_add(size, Ordering::Relaxed);
        Ok(Reservation {
            all: self,
            open: AtomicU64::new(size),
        })
    }
}

/// Bytes that are set aside until they are written or this is dropped.
#[derive(Debug)]
pub struct Reservation<'a> {
    all: &'a Reservations,
    open: AtomicU64,
}

impl Reservation<'_> {
    /// Notes that so many of the bytes are written: the kernel counts them from now on.
    pub fn written(&self, count: u64) {
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        let less = |open: u64| Some(open.saturating_sub(count));
        if let Ok(open) = self.open.fetch_update(set, fetch, less) {
            // What has grown since may be more than was set aside.
            self.all.open.fetch_sub(count.min(open), Ordering::Relaxed);
        }
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.all
            .open
            .fetch_sub(*self.open.get_mut(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn what_is_set_aside_is_not_there_for_others() {
        let all = Reservations::default();
        let free = Cell::new(100);
        let reserve = |size| all.reserve(size, || free.get(), || ());
        let first = reserve(60).unwrap_or_else(|_| panic!("there is room"));
        assert_eq!(reserve(41).err(), Some(40));

        // What is written the kernel counts, we don't any more.
        free.set(50);
        first.written(50);
        assert_eq!(reserve(41).err(), Some(40));
        let second = reserve(40);
        assert!(second.is_ok());
        drop(first);
        drop(second);
        assert!(reserve(50).is_ok(), "nothing is set aside any more");
        assert_eq!(reserve(51).err(), Some(50));

        reserve(1)
            .unwrap_or_else(|_| panic!("there is room"))
            .written(7);
        assert_eq!(
            reserve(51).err(),
            Some(50),
            "no more is given back than was taken"
        );
    }

    #[test]
    fn room_is_made_only_where_there_is_too_little() {
        let all = Reservations::default();
        let free = Cell::new(10);
        assert!(all.reserve(10, || free.get(), || free.set(0)).is_ok());
        assert!(all.reserve(11, || free.get(), || free.set(11)).is_ok());
    }
}
