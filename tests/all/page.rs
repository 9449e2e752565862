//! `report.html` in a real browser: everything is there, every cell opens by mouse and by keyboard, it can be read on a
//! telephone and on paper, and nothing is asked of a network.
//!
//! With `ENGINE_PAGE_PICTURES` the page is also left in that directory as pictures, for somebody to look at.

mod browser;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::cli::{copy_dir, engine, stage_dirs, success};
use browser::{OpenPage, SCHEMES};

/// Widths of a telephone and of a large window.
const WIDTHS: [u32; 2] = [380, 1400];

/// The cells of [`page`].
const CELLS: [&str; 4] =
    ["cell-adversarial-training-2-dense", "cell-adversarial-training-4-dense", "cell-admm-2-1", "cell-admm-4-2"];

/// Dense networks and pruned ones, in seconds, of two seeds; one cell of the grid is not run.
fn run(out: &Path) {
    let cells = ["--cells", "2:dense,4:dense,2:1,4:2", "--method", "adversarial-training,admm", "--seeds", "2"];
    let little = ["--train-images", "100", "--test-images", "40", "--epochs", "2", "--name", "page", "--quiet"];
    let attack = ["--set", "attack.steps=1", "--set", "eval_attack.steps=2"];
    let args = [&["run", "--table", "t2"], &cells[..], &little, &attack].concat();
    success(&engine(&args).arg("--out").arg(out).output().unwrap());
}

/// The output directory of [`run`]; not to be changed.
fn finished() -> &'static Path {
    static RUN: OnceLock<TempDir> = OnceLock::new();
    let run_once = || {
        let out = tempfile::tempdir().unwrap();
        run(out.path());
        out
    };
    RUN.get_or_init(run_once).path()
}

/// The page of a run with this output directory.
fn page_of(out: &Path) -> PathBuf {
    out.join("page/report.html")
}

/// Identifiers that stand twice, links without a target, pictures that are missing or do not decode, cells without a section
/// or without content. The browser must have loaded everything.
const MISSING: &str = r#"(async () => {
    const problems = [], all = (selector, of = document) => [...of.querySelectorAll(selector)];
    const ids = all('[id]').map(element => element.id);
    ids.filter((id, i) => ids.indexOf(id) != i).forEach(id => problems.push(`${id} stands twice`));
    const targets = all('a').map(link => link.getAttribute('href') ?? '');
    targets.filter(to => !ids.includes(to.slice(1))).forEach(to => problems.push(`${to} leads nowhere`));
    for (const image of document.images) {
        await image.decode().catch(() => problems.push(`${image.alt} does not decode`));
        if (image.naturalWidth != 28) problems.push(`${image.alt} is no image of 28 pixels`);
    }
    for (const cell of all('.cell')) {
        if (all('img', cell).length != 24) problems.push(`${cell.id} has ${all('img', cell).length} pictures`);
        if (!targets.includes(`#${cell.id}`)) problems.push(`nothing leads to ${cell.id}`);
        for (const part of ['table.numbers', '.chart svg', 'circle.dot.natural', '.images']) {
            if (!cell.querySelector(part)) problems.push(`${cell.id} has no ${part}`);
        }
    }
    if (all('.grid td.face').length == 0) problems.push('no cell has a value');
    for (const empty of all('.grid td.empty')) {
        if (!empty.innerText.startsWith('not ')) problems.push('an empty cell that does not say why');
    }
    return problems;
})()"#;

/// Texts that are shown with less than WCAG's contrast for AA on their background.
const FAINT: &str = r#"(() => {
    const channels = color => color.match(/[\d.]+/g).map(Number);
    const linear = c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    const background = element => {
        for (; element; element = element.parentElement) {
            const color = channels(getComputedStyle(element).backgroundColor);
            if (color.length == 3 || color[3] == 1) return color;
        }
        return [255, 255, 255];
    };
    const faint = [];
    for (const element of document.body.querySelectorAll('*')) {
        const text = [...element.childNodes].filter(n => n.nodeType == 3).map(n => n.data).join('').trim();
        if (!text || element.tagName == 'title' || !element.checkVisibility()) continue;
        const style = getComputedStyle(element);
        const ink = luminance(channels(element instanceof SVGElement ? style.fill : style.color));
        const paper = luminance(background(element));
        const contrast = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
        if (contrast < 4.5) faint.push(`'${text}': ${contrast.toFixed(2)}`);
    }
    return faint;
})()"#;

