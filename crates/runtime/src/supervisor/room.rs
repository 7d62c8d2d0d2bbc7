//! How much room there is: the memory that the container may use.

use std::fs;

use crate::kernel::process;

/// Bytes of room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// All of it.
    pub total: u64,
    /// What is free, and what the kernel would free.
    pub free: u64,
    /// What may be free on the machine's disks for memory to go to.
    pub swap: u64,
}

impl Room {
    /// What can be had at most.
    pub fn obtainable(&self) -> u64 {
        self.free + self.swap
    }
}

/// A version of the kernel's groups, as the container sees its own: where the limit of its memory is, what it uses, of what kinds that is, and which of these
/// kinds are caches of disks.
struct Group {
    limit: &'static str,
    used: &'static str,
    kinds: &'static str,
    caches: [&'static str; 2],
}

const GROUPS: [Group; 2] = [
    Group {
        limit: "/sys/fs/cgroup/memory.max",
        used: "/sys/fs/cgroup/memory.current",
        kinds: "/sys/fs/cgroup/memory.stat",
        caches: ["active_file", "inactive_file"],
    },
    Group {
        limit: "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        used: "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        kinds: "/sys/fs/cgroup/memory/memory.stat",
        caches: ["total_active_file", "total_inactive_file"],
    },
];

/// The memory that the container may use: that of the machine, unless its group may use less.
pub fn memory() -> Room {
    let machine = of_machine(&fs::read_to_string("/proc/meminfo").unwrap_or_default());
    // A kernel whose text we can't read still says how much there is at all.
    let machine = machine.unwrap_or_else(|| Room {
        total: process::memory().total,
        free: process::memory().free,
        swap: 0,
    });
    let group = GROUPS.iter().find_map(|group| {
        let number = |path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
        let limit = number(group.limit)?;
        let kinds = fs::read_to_string(group.kinds).unwrap_or_default();
        let free = free_of_group(limit, number(group.used)?, &kinds, &group.caches);
        Some((limit, free))
    });
    group.map_or(machine, |(limit, free)| Room {
        total: machine.total.min(limit),
        free: machine.free.min(free),
        ..machine
    })
}

/// Bytes of verified contents that may be kept beyond what is open: a quarter of the memory that the container may use.
pub fn budget() -> u64 {
    memory().total / 4
}

/// By the lines `NAME: NUMBER kB` of `/proc/meminfo`.
fn of_machine(text: &str) -> Option<Room> {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let number: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(1024 * number)
    };
    Some(Room {
        total: field("MemTotal:")?,
        free: field("MemAvailable:")?,
        swap: field("SwapFree:").unwrap_or(0),
    })
}

/// What is free, by the limit and the use of a group and the lines `KIND NUMBER` of its `memory.stat`.
fn free_of_group(limit: u64, used: u64, kinds: &str, caches: &[&str]) -> u64 {
    let cached: u64 = kinds
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(kind, _)| caches.contains(kind))
        .filter_map(|(_, number)| number.parse::<u64>().ok())
        .sum();
    limit.saturating_sub(used.saturating_sub(cached))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_of_disks_are_free() {
        let text = "MemTotal:       24000 kB\nMemFree:          300 kB\nMemAvailable:   20000 kB\nSwapFree: 7 kB\n";
        let expected = Room {
            total: 24000 << 10,
            free: 20000 << 10,
            swap: 7 << 10,
        };
        assert_eq!(of_machine(text), Some(expected));
        assert_eq!(of_machine("MemTotal: 1 kB\n"), None);

        let kinds =
            "anon 100\nfile 700\nshmem 200\ninactive_anon 300\nactive_file 150\ninactive_file 350\n";
        assert_eq!(free_of_group(2000, 900, kinds, &GROUPS[0].caches), 1600);
        assert_eq!(free_of_group(2000, 2500, "", &GROUPS[0].caches), 0);
    }

    #[test]
    fn this_container_has_room() {
        let room = memory();
        assert!(0 < room.free && room.free <= room.total, "{room:?}");
        assert!(room.total <= process::memory().total);
    }
}
