//! Watches the memory of the container, so that what is kept for later is given up before the program lacks it: the kernel can't take it from us, as it takes
//! the caches of disks, and would end the program.
//!
//! It is looked at from time to time: in a container nothing tells of it. The kernel's pressure files tell of the machine only, and those of the group can't be
//! written there.

use std::thread;
use std::time::Duration;

use super::room::{memory, Room};
use super::Shield;

/// Nothing is kept for later when less than this part of the memory is free.
const RESERVE: u64 = 8;
/// Bytes that programs take in a second at most.
const RATE: u64 = 8 << 30;
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Until the next look when all that could be given up has been.
const PAUSE_AFTER: Duration = Duration::from_millis(250);

/// Gives up what nobody has open whenever memory runs short, for ever.
pub fn watch(shield: &Shield) {
    loop {
        let pause = pause(memory()).unwrap_or_else(|| {
            shield.contents.release_idle(&shield.tree);
            PAUSE_AFTER
        });
        thread::sleep(pause);
    }
}

/// How long the memory surely suffices; `None` if it is short.
fn pause(room: Room) -> Option<Duration> {
    let spare = room.free.checked_sub(room.total / RESERVE)?;
    let pause = Duration::from_secs_f64(spare as f64 / RATE as f64);
    Some(pause.clamp(SHORTEST_PAUSE, LONGEST_PAUSE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_less_is_free_the_sooner_it_is_looked_at() {
        let total = 8 << 30;
        let pause = |free| {
            pause(Room {
                total,
                free,
                swap: 0,
            })
        };
        assert_eq!(pause((1 << 30) - 1), None);
        assert_eq!(pause(1 << 30), Some(SHORTEST_PAUSE));
        assert_eq!(pause(2 << 30), Some(Duration::from_millis(125)));
        assert_eq!(pause(5 << 30), Some(Duration::from_millis(500)));
        assert_eq!(pause(1 << 50), Some(LONGEST_PAUSE));
    }
}
