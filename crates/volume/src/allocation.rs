//! Which slots of the contents file are free.
//!
//! A slot whose chunk was removed or moved is taken again once the commit that does not name it is on the disk: until then a crash
//! brings the old state back. What was free when the volume was opened is not stored anywhere; the tree tells it, if it is worth
//! reading all of it.

use std::collections::{BTreeMap, VecDeque};

/// The part of the slots that must be free for the tree to be searched for them.
const WORTH_A_SEARCH: u64 = 16;

/// Slots by ranges: where each begins, and where it ends.
#[derive(Clone, Default, Debug)]
struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    fn insert(&mut self, begin: u64, end: u64) {
        let (mut begin, mut end) = (begin, end);
        if let Some(before) = self.ending_at(begin) {
            self.0.remove(&before);
            begin = before;
        }
        if let Some(after) = self.0.remove(&end) {
            end = after;
        }
        self.0.insert(begin, end);
    }

    /// Where the range begins that ends here.
    fn ending_at(&self, end: u64) -> Option<u64> {
        let (begin, found) = self.0.range(..end).next_back()?;
        (*found == end).then_some(*begin)
    }

    fn take_first(&mut self) -> Option<u64> {
        let (first, end) = self.0.pop_first()?;
        if first + 1 < end {
            self.0.insert(first + 1, end);
        }
        Some(first)
    }
}

/// The slots of one volume.
#[derive(Debug)]
pub(crate) struct Allocation {
    /// All slots from here on are free.
    end: u64,
    /// Slots that the tree names.
    used: u64,
    /// Free ones below the end.
    free: Ranges,
    /// Those that were given back, by the commit that names them no longer.
    waiting: VecDeque<(u64, Ranges)>,
    waiting_count: u64,
    /// Whether there may be free ones that only the tree can tell.
    is_searched: bool,
}

impl Allocation {
    /// Of a state on the disk that names so many slots, all of them below `end`.
    pub(crate) fn new(end: u64, used: u64) -> Self {
        Self {
            end,
            used,
            free: Ranges::default(),
            waiting: VecDeque::new(),
            waiting_count: 0,
            is_searched: false,
        }
    }

    /// How many slots the tree names.
    pub(crate) fn used(&self) -> u64 {
        self.used
    }

    /// How many slots wait for a commit to become free.
    pub(crate) fn waiting(&self) -> u64 {
        self.waiting_count
    }

    /// How many slots of a file that has so many can be taken, now or after a search.
    pub(crate) fn free(&self, slots: u64) -> u64 {
        let tail = slots.saturating_sub(self.end);
        if self.is_searched || self.is_worth_a_search() {
            tail + self.end.saturating_sub(self.used + self.waiting_count)
        } else {
            tail
        }
    }

    /// Whether the tree should be asked for its slots ([`Allocation::found`]) before one is taken.
    pub(crate) fn wants_search(&self) -> bool {
        !self.is_searched && self.free.0.is_empty() && self.is_worth_a_search()
    }

    fn is_worth_a_search(&self) -> bool {
        let unnamed = self.end.saturating_sub(self.used + self.waiting_count);
        unnamed > 0 && unnamed >= self.end / WORTH_A_SEARCH
    }

    /// Takes the result of the search: all slots that the tree names, or None if it can't be read as a whole. Then new slots are at
    /// the end.
    pub(crate) fn found(&mut self, named: Option<Vec<u64>>) {
        self.is_searched = true;
        let Some(mut taken) = named else { return };
        for (begin, end) in self.waiting.iter().flat_map(|(_, ranges)| &ranges.0) {
            taken.extend(*begin..*end);
        }
        taken.sort_unstable();
        let mut next = 0;
        for slot in taken.into_iter().chain([self.end]) {
            if slot > next && slot <= self.end {
                self.free.insert(next, slot);
            }
            next = next.max(slot.saturating_add(1));
        }
    }

    /// Takes a free slot.
    pub(crate) fn take(&mut self) -> u64 {
        self.used += 1;
        self.free.take_first().unwrap_or_else(|| {
            self.end += 1;
            self.end - 1
        })
    }

    /// Gives a slot back that commit `counter` will not name any more.
    pub(crate) fn give_back(&mut self, slot: u64, counter: u64) {
        self.used -= 1;
        self.waiting_count += 1;
        if self.waiting.back().is_none_or(|(last, _)| *last != counter) {
            self.waiting.push_back((counter, Ranges::default()));
        }
        let (_, ranges) = self.waiting.back_mut().expect("there is one");
        ranges.insert(slot, slot + 1);
    }

