//! How a matrix is cut into pieces that threads compute.

use std::ops::Range;

/// A piece of a matrix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Which rows.
    pub rows: Range<usize>,
    /// Which columns.
    pub columns: Range<usize>,
}

/// A matrix cut along rows and columns: every element lies in one tile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tiles {
    rows: Vec<Range<usize>>,
    columns: Vec<Range<usize>>,
    row_len: usize,
}

impl Tiles {
    /// Rows in pieces of at most `row_len`; columns in parts that are given by their lengths, each
    /// in pieces of at most `column_len`, which begin at a multiple of it.
    pub fn new(row_count: usize, row_len: usize, parts: &[usize], column_len: usize) -> Self {
        let mut columns = Vec::new();
        let mut start = 0;
        for part in parts {
            cut(start..start + part, column_len, &mut columns);
            start += part;
        }
        let mut rows = Vec::new();
        cut(0..row_count, row_len, &mut rows);
        Self { rows, columns, row_len: row_len.max(1) }
    }

    /// Pieces of rows and of columns that somebody else cut: each list without gaps from 0.
    ///
    /// # Panics
    ///
    /// If there are gaps.
    pub fn of(rows: Vec<Range<usize>>, columns: Vec<Range<usize>>) -> Self {
        let follows = |pieces: &[Range<usize>]| {
            pieces.first().is_none_or(|first| first.start == 0)
                && pieces.windows(2).all(|pair| pair[0].end == pair[1].start)
        };
        assert!(follows(&rows) && follows(&columns), "pieces follow each other without gaps");
        Self { rows, columns, row_len: 1 }
    }

    /// Rows in every piece but the last.
    pub fn row_len(&self) -> usize {
        self.row_len
    }

    /// Pieces that the rows are cut into.
    pub fn row_pieces(&self) -> usize {
        self.rows.len()
    }

    /// How many tiles there are.
    pub fn len(&self) -> usize {
        self.rows.len() * self.columns.len()
    }

    /// Whether there is nothing to compute.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Columns of the whole matrix.
    pub fn column_count(&self) -> usize {
        self.columns.last().map_or(0, |last| last.end)
    }

    /// Rows of the whole matrix.
    pub fn row_count(&self) -> usize {
        self.rows.last().map_or(0, |last| last.end)
    }

    /// Elements of the whole matrix.
    pub fn value_count(&self) -> usize {
        self.row_count() * self.column_count()
    }

    /// A tile. Tiles of the same rows follow each other.
    ///
    /// # Panics
    ///
    /// If there are not as many.
    pub fn get(&self, index: usize) -> Tile {
        let (row, column) = (index / self.columns.len(), index % self.columns.len());
        Tile { rows: self.rows[row].clone(), columns: self.columns[column].clone() }
    }
}

fn cut(range: Range<usize>, len: usize, pieces: &mut Vec<Range<usize>>) {
    let len = len.max(1);
    let mut start = range.start;
    while start < range.end {
        let end = range.end.min(start + len);
        pieces.push(start..end);
        start = end;
    }
}
