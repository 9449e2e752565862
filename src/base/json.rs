//! JSON.

use serde::Serialize;
use serde_json::Value;

use super::error::{Error, Result};

/// The JSON of a value. It goes through text, which keeps f32 values as short as they are: [`serde_json::to_value`] makes
/// 0.3 a 0.30000001192092896.
///
/// # Errors
/// [`Error::Failed`] if the value cannot be serialised: not in practice.
pub fn exact_json(value: &impl Serialize) -> Result<Value> {
    let through_text = |value| serde_json::from_str(&serde_json::to_string(value)?);
    through_text(value).map_err(|e: serde_json::Error| Error::Failed(format!("cannot write as JSON: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a person wrote it, and as it is read back from a file.
    #[test]
    fn numbers_in_single_precision_stay_short() {
        assert_eq!(exact_json(&[0.3_f32, 8.0]).unwrap().to_string(), "[0.3,8.0]");
    }
}
