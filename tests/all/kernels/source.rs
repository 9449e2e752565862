//! The text of the kernels, as far as the tests understand it: which kernels a file has, their parameters, their budgets of
//! registers, and the structs that they get.

use engine::backend::cuda::runtime::kernel::KernelSpec;
use engine::backend::cuda::runtime::modules;
use engine::base::layout::{Field, Layout, Type};

/// A kernel as its file declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prototype {
    pub name: String,
    /// Most registers of a thread: from the line above, `// registers <= N`, or else what the launch bounds leave it.
    pub budget: Option<u32>,
    pub params: Vec<Param>,
}

/// A parameter of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    pub name: String,
    /// The word for its type, or for what it points to.
    pub ty: String,
    pub pointer: bool,
}

/// Name and text of the `.cu` files, as they were when this was built, with what they include and with their lists of tiles
/// expanded.
pub fn units() -> Vec<(&'static str, String)> {
    let sources = modules::sources().iter();
    let unit = |(name, text): &(&'static str, &str)| Some((name.strip_suffix(".cu")?, expanded(&with_headers(text))));
    sources.filter_map(unit).collect()
}

/// A text with the headers in place of the lines that include them, each once.
fn with_headers(text: &str) -> String {
    fn append(text: &str, seen: &mut Vec<String>, to: &mut String) {
        for line in text.lines() {
            let header = line.strip_prefix("#include \"").and_then(|rest| rest.strip_suffix('"'));
            let found = header.and_then(|header| modules::sources().iter().find(|(name, _)| *name == header));
            match found {
                Some((name, _)) if seen.iter().any(|other| other == name) => {}
                Some((name, text)) => {
                    seen.push(name.to_string());
                    append(text, seen, to);
                }
                None => *to += &format!("{line}\n"),
            }
        }
    }
    let mut all = String::new();
    append(text, &mut Vec::new(), &mut all);
    all
}

/// A macro with parameters.
struct Macro<'a> {
    name: &'a str,
    params: Vec<&'a str>,
    /// Its lines, without the backslashes.
    body: Vec<&'a str>,
}

impl<'a> Macro<'a> {
    fn new(definition: &'a str, rest: &mut impl Iterator<Item = &'a str>) -> Option<Self> {
        let (name, after) = definition.split_once('(')?;
        let (params, mut last) = after.split_once(')')?;
        let mut body = vec![last.trim_end_matches('\\').trim_end()];
        while last.ends_with('\\') {
            last = rest.next()?;
            body.push(last.trim_end_matches('\\').trim_end());
        }
        Some(Macro { name, params: params.split(',').map(str::trim).collect(), body })
    }

    /// The body with these arguments for the parameters.
    fn with(&self, args: &[&str]) -> String {
        let argument = |word: &str| {
            let at = self.params.iter().position(|param| *param == word);
            at.map_or_else(|| word.to_string(), |at| args[at].to_string())
        };
        let text = self.body.join("\n");
        let words = text.split_inclusive(|c: char| !c.is_alphanumeric() && c != '_').map(|piece| {
            let word = piece.trim_end_matches(|c: char| !c.is_alphanumeric() && c != '_');
            argument(word) + &piece[word.len()..]
        });
        words.collect::<String>().replace("##", "")
    }
}

/// A text in which each line `LIST(KERNEL)`, of a list of tiles and a macro that makes a kernel of a row, became these kernels.
pub fn expanded(text: &str) -> String {
    let (mut macros, mut all): (Vec<Macro>, _) = (Vec::new(), String::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(definition) = line.strip_prefix("#define ") {
            macros.extend(Macro::new(definition, &mut lines));
            continue;
        }
        let named = |name: &str| macros.iter().find(|of| of.name == name);
        let applied = line.strip_suffix(')').and_then(|call| call.split_once('('));
        let Some((list, kernel)) = applied.and_then(|(list, kernel)| Some((named(list)?, named(kernel)?))) else {
            all += &format!("{line}\n");
            continue;
        };
        for row in list.body.iter().filter_map(|row| row.trim().strip_prefix("TILE(")?.strip_suffix(')')) {
            let args: Vec<&str> = row.split(',').map(str::trim).collect();
            assert_eq!(args.len(), kernel.params.len(), "{}: {row}", kernel.name);
            all += &format!("{}\n", kernel.with(&args));
        }
    }
    all
}

