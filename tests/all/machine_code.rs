//! The kernels' machine code: on no path does a kernel touch global memory before it has waited for the launch before, which
//! may still write there (`wait_for_launch_before` in `kernels/primitives/common.cuh`). The source says so, but a compiler may move loads.
//!
//! It is read with NVIDIA's `nvdisasm`: what `ENGINE_NVDISASM` names, or what is on the path or in `/usr/local/cuda`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::process::Command;
use std::{env, fs};

use engine::backend::cuda::runtime::modules;
use engine::backend::cuda::runtime::modules::Embedded;
use rayon::prelude::*;

use crate::kernels::embedded;
use crate::skip::{Missing, skip};

/// An instruction as it is printed, such as `@!P0 LDG.E R0, desc[UR4][R2.64]`.
struct Instruction<'a> {
    /// Without the predicate.
    text: &'a str,
    /// Whether it depends on a predicate.
    predicated: bool,
}

impl<'a> Instruction<'a> {
    fn new(printed: &'a str) -> Self {
        match printed.strip_prefix('@').and_then(|rest| rest.split_once(' ')) {
            Some((_, text)) => Instruction { text, predicated: true },
            None => Instruction { text: printed, predicated: false },
        }
    }

    /// `LDG` of `LDG.E`.
    fn operation(&self) -> &'a str {
        self.text.split([' ', '.']).next().unwrap_or_default()
    }

    /// The label that it names.
    fn label(&self) -> Option<&'a str> {
        Some(self.text.split_once("`(")?.1.split_once(')')?.0)
    }

    /// Whether it has an address of memory that other threads of the device have: any but that of constants, of shared memory
    /// and of a thread's own. What is not known is believed to have one.
    fn touches_global_memory(&self) -> bool {
        const OTHER: [&str; 10] = ["LDC", "LDCU", "ULDC", "LDS", "LDSM", "STS", "STSM", "ATOMS", "LDL", "STL"];
        let constant = |operand: &str| operand.trim_start_matches(['-', '|', '~', '!']).starts_with("c[");
        !OTHER.contains(&self.operation())
            && self.text.split_whitespace().any(|operand| operand.contains('[') && !constant(operand))
    }
}

/// What `nvdisasm -c` prints.
#[derive(Default)]
struct Listing<'a> {
    code: Vec<Instruction<'a>>,
    /// Where in `code` they are.
    labels: BTreeMap<&'a str, usize>,
    kernels: Vec<&'a str>,
}

impl<'a> Listing<'a> {
    fn new(text: &'a str) -> Self {
        let mut listing = Listing::default();
        for line in text.lines().map(str::trim) {
            if let Some((_, instruction)) = line.strip_prefix("/*").and_then(|rest| rest.split_once("*/")) {
                listing.code.push(Instruction::new(instruction.trim_end_matches(';').trim()));
            } else if let Some(label) = line.strip_suffix(':') {
                listing.labels.insert(label, listing.code.len());
            } else if let Some((symbol, _)) = line.split_once(",@\"STO_CUDA_ENTRY") {
                listing.kernels.extend(symbol.split_whitespace().last());
            }
        }
        listing
    }

    fn target(&self, at: usize) -> Option<usize> {
        self.labels.get(self.code[at].label()?).copied()
    }

    /// Where it may go on.
    fn next(&self, at: usize) -> Vec<usize> {
        let Instruction { text, predicated, .. } = self.code[at];
        let (jumps, ends) = match self.code[at].operation() {
            "BRA" => (true, !predicated && text.starts_with("BRA `(")),
            // What is called returns behind the call.
            "CALL" => (true, false),
            "ACQBULK" | "EXIT" | "RET" => (false, !predicated),
            _ => (false, false),
        };
        let target = self.target(at).filter(|_| jumps);
        target.into_iter().chain((!ends).then_some(at + 1)).collect()
    }

