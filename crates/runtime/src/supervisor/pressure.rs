//! Watches the memory of the container, so that what is kept for later is given up before the program lacks it: the kernel can't take it from us, as it takes
//! the caches of disks, and would end the program.
//!
//! It is looked at from time to time: in a container nothing tells of it. The kernel's pressure files tell of the machine only, and those of the group can't be
//! written there.

use std::thread;
use std::time::Duration;

use super::room::{memory, Room};
use super::Shield;

/// What is kept for later is given up when less than this part of the memory is free,
const RESERVED_PART: u64 = 8;
/// and less than so many bytes.
const RESERVE: u64 = 512 << 20;
/// Bytes that programs take in a second at most.
const RATE: u64 = 8 << 30;
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// While the memory stays short the pauses double, up to this one: what is wanted again and again must not be given up all the time.
const LONGEST_PAUSE_IN_NEED: Duration = Duration::from_millis(250);

/// Gives up what nobody has open whenever memory runs short, for ever.
pub fn watch(shield: &Shield) {
    let mut pause_in_need = SHORTEST_PAUSE;
    loop {
        match state(memory()) {
            State::Enough(pause) => {
                pause_in_need = SHORTEST_PAUSE;
                thread::sleep(pause);
            }
            State::Short(bytes) => {
                shield.contents.release(&shield.tree, bytes);
                thread::sleep(pause_in_need);
                pause_in_need = LONGEST_PAUSE_IN_NEED.min(2 * pause_in_need);
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// The memory surely suffices so long.
    Enough(Duration),
    /// So many bytes of the reserve are missing.
    Short(u64),
}

fn state(room: Room) -> State {
    let reserve = RESERVE.min(room.total / RESERVED_PART);
    if room.free < reserve {
        return State::Short(reserve - room.free);
    }
    let pause = Duration::from_secs_f64((room.free - reserve) as f64 / RATE as f64);
    State::Enough(pause.clamp(SHORTEST_PAUSE, LONGEST_PAUSE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_less_is_free_the_sooner_it_is_looked_at() {
        let swap = 0;
        let state = |total, free| state(Room { total, free, swap });
        let enough = |milliseconds| State::Enough(Duration::from_millis(milliseconds));
        assert_eq!(state(2 << 30, (256 << 20) - 7), State::Short(7));
        assert_eq!(state(2 << 30, 256 << 20), enough(10));
        assert_eq!(state(2 << 30, (256 << 20) + (1 << 30)), enough(125));
        assert_eq!(state(64 << 30, (512 << 20) - 7), State::Short(7));
        assert_eq!(state(64 << 30, (512 << 20) + (2 << 30)), enough(250));
        assert_eq!(state(1 << 50, 1 << 49), enough(10_000));
    }
}
