//! Selection of what to keep, and the variables of ADMM.

use super::Memory;

/// Euclidean norms of an ADMM update.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Residuals {
    /// `‖w - z‖` with the new `z`.
    pub primal: f64,
    /// `‖z - z_old‖`.
    pub dual: f64,
    /// `‖w‖`.
    pub weight: f64,
}

/// A parameter with ADMM's variables.
pub struct AdmmParam<'a, Buf> {
    /// Mask of the elements of `w + u` that the projection keeps.
    pub mask: &'a Buf,
    /// Weight.
    pub w: &'a Buf,
    /// Its projection.
    pub z: &'a mut Buf,
    /// `w + u` before the update, the new scaled dual variable after it.
    pub u: &'a mut Buf,
}

/// Selection of what to keep, and ADMM's variables; on plain buffers. A mask is 1 where something is kept and 0 where
/// it is removed.
pub trait Prune: Memory {
    /// Euclidean norm of each of `rows` rows, over all `members` together; each member is `rows` × columns of its own.
    fn row_norms(&self, rows: usize, members: &[&Self::Buf]) -> Self::Buf;
    /// Euclidean norm of each of the `cols` columns of `x`.
    fn column_norms(&self, cols: usize, x: &Self::Buf) -> Self::Buf;
    /// For each `(k, x)` the mask of the `k` largest magnitudes of `x`, among equal ones those of the lowest indices; `None`
    /// where there is a NaN.
    fn top_k_masks(&self, selections: &[(usize, &Self::Buf)]) -> Vec<Option<Self::Buf>>;
    /// Mask of `rows` × `cols` elements from one of the rows.
    fn broadcast_rows(&self, rows: usize, cols: usize, mask: &Self::Buf) -> Self::Buf;
    /// Mask of `rows` × `cols` elements from one of the columns.
    fn broadcast_columns(&self, rows: usize, cols: usize, mask: &Self::Buf) -> Self::Buf;
    /// `x` where `mask` is 1, else +0.
    fn masked_copy(&self, mask: &Self::Buf, x: &Self::Buf) -> Self::Buf;
    /// Sets `x` to +0 where `mask` is 0.
    fn apply_mask(&self, mask: &Self::Buf, x: &mut Self::Buf);
    /// The update of ADMM's variables, for each parameter: `z = w + u` where the mask is 1 and 0 elsewhere, `u = w + u - z`.
    fn admm_update(&self, params: &mut [AdmmParam<'_, Self::Buf>]) -> Vec<Residuals>;
}