    /// Frees what waited for commit `counter` or one before, which is on the disk.
    pub(crate) fn release(&mut self, counter: u64) {
        while self.waiting.front().is_some_and(|(of, _)| *of <= counter) {
            let (_, ranges) = self.waiting.pop_front().expect("there is one");
            for (begin, end) in ranges.0 {
                self.waiting_count -= end - begin;
                self.free.insert(begin, end);
            }
        }
        if let Some(begin) = self.free.ending_at(self.end) {
            self.free.0.remove(&begin);
            self.end = begin;
        }
    }

    /// How many slots the file must have for the tree as it is: no slot from there on is named.
    pub(crate) fn needed(&self) -> u64 {
        if self.used == 0 {
            return 0;
        }
        let mut end = self.end;
        let all = || {
            [&self.free]
                .into_iter()
                .chain(self.waiting.iter().map(|(_, ranges)| ranges))
        };
        while let Some(begin) = all().find_map(|ranges| ranges.ending_at(end)) {
            end = begin;
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_slot_is_taken_again_when_its_commit_is_on_the_disk() {
        let mut slots = Allocation::new(0, 0);
        assert_eq!([slots.take(), slots.take(), slots.take()], [0, 1, 2]);
        slots.give_back(1, 7);
        assert_eq!((slots.take(), slots.needed(), slots.waiting()), (3, 4, 1));
        slots.release(6);
        assert_eq!(slots.take(), 4);
        slots.release(7);
        assert_eq!((slots.free(5), slots.take(), slots.take()), (1, 1, 5));
    }

    #[test]
    fn the_file_shrinks_by_what_is_free_at_its_end() {
        let mut slots = Allocation::new(0, 0);
        for _ in 0..10 {
            slots.take();
        }
        for slot in [9, 3, 7, 8] {
            slots.give_back(slot, 1);
        }
        assert_eq!(slots.needed(), 7);
        slots.release(1);
        assert_eq!((slots.needed(), slots.free(7), slots.free(10)), (7, 1, 4));
        assert_eq!((slots.take(), slots.take()), (3, 7));
    }

    #[test]
    fn what_was_free_at_the_beginning_is_searched_for_if_it_is_much() {
        assert!(!Allocation::new(100, 99).wants_search());
        assert!(!Allocation::new(100, 100).wants_search());
        let mut slots = Allocation::new(100, 3);
        assert!(slots.wants_search());
        slots.give_back(50, 1);
        assert_eq!(slots.free(100), 97);
        slots.found(Some(vec![99, 0]));
        assert!(!slots.wants_search());
        let taken = (0..98).map(|_| slots.take()).collect::<Vec<_>>();
        assert_eq!(
            (taken[0], taken[48], taken[49], taken[97]),
            (1, 49, 51, 100)
        );
        let mut slots = Allocation::new(100, 3);
        slots.found(None);
        assert_eq!((slots.wants_search(), slots.take()), (false, 100));
    }

    proptest! {
        #[test]
        fn no_slot_is_taken_that_a_state_on_the_disk_names(
            steps in proptest::collection::vec((0..10_u8, any::<prop::sample::Index>()), 1..400),
        ) {
            let mut slots = Allocation::new(0, 0);
            let (mut named, mut on_disk, mut counter) = (BTreeSet::new(), BTreeSet::new(), 1);
            for (step, index) in steps {
                match step {
                    0..=4 => {
                        let slot = slots.take();
                        prop_assert!(named.insert(slot) && !on_disk.contains(&slot));
                    }
                    5..=7 if !named.is_empty() => {
                        let slot = *named.iter().nth(index.index(named.len())).unwrap();
                        named.remove(&slot);
                        slots.give_back(slot, counter + 1);
                    }
                    8 => {
                        counter += 1;
                        on_disk.clone_from(&named);
                        slots.release(counter);
                    }
                    // A commit that the disk refuses.
                    9 => counter += 1,
                    _ => {}
                }
                prop_assert_eq!(slots.used(), named.len() as u64);
                prop_assert_eq!(slots.needed(), named.last().map_or(0, |last| last + 1));
            }
            // Opened again.
            let end = on_disk.last().map_or(0, |last| last + 1);
            let mut slots = Allocation::new(end, on_disk.len() as u64);
            slots.found(Some(on_disk.iter().copied().collect()));
            for _ in 0..20 {
                let taken = slots.take();
                prop_assert!(on_disk.insert(taken));
            }
        }
    }
}
