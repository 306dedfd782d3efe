//! Memory for cells: zeroed by the system, and in line with its cache lines.

use std::ops::{Deref, DerefMut};

use crate::lanes::Element;

/// How many bytes a cache line has, or half of one: rows of keys start on it.
const LINE_BYTES: usize = 64;

/// So many cells, the first on a cache line.
#[derive(Debug)]
pub(crate) struct Cells<E> {
    memory: Vec<E>,
    start: usize,
    count: usize,
}

impl<E: Element> Cells<E> {
    /// All zero; `None` where there is not that much memory.
    pub(crate) fn zeroed(count: usize) -> Option<Self> {
        let spare = LINE_BYTES / size_of::<E>();
        let all = count.checked_add(spare)?;
        // Asked first, because `vec!` ends the program where memory ends. The request that follows
        // goes to the system as a request for zeros, so untouched pages cost nothing.
        Vec::<E>::new().try_reserve_exact(all).ok()?;
        let memory = vec![E::ZERO; all];
        let start = memory.as_ptr().align_offset(LINE_BYTES).min(spare);
        Some(Self { memory, start, count })
    }
}

impl<E: Element> Clone for Cells<E> {
    fn clone(&self) -> Self {
        let mut memory = vec![E::ZERO; self.memory.len()];
        let start = memory.as_ptr().align_offset(LINE_BYTES).min(memory.len() - self.count);
        memory[start..start + self.count].copy_from_slice(self);
        Self { memory, start, count: self.count }
    }
}

impl<E> Deref for Cells<E> {
    type Target = [E];

    #[inline(always)]
    fn deref(&self) -> &[E] {
        &self.memory[self.start..self.start + self.count]
    }
}

impl<E> DerefMut for Cells<E> {
    fn deref_mut(&mut self) -> &mut [E] {
        &mut self.memory[self.start..self.start + self.count]
    }
}

/// One head of one page.
#[derive(Clone, Copy)]
pub(crate) struct HeadCells<'a, E> {
    /// `[key_size][PAGE_LEN]`
    pub(crate) keys: &'a [E],
    /// `[PAGE_LEN][value_stride]`
    pub(crate) values: &'a [E],
    /// For each position the scale of its key, and of its value.
    pub(crate) scales: Option<[&'a [f32]; 2]>,
}
