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

/// The kernels of a file, each with where it begins; a macro that makes one of every tile of a list as `conv2d_fwd_*`.
fn kernels(text: &str) -> Vec<(usize, String)> {
    let name = |(at, _): (usize, &str)| {
        // The last parentheses before the body are those of the parameters.
        let (declared, _) = text[at..].split_once('{')?.0.rsplit_once('(')?;
        let name = declared.trim_end().rsplit(|c: char| !c.is_alphanumeric() && c != '_' && c != '#').next()?;
        let name = name.split_once("##").map_or_else(|| name.to_string(), |(family, _)| format!("{family}*"));
        Some((at, name))
    };
    text.match_indices(KERNEL).filter_map(name).collect()
}

/// Whether a kernel, or one that a macro makes, is among those that were launched.
pub fn launched(kernel: &str, among: &BTreeSet<String>) -> bool {
    match kernel.strip_suffix('*') {
        Some(family) => among.iter().any(|name| name.starts_with(family)),
        None => among.contains(kernel),
    }
}

/// The last kernel that begins before an offset in its file.
pub fn at(text: &str, offset: usize) -> Option<String> {
    kernels(text).into_iter().rfind(|(start, _)| *start <= offset).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Files, affected, at, launched};

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
            (
                "tiles.cu",
                "#define KERNEL(NAME, N) \\\n    extern \"C\" __global__ void __launch_bounds__((N) * 2, 1) \\\n    \
                 scale_##NAME(float* y) {}\n",
            ),
        ];
        let files: Files = files.map(|(name, text)| (name.to_string(), text.as_bytes().to_vec())).into();
        assert_eq!(affected(&files, "c.cuh"), [String::from("add")].into());
        assert_eq!(affected(&files, "d.cu"), [String::from("copy"), String::from("fill")].into());
        assert_eq!(affected(&files, "tiles.cu"), [String::from("scale_*")].into());
        let text = String::from_utf8_lossy(&files["d.cu"]).into_owned();
        assert_eq!([at(&text, 30), at(&text, text.len())], [Some("fill".to_string()), Some("copy".to_string())]);
    }

    #[test]
    fn a_kernel_of_a_list_is_launched_as_any_tile() {
        let among: BTreeSet<String> = ["scale_c8", "fill"].map(String::from).into();
        let found = ["scale_*", "scale_c8", "fill", "scale_c16", "fil*", "copy_*"].map(|name| launched(name, &among));
        assert_eq!(found, [true, true, true, false, true, false]);
    }
}
