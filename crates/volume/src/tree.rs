//! The tree of records: a B+ tree whose nodes are encrypted rows, each authenticated by the tag that its parent keeps.
//!
//! Changes are made in memory, on nodes that are *dirty*; [`Tree::seal`] encrypts them from the leaves upwards, which
//! gives the new root link. Memory is bounded by whoever seals often enough.

use std::collections::HashMap;
use std::ops::{ControlFlow, RangeInclusive};
use std::sync::Arc;

use crate::error::Result;
use crate::node::{Key, Link, Node, MAX_VALUE, NODE_SIZE};
use crate::seal::Tag;

/// Below this size a node is merged with a neighbour.
const SMALL: usize = NODE_SIZE / 4;

/// Where nodes come from that are not dirty.
pub(crate) trait Nodes {
    /// Returns the authenticated node behind a link.
    ///
    /// # Errors
    /// If the node is missing, is not authentic, is of another level, or can't be read.
    fn load(&self, link: &Link, level: u8) -> Result<Arc<Node>>;
}

pub(crate) struct Tree {
    root: Link,
    level: u8,
    next: u64,
    dirty: HashMap<u64, Arc<Node>>,
    freed: Vec<u64>,
}

impl Tree {
    /// A tree without records.
    pub(crate) fn empty() -> Self {
        let mut tree = Self::open(
            Link {
                id: 0,
                tag: Tag::default(),
            },
            0,
            1,
        );
        tree.dirty.insert(0, Arc::new(Node::Leaf(Vec::new())));
        tree
    }

    /// The tree under an authenticated link; `next` is the number of the next new node.
    pub(crate) fn open(root: Link, level: u8, next: u64) -> Self {
        Self {
            root,
            level,
            next,
            dirty: HashMap::new(),
            freed: Vec::new(),
        }
    }

    pub(crate) fn root(&self) -> Link {
        self.root
    }

    pub(crate) fn level(&self) -> u8 {
        self.level
    }

    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// How many nodes wait to be sealed.
    pub(crate) fn dirty(&self) -> usize {
        self.dirty.len()
    }