/// Whether the section of a cell is what is shown, with its stages.
fn is_open(id: &str) -> String {
    format!(
        "[...document.querySelectorAll('.cell')].filter(cell => cell.checkVisibility()).map(cell => cell.id).join() == '{id}' \
         && document.querySelector('#{id} table.numbers').checkVisibility()"
    )
}

/// What is missing on a page, or which of `cells` does not open.
fn problems(page: &OpenPage, cells: &[&str]) -> Vec<String> {
    let mut problems = page.texts(MISSING);
    let linked =
        page.texts("[...document.querySelectorAll('.grid a')].map(link => link.getAttribute('href').slice(1))");
    for id in cells {
        if !linked.iter().any(|linked| linked == id) {
            problems.push(format!("the table has no link to {id}"));
            continue;
        }
        if page.value(&format!("document.getElementById('{id}') != null")) != true {
            problems.push(format!("there is no {id}"));
            continue;
        }
        page.goto("");
        page.click(&format!(".grid a[href='#{id}']"));
        if !page.becomes_true(&is_open(id)) {
            problems.push(format!("{id} does not open by a click"));
        }
        if !opens_by_keyboard(page, id) {
            problems.push(format!("{id} does not open by keyboard"));
        }
    }
    problems.extend(page.heard());
    problems
}

/// Whether Tab reaches the link to a cell from the top of the page, and Enter opens it.
fn opens_by_keyboard(page: &OpenPage, id: &str) -> bool {
    page.goto("");
    let reached = (0..60).any(|_| {
        page.press("Tab");
        page.value("document.activeElement.getAttribute('href')") == format!("#{id}")
    });
    page.press("Enter");
    reached && page.becomes_true(&is_open(id))
}

#[test]
fn everything_is_there_and_every_cell_opens() {
    let Some(page) = OpenPage::open(&page_of(finished())) else { return };
    assert_eq!(problems(&page, &CELLS), Vec::<String>::new());
    assert_eq!(page.value("document.querySelectorAll('.cell').length"), CELLS.len());
    // The way back closes the section.
    page.goto(&format!("#{}", CELLS[2]));
    page.click(".cell:target nav a[href='#table']");
    assert!(page.becomes_true("![...document.querySelectorAll('.cell')].some(cell => cell.checkVisibility())"));
    // 4:1 is a place of the grid, and was not asked for.
    assert!(page.texts("[...document.querySelectorAll('td.empty')].map(e => e.innerText)").contains(&"not run".into()));
    // ADMM's residuals, and the layers.
    let section = page.value(&format!("document.getElementById('{}').textContent", CELLS[2]));
    for expected in ["primal residual", "dual residual", "Weights left in each layer", "conv1", "Seed 1", "pruning"] {
        assert!(section.as_str().unwrap().contains(expected), "{expected}");
    }
}

/// What the test above relies on: one picture, one cell, one link, one line of a script less or more, and it fails.
#[test]
fn what_is_missing_on_a_page_is_found() {
    let html = fs::read_to_string(page_of(finished())).unwrap();
    let first = |text: &str, from: &str, to: &str| {
        let start = text.find(from).unwrap();
        (start, start + text[start..].find(to).unwrap() + to.len())
    };
    let without = |from: &str, to: &str| {
        let (start, end) = first(&html, from, to);
        format!("{}{}", &html[..start], &html[end..])
    };
    let planted = [
        ("a picture", without("<img ", ">"), "23 pictures"),
        (
            "the bytes of a picture",
            html.replacen("data:image/png;base64,iVBOR", "data:image/png;base64,iVBOS", 1),
            "does not decode",
        ),
        ("a section", without("<section class=\"cell\"", "</section>"), "leads nowhere"),
        ("a link", html.replacen("href=\"#cell-admm-2-1\"", "href=\"#cell-admm-2-9\"", 1), "no link to cell-admm-2-1"),
        ("the rule that shows a section", html.replace(".cell:target", ".cell:hover"), "does not open"),
        ("a request", html.replacen("<main>", "<main><img src=\"http://127.0.0.1:9/x\" alt=\"x\">", 1), "a request to"),
        ("an error", html.replacen("<main>", "<main><script>throw 1</script>", 1), "Uncaught"),
    ];
    for (what, html, expected) in planted {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.html");
        fs::write(&path, html).unwrap();
        let Some(page) = OpenPage::open(&path) else { return };
        let found = problems(&page, &CELLS[2..3]);
        assert!(found.iter().any(|problem| problem.contains(expected)), "{what}: {found:?}");
    }
}