    /// Whether [`Listing::next`] knows all places.
    fn can_be_followed(&self, at: usize) -> bool {
        match self.code[at].operation() {
            "BRA" | "CALL" => self.target(at).is_some(),
            // Where threads that part here meet again: behind the BSYNC at which they wait.
            "BSSY" => self.target(at).is_some_and(|label| label > 0 && self.code[label - 1].operation() == "BSYNC"),
            "BRX" | "BRXU" | "JMP" | "JMX" | "JMXU" => false,
            _ => true,
        }
    }

    /// Whether it must not come before the wait. A kernel that lets the next one begin, or ends, without having waited breaks
    /// a promise too: that the launches before the one before are over.
    fn must_wait(&self, at: usize) -> bool {
        let instruction = &self.code[at];
        matches!(instruction.operation(), "EXIT" | "PREEXIT")
            || instruction.touches_global_memory()
            || !self.can_be_followed(at)
    }

    /// The instructions that a kernel can reach before it has waited and that must not come there.
    fn early(&self, kernel: &str) -> Vec<&'a str> {
        let (mut reached, mut pending) = (BTreeSet::new(), vec![self.labels[kernel]]);
        while let Some(at) = pending.pop() {
            if reached.insert(at) {
                pending.extend(self.next(at));
            }
        }
        reached.into_iter().filter(|&at| self.must_wait(at)).map(|at| self.code[at].text).collect()
    }
}

/// For each kernel of a listing what it can do before it waits, and must not.
fn early(listing: &str) -> BTreeMap<&str, Vec<&str>> {
    let listing = Listing::new(listing);
    listing.kernels.iter().map(|&kernel| (kernel, listing.early(kernel))).collect()
}

/// The disassembler, if there is one.
fn nvdisasm() -> Option<OsString> {
    let named = env::var_os("ENGINE_NVDISASM").filter(|value| !value.is_empty());
    let usual = ["nvdisasm", "/usr/local/cuda/bin/nvdisasm"].map(OsString::from);
    let mut places = named.map_or_else(|| usual.to_vec(), |named| vec![named]).into_iter();
    let found = places.find(|place| Command::new(place).arg("--version").output().is_ok());
    if found.is_none() {
        skip(
            Missing::Nvdisasm,
            "there is no nvdisasm; pip install nvidia-cuda-nvdisasm, and let ENGINE_NVDISASM name the program",
        );
    }
    found
}

