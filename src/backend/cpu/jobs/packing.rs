//! Weights in the order in which a register tile reads them.

use crate::backend::cpu::layout::element::Element;

/// Rows of a panel: at least what a product has in registers at once.
pub const PANEL: usize = 16;

/// A matrix of `rows` × `depth` weights in panels of [`PANEL`] rows, for pieces of the depth:
/// `[depth / piece][rows / PANEL][piece][PANEL]`. Rows that fill the last panel are zero.
#[derive(Clone, Copy)]
pub struct Packing {
    pub rows: usize,
    pub depth: usize,
    pub piece: usize,
}

impl Packing {
    /// In one piece.
    pub fn whole(rows: usize, depth: usize) -> Self {
        Packing { rows, depth, piece: depth.max(1) }
    }

    /// Panels of one piece.
    fn panels(self) -> usize {
        self.rows.div_ceil(PANEL)
    }

    /// Elements of the packed matrix.
    pub fn len(self) -> usize {
        self.panels() * self.depth * PANEL
    }

    /// The pieces of the depth: where each begins, and its panels.
    pub fn pieces<A>(self, a: &[[A; PANEL]]) -> impl Iterator<Item = (usize, std::slice::ChunksExact<'_, [A; PANEL]>)> {
        (0..self.depth).step_by(self.piece).map(move |first| {
            let depth = self.piece.min(self.depth - first);
            (first, a[first * self.panels()..][..depth * self.panels()].chunks_exact(depth))
        })
    }

    /// Packs the matrix whose element in `row` and `column` is `at(row, column)`.
    pub fn pack<A: Element>(self, packed: &mut [A], at: impl Fn(usize, usize) -> A) {
        let mut panels = packed.as_chunks_mut::<PANEL>().0.iter_mut();
        for first in (0..self.depth).step_by(self.piece) {
            for row in (0..self.rows).step_by(PANEL) {
                for column in first..(first + self.piece).min(self.depth) {
                    let Some(to) = panels.next() else { return };
                    *to = std::array::from_fn(|i| if row + i < self.rows { at(row + i, column) } else { A::zero() });
                }
            }
        }
    }
}
