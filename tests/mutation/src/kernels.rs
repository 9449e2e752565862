//! What a change in `kernels/` concerns: the units that include a file, and the kernels in them.

use std::collections::BTreeSet;

use crate::files::Files;
use crate::runner::Test;

/// Before the name of a kernel and its bounds.
const KERNEL: &str = "extern \"C\" __global__";

/// The files of `kernels/`, by their paths in it.
pub fn sources(tree: &Files) -> Files {
    let inside = |(name, bytes): (&String, &Vec<u8>)| Some((name.strip_prefix("kernels/")?.to_string(), bytes.clone()));
    tree.iter().filter_map(inside).collect()
}

/// The test that compiles the kernels for the host, if nothing else does.
pub fn compiling_test() -> Test {
    let name = "cuda_host::the_library_has_every_kernel_of_the_launch_table".to_string();
    Test { program: "all".to_string(), name }
}

/// The kernels of all units that include `name`, or are it.
pub fn affected(sources: &Files, name: &str) -> BTreeSet<String> {
    let units = sources.keys().filter(|unit| unit.ends_with(".cu"));
    let units = units.filter(|unit| includes(sources, unit, name, &mut BTreeSet::new()));
    units.flat_map(|unit| kernels(&text(sources, unit)).into_iter().map(|(_, kernel)| kernel)).collect()
}

fn text(sources: &Files, name: &str) -> String {
    sources.get(name).map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default()
}

fn includes(sources: &Files, file: &str, name: &str, seen: &mut BTreeSet<String>) -> bool {
    if file == name {
        return true;
    }
    if !seen.insert(file.to_string()) {
        return false;
    }
    let text = text(sources, file);
    let quoted = text.lines().filter_map(|line| line.strip_prefix("#include \"")?.strip_suffix('"'));
    quoted.map(String::from).collect::<Vec<_>>().iter().any(|next| includes(sources, next, name, seen))
}

/// The kernels of a file, each with where it begins.
fn kernels(text: &str) -> Vec<(usize, String)> {
    let name = |(at, _): (usize, &str)| {
        let mut rest = text[at..].strip_prefix(KERNEL)?.trim_start();
        if let Some(bounds) = rest.strip_prefix("void __launch_bounds__(") {
            rest = bounds.split_once(')')?.1;
        }
        let declared = rest.split_once('(')?.0;
        Some((at, declared.split_whitespace().next_back()?.to_string()))
    };
    text.match_indices(KERNEL).filter_map(name).collect()
}

/// The last kernel that begins before an offset in its file.
pub fn at(text: &str, offset: usize) -> Option<String> {
    kernels(text).into_iter().rfind(|(start, _)| *start <= offset).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::{Files, affected, at};

    #[test]
    fn units_and_their_kernels() {
        let files = [
            ("a.cu", "#include \"b.cuh\"\nextern \"C\" __global__ void __launch_bounds__(THREADS)\nadd(u32 n) {}\n"),
            ("b.cuh", "#include \"c.cuh\"\n"),
            ("c.cuh", ""),
            (
                "d.cu",
                "extern \"C\" __global__ void fill(float* y) {}\nextern \"C\" __global__ void copy(float* y) {}\n",
            ),
        ];
        let files: Files = files.map(|(name, text)| (name.to_string(), text.as_bytes().to_vec())).into();
        assert_eq!(affected(&files, "c.cuh"), [String::from("add")].into());
        assert_eq!(affected(&files, "d.cu"), [String::from("copy"), String::from("fill")].into());
        let text = String::from_utf8_lossy(&files["d.cu"]).into_owned();
        assert_eq!([at(&text, 30), at(&text, text.len())], [Some("fill".to_string()), Some("copy".to_string())]);
    }
}