/// No sideways scrolling of the page, and enough contrast, wherever it is read; then pictures of it, if somebody wants them.
#[test]
fn the_page_can_be_read_at_every_width_and_in_both_schemes() {
    let Some(page) = OpenPage::open(&page_of(finished())) else { return };
    let pictures = std::env::var_os("ENGINE_PAGE_PICTURES").map(PathBuf::from);
    for fragment in [String::new(), format!("#{}", CELLS[2])] {
        for width in WIDTHS {
            for scheme in SCHEMES {
                page.show(width, scheme, "screen");
                page.goto(&fragment);
                let here = format!("{width} {scheme} {fragment}");
                assert_eq!(page.value("document.documentElement.scrollWidth"), width, "{here}");
                assert_eq!(page.texts(FAINT), Vec::<String>::new(), "{here}");
                let paper = page.value("getComputedStyle(document.body).backgroundColor");
                assert_eq!(paper == "rgb(255, 255, 255)", scheme == "light", "{here}");
                if let Some(dir) = &pictures {
                    let part = fragment.strip_prefix('#').unwrap_or("table");
                    fs::write(dir.join(format!("{part}-{width}-{scheme}.png")), page.picture()).unwrap();
                }
            }
        }
    }
}

/// All sections, with the stages of all seeds, whatever is open on the screen.
#[test]
fn everything_is_on_paper() {
    let Some(page) = OpenPage::open(&page_of(finished())) else { return };
    page.show(800, "dark", "print");
    let hidden = page.texts(
        "[...document.querySelectorAll('section, table, img, svg[role=img], pre')]
            .filter(part => !part.checkVisibility() || part.getBoundingClientRect().height == 0)
            .map(part => part.outerHTML.slice(0, 80))",
    );
    assert_eq!(hidden, Vec::<String>::new());
    assert_eq!(page.value("getComputedStyle(document.body).backgroundColor"), "rgb(255, 255, 255)");
    assert_eq!(page.texts(FAINT), Vec::<String>::new());
    let pdf = page.pdf();
    assert!(pdf.starts_with(b"%PDF-") && pdf.len() > 50_000, "{} bytes", pdf.len());
}

/// The images under attack are kept, those of the first seed of each cell; a damaged file is made again, and comes out the same.
#[test]
fn a_second_run_writes_the_same_page_whatever_has_become_of_its_images() {
    let kept = |out: &Path| -> Vec<PathBuf> {
        let files = stage_dirs(out).into_iter().map(|dir| dir.join("examples.safetensors"));
        files.filter(|file| file.exists()).collect()
    };
    let copy = tempfile::tempdir().unwrap();
    copy_dir(finished(), copy.path());
    let files = kept(copy.path());
    assert_eq!(files.len(), CELLS.len());
    let bytes: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    fs::remove_file(&files[0]).unwrap();
    fs::write(&files[1], &bytes[1][..bytes[1].len() / 2]).unwrap();
    let written = fs::metadata(&files[3]).unwrap().modified().unwrap();
    run(copy.path());
    for (file, bytes) in files.iter().zip(&bytes) {
        assert!(fs::read(file).unwrap() == *bytes, "{}", file.display());
    }
    assert_eq!(fs::metadata(&files[3]).unwrap().modified().unwrap(), written, "what is whole is not made again");
    let text = |out: &Path| fs::read_to_string(page_of(out)).unwrap().replace(&*out.to_string_lossy(), "OUT");
    assert!(text(copy.path()) == text(finished()), "the bytes of the page");
}
