//! `--set key=value`: one value of a configuration, by its dotted path.

use std::collections::BTreeSet;

use serde::{Serialize, de::DeserializeOwned};
use toml::{Table, Value};

use crate::base::error::{Error, Result};

/// A copy of `config` with the value at `path` (`attack.eps`) replaced by `text`, read as the type it replaces.
///
/// # Errors
/// [`Error::Usage`] for an unknown path, with the nearest known one, or for text of another type.
pub fn set<T: Serialize + DeserializeOwned>(config: &T, path: &str, text: &str) -> Result<T> {
    let wrong = |why: String| Error::Usage(format!("--set {path}={text}: {why}"));
    let mut table = Table::try_from(config).map_err(|e| wrong(one_line(&e)))?;
    let known = leaves(&table, "");
    let unknown = || Error::unknown("setting", path, known.iter().map(String::as_str));
    let slot = find(&mut table, path).ok_or_else(unknown)?;
    *slot = parse_as(slot, text).map_err(wrong)?;
    table.try_into().map_err(|e| wrong(one_line(&e)))
}

/// Replaces the value at `path` in every one of `configs` that has it: `optimizer.momentum` means nothing to a stage trained
/// with Adam.
///
/// # Errors
/// As [`set`]; the path is unknown if none of them has it.
pub fn set_all<'a, T>(configs: impl IntoIterator<Item = &'a mut T>, path: &str, text: &str) -> Result<()>
where
    T: Serialize + DeserializeOwned + 'a,
{
    let mut known = BTreeSet::new();
    for config in configs {
        let paths = paths(config)?;
        if paths.iter().any(|known| known == path) {
            *config = set(config, path, text)?;
        }
        known.extend(paths);
    }
    if known.contains(path) { Ok(()) } else { Err(Error::unknown("setting", path, known.iter().map(String::as_str))) }
}

/// Dotted paths of all values of `config` that [`set`] can replace.
pub fn paths<T: Serialize>(config: &T) -> Result<Vec<String>> {
    let table = Table::try_from(config).map_err(|e| Error::Failed(one_line(&e)))?;
    Ok(leaves(&table, ""))
}

/// The value at a dotted path, unless the path ends at a group of values.
fn find<'a>(table: &'a mut Table, path: &str) -> Option<&'a mut Value> {
    match path.split_once('.') {
        Some((group, rest)) => find(table.get_mut(group)?.as_table_mut()?, rest),
        None => table.get_mut(path).filter(|value| !value.is_table()),
    }
}

/// Dotted paths of all values.
fn leaves(table: &Table, prefix: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for (key, value) in table {
        match value {
            Value::Table(group) => paths.extend(leaves(group, &format!("{prefix}{key}."))),
            _ => paths.push(format!("{prefix}{key}")),
        }
    }
    paths
}

fn parse_as(old: &Value, text: &str) -> Result<Value, String> {
    let value = match old {
        // `1` is a number of this type too.
        Value::Float(_) => text.parse().ok().map(Value::Float),
        Value::String(_) => Some(Value::String(text.to_string())),
        _ => text.parse().ok().filter(|new: &Value| new.same_type(old)),
    };
    value.ok_or_else(|| format!("expected a value of type {}, like '{old}'", old.type_str()))
}

/// TOML's errors point into a document with several lines; the user has written none.
fn one_line(error: &impl std::fmt::Display) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}