fn disassemble(nvdisasm: &OsStr, image: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, image).unwrap();
    let output = Command::new(nvdisasm).arg("-c").arg(file.path()).output().unwrap();
    assert!(output.status.success(), "nvdisasm: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Whether an image is machine code for GPUs where launches overlap.
fn overlaps(image: &Embedded) -> bool {
    image.arch.trim_end_matches(['a', 'f']).parse().is_ok_and(|number: u32| number >= 90)
}

/// The bf16 convolutions ask for their first weights before they wait, by copies that the compiler must leave where they are.
/// That these read nothing else is checked where the kernels run on the host.
fn may_come_early(file: &str, instruction: &str) -> bool {
    file == "bf16/conv" && instruction.starts_with("LDGSTS.")
}

#[test]
fn only_copies_of_weights_precede_the_wait() {
    let Some(embedded) = embedded() else { return };
    let images: Vec<&Embedded> = embedded.iter().filter(|image| overlaps(image)).collect();
    if images.is_empty() {
        return skip(Missing::Nvrtc, "no kernels for compute capability 9.0 or newer are embedded");
    }
    let Some(nvdisasm) = nvdisasm() else { return };
    let listings: Vec<String> = images.par_iter().map(|image| disassemble(&nvdisasm, image.image)).collect();
    let (mut broken, mut kernels) = (Vec::new(), BTreeMap::<&str, usize>::new());
    for (Embedded { file, arch, .. }, listing) in images.into_iter().zip(&listings) {
        let early = early(listing);
        *kernels.entry(arch).or_default() += early.len();
        for (kernel, instructions) in early {
            let wrong = instructions.iter().filter(|instruction| !may_come_early(file, instruction));
            broken
                .extend(wrong.map(|instruction| format!("{file}, sm_{arch}: {kernel} before it waits: {instruction}")));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    let all = engine::backend::cuda::kernels().len();
    assert!(kernels.values().all(|&count| count == all), "{all} kernels are launched, disassembled are {kernels:?}");
}

#[test]
fn a_planted_load_before_the_wait_is_seen() {
    let Some(nvdisasm) = nvdisasm() else { return };
    if let Err(why) = modules::nvrtc() {
        return skip(Missing::Nvrtc, &why);
    }
    let sources = modules::sources().iter();
    let (name, text) = sources.into_iter().find(|(name, _)| *name == "f32/fab.cu").unwrap();
    let wait_and_load = "wait_for_launch_before();\n    const float weight = t[blockIdx.x];";
    assert!(text.contains(wait_and_load));
    let planted = |instead: &str| {
        let image = modules::compile_text(name, &text.replace(wait_and_load, instead), (9, 0), None).unwrap();
        let listing = disassemble(&nvdisasm, &image);
        let kernels = early(&listing).into_iter().filter(|(_, instructions)| !instructions.is_empty());
        kernels.map(|(kernel, instructions)| format!("{kernel}: {}", operations(&instructions))).collect::<Vec<_>>()
    };
    assert!(planted(wait_and_load).is_empty());
    assert_eq!(planted("const float weight = t[blockIdx.x];\n    wait_for_launch_before();"), ["interpolate: LDG"]);
    // The load is behind the wait, but there is a way past it.
    let past = planted("if (features > 5) wait_for_launch_before();\n    const float weight = t[blockIdx.x];");
    assert!(past.len() == 1 && past[0].starts_with("interpolate: LDG ") && past[0].ends_with(" EXIT"), "{past:?}");
}

fn operations(instructions: &[&str]) -> String {
    instructions.iter().map(|text| Instruction::new(text).operation()).collect::<Vec<_>>().join(" ")
}

/// The operations that the kernel with this code can reach too early.
fn early_in(code: &[&str]) -> String {
    let mut listing = "\t.other\tk,@\"STO_CUDA_ENTRY STV_DEFAULT\"\nk:\n.text.k:\n".to_string();
    for line in code {
        listing += &if line.ends_with(':') { format!("{line}\n") } else { format!("\t/*0000*/\t{line} ;\n") };
    }
    operations(&early(&listing)["k"])
}

#[test]
fn what_can_be_reached_before_the_wait_is_seen() {
    let load = "LDG.E R0, desc[UR4][R2.64]";
    for (code, expected) in [
        (
            &["LDC R1, c[0x0][0x28]", "ACQBULK", "PREEXIT", load, "@P0 EXIT", "STG.E desc[UR4][R2.64], R0", "EXIT"][..],
            "",
        ),
        (&[load, "ACQBULK", "EXIT"], "LDG"),
        (&["PREEXIT", "ACQBULK", "EXIT"], "PREEXIT"),
        (&["@!P0 EXIT", "ACQBULK", "EXIT"], "EXIT"),
        (&["@P0 ACQBULK", load, "EXIT"], "LDG EXIT"),
        (&[load, "EXIT"], "LDG EXIT"),
        // Past the wait, by each kind of branch that may not be taken; where it is always taken, nothing is in between.
        (&["@P0 BRA `(.L_1)", "ACQBULK", ".L_1:", load, "EXIT"], "LDG EXIT"),
        (&["BRA.U !UP0, `(.L_1)", "ACQBULK", ".L_1:", load, "EXIT"], "LDG EXIT"),
        (&["BRA.DIV UR4, `(.L_1)", load, ".L_1:", "ACQBULK", "EXIT"], "LDG"),
        (&["BRA `(.L_1)", load, ".L_1:", "ACQBULK", "EXIT"], ""),
        // Backwards: what comes first in memory may come last, and the other way round.
        (&["BRA `(.L_2)", ".L_1:", load, "EXIT", ".L_2:", "ACQBULK", "BRA `(.L_1)"], ""),
        (
            &["BRA `(.L_2)", ".L_1:", "ACQBULK", ".L_3:", load, "EXIT", ".L_2:", "@P0 BRA `(.L_3)", "BRA `(.L_1)"],
            "LDG EXIT",
        ),
        // Threads that part before the wait and meet behind it.
        (&["BSSY B0, `(.L_1)", "@P0 BRA `(.L_2)", ".L_2:", "ACQBULK", "BSYNC B0", ".L_1:", load, "EXIT"], ""),
        // In a function, and behind the call of one.
        (&["CALL.REL.NOINC `(f)", "ACQBULK", "EXIT", "f:", load, "RET.REL.NODEC R2 `(k)"], "LDG"),
        (&["CALL.REL.NOINC `(f)", load, "ACQBULK", "EXIT", "f:", "RET.REL.NODEC R2 `(k)"], "LDG"),
    ] {
        assert_eq!(early_in(code), expected, "{code:?}");
    }
}

#[test]
fn a_jump_that_cannot_be_followed_is_seen() {
    for jump in
        ["BRX R2 -0xd0 (*\"BRANCH_TARGETS .L_1,.L_2\"*)", "BRA `(.L_9)", "CALL.ABS.NOINC R4", "BSSY B0, `(.L_1)"]
    {
        assert_eq!(early_in(&[jump, "NOP", ".L_1:", "ACQBULK", "EXIT"]), Instruction::new(jump).operation());
    }
}

#[test]
fn accesses_of_global_memory_are_told_from_others() {
    for access in [
        "LD.E R0, desc[UR4][R2.64]",
        "LDG.E.128.CONSTANT R4, desc[UR6][R2.64+0x10]",
        "LDGSTS.E.BYPASS.128 [R7], desc[UR8][R4.64], P0",
        "ST.E [R2.64], R0",
        "STG.E desc[UR4][R2.64], R0",
        "ATOM.E.ADD.STRONG.GPU PT, R4, desc[UR4][R2.64], R5",
        "ATOMG.E.INC.STRONG.GPU PT, R4, desc[UR4][R2.64], R5",
        "REDG.E.ADD.STRONG.GPU desc[UR4][R2.64], R5",
        "UBLKCP.S.G [UR4], [UR6], UR8",
        "@P1 LDG.E R0, desc[UR4][R2.64+-0x4]",
    ] {
        assert!(Instruction::new(access).touches_global_memory(), "{access}");
    }
    for other in [
        "LDC.64 R2, c[0x0][R4+0x218]",
        "LDS.128 R4, [R2+0x10]",
        "STS [R2], R4",
        "LDSM.16.M88.4 R4, [R2]",
        "LDL R4, [R1]",
        "ATOMS.ADD R4, [R2], R5",
        "FFMA R0, R1, -c[0x0][0x210], R2",
        "FADD R0, |c[0x0][0x210]|, R2",
        "@!P0 BRA `(.L_x_1)",
    ] {
        assert!(!Instruction::new(other).touches_global_memory(), "{other}");
    }
}

#[test]
fn every_kernel_of_a_listing_is_scanned() {
    let function = |name: &str, other: &str, code: &str| {
        format!("\t.section .text.{name}\n\t.other {name},@\"{other}\"\n{name}:\n.text.{name}:\n{code}")
    };
    let (waits, ends) = ("\t/*0000*/\tACQBULK ;\n\t/*0010*/\tEXIT ;\n", "\t/*0000*/\t@P0 EXIT ;\n\t/*0010*/\tEXIT;\n");
    let kernel = "STO_CUDA_ENTRY STV_DEFAULT";
    let listing = function("a", kernel, waits) + &function("f", "STV_DEFAULT", waits) + &function("b", kernel, ends);
    assert_eq!(early(&listing), BTreeMap::from([("a", vec![]), ("b", vec!["EXIT", "EXIT"])]));
}
