//! Rows as CSV.

use serde::Serialize;

use crate::error::{Error, Result};

/// A header of the field names, and a line for each row.
///
/// # Errors
/// [`Error::Failed`] if a row cannot be encoded: not in practice.
pub fn to_csv<T: Serialize>(rows: impl IntoIterator<Item = T>) -> Result<Vec<u8>> {
    let failed = |e: &dyn std::fmt::Display| Error::Failed(format!("cannot encode rows as CSV: {e}"));
    let mut lines = csv::Writer::from_writer(Vec::new());
    for row in rows {
        lines.serialize(row).map_err(|e| failed(&e))?;
    }
    lines.into_inner().map_err(|e| failed(&e))
}
