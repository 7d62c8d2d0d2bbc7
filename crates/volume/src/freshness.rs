//! Is the state on disk the newest one?
//!
//! The policy service records one [`State`] per volume: the newest that the runtime reported. The database is the
//! host's, who may put back any state that ever was. [`judge`] compares the two; it does no I/O. The rules, and what a
//! host gains by each replay, stand in `docs/decisions/0007-volume-freshness.md`:
//!
//! * the recorded state itself is accepted;
//! * a *successor*, a state whose authenticated history holds the recorded one, is accepted where the caller says so
//!   ([`Accept::Successors`]): a service that ended between a local commit and its report leaves one;
//! * everything else is refused, and [`Stale`] says whether it is older, forked or foreign.

use std::fmt;

use crate::keys::VolumeId;

/// One state of a volume: commits are counted, and each has a root that binds all content and history.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct State {
    /// The number of the commit; a new volume has 1.
    pub counter: u64,
    /// The Merkle root. Not a secret.
    pub root: [u8; 32],
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.counter)?;
        self.root
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "State({self})")
    }
}

/// What the caller knows of the state in which the volume must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expected {
    /// No state was recorded yet. Only a volume that nobody used is accepted: one whose counter is 1.
    Unused,
    /// This state was recorded.
    Recorded {
        /// The newest state that the policy service knows.
        state: State,
        /// The volume's name, if it was recorded too; another volume is then called foreign.
        volume: Option<VolumeId>,
        /// Which states other than the recorded one may be used.
        accept: Accept,
    },
    /// The owner named this root, and no state was recorded yet: a volume that was imported. Its counter is not known.
    Initial {
        /// The root.
        root: [u8; 32],
    },
    /// Whatever authenticates under the key: no protection from rollback, or the owner's explicit will.
    Any,
}

/// Which states are accepted other than the recorded one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Accept {
    /// None.
    Exact,
    /// Authenticated successors: what a service left that ended before its last report.
    Successors,
}

/// How an accepted state stands to the recorded one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Accepted {
    /// It is the recorded one, or none was recorded and the volume is unused.
    Same,
    /// It is that many commits newer.
    Successor(u64),
    /// It was compared with nothing.
    Unchecked,
}

/// Why a state is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stale {
    /// The counter is below the recorded one: an old copy was put back.
    Older {
        /// The counter on disk.
        found: u64,
        /// The recorded one.
        expected: u64,
    },
    /// The recorded state is not in the history of this one: the volume was copied and both copies were used.
    Forked {
        /// The counter on disk.
        found: u64,
        /// The recorded one.
        expected: u64,
    },
    /// The state is newer by more commits than its history tells.
    Unknown {
        /// The counter on disk.
        found: u64,
        /// The recorded one.
        expected: u64,
    },
    /// The state is a successor, and the caller accepts none.
    Newer {
        /// The counter on disk.
        found: u64,
        /// The recorded one.
        expected: u64,
    },
    /// The root is not the one that the owner named, nor is that one of the latest in its history.
    NotInitial {
        /// The counter on disk.
        found: u64,
    },
    /// The volume was used although no state was recorded.
    Unrecorded {
        /// The counter on disk.
        found: u64,
    },
    /// It is another volume.
    Foreign {
        /// The name of the volume on disk.
        found: VolumeId,
        /// The recorded name.
        expected: VolumeId,
    },
    /// The volume key does not open it.
    ForeignKey {
        /// The name of the volume on disk.
        found: VolumeId,
    },
}

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Older { found, expected } => write!(
                f,
                "it is older: got commit {found}, expected {expected}"
            ),
            Self::Forked { found, expected } => write!(
                f,
                "it is forked: its history (now at commit {found}) has another commit {expected} than was recorded; \
                 two copies of the volume were used"
            ),
            Self::Unknown { found, expected } => write!(
                f,
                "it is forked or too new: its history, now at commit {found}, does not reach back to the recorded \
                 commit {expected}"
            ),
            Self::Newer { found, expected } => write!(
                f,
                "it is newer: got commit {found}, expected exactly the recorded commit {expected}"
            ),
            Self::NotInitial { found } => write!(
                f,
                "it is older, forked or foreign: its root at commit {found} is not the one that its owner named"
            ),
            Self::Unrecorded { found } => write!(
                f,
                "it was used before: got commit {found}, but no state of it is recorded"
            ),
            Self::Foreign { found, expected } => {
                write!(f, "it is foreign: got volume {found}, expected {expected}")
            }
            Self::ForeignKey { found } => write!(
                f,
                "it is foreign: the key does not open volume {found}; it is another volume's database, another \
                 volume's key, or the header was changed"
            ),
        }
    }
}

/// What the history of an authenticated state says of an earlier commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ancestor {
    Known([u8; 32]),
    Forgotten,
}

