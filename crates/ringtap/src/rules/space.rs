//! Shared memory's room: which pieces of it are free.

use std::collections::{BTreeMap, HashMap};

/// Memory that is given out in pieces, each as late as possible after it was given back.
#[derive(Debug)]
pub(super) struct Space {
    end: usize,
    /// Lengths of the free pieces, by their starts; no two touch.
    free: BTreeMap<usize, usize>,
    /// Lengths of the pieces given out.
    taken: HashMap<usize, usize>,
    /// Where to look first.
    next: usize,
}

impl Space {
    pub(super) fn new(range: std::ops::Range<usize>) -> Self {
        let free = BTreeMap::from([(range.start, range.len())]);
        Self { end: range.end, free, taken: HashMap::new(), next: range.start }
    }

    pub(super) fn take(&mut self, len: usize) -> Option<usize> {
        let fits = |(start, room): (&usize, &usize)| (*room >= len).then_some(*start);
        let behind = self.free.range(self.next..).find_map(fits);
        let start = behind.or_else(|| self.free.iter().find_map(fits))?;
        self.take_at(start, len).then_some(start)
    }

    /// Takes a piece that is known; false where it is not free, or is none.
    pub(super) fn take_at(&mut self, start: usize, len: usize) -> bool {
        if len == 0 {
            return false;
        }
        let Some((&from, &room)) = self.free.range(..=start).next_back() else { return false };
        let Some(end) = start.checked_add(len).filter(|end| *end <= from + room) else { return false };
        self.free.remove(&from);
        if start > from {
            self.free.insert(from, start - from);
        }
        if from + room > end {
            self.free.insert(end, from + room - end);
        }
        self.taken.insert(start, len);
        self.next = if end >= self.end { 0 } else { end };
        true
    }

    /// The length of the piece that was given out from there on.
    pub(super) fn taken(&self, start: usize) -> Option<usize> {
        self.taken.get(&start).copied()
    }

    pub(super) fn give(&mut self, start: usize, len: usize) {
        self.taken.remove(&start);
        let (mut start, mut end) = (start, start + len);
        if let Some((&before, &room)) = self.free.range(..start).next_back()
            && before + room == start
        {
            self.free.remove(&before);
            start = before;
        }
        if let Some(room) = self.free.remove(&end) {
            end += room;
        }
        self.free.insert(start, end - start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_back_whole_and_late() {
        let mut space = Space::new(1..100);
        let first = space.take(30).unwrap();
        let second = space.take(30).unwrap();
        space.give(first, 30);
        assert_eq!(space.take(30), Some(61), "not the one that was just given back");
        assert_eq!(space.take(30), Some(1));
        assert_eq!(space.take(30), None);
        for start in [1, second, 61] {
            space.give(start, 30);
        }
        assert_eq!(space.free, BTreeMap::from([(1, 99)]));
        assert!(!space.take_at(90, 20));
        assert!(space.take_at(40, 20));
        assert!(!space.take_at(59, 1) && !space.take_at(1, 0));
    }
}
