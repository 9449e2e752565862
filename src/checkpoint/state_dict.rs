//! State dicts that another program saved, taken for one of our networks.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use safetensors::SafeTensors;

use super::raw::{MAX_NAME, RawTensor, contiguous};
use super::tensors::{Entry, written_by_us};
use super::{is_counter, not_finite, pytorch};
use crate::base::error::{Error, Result};
use crate::nn::models::{Architecture, MAX_WIDTH, Network};

/// The user's word on the network; the rest is told from the shapes.
#[derive(Clone, Copy, Debug, Default)]
pub struct NetworkHint {
    /// Architecture.
    pub network: Option<Network>,
    /// Width multiplier.
    pub width: Option<usize>,
}

/// A network with its values, as [`crate::nn::models::Model::state`] has them.
pub struct Imported {
    /// The network.
    pub architecture: Architecture,
    /// Its parameters and running statistics.
    pub entries: Vec<Entry>,
    /// The changes to the file's content, a line each.
    pub notes: Vec<String>,
}

/// The prefixes that wrappers of a model put in front of its names: `DataParallel`, `torch.compile`, and classes that add an attack or a
/// normalisation.
const PREFIXES: [&str; 4] = ["module.", "model.", "basic_model.", "_orig_mod."];

const HINT: &str = "save it with torch.save(model.state_dict(), FILE) or as safetensors";

/// Reads `path`: safetensors, or what `torch.save` wrote.
///
/// # Errors
/// [`Error::Input`] if the file cannot be read, is damaged, or is not a state dict of the network; nothing in it is
/// executed, and it never takes more memory than the file is long, a few times.
pub fn import(path: &Path, wanted: NetworkHint) -> Result<Imported> {
    let bytes = std::fs::read(path).map_err(|e| Error::input(path, format!("cannot read it: {e}"), HINT))?;
    import_bytes(path, &bytes, wanted)
}

/// [`import`] of bytes; `path` is only what errors call them.
///
/// # Errors
/// As [`import`].
pub fn import_bytes(path: &Path, bytes: &[u8], wanted: NetworkHint) -> Result<Imported> {
    let error = |problem: String| Error::input(path, problem, HINT);
    let mut notes = Vec::new();
    let tensors = strip_prefixes(read(path, bytes, &mut notes)?, &mut notes).map_err(error)?;
    let (architecture, misfit) = best_fit(&tensors, wanted)?;
    if misfit.count() > 0 {
        let hint = "give --network and --width if it is another, or save another state dict";
        let problem = format!("as {} of width {}: {misfit}", architecture.network, architecture.width);
        return Err(Error::input(path, problem, hint));
    }
    // Of a sound file no two tensors have an element in common, so that each element takes a byte at least.
    let elements: usize = expected(&architecture).iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
    if elements > bytes.len() {
        return Err(error(format!("its tensors share their bytes: {elements} values in {} bytes", bytes.len())));
    }
    let entries = entries(&architecture, &tensors, &mut notes).map_err(error)?;
    Ok(Imported { architecture, entries, notes })
}

/// The tensors of a file by name, as they are.
fn read<'a>(path: &Path, bytes: &'a [u8], notes: &mut Vec<String>) -> Result<Tensors<'a>> {
    let error = |problem: String| Error::input(path, problem, HINT);
    if pytorch::is_legacy(bytes) {
        let hint = "save it again in PyTorch: torch.save(torch.load(FILE, weights_only=True), NEW_FILE)";
        return Err(Error::input(path, "has the format of PyTorch before 1.6", hint));
    }
    if pytorch::is_archive(bytes) {
        let (tensors, wrapper) = pytorch::read(bytes).map_err(error)?;
        notes.extend(wrapper.map(|key| format!("taken from '{key}'")));
        return Ok(tensors);
    }
    let damaged = |e| error(format!("cut short, or neither safetensors nor a file of torch.save ({e})"));
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
    if written_by_us(&header).is_some() {
        return Err(Error::input(path, "was written by the engine", "give it to --model as it is"));
    }
    let mut tensors = Tensors::new();
    for (name, view) in SafeTensors::deserialize(bytes).map_err(damaged)?.tensors() {
        if name.len() > MAX_NAME {
            return Err(error(format!("a name in it has {} bytes", name.len())));
        }
        let raw = RawTensor::new(view.dtype(), view.shape(), &contiguous(view.shape()), 0, view.data());
        let raw = raw.map_err(|problem| error(format!("'{name}': {problem}")))?;
        tensors.insert(name, raw);
    }
    Ok(tensors)
}

type Tensors<'a> = BTreeMap<String, RawTensor<'a>>;

/// Removes what wrappers have put in front of the names.
fn strip_prefixes<'a>(mut tensors: Tensors<'a>, notes: &mut Vec<String>) -> Result<Tensors<'a>, String> {
    while let Some(prefix) = PREFIXES.into_iter().find(|prefix| tensors.keys().any(|name| name.starts_with(prefix))) {
        let mut stripped = Tensors::new();
        for (name, tensor) in tensors {
            let short = name.strip_prefix(prefix).unwrap_or(&name).to_string();
            if stripped.insert(short, tensor).is_some() {
                return Err(format!("'{name}' is there with and without '{prefix}'"));
            }
        }
        tensors = stripped;
        notes.push(format!("stripped '{prefix}' from the names"));
    }
    Ok(tensors)
}

