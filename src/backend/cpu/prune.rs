//! Selection of what to keep, and ADMM's variables.

use super::{Buf, Cpu, Real};
use crate::backend::{Prune, Residuals};

impl<T: Real> Prune for Cpu<T> {
    fn row_norms(&self, _rows: usize, _members: &[&Buf<T>]) -> Buf<T> {
        todo!()
    }

    fn column_norms(&self, _rows: usize, _x: &Buf<T>) -> Buf<T> {
        todo!()
    }

    fn top_k_mask(&self, _k: usize, _x: &Buf<T>) -> Option<Buf<T>> {
        todo!()
    }

    fn spread_rows(&self, _rows: usize, _cols: usize, _mask: &Buf<T>) -> Buf<T> {
        todo!()
    }

    fn spread_columns(&self, _rows: usize, _cols: usize, _mask: &Buf<T>) -> Buf<T> {
        todo!()
    }

    fn masked_copy(&self, _mask: &Buf<T>, _x: &Buf<T>) -> Buf<T> {
        todo!()
    }

    fn admm_update(&self, _mask: &Buf<T>, _w: &Buf<T>, _z: &mut Buf<T>, _u: &mut Buf<T>) -> Residuals {
        todo!()
    }
}
