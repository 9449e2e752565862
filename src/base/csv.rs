//! Rows as CSV.

use serde::Serialize;

use crate::base::error::{Error, Result};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Line {
        name: &'static str,
        value: Option<f64>,
        count: usize,
    }

    #[test]
    fn fields_are_columns_in_their_order_and_quoted_where_they_must_be() {
        let lines = [
            Line { name: "plain", value: Some(0.1), count: 3 },
            Line { name: "a, \"b\"", value: None, count: 0 },
            Line { name: "two\nlines", value: Some(f64::NAN), count: 7 },
        ];
        let text = String::from_utf8(to_csv(lines).unwrap()).unwrap();
        assert_eq!(text, "name,value,count\nplain,0.1,3\n\"a, \"\"b\"\"\",,0\n\"two\nlines\",NaN,7\n");
    }
}
