//! The kernels as text and as machine code: within their register budgets, with the prototypes the host believes in, free of
//! other people's libraries, and compiled at run time where nothing is embedded.

mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use engine::backend::cuda::runtime::kernel::{KernelSpec, Param};
use engine::backend::cuda::runtime::modules;
use engine::backend::cuda::runtime::modules::{Embedded, Origin};
use engine::base::layout::{Field, Layout, Type};

use crate::skip::{Missing, skip};
use source::{Prototype, differences, expanded, prototypes, units};

/// What the compiler's log says of a kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Use {
    name: String,
    registers: u32,
    /// Bytes stored and loaded, also by functions that are not inlined.
    spills: u32,
}

/// The kernels in the log of `ptxas -v`.
fn uses(log: &str) -> Vec<Use> {
    let mut found: Vec<Use> = Vec::new();
    let before =
        |line: &str, what: &str| -> Option<u32> { line.split(what).next()?.split_whitespace().last()?.parse().ok() };
    for line in log.lines() {
        if let Some(rest) = line.split("Compiling entry function '").nth(1) {
            let name = rest.split('\'').next().unwrap_or_default().to_string();
            found.push(Use { name, ..Use::default() });
        } else if let Some(kernel) = found.last_mut() {
            for what in [" bytes spill stores", " bytes spill loads"].iter().filter(|what| line.contains(**what)) {
                kernel.spills += before(line, what).expect("a number of bytes");
            }
            if line.contains(" registers") {
                kernel.registers = before(line, " registers").expect("a number of registers");
            }
        }
    }
    found
}

/// What breaks the rules in the log of a file for an architecture.
fn over_budget(prototypes: &[Prototype], log: &str) -> Vec<String> {
    let uses = uses(log);
    let mut broken: Vec<String> = log.lines().filter(|l| l.contains("warning")).map(String::from).collect();
    for prototype in prototypes {
        let name = &prototype.name;
        match (uses.iter().find(|u| u.name == *name), prototype.budget) {
            (None, _) => broken.push(format!("{name} is not in the log")),
            (_, None) => {
                broken.push(format!("{name} has neither a line `// registers <= N` above it nor a number of blocks"))
            }
            (Some(used), Some(budget)) => {
                if used.registers > budget || used.registers == 0 {
                    broken.push(format!("{name} uses {} registers, its budget is {budget}", used.registers));
                }
                if used.spills > 0 {
                    broken.push(format!("{name} spills {} bytes", used.spills));
                }
            }
        }
    }
    let undeclared = uses.iter().filter(|used| prototypes.iter().all(|p| p.name != used.name));
    broken.extend(undeclared.map(|used| format!("{} is not declared as extern \"C\" __global__", used.name)));
    broken
}

/// The kernels in PTX, with the size in bytes of each parameter.
fn entries(ptx: &str) -> BTreeMap<&str, Vec<usize>> {
    let size = |param: &str| -> usize {
        let array = param.split_once('[').and_then(|(_, rest)| rest.split(']').next()?.parse().ok());
        let bits = |word: &str| word.strip_prefix(['.'])?.strip_prefix(['u', 's', 'b', 'f'])?.parse::<usize>().ok();
        array.or_else(|| Some(param.split_whitespace().find_map(bits)? / 8)).unwrap_or_else(|| panic!("{param}"))
    };
    let heads = ptx.split(".entry ").skip(1).filter_map(|rest| rest.split_once(')')?.0.split_once('('));
    heads.map(|(name, params)| (name, params.split(',').filter(|p| p.contains(".param")).map(size).collect())).collect()
}

/// Registers depend on the compiler. The budgets are met by this version and newer ones.
const BUDGETS_SINCE: (i32, i32) = (12, 9);

/// Why a test of embedded kernels has none.
pub const NOTHING_EMBEDDED: &str =
    "no kernels are embedded, because the build found no NVRTC; pip install nvidia-cuda-nvrtc-cu12";

/// What the build has embedded; `None`, and a word about it, where it found no NVRTC.
pub fn embedded() -> Option<&'static [Embedded]> {
    if modules::embedded().is_empty() {
        skip(Missing::Nvrtc, NOTHING_EMBEDDED);
        return None;
    }
    Some(modules::embedded())
}