/// Decides whether an authenticated state may be used.
///
/// `recent` are the roots of the commits before `found`, the newest last. `ancestor` tells the root of any earlier commit of
/// the same history; it is asked at most once, for a counter below that of `found`.
///
/// # Errors
/// What `ancestor` fails with, or the reason of the refusal.
pub(crate) fn judge<E: From<Stale>>(
    volume: VolumeId,
    found: State,
    expected: &Expected,
    recent: &[[u8; 32]],
    ancestor: impl FnOnce(u64) -> Result<Ancestor, E>,
) -> Result<Accepted, E> {
    let (state, accept) = match expected {
        Expected::Any => return Ok(Accepted::Unchecked),
        Expected::Initial { root } => {
            let newer = recent
                .iter()
                .rev()
                .position(|earlier| earlier == root)
                .map(|distance| Accepted::Successor(distance as u64 + 1));
            let same = (found.root == *root).then_some(Accepted::Same);
            let found = found.counter;
            return same
                .or(newer)
                .ok_or_else(|| Stale::NotInitial { found }.into());
        }
        Expected::Unused if found.counter == 1 => return Ok(Accepted::Same),
        Expected::Unused => {
            return Err(Stale::Unrecorded {
                found: found.counter,
            }
            .into())
        }
        Expected::Recorded {
            state,
            volume: recorded,
            accept,
        } => {
            if let Some(expected) = recorded.filter(|recorded| *recorded != volume) {
                return Err(Stale::Foreign {
                    found: volume,
                    expected,
                }
                .into());
            }
            (state, accept)
        }
    };
    let (found, expected, same) = (found.counter, state.counter, found == *state);
    if same {
        return Ok(Accepted::Same);
    }
    if found < expected {
        return Err(Stale::Older { found, expected }.into());
    }
    if found == expected {
        return Err(Stale::Forked { found, expected }.into());
    }
    match ancestor(expected)? {
        Ancestor::Forgotten => Err(Stale::Unknown { found, expected }.into()),
        Ancestor::Known(root) if root != state.root => {
            Err(Stale::Forked { found, expected }.into())
        }
        Ancestor::Known(_) if *accept == Accept::Exact => {
            Err(Stale::Newer { found, expected }.into())
        }
        Ancestor::Known(_) => Ok(Accepted::Successor(found - expected)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOLUME: VolumeId = VolumeId::new([1; 16]);

    fn state(counter: u64, root: u8) -> State {
        State {
            counter,
            root: [root; 32],
        }
    }

    fn recorded(counter: u64, root: u8, accept: Accept) -> Expected {
        Expected::Recorded {
            state: state(counter, root),
            volume: Some(VOLUME),
            accept,
        }
    }

    /// The history of `found`: commit 5 has root 5 and so on; nothing before 3 is remembered.
    fn verdict(found: State, expected: Expected) -> Result<Accepted, Stale> {
        let recent = [[5; 32], [6; 32]];
        judge(VOLUME, found, &expected, &recent, |counter| {
            assert!(counter < found.counter);
            Ok(if counter < 3 {
                Ancestor::Forgotten
            } else {
                Ancestor::Known([counter as u8; 32])
            })
        })
    }

    #[test]
    fn every_relation_has_its_verdict() {
        use Accept::{Exact, Successors};
        let (found, expected) = (7, 5);
        let cases = [
            (state(7, 7), recorded(7, 7, Exact), Ok(Accepted::Same)),
            (
                state(7, 7),
                recorded(5, 5, Successors),
                Ok(Accepted::Successor(2)),
            ),
            (
                state(7, 7),
                recorded(5, 5, Exact),
                Err(Stale::Newer { found, expected }),
            ),
            (
                state(7, 7),
                recorded(5, 6, Successors),
                Err(Stale::Forked { found, expected }),
            ),
            (
                state(7, 7),
                recorded(7, 8, Successors),
                Err(Stale::Forked { found, expected: 7 }),
            ),
            (
                state(7, 7),
                recorded(2, 2, Successors),
                Err(Stale::Unknown { found, expected: 2 }),
            ),
            (
                state(7, 7),
                recorded(8, 8, Successors),
                Err(Stale::Older { found, expected: 8 }),
            ),
            (state(1, 1), Expected::Unused, Ok(Accepted::Same)),
            (
                state(2, 2),
                Expected::Unused,
                Err(Stale::Unrecorded { found: 2 }),
            ),
            (state(2, 2), Expected::Any, Ok(Accepted::Unchecked)),
            (
                state(7, 7),
                Expected::Initial { root: [7; 32] },
                Ok(Accepted::Same),
            ),
            (
                state(7, 7),
                Expected::Initial { root: [5; 32] },
                Ok(Accepted::Successor(2)),
            ),
            (
                state(7, 7),
                Expected::Initial { root: [8; 32] },
                Err(Stale::NotInitial { found: 7 }),
            ),
        ];
        for (found, expected, verdict_expected) in cases {
            assert_eq!(
                verdict(found, expected),
                verdict_expected,
                "{found} {expected:?}"
            );
        }
    }

    #[test]
    fn another_volume_is_foreign_whatever_its_counter() {
        let expected = Expected::Recorded {
            state: state(7, 7),
            volume: Some(VolumeId::new([2; 16])),
            accept: Accept::Successors,
        };
        let refused = verdict(state(7, 7), expected).unwrap_err();
        assert!(matches!(refused, Stale::Foreign { .. }));
        assert!(refused.to_string().contains(&"02".repeat(16)));
    }
}
