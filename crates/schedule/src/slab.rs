//! Values at small numbers that are used again: a map without a search.

use std::ops::{Index, IndexMut};

/// Values by slot. A slot is valid from `insert` until `remove`, and then given out again.
#[derive(Clone, Debug)]
pub(crate) struct Slab<T> {
    values: Vec<Option<T>>,
    vacant: Vec<u32>,
}

/// The assertion behind every index: a slot that was removed is held nowhere.
const VACANT: &str = "no slot is used after it was removed";

impl<T> Slab<T> {
    pub(crate) fn new() -> Self {
        Self { values: Vec::new(), vacant: Vec::new() }
    }

    pub(crate) fn insert(&mut self, value: T) -> u32 {
        if let Some(slot) = self.vacant.pop() {
            self.values[slot as usize] = Some(value);
            return slot;
        }
        self.values.push(Some(value));
        crate::batch::to_u32(self.values.len() - 1)
    }

    pub(crate) fn remove(&mut self, slot: u32) -> Option<T> {
        let value = self.values[slot as usize].take();
        if value.is_some() {
            self.vacant.push(slot);
        }
        value
    }

    pub(crate) fn get(&self, slot: u32) -> Option<&T> {
        self.values.get(slot as usize)?.as_ref()
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len() - self.vacant.len()
    }

    /// In the order of slots.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..).zip(&self.values).filter_map(|(slot, value)| Some((slot, value.as_ref()?)))
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.values.iter_mut().flatten()
    }
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, slot: u32) -> &T {
        self.values[slot as usize].as_ref().expect(VACANT)
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, slot: u32) -> &mut T {
        self.values[slot as usize].as_mut().expect(VACANT)
    }
}