    /// Takes the numbers of the nodes that are no longer in the tree.
    pub(crate) fn take_freed(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.freed)
    }

    /// Returns the value of a record.
    pub(crate) fn get(&self, nodes: &dyn Nodes, key: Key) -> Result<Option<Box<[u8]>>> {
        let (mut link, mut level) = (self.root, self.level);
        loop {
            match &*self.node(nodes, &link, level)? {
                Node::Leaf(records) => {
                    let found = records.binary_search_by_key(&key, |(key, _)| *key);
                    return Ok(found.ok().map(|index| records[index].1.clone()));
                }
                Node::Inner(_, children) => {
                    link = children[child_index(children, key)].1;
                    level -= 1;
                }
            }
        }
    }

    /// Visits the records of a range in their order, or in the opposite one, until `visit` breaks.
    pub(crate) fn scan(
        &self,
        nodes: &dyn Nodes,
        range: RangeInclusive<Key>,
        reverse: bool,
        visit: &mut dyn FnMut(Key, &[u8]) -> ControlFlow<()>,
    ) -> Result<()> {
        self.scan_node(nodes, &self.root, self.level, &range, reverse, visit)
            .map(drop)
    }

    /// Visits all nodes, those above first; a node that can't be loaded is visited as its failure.
    pub(crate) fn walk(&self, nodes: &dyn Nodes, visit: &mut dyn FnMut(&Link, Result<Arc<Node>>)) {
        let mut left = vec![(self.root, self.level)];
        while let Some((link, level)) = left.pop() {
            let node = self.node(nodes, &link, level);
            if let Ok(Node::Inner(_, children)) = node.as_deref() {
                left.extend(children.iter().map(|(_, link)| (*link, level - 1)));
            }
            visit(&link, node);
        }
    }

    fn scan_node(
        &self,
        nodes: &dyn Nodes,
        link: &Link,
        level: u8,
        range: &RangeInclusive<Key>,
        reverse: bool,
        visit: &mut dyn FnMut(Key, &[u8]) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let node = self.node(nodes, link, level)?;
        match &*node {
            Node::Leaf(records) => {
                let first = records.partition_point(|(key, _)| key < range.start());
                let end = records.partition_point(|(key, _)| key <= range.end());
                let found = &records[first..end.max(first)];
                let mut visit = |(key, value): &(Key, Box<[u8]>)| visit(*key, value);
                Ok(if reverse {
                    found.iter().rev().try_for_each(&mut visit)
                } else {
                    found.iter().try_for_each(&mut visit)
                })
            }
            Node::Inner(_, children) => {
                let first = child_index(children, *range.start());
                let end = children.partition_point(|(key, _)| key <= range.end());
                let mut found = (first..end.max(first + 1)).collect::<Vec<_>>();
                if reverse {
                    found.reverse();
                }
                for index in found {
                    let link = &children[index].1;
                    let flow = self.scan_node(nodes, link, level - 1, range, reverse, visit)?;
                    if flow.is_break() {
                        return Ok(flow);
                    }
                }
                Ok(ControlFlow::Continue(()))
            }
        }
    }

    /// Reads all nodes that changes of these records need, so that the changes can't fail half-way.
    pub(crate) fn prepare(&mut self, nodes: &dyn Nodes, keys: &[Key]) -> Result<()> {
        keys.iter()
            .try_for_each(|key| self.edit_path(nodes, *key).map(drop))
    }

    /// Adds a record or replaces its value. On failure nothing has changed.
    pub(crate) fn put(&mut self, nodes: &dyn Nodes, key: Key, value: &[u8]) -> Result<()> {
        debug_assert!(value.len() <= MAX_VALUE);
        let path = self.edit_path(nodes, key)?;
        let leaf = *path.last().expect("a path has a leaf");
        let Node::Leaf(records) = self.dirty_node(leaf) else {
            unreachable!("paths end at leaves")
        };
        match records.binary_search_by_key(&key, |(key, _)| *key) {
            Ok(index) => records[index].1 = value.into(),
            Err(index) => records.insert(index, (key, value.into())),
        }
        for depth in (0..path.len()).rev() {
            if self.dirty[&path[depth]].size() <= NODE_SIZE {
                break;
            }
            let left = self.dirty_node(path[depth]);
            let right = left.split();
            let left_key = left.first_key().expect("halves are not empty");
            let key = right.first_key().expect("halves are not empty");
            let link = self.add(right);
            if depth == 0 {
                self.grow(key, link);
            } else {
                let Node::Inner(_, children) = self.dirty_node(path[depth - 1]) else {
                    unreachable!("parents are inner nodes")
                };
                // A first child has keys before its own too; now that it has a neighbour, its key must tell.
                let left = child_index(children, key);
                children[left].0 = children[left].0.min(left_key);
                children.insert(left + 1, (key, link));
            }
        }
        Ok(())
    }

    /// Removes a record if it is there; returns whether it was. On failure nothing has changed.
    pub(crate) fn remove(&mut self, nodes: &dyn Nodes, key: Key) -> Result<bool> {
        if self.get(nodes, key)?.is_none() {
            return Ok(false);
        }
        let path = self.edit_path(nodes, key)?;
        let leaf = *path.last().expect("a path has a leaf");
        let Node::Leaf(records) = self.dirty_node(leaf) else {
            unreachable!("paths end at leaves")
        };
        records.retain(|(other, _)| *other != key);
        for depth in (1..path.len()).rev() {
            if self.dirty[&path[depth]].size() >= SMALL {
                break;
            }
            // A neighbour that can't be read stays alone: small nodes are no error.
            let _ = self.merge(nodes, path[depth - 1], path[depth]);
        }
        // A root with one child is none: the child takes its place.
        while let Some(Node::Inner(level, children)) =
            self.dirty.get(&self.root.id).map(|root| &**root)
        {
            let [(_, only)] = children[..] else { break };
            self.level = level - 1;
            self.discard(self.root.id);
            self.root = only;
        }
        Ok(true)
    }

    /// Encrypts all dirty nodes through `seal`, which stores a node under its number and returns its tag.
    pub(crate) fn seal(&mut self, seal: &mut dyn FnMut(u64, &Arc<Node>) -> Tag) {
        if self.dirty.contains_key(&self.root.id) {
            self.root.tag = self.seal_node(self.root.id, seal);
        }
        debug_assert!(self.dirty.is_empty());
    }

    fn seal_node(&mut self, id: u64, seal: &mut dyn FnMut(u64, &Arc<Node>) -> Tag) -> Tag {
        let mut node = self.dirty.remove(&id).expect("only dirty nodes are sealed");
        if let Node::Inner(_, children) = &*node {
            let dirty = children
                .iter()
                .enumerate()
                .filter(|(_, (_, link))| self.dirty.contains_key(&link.id))
                .map(|(index, (_, link))| (index, link.id))
                .collect::<Vec<_>>();
            for (index, child) in dirty {
                let tag = self.seal_node(child, seal);
                if let Node::Inner(_, children) = Arc::make_mut(&mut node) {
                    children[index].1.tag = tag;
                }
            }
        }
        seal(id, &node)
    }

    fn node(&self, nodes: &dyn Nodes, link: &Link, level: u8) -> Result<Arc<Node>> {
        match self.dirty.get(&link.id) {
            Some(node) => Ok(Arc::clone(node)),
            None => nodes.load(link, level),
        }
    }

    /// Makes all nodes on the way to a key dirty and returns their numbers, the root first.
    fn edit_path(&mut self, nodes: &dyn Nodes, key: Key) -> Result<Vec<u64>> {
        let mut path = Vec::with_capacity(usize::from(self.level) + 1);
        let (mut link, mut level) = (self.root, self.level);
        loop {
            let node = self.edit(nodes, &link, level)?;
            path.push(link.id);
            let Node::Inner(_, children) = &*node else {
                return Ok(path);
            };
            link = children[child_index(children, key)].1;
            level -= 1;
        }
    }

    fn edit(&mut self, nodes: &dyn Nodes, link: &Link, level: u8) -> Result<Arc<Node>> {
        let node = self.node(nodes, link, level)?;
        self.dirty
            .entry(link.id)
            .or_insert_with(|| Arc::clone(&node));
        Ok(node)
    }

    fn dirty_node(&mut self, id: u64) -> &mut Node {
        Arc::make_mut(self.dirty.get_mut(&id).expect("the node is dirty"))
    }

    fn add(&mut self, node: Node) -> Link {
        let id = self.next;
        self.next += 1;
        self.dirty.insert(id, Arc::new(node));
        Link {
            id,
            tag: Tag::default(),
        }
    }

    fn discard(&mut self, id: u64) {
        self.dirty.remove(&id);
        self.freed.push(id);
    }

    /// Puts a new root above the old one and its new neighbour.
    fn grow(&mut self, key: Key, right: Link) {
        let first = self.dirty[&self.root.id]
            .first_key()
            .expect("a node that was split is not empty");
        self.level += 1;
        let children = vec![(first, self.root), (key, right)];
        self.root = self.add(Node::Inner(self.level, children));
    }

    /// Joins a small child with a neighbour if both fit into one node with room to spare.
    fn merge(&mut self, nodes: &dyn Nodes, parent: u64, child: u64) -> Result<()> {
        let Node::Inner(level, children) = &*self.dirty[&parent] else {
            unreachable!("parents are inner nodes")
        };
        let (level, position) = (
            *level - 1,
            children
                .iter()
                .position(|(_, link)| link.id == child)
                .expect("the path leads through the parent"),
        );
        if self.dirty[&child].len() == 0 && children.len() > 1 {
            self.discard(child);
            self.remove_child(parent, position);
            return Ok(());
        }
        let left = position.saturating_sub(1);
        if left + 1 >= children.len() {
            return Ok(());
        }
        let (left_link, (right_key, right_link)) = (children[left].1, children[left + 1]);
        let other = if left == position {
            &right_link
        } else {
            &left_link
        };
        let other = self.node(nodes, other, level)?;
        if other.size() + self.dirty[&child].size() > NODE_SIZE / 4 * 3 {
            return Ok(());
        }
        self.edit(nodes, &left_link, level)?;
        let mut right = self.node(nodes, &right_link, level)?;
        if let Node::Inner(_, children) = Arc::make_mut(&mut right) {
            // It will be no first child any more, so its key must be below all that it has.
            children[0].0 = right_key;
        }
        self.dirty_node(left_link.id).append(&right);
        self.discard(right_link.id);
        self.remove_child(parent, left + 1);
        Ok(())
    }

    fn remove_child(&mut self, parent: u64, position: usize) {
        let Node::Inner(_, children) = self.dirty_node(parent) else {
            unreachable!("parents are inner nodes")
        };
        children.remove(position);
    }
}

/// The child that holds a key.
fn child_index(children: &[(Key, Link)], key: Key) -> usize {
    children
        .partition_point(|(first, _)| *first <= key)
        .saturating_sub(1)
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
