//! The tree against a sorted map.

use std::collections::BTreeMap;
use std::sync::Mutex;

use proptest::prelude::*;

use super::*;
use crate::error::VolumeError;
use crate::node::Kind;

/// Sealed nodes with a counter as the tag: a node must be asked for with the tag that it got last.
#[derive(Default)]
struct Sealed(Mutex<BTreeMap<u64, (Tag, Vec<u8>)>>);

impl Sealed {
    fn seal(&self, tree: &mut Tree, round: u64) {
        let mut sealed = self.0.lock().unwrap();
        for id in tree.take_freed() {
            sealed.remove(&id);
        }
        tree.seal(&mut |id, node| {
            let mut tag = [0; 16];
            tag[..8].copy_from_slice(&round.to_le_bytes());
            tag[8..].copy_from_slice(&id.to_le_bytes());
            sealed.insert(id, (tag, node.encode()));
            tag
        });
    }
}

impl Nodes for Sealed {
    fn load(&self, link: &Link, level: u8) -> Result<Arc<Node>> {
        let sealed = self.0.lock().unwrap();
        let (tag, bytes) = sealed
            .get(&link.id)
            .ok_or_else(|| VolumeError::forged(link.id, "missing"))?;
        assert_eq!(*tag, link.tag, "node {}", link.id);
        let node = Node::decode(bytes)?;
        assert_eq!(node.level(), level);
        Ok(Arc::new(node))
    }
}

fn key(number: u16) -> Key {
    Key::new(u64::from(number % 7), Kind::Entry, u64::from(number))
}

fn records(
    tree: &Tree,
    nodes: &Sealed,
    range: RangeInclusive<Key>,
    reverse: bool,
) -> Vec<(Key, Vec<u8>)> {
    let mut found = Vec::new();
    tree.scan(nodes, range, reverse, &mut |key, value| {
        found.push((key, value.to_vec()));
        ControlFlow::Continue(())
    })
    .unwrap();
    found
}

#[derive(Clone, Debug)]
enum Step {
    Put(u16, usize),
    Remove(u16),
    RemoveRange(u16, u16),
    Seal,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..600_u16, 0..300_usize).prop_map(|(key, length)| Step::Put(key, length)),
        2 => (0..600_u16, Just(MAX_VALUE)).prop_map(|(key, length)| Step::Put(key, length)),
        5 => (0..600_u16).prop_map(Step::Remove),
        1 => (0..600_u16, 0..300_u16).prop_map(|(first, count)| Step::RemoveRange(first, count)),
        1 => Just(Step::Seal),
    ];
    proptest::collection::vec(step, 1..400)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_tree_is_a_sorted_map(steps in steps(), from in 0..600_u16, to in 0..600_u16) {
        let (nodes, mut tree, mut model) = (Sealed::default(), Tree::empty(), BTreeMap::new());
        for (round, step) in steps.into_iter().enumerate() {
            match step {
                Step::Put(number, length) => {
                    let value = vec![round as u8; length];
                    tree.put(&nodes, key(number), &value).unwrap();
                    model.insert(key(number), value);
                }
                Step::Remove(number) => {
                    let removed = tree.remove(&nodes, key(number)).unwrap();
                    prop_assert_eq!(removed, model.remove(&key(number)).is_some());
                }
                Step::RemoveRange(first, count) => {
                    for number in first..first + count {
                        let removed = tree.remove(&nodes, key(number)).unwrap();
                        prop_assert_eq!(removed, model.remove(&key(number)).is_some());
                    }
                }
                Step::Seal => nodes.seal(&mut tree, round as u64),
            }
        }
        nodes.seal(&mut tree, 100_000);
        let tree = Tree::open(tree.root(), tree.level(), tree.next());
        let everything = Key::new(0, Kind::Attributes, 0)..=Key::new(u64::MAX, Kind::History, u64::MAX);
        let expected = model.clone().into_iter().collect::<Vec<_>>();
        prop_assert_eq!(records(&tree, &nodes, everything, false), expected);
        let range = key(from).min(key(to))..=key(from).max(key(to));
        let mut expected = model.range(range.clone()).map(|(key, value)| (*key, value.clone())).collect::<Vec<_>>();
        prop_assert_eq!(records(&tree, &nodes, range.clone(), false), expected.clone());
        expected.reverse();
        prop_assert_eq!(records(&tree, &nodes, range, true), expected);
        // Every sealed node is in the tree: nothing leaks.
        let mut reachable = vec![(tree.root(), tree.level())];
        let mut count = 0;
        while let Some((link, level)) = reachable.pop() {
            count += 1;
            if let Node::Inner(_, children) = &*nodes.load(&link, level).unwrap() {
                reachable.extend(children.iter().map(|(_, link)| (*link, level - 1)));
            }
        }
        prop_assert_eq!(count, nodes.0.lock().unwrap().len());
    }
}

#[test]
fn three_levels_are_filled_and_emptied_in_any_order() {
    const RECORDS: u64 = 60_000;
    // Steps of a number without a common divisor visit every key once.
    let key = |number: u64| Key::new(9, Kind::Chunk, number * 7_919 % RECORDS);
    let (nodes, mut tree) = (Sealed::default(), Tree::empty());
    for number in 0..RECORDS {
        tree.put(&nodes, key(number), &number.to_le_bytes())
            .unwrap();
        if number % 20_000 == 0 {
            nodes.seal(&mut tree, number);
        }
    }
    assert_eq!(tree.level(), 2);
    for number in 0..RECORDS {
        let value = tree.get(&nodes, key(number)).unwrap();
        assert_eq!(value.as_deref(), Some(number.to_le_bytes().as_slice()));
    }
    for number in 0..RECORDS {
        assert!(tree.remove(&nodes, key(number * 31)).unwrap());
        if number % 20_000 == 0 {
            nodes.seal(&mut tree, RECORDS + number);
        }
    }
    nodes.seal(&mut tree, 3 * RECORDS);
    assert_eq!((tree.level(), nodes.0.lock().unwrap().len()), (0, 1));
}
