//! Jobs by the moment that they wait for. Pure.
//!
//! They lie in one block. In a tree a hundred thousand of them are as many pieces, all over the heap, that keep whole pages
//! of what was freed around them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};

use job::JobId;
use job::time::Timestamp;

/// A job and its moment.
type Entry = (Timestamp, JobId);

#[derive(Debug, Default)]
pub(super) struct Timed {
    /// The first is never one of those that are out.
    entries: BinaryHeap<Reverse<Entry>>,
    /// Taken out, and still among the entries.
    out: HashSet<Entry>,
}

impl Timed {
    /// Of those there are, the first.
    pub(super) fn first(&self) -> Option<Entry> {
        self.entries.peek().map(|Reverse(entry)| *entry)
    }

    pub(super) fn insert(&mut self, entry: Entry) {
        if !self.out.remove(&entry) {
            self.entries.push(Reverse(entry));
        }
    }

    /// Takes out one that is there.
    pub(super) fn remove(&mut self, entry: Entry) {
        self.out.insert(entry);
        while let Some(first) = self.first()
            && self.out.remove(&first)
        {
            self.entries.pop();
        }
        if self.out.len() > self.entries.len() / 2 {
            let out = std::mem::take(&mut self.out);
            self.entries.retain(|Reverse(entry)| !out.contains(entry));
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.out.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set_in_order(steps in prop::collection::vec((any::<bool>(), 0..6_i64, 0..4_u8), 0..200)) {
            let (mut timed, mut model) = (Timed::default(), BTreeSet::new());
            for (comes, at, job) in steps {
                let entry = (Timestamp::from_micros(at), JobId::from_bytes([job; 16]));
                if comes && model.insert(entry) {
                    timed.insert(entry);
                } else if !comes && model.remove(&entry) {
                    timed.remove(entry);
                }
                prop_assert_eq!(timed.first(), model.first().copied());
                prop_assert_eq!(timed.entries.len() - timed.out.len(), model.len());
            }
            while let Some(first) = timed.first() {
                timed.remove(first);
            }
            prop_assert!(timed.is_empty());
        }
    }
}