/// The kernels of an expanded text.
pub fn prototypes(text: &str) -> Vec<Prototype> {
    let mut found = Vec::new();
    let (mut at, marker) = (0, "extern \"C\" __global__");
    while let Some(start) = text[at..].find(marker).map(|i| at + i) {
        at = start + marker.len();
        let line = text[..start].rfind('\n').unwrap_or(0);
        let above = text[..line].lines().next_back().unwrap_or_default();
        let budget = above.split_once("registers <=").map(|(_, rest)| rest.trim().trim_end_matches("*/").trim());
        let head = text[at..].split(['{', ';']).next().unwrap_or_default();
        let head: String = head.lines().map(|l| l.split("//").next().unwrap_or_default().to_string() + " ").collect();
        // `void __launch_bounds__(threads, blocks) name(params)`: the last parentheses are those of the parameters.
        let (before, params) = head.rsplit_once('(').unwrap_or((&head, ""));
        let params = params.split(')').next().unwrap_or_default().split(',').filter(|p| !p.trim().is_empty());
        found.push(Prototype {
            name: words(before).pop().unwrap_or_default(),
            budget: budget.and_then(|n| n.parse().ok()).or_else(|| left_by_bounds(before)),
            params: params.map(param).collect(),
        });
    }
    found
}

fn words(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
    words.filter(|word| !word.is_empty()).map(String::from).collect()
}

fn param(text: &str) -> Param {
    let mut words = words(text);
    let name = words.pop().unwrap_or_default();
    Param { name, ty: words.pop().unwrap_or_default(), pointer: text.contains('*') }
}

/// Registers of a thread that `__launch_bounds__(threads, blocks)` leaves room for, the threads as a product: a multiprocessor has
/// 65536, which are given out in eights, at most 255.
fn left_by_bounds(head: &str) -> Option<u32> {
    let (bounds, _) = head.split_once("__launch_bounds__(")?.1.rsplit_once(')')?;
    let (threads, blocks) = bounds.rsplit_once(',')?;
    let threads: Option<u32> = threads.split('*').map(|factor| factor.trim().parse::<u32>().ok()).product();
    let each = 65_536_u32.checked_div(threads? * blocks.trim().parse::<u32>().ok()?)?;
    Some((each / 8 * 8).min(255))
}

/// The type that a word means in a text.
fn type_of(text: &str, word: &str) -> &'static Type {
    match word {
        "u8" => u8::TYPE,
        "u16" | "bf16" => u16::TYPE,
        "u32" => u32::TYPE,
        "u64" => u64::TYPE,
        "float" => f32::TYPE,
        "double" => f64::TYPE,
        "float2" => <[f32; 2]>::TYPE,
        word => struct_of(text, word),
    }
}