#[test]
fn every_kernel_keeps_to_its_registers_and_spills_nothing() {
    let Some(embedded) = embedded() else { return };
    if modules::built_with() < Some(BUDGETS_SINCE) {
        return skip(
            Missing::Nvrtc,
            "the budgets of registers are for NVRTC 12.9 and newer, this build had an older one",
        );
    }
    let mut broken = Vec::new();
    for (file, text) in units() {
        let prototypes = prototypes(&text);
        let archs: Vec<&Embedded> = embedded.iter().filter(|e| e.file == file).collect();
        assert!(archs.len() >= 2 && !prototypes.is_empty(), "{file}: {} images", archs.len());
        for image in archs.iter().filter(|e| !e.arch.starts_with("ptx")) {
            broken
                .extend(over_budget(&prototypes, image.log).iter().map(|b| format!("{file}, sm_{}: {b}", image.arch)));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_host_launches_what_is_there() {
    let specs = engine::backend::cuda::kernels();
    let names: BTreeSet<&str> = specs.iter().map(|s| s.name).collect();
    assert!(names.len() == specs.len() && names.len() > 20, "{} names, {} kernels", names.len(), specs.len());
    let units = units();
    let mut broken: Vec<String> = units.iter().flat_map(|(file, text)| differences(file, text, specs)).collect();
    let lost = specs.iter().filter(|s| units.iter().all(|(file, _)| *file != s.file));
    broken.extend(lost.map(|s| format!("{}: there is no kernels/{}.cu", s.name, s.file)));
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn parameters_have_the_sizes_that_the_host_passes() {
    let Some(embedded) = embedded() else { return };
    let texts = embedded.iter().filter(|e| e.arch.starts_with("ptx"));
    let compiled: BTreeMap<&str, Vec<usize>> =
        texts.flat_map(|e| entries(std::str::from_utf8(e.image).unwrap())).collect();
    let specs = engine::backend::cuda::kernels();
    let host = specs.iter().map(|s| (s.name, s.params.iter().map(Param::size).collect::<Vec<usize>>()));
    let wrong: Vec<_> = host.filter(|(name, sizes)| compiled.get(name) != Some(sizes)).collect();
    assert!(wrong.is_empty(), "the host passes {wrong:?}, compiled are {compiled:?}");
}

#[test]
fn images_are_for_the_architecture_they_say() {
    let Some(embedded) = embedded() else { return };
    for Embedded { file, arch, image, .. } in embedded {
        if let Some(arch) = arch.strip_prefix("ptx") {
            let text = std::str::from_utf8(image.strip_suffix(b"\0").expect("the driver needs a zero byte")).unwrap();
            assert!(!text.contains('\0') && text.contains(&format!("\n.target sm_{arch}\n")), "{file}");
            continue;
        }
        // ELF for machine 190, CUDA; where the flags hold the number depends on the version of the format, in byte 8.
        assert!(image.starts_with(b"\x7fELF") && image[18..20] == [190, 0], "{file}, {arch}");
        let number = if image[8] >= 8 { image[49] } else { image[48] };
        assert_eq!(number.to_string(), arch.trim_end_matches(['a', 'f']), "{file}");
    }
    let files: BTreeSet<&str> = embedded.iter().map(|e| e.file).collect();
    assert_eq!(files.len() * modules::architectures().len(), embedded.len());
    assert_eq!(files, units().iter().map(|(file, _)| *file).collect());
}

#[test]
fn a_file_compiles_at_run_time_and_only_once() {
    let version = match modules::nvrtc() {
        Ok((_, version)) => version,
        Err(why) => return skip(Missing::Nvrtc, &why),
    };
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("not/there/yet");
    let (file, _) = units()[0];
    let compile = || modules::compile(file, (9, 0), Some(&cache)).unwrap();
    let first = compile();
    assert_eq!((first.origin, &first.arch[..]), (Origin::Compiled, "90a"));
    let again = compile();
    assert_eq!((again.origin, again.to_vec()), (Origin::Cached, first.to_vec()));
    let built = modules::embedded().iter().find(|e| e.file == file && e.arch == "90a");
    if let (Some(built), Some(with)) = (built, modules::built_with())
        && with == version
    {
        assert_eq!(first.to_vec(), built.image, "the build and the run compile differently");
    }

    let entries: Vec<PathBuf> = fs::read_dir(&cache).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(entries.len(), 1, "{entries:?}");
    let whole = fs::read(&entries[0]).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for damaged in [&whole[..0], &whole[..20], &whole[..whole.len() - 1], &flipped] {
        fs::write(&entries[0], damaged).unwrap();
        assert_eq!(compile().origin, Origin::Compiled, "{} of {} bytes", damaged.len(), whole.len());
    }
    assert_eq!(compile().origin, Origin::Cached);
    // Nothing can be created below a file.
    assert_eq!(modules::compile(file, (9, 0), Some(&entries[0])).unwrap().origin, Origin::Compiled);
    assert_eq!(modules::compile("nothing", (9, 0), None).unwrap_err().to_string(), "there is no kernels/nothing.cu");
}

/// Every file below `path`.
fn files(path: &Path) -> Vec<PathBuf> {
    match path.is_dir() {
        true => fs::read_dir(path).unwrap().flat_map(|entry| files(&entry.unwrap().path())).collect(),
        false => vec![path.to_path_buf()],
    }
}

#[test]
fn kernels_are_our_own() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let looked: Vec<PathBuf> =
        ["kernels", "src", "Cargo.toml", "build.rs"].iter().flat_map(|name| files(&root.join(name))).collect();
    assert!(looked.len() > 80, "{} files: looked in the wrong place", looked.len());
    for path in looked {
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).to_lowercase();
        for foreign in ["cublas", "cudnn", "cutlass", "thrust", "cub::", "<cub/"] {
            assert!(!text.contains(foreign), "{}: {foreign}", path.display());
        }
    }
}

const SAMPLE: &str = r#"
// registers <= 32
extern "C" __global__ void __launch_bounds__(256, 2) add(u32 n, const float* a, float4 *y, Conv2dDims d) {
    helper(n);  // extern
}

extern "C" __global__ void
    __launch_bounds__(THREADS)
    fill(  // no budget
        float value
    ) {}
"#;

#[test]
fn prototypes_are_read() {
    let param = |name: &str, ty: &str, pointer| source::Param { name: name.to_string(), ty: ty.to_string(), pointer };
    let [add, fill] = &prototypes(SAMPLE)[..] else { panic!("{:?}", prototypes(SAMPLE)) };
    assert_eq!((&add.name[..], add.budget), ("add", Some(32)));
    let [n, a, y, d] = [("n", "u32", false), ("a", "float", true), ("y", "float4", true), ("d", "Conv2dDims", false)];
    assert_eq!(add.params, [n, a, y, d].map(|(name, ty, pointer)| param(name, ty, pointer)));
    assert_eq!((&fill.name[..], fill.budget, &fill.params[..]), ("fill", None, &[param("value", "float", false)][..]));
}

#[test]
fn a_list_of_tiles_is_expanded() {
    let list = r#"
#define LIST(TILE)           \
    TILE(small, 1, 4, 64)    \
    TILE(large, 2, 2, 32)
#define KERNEL(NAME, WARPS, MIN_BLOCKS, REGISTERS)                                            \
    extern "C" __global__ void __launch_bounds__(32 * WARPS * 2, MIN_BLOCKS) scale_##NAME(    \
        float* y                                                                              \
    ) {}
#define BUDGETED(NAME, WARPS, MIN_BLOCKS, REGISTERS)                                          \
    /* registers <= REGISTERS */                                                              \
    extern "C" __global__ void __launch_bounds__(32 * (WARPS + 1)) shift_##NAME(u32 n) {}

LIST(KERNEL)
LIST(BUDGETED)
"#;
    let found = prototypes(&expanded(list));
    let found: Vec<(&str, Option<u32>, &str)> =
        found.iter().map(|p| (&p.name[..], p.budget, &p.params[0].name[..])).collect();
    let wanted = [
        ("scale_small", Some(255), "y"),
        ("scale_large", Some(255), "y"),
        ("shift_small", Some(64), "n"),
        ("shift_large", Some(32), "n"),
    ];
    assert_eq!(found, wanted);
    // 65536 / (256 * 3) = 85.3, in eights.
    let bounds = |bounds: &str| format!("extern \"C\" __global__ void __launch_bounds__({bounds}) k(u32 n) {{}}");
    assert_eq!(["32 * 4 * 2, 3", "256", "BLOCK, 2"].map(|b| prototypes(&bounds(b))[0].budget), [Some(80), None, None]);
}

#[test]
fn a_spill_and_a_register_too_many_are_seen() {
    let log = "\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'add' for 'sm_90a'
ptxas info    : Function properties for add
ptxas         .     1664 bytes stack frame, 1652 bytes spill stores, 1676 bytes spill loads
ptxas info    : Used 33 registers, used 1 barriers, 1664 bytes cumulative stack size, 2048 bytes smem
";
    let used = Use { name: "add".to_string(), registers: 33, spills: 1652 + 1676 };
    assert_eq!(uses(log), [used]);
    let all = prototypes(SAMPLE);
    let broken = over_budget(&all, log).join("\n");
    for wanted in ["add uses 33 registers, its budget is 32", "add spills 3328 bytes", "fill is not in the log"] {
        assert!(broken.contains(wanted), "{broken}");
    }
    let good = log.replace("1652", "0").replace("1676", "0").replace("33", "32");
    assert_eq!(over_budget(&all[..1], &good), Vec::<String>::new());
    assert_eq!(over_budget(&[], &good), ["add is not declared as extern \"C\" __global__"]);
    let unbounded = Prototype { budget: None, ..all[0].clone() };
    let line = "add has neither a line `// registers <= N` above it nor a number of blocks";
    assert_eq!(over_budget(&[unbounded], &good), [line]);
}

#[test]
fn a_prototype_that_differs_is_seen() {
    const N: Param = Param { name: "n", pointer: false, ty: u32::TYPE };
    const Y: Param = Param { name: "y", pointer: true, ty: f32::TYPE };
    const DOUBLES: Param = Param { ty: f64::TYPE, ..Y };
    let own = "extern \"C\" __global__ void fill(u32 n, float* y) {}";
    let spec = |name: &'static str, params: &'static [Param]| KernelSpec { file: "f", name, params, exclusive: false };
    assert!(differences("f", own, &[spec("fill", &[N, Y])]).is_empty());
    for specs in [&[spec("fill", &[N])][..], &[spec("fill", &[Y, N])], &[spec("fill", &[N, DOUBLES])], &[]] {
        assert_eq!(differences("f", own, specs).len(), 1, "{specs:?}");
    }
    assert_eq!(differences("f", own, &[spec("fill", &[N, Y]), spec("full", &[])]).len(), 1);
    let ptx = ".visible .entry k(\n\t.param .u32 k_param_0,\n\t.param .u64 .ptr .align 1 k_param_1,\n\
               \t.param .align 4 .b8 k_param_2[20],\n\t.param .f64 k_param_3\n)\n.maxntid 256, 1, 1\n\
               .visible .entry none()\n{";
    assert_eq!(entries(ptx), BTreeMap::from([("k", vec![4, 8, 20, 8]), ("none", vec![])]));
}

#[test]
fn a_struct_that_differs_is_seen() {
    const fn field(name: &'static str, offset: usize, ty: &'static Type) -> Field {
        Field { name, offset, ty }
    }
    const POINT: &Type = &Type::Struct(16, &[field("at", 0, u64::TYPE), field("k", 8, <[u32; 2]>::TYPE)]);
    const LINE: &Type = &Type::Struct(
        48,
        &[
            field("eps", 0, f32::TYPE),
            field("left", 8, POINT),
            field("right", 24, POINT),
            field("flag", 40, u32::TYPE),
            field("_padding", 44, u32::TYPE),
        ],
    );
    const PARAMS: &[Param] = &[Param { name: "line", pointer: false, ty: LINE }];
    let specs = [KernelSpec { file: "f", name: "draw", params: PARAMS, exclusive: false }];
    let text = "
static constexpr u32 SIDES = 2;
// Where.
struct Point {
    const float* at;  // may be null
    u32 k[SIDES];
};
struct Line {
    float eps;
    Point left, right;
    u32 flag;
};
extern \"C\" __global__ void draw(const Line line) {}
";
    assert_eq!(differences("f", text, &specs), Vec::<String>::new());
    for (old, new) in [
        ("Point left, right", "Point right, left"),
        ("    float eps;\n    Point left, right;\n", "    Point left, right;\n    float eps;\n"),
        ("    u32 k[SIDES];\n", "    u32 k[SIDES];\n    float more;\n"),
        ("SIDES = 2", "SIDES = 4"),
        ("u32 flag", "float flag"),
        ("const float* at", "double at"),
        ("    u32 flag;\n", ""),
        ("const Line line", "const Line* line"),
    ] {
        assert_eq!(differences("f", &text.replace(old, new), &specs).len(), 1, "{new}");
    }
}
