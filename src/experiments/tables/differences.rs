//! The settings that differ between the stages that a table ran and those that the paper describes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use super::cells::{Cell, step};
use super::{Method, Profile, Settings, Table};
use crate::base::error::Result;
use crate::base::json::exact_json;
use crate::data::info::Content;
use crate::experiments::pipeline::StageConfig;

/// A setting that is not the paper's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The stages that have it, or the data.
    pub of: Vec<String>,
    /// Its name, as `--set` spells it.
    pub setting: String,
    /// Its value here; empty if there is none.
    pub here: String,
    /// Its value in the paper; empty if there is none.
    pub paper: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = |text: &str| if text.is_empty() { "none".to_string() } else { text.to_string() };
        let (here, paper) = (value(&self.here), value(&self.paper));
        write!(f, "{}: {} {here}, in the paper {paper}", self.of.join(", "), self.setting)
    }
}

/// Every setting of `cells` that differs from the profile `paper` on the full data; none if the run is as published.
///
/// # Errors
/// As [`Table::chain`].
pub fn differences(table: &'static Table, settings: &Settings, cells: &[Cell]) -> Result<Vec<Difference>> {
    let info = settings.data.name.info();
    let paper = Settings {
        profile: Profile::Paper,
        train_images: info.train_images,
        test_images: info.test_images(),
        epochs: None,
        overrides: Vec::new(),
        ..settings.clone()
    };
    let mut differences = Vec::new();
    for (setting, here, published) in [
        ("training images", settings.train_images, paper.train_images),
        ("test images", settings.test_images, paper.test_images),
    ] {
        if here != published {
            add(&mut differences, "data", setting, &here.to_string(), &published.to_string());
        }
    }
    let content = info.recognise(&settings.data.fingerprint);
    // Of some data sets no fingerprint of the official content is known.
    let known = content == Content::JpegCopy || info.fingerprints.iter().any(|(_, known)| *known == Content::Official);
    if differences.is_empty() && known && content != Content::Official {
        add(&mut differences, "data", "content", &content.to_string(), &Content::Official.to_string());
    }
    for cell in cells {
        let published = (table.chain)(&cell.at, &paper)?;
        for (here, published) in cell.chain.iter().zip(&published) {
            compare(&mut differences, &name(cell, here), &values(here)?, &values(published)?);
        }
    }
    Ok(differences)
}

/// The stage's part in its chain; of a chain that is one training, the method, unless that makes the dense network of the
/// other chains.
fn name(cell: &Cell, config: &StageConfig) -> String {
    let method = cell.at.block.method;
    let is_shared = cell.chain.len() > 1 || method == Method::AdversarialTraining.name();
    if is_shared { step(config) } else { method }.to_string()
}

fn compare(
    differences: &mut Vec<Difference>,
    of: &str,
    here: &BTreeMap<String, String>,
    published: &BTreeMap<String, String>,
) {
    let value = |values: &BTreeMap<String, String>, key| values.get(key).cloned().unwrap_or_default();
    for key in here.keys().chain(published.keys()).collect::<BTreeSet<_>>() {
        let (here, published) = (value(here, key), value(published, key));
        if here != published {
            add(differences, of, key, &here, &published);
        }
    }
}

/// Adds a difference, to those of other stages if it is the same.
fn add(differences: &mut Vec<Difference>, of: &str, setting: &str, here: &str, paper: &str) {
    let same = |d: &&mut Difference| d.setting == setting && d.here == here && d.paper == paper;
    match differences.iter_mut().find(same) {
        Some(known) if known.of.iter().any(|name| name == of) => {}
        Some(known) => known.of.push(of.to_string()),
        None => differences.push(Difference {
            of: vec![of.to_string()],
            setting: setting.to_string(),
            here: here.to_string(),
            paper: paper.to_string(),
        }),
    }
}

/// The values of a stage by their dotted paths, without the data, which is compared by its size.
fn values(config: &StageConfig) -> Result<BTreeMap<String, String>> {
    let mut values = BTreeMap::new();
    flatten("", &exact_json(config)?, &mut values);
    values.retain(|key, _| !key.starts_with("data."));
    Ok(values)
}

fn flatten(path: &str, value: &Value, values: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                flatten(&path, value, values);
            }
        }
        Value::Null => {}
        Value::String(text) => drop(values.insert(path.to_string(), text.clone())),
        other => drop(values.insert(path.to_string(), other.to_string())),
    }
}