/// A struct of plain fields, laid out as C++ does it.
fn struct_of(text: &str, name: &str) -> &'static Type {
    let body = text.split_once(&format!("\nstruct {name} {{\n")).and_then(|(_, rest)| rest.split_once("\n};"));
    let body = body.unwrap_or_else(|| panic!("there is no struct {name}")).0;
    let code: String = body.lines().map(|line| line.split("//").next().unwrap_or_default().to_string() + " ").collect();
    let (mut fields, mut end, mut widest) = (Vec::new(), 0, 1);
    for statement in code.split(';').map(str::trim).filter(|statement| !statement.is_empty()) {
        let statement = statement.strip_prefix("const ").unwrap_or(statement);
        let word = statement.split([' ', '*']).next().unwrap_or_default();
        assert!(!statement.contains(['(', '{', '=']), "{name} has more than fields: {statement}");
        for declared in statement[word.len()..].split(',').map(str::trim) {
            let pointer = declared.starts_with('*');
            let ty = if pointer { u64::TYPE } else { type_of(text, word) };
            let (field, ty) = match declared.trim_start_matches('*').trim().split_once('[') {
                Some((field, len)) => {
                    (field, &*Box::leak(Box::new(Type::Array(ty, number(text, len.trim_end_matches(']'))))))
                }
                None => (declared.trim_start_matches('*').trim(), ty),
            };
            let align = alignment(ty);
            let offset = usize::next_multiple_of(end, align);
            (end, widest) = (offset + ty.size(), widest.max(align));
            fields.push(Field { name: field.to_string().leak(), offset, ty });
        }
    }
    Box::leak(Box::new(Type::Struct(end.next_multiple_of(widest), fields.leak())))
}

fn alignment(ty: &Type) -> usize {
    match ty {
        Type::Number(_, size) => *size,
        Type::Array(of, _) => alignment(of),
        Type::Struct(_, fields) => fields.iter().map(|field| alignment(field.ty)).max().unwrap_or(1),
    }
}

/// A number, or the constant of this name.
fn number(text: &str, word: &str) -> usize {
    let value = || {
        let after = text.split(&format!("{word} = ")).nth(1)?;
        after.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    word.parse().ok().or_else(value).unwrap_or_else(|| panic!("{word} is no number"))
}

/// Every number in a type: where, under which name, of which type; and the sizes of all structs. A field whose name begins with
/// an underscore fills a gap.
fn flat(ty: &Type, offset: usize, name: &str, lines: &mut Vec<String>) {
    match ty {
        Type::Number(number, _) => lines.push(format!("byte {offset}: {number} {name}")),
        Type::Array(of, len) => flat(of, offset, &format!("{name}[{len}]"), lines),
        Type::Struct(size, fields) => {
            lines.push(format!("{name}: {size} bytes"));
            for field in fields.iter().filter(|field| !field.name.starts_with('_')) {
                flat(field.ty, offset + field.offset, &format!("{name}.{}", field.name), lines);
            }
        }
    }
}

/// What differs between the kernels of a file and those the host would launch: names, parameters and the fields of structs.
pub fn differences(file: &str, text: &str, specs: &[KernelSpec]) -> Vec<String> {
    let (prototypes, mut broken) = (prototypes(text), Vec::new());
    for Prototype { name, params, .. } in &prototypes {
        let Some(spec) = specs.iter().find(|s| s.file == file && s.name == name) else {
            broken.push(format!("kernels/{file}.cu: no function launches {name}"));
            continue;
        };
        let described = |name: &str, pointer: bool, ty: &Type| {
            let mut lines = vec![format!("{name}{}", if pointer { "*" } else { "" })];
            flat(ty, 0, name, &mut lines);
            lines
        };
        let kernel = params.iter().flat_map(|p| described(&p.name, p.pointer, type_of(text, &p.ty)));
        let host = spec.params.iter().flat_map(|p| described(p.name, p.pointer, p.ty));
        let (kernel, host): (Vec<String>, Vec<String>) = (kernel.collect(), host.collect());
        let differing = (0..kernel.len().max(host.len())).find(|&at| kernel.get(at) != host.get(at));
        if let Some(at) = differing {
            let [kernel, host] = [&kernel, &host].map(|lines| lines.get(at).map_or("nothing", String::as_str));
            broken.push(format!("kernels/{file}.cu: {name} takes '{kernel}', the host passes '{host}'"));
        }
    }
    let missing = specs.iter().filter(|s| s.file == file && prototypes.iter().all(|p| p.name != s.name));
    broken.extend(missing.map(|s| format!("kernels/{file}.cu has no {}, which the host launches", s.name)));
    broken
}