/// Names and shapes of all that a network has.
fn expected(architecture: &Architecture) -> Vec<(String, Vec<usize>)> {
    let params = architecture.params.iter().map(|p| (p.name.clone(), p.shape.clone()));
    let running = architecture.norms.iter().flat_map(|norm| {
        ["running_mean", "running_var"].map(|name| (format!("{}.{name}", norm.name), vec![norm.channels]))
    });
    params.chain(running).collect()
}

/// How tensors differ from what a network has.
#[derive(Debug, Default)]
struct Misfit {
    missing: Vec<String>,
    unexpected: Vec<String>,
    shapes: Vec<String>,
}

impl Misfit {
    fn of(architecture: &Architecture, tensors: &Tensors<'_>) -> Self {
        let mut misfit = Misfit::default();
        let expected = expected(architecture);
        for (name, shape) in &expected {
            match tensors.get(name) {
                None => misfit.missing.push(name.clone()),
                Some(found) if found.shape() != shape => {
                    misfit.shapes.push(format!("'{name}' is {:?} instead of {shape:?}", found.shape()));
                }
                Some(_) => {}
            }
        }
        let known = |name: &String| is_counter(name) || expected.iter().any(|(known, _)| known == name);
        misfit.unexpected = tensors.keys().filter(|name| !known(name)).cloned().collect();
        misfit
    }

    fn count(&self) -> usize {
        self.missing.len() + self.unexpected.len() + self.shapes.len()
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// So many are named.
        const FIRST: usize = 3;
        let list = |what: &str, names: &[String]| {
            let mut text = format!("{what}{}", names[..names.len().min(FIRST)].join(", "));
            if names.len() > FIRST {
                text += &format!(" and {} more", names.len() - FIRST);
            }
            (!names.is_empty()).then_some(text)
        };
        let parts = [list("missing ", &self.missing), list("unexpected ", &self.unexpected), list("", &self.shapes)];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join("; "))
    }
}

/// The network that the tensors are nearest to, and how they differ from it.
fn best_fit(tensors: &Tensors<'_>, wanted: NetworkHint) -> Result<(Architecture, Misfit)> {
    let networks = wanted.network.as_ref().map_or(Network::ALL, std::slice::from_ref);
    let mut best: Option<(Architecture, Misfit)> = None;
    for &network in networks {
        let architecture = told_by_shapes(network, wanted.width, tensors)?;
        let misfit = Misfit::of(&architecture, tensors);
        if best.as_ref().is_none_or(|(_, least)| misfit.count() < least.count()) {
            best = Some((architecture, misfit));
        }
    }
    best.ok_or_else(|| Error::Failed("there are no networks".to_string()))
}

/// `network` with the outputs that the tensors have, as far as they say so.
fn told_by_shapes(network: Network, width: Option<usize>, tensors: &Tensors<'_>) -> Result<Architecture> {
    let narrow = Architecture::new(network, 1, 1)?;
    let outputs =
        |layer: &crate::nn::params::LayerSpec| tensors.get(&narrow.params[layer.weight].name)?.shape().first().copied();
    let mut found: Vec<Option<usize>> = narrow.layers.iter().map(outputs).collect();
    let classes = found.pop().flatten().unwrap_or(10).clamp(1, 256);
    if let Some(width) = width {
        return Architecture::new(network, width, classes);
    }
    let all: Option<Vec<usize>> = found.iter().copied().collect();
    if let Some(outputs) = all {
        let fits = |&width: &usize| Architecture::shrunk(network, width, outputs.clone(), classes).is_ok();
        if let Some(width) = (1..=MAX_WIDTH).find(fits) {
            return Architecture::with_outputs(network, width, outputs, classes);
        }
    }
    let first =
        found.iter().zip(&narrow.layers).find_map(|(n, layer)| Some((*n)?.div_ceil(narrow.spaces[layer.writes])));
    Architecture::new(network, first.unwrap_or(1).clamp(1, MAX_WIDTH), classes)
}

/// The values of all that the network has.
fn entries(architecture: &Architecture, tensors: &Tensors<'_>, notes: &mut Vec<String>) -> Result<Vec<Entry>, String> {
    let mut entries = Vec::new();
    let mut converted = Vec::new();
    for (name, shape) in expected(architecture) {
        let Some(tensor) = tensors.get(&name) else { return Err(format!("missing {name}")) };
        let dtype = tensor.dtype();
        let values = tensor.values().ok_or_else(|| format!("'{name}' is {dtype:?}, no floating-point type"))?;
        if let Some(problem) = not_finite(&name, &values) {
            return Err(problem);
        }
        let kind = format!("{dtype:?}");
        if kind != "F32" && !converted.contains(&kind) {
            converted.push(kind);
        }
        entries.push((name, shape, values));
    }
    if !converted.is_empty() {
        notes.push(format!("converted from {} to F32", converted.join(" and ")));
    }
    if tensors.keys().any(|name| is_counter(name)) {
        notes.push("ignored num_batches_tracked, on which nothing depends".to_string());
    }
    Ok(entries)
}
