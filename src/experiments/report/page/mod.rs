//! `report.html`: the whole run on one page that needs nothing but itself: the table as a heat map beside the published
//! one, and for each cell the stages that led to its numbers.
//!
//! The page has no script. A cell of the table links to its section, which is shown when it is the target of a link, and
//! on paper; so it works by keyboard, and a section has an address.

mod chain;
mod chart;
mod examples;
mod heat_map;
mod layers;
mod seeds;

use maud::{DOCTYPE, Markup, PreEscaped, html};

pub use examples::{Examples, Pictured};

use super::run_record::RunRecord;
use super::{Report, legend::legend};
use crate::base::error::Result;
use crate::experiments::pipeline::{Scores, StageResult};
use crate::train::{EpochRow, ResidualRow};

const STYLE: &str = include_str!("style.css");

/// Everything that the page shows.
pub struct Page<'a> {
    /// The table.
    pub report: &'a Report,
    /// Where the table comes from.
    pub record: &'a RunRecord,
    /// The command line, as a shell reads it.
    pub command: &'a str,
    /// The cells that the run was asked for, finished or not.
    pub cells: &'a [CellChain],
}

/// A cell and how its network came about, for each of its seeds.
pub struct CellChain {
    /// Name of its method, as on the command line.
    pub method: String,
    /// Title of its block in the report.
    pub block: String,
    /// Its row there.
    pub row: String,
    /// Its column there.
    pub column: String,
    /// In the order of the run.
    pub seeds: Vec<SeedChain>,
    /// Images under attack, of the first seed; `None` if its network is not finished.
    pub examples: Option<Examples>,
}

/// One seed of a cell.
pub struct SeedChain {
    /// The seed.
    pub seed: u64,
    /// The numbers in the table; `None` if the last stage is not finished.
    pub scores: Option<Scores>,
    /// Its stages, each starting from the one before; a suite of attacks, if there is one, is the last.
    pub stages: Vec<StageEntry>,
}

/// One stage.
pub struct StageEntry {
    /// Its part in the chain: `dense`, `ADMM`, `pruning`, `retraining`, …
    pub step: &'static str,
    /// Its directory in the store.
    pub key: String,
    /// Epochs that it trains when it is finished.
    pub epochs: usize,
    /// Its result; `None` if it is not finished.
    pub result: Option<StageResult>,
    /// Its epochs so far.
    pub metrics: Vec<EpochRow>,
    /// ADMM's residuals so far.
    pub residuals: Vec<ResidualRow>,
}

impl CellChain {
    /// The name of its section, as links know it.
    fn id(&self) -> String {
        format!("cell-{}-{}-{}", self.method, self.row, self.column)
    }
}

impl Page<'_> {
    /// The page. The same input gives the same bytes.
    ///
    /// # Errors
    /// [`crate::base::error::Error::Shape`] if the pixels of an example do not fit their shape.
    pub fn html(&self) -> Result<String> {
        let sections =
            self.cells.iter().enumerate().map(|(i, cell)| self.section(i, cell)).collect::<Result<Vec<_>>>()?;
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (self.report.title) }
                    // Without one, browsers ask the server that the page may lie on.
                    link rel="icon" href="data:,";
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    main {
                        (self.header())
                        (self.table())
                        @for section in &sections { (section) }
                        (self.differences())
                        (self.again())
                    }
                }
            }
        };
        Ok(page.into_string())
    }

    fn header(&self) -> Markup {
        html! {
            header {
                p.kicker { "engine " (self.record.version) " · " (self.record.table) " · " (self.record.profile) }
                h1 { (self.report.title) }
                @for note in &self.report.notes { p.lead { (note) } }
            }
        }
    }

    fn differences(&self) -> Markup {
        html! {
            section #differences {
                h2 { "Settings that are not the paper’s" }
                @match &self.report.differences[..] {
                    [] => p { "Nothing: every setting is as published." },
                    differences => (list(differences)),
                }
            }
        }
    }

    /// The blocks, the comparisons, and how to read them.
    fn table(&self) -> Markup {
        let report = self.report;
        html! {
            section #table {
                h2 { "Results" }
                p.hint { "Choose a measured cell to see how its network came about." }
                (heat_map::ACCURACY_KEY.markup())
                div.blocks { @for block in &report.blocks { (heat_map::block(block, self.cells)) } }
                @if !report.comparisons.is_empty() {
                    div.blocks { @for comparison in &report.comparisons { (heat_map::comparison(comparison)) } }
                    (heat_map::GAP_KEY.markup())
                }
                div.notes {
                    h3 { "How to read it" }
                    (list(&legend(report)))
                    h3 { "How it was made" }
                    (list(&report.settings))
                }
            }
        }
    }

    /// A cell's section, with links to its neighbours.
    fn section(&self, place: usize, cell: &CellChain) -> Result<Markup> {
        let link = |place: Option<usize>, text: &str| {
            let cell = place.and_then(|place| self.cells.get(place));
            html! { @if let Some(cell) = cell { a href={ "#" (cell.id()) } { (text) } } }
        };
        let content = chain::cell(self.report, cell)?;
        Ok(html! {
            section.cell id=(cell.id()) {
                nav aria-label="Cells" {
                    a href="#table" { "Back to the table" }
                    (link(place.checked_sub(1), "Previous cell"))
                    (link(Some(place + 1), "Next cell"))
                }
                (content)
            }
        })
    }

    /// How to run it again.
    fn again(&self) -> Markup {
        let RunRecord { version, commit, data, seeds, machine, .. } = self.record;
        let seeds: Vec<String> = seeds.iter().map(u64::to_string).collect();
        let commit = commit.as_ref().map_or(String::new(), |commit| format!(", commit {commit}"));
        let computed = machine.gpu.as_ref().or(machine.cpu.as_ref()).map_or("", String::as_str);
        html! {
            section #again {
                h2 { "Run it again" }
                pre { code { (self.command) } }
                dl {
                    dt { "Engine" } dd { (version) (commit) }
                    @for data in data {
                        dt { "Data" }
                        dd { (data.id.name) ", " (data.origin) ", " (data.id.subset) ", fingerprint " (data.id.fingerprint) }
                    }
                    dt { "Seeds" } dd { (seeds.join(", ")) }
                    dt { "Machine" }
                    dd {
                        (machine.backend) " backend, " (machine.threads) " threads, " (machine.os) " " (machine.arch)
                        @if !computed.is_empty() { ", " (computed) }
                    }
                }
            }
        }
    }
}

fn list(items: &[String]) -> Markup {
    html! { ul { @for item in items { li { (item) } } } }
}

#[cfg(test)]
mod tests {
    use roxmltree::{Document, Node};

    use super::*;
    use crate::experiments::report::sample;
    use crate::experiments::report::sample::chains::{cell, cells, seed, training};

    fn html(report: &Report, cells: &[CellChain]) -> String {
        let record = &sample::record();
        Page { report, record, command: "engine run --table b1", cells }.html().unwrap()
    }

    /// The page as XML, which it is but for the elements that HTML does not close and an attribute without a value.
    fn xml(html: &str) -> String {
        let html = html.replace("<details open>", "<details open=\"\">");
        let mut parts = html.split('<');
        let mut xml = parts.next().unwrap_or_default().to_string();
        for part in parts {
            let void = ["meta ", "link ", "img "].iter().any(|name| part.starts_with(name));
            xml += "<";
            xml += &if void { part.replacen('>', "/>", 1) } else { part.to_string() };
        }
        xml
    }

    /// Checks that every identifier stands once and every link leads to one.
    fn check(document: &Document) {
        let attributes = |name: &'static str| document.descendants().filter_map(move |node| node.attribute(name));
        let ids: Vec<&str> = attributes("id").collect();
        for id in &ids {
            assert_eq!(ids.iter().filter(|other| *other == id).count(), 1, "{id}");
            assert!(!id.contains(char::is_whitespace), "{id}");
        }
        for link in attributes("href").filter(|link| *link != "data:,") {
            assert!(link.strip_prefix('#').is_some_and(|target| ids.contains(&target)), "{link}");
        }
    }

    /// What the reader sees of a node.
    fn text(node: Node) -> String {
        let texts = node.descendants().filter(|node| node.is_text()).filter_map(|node| node.text());
        texts.collect::<Vec<_>>().join(" ").split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// The texts of all elements of a class.
    fn texts(html: &str, class: &str) -> Vec<String> {
        let xml = xml(html);
        let document = Document::parse_with_options(&xml, dtd()).unwrap();
        check(&document);
        let has = |node: &Node| node.attribute("class").is_some_and(|names| names.split(' ').any(|name| name == class));
        document.descendants().filter(has).map(text).collect()
    }

    fn dtd<'i>() -> roxmltree::ParsingOptions<'i> {
        roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() }
    }

    #[test]
    fn every_cell_has_its_section_with_links_that_lead_somewhere() {
        let html = html(&sample::report(), &cells());
        let sections = texts(&html, "cell");
        assert_eq!(sections.len(), 2);
        assert!(sections[0].contains("From scratch: initialiser uniform, optimiser adam"), "{}", sections[0]);
        for expected in ["91.00 → 40.00", "81.00 → 30.00", "Seed 2", "conv1 2 of 8 50 of 200", "4.0× smaller"] {
            assert!(sections[0].contains(expected), "no '{expected}' in: {}", sections[0]);
        }
        assert!(sections[1].contains("dense 4 3 2.5 11.35 1.35 key-of-dense"), "{}", sections[1]);
        for cell in ["uniform-adam", "uniform-sgd"] {
            assert!(html.contains(&format!("<a href=\"#cell-scratch-{cell}\"><span>")), "{cell}");
        }
    }

    #[test]
    fn the_same_input_gives_the_same_bytes() {
        assert_eq!(html(&sample::report(), &cells()), html(&sample::report(), &cells()));
    }

    #[test]
    fn nothing_is_loaded_and_nothing_is_executed() {
        let html = html(&sample::report(), &cells());
        assert!(!["http", "<script", "url(", "@import"].iter().any(|what| html.contains(what)));
        assert_eq!(html.matches("src=\"").count(), html.matches("src=\"data:image/png;base64,").count());
        assert_eq!(html.matches("<img ").count(), 2 * 2 * 3);
    }

    #[test]
    fn a_cell_without_a_value_says_why() {
        let mut report = sample::report();
        report.blocks[0].cells[0][1] = None;
        assert_eq!(
            texts(&html(&report, &cells()), "empty"),
            ["not finished", "not run", "not published", "not published"]
        );
        // Of a triangle of widths, what cannot be has no text.
        let widths = html(&sample::widths(), &[]);
        assert!(texts(&widths, "nothing").iter().all(String::is_empty) && !texts(&widths, "nothing").is_empty());
    }

    #[test]
    fn a_table_without_published_values_has_no_panel_for_them() {
        let mut report = sample::report();
        assert!(html(&report, &cells()).contains("<caption>Published</caption>"));
        for cell in report.blocks.iter_mut().flat_map(|block| block.cells.iter_mut().flatten().flatten()) {
            (cell.paper_natural, cell.paper_adversarial) = (None, None);
        }
        let html = html(&report, &cells());
        assert!(!html.contains("<caption>Published</caption>") && !html.contains("not published"));
        assert!(!html.contains("class=\"published\""), "a mark of a published value among the seeds");
    }

    #[test]
    fn what_users_name_is_text_and_no_markup() {
        let evil = "</style><script>alert(\"1\")</script> & 'more'";
        let mut report = sample::report();
        report.title = evil.into();
        (report.notes, report.settings, report.differences) = (vec![evil.into()], vec![evil.into()], vec![evil.into()]);
        report.blocks[0].rows[0] = "\"><b>".into();
        let mut cells = cells();
        cells.iter_mut().for_each(|cell| cell.row = "\"><b>".into());
        let record = &sample::record();
        let page = Page { report: &report, record, command: evil, cells: &cells };
        let html = page.html().unwrap();
        assert!(!html.contains("<script") && !html.contains("<b>"));
        assert_eq!(texts(&html, "lead"), [evil]);
        let xml = xml(&html);
        let document = Document::parse_with_options(&xml, dtd()).unwrap();
        let code = document.descendants().find(|node| node.has_tag_name("pre")).map(text);
        assert_eq!(code.as_deref(), Some(evil));
    }

    #[test]
    fn a_value_that_is_no_number_is_shown_and_never_drawn() {
        let mut report = sample::report();
        let seeds = vec![seed(0, vec![training("dense", f64::NAN)])];
        report.blocks[0].cells[0][1] = Some(sample::summary(&[(f64::NAN, f64::NAN)], None));
        let html = html(&report, &[cell("uniform", "sgd", seeds)]);
        assert_eq!(texts(&html, "empty")[0], "NaN/NaN");
        let xml = xml(&html);
        let document = Document::parse_with_options(&xml, dtd()).unwrap();
        for node in document.descendants().filter(|node| !node.has_tag_name("svg")) {
            assert!(node.attributes().all(|attribute| !attribute.value().contains("NaN")), "{node:?}");
        }
    }

    #[test]
    fn a_run_without_a_finished_stage_has_a_page() {
        let unfinished = || StageEntry { result: None, metrics: vec![], ..training("dense", 90.0) };
        let mut cell = cell("uniform", "adam", vec![seed(0, vec![unfinished()]), seed(1, vec![])]);
        cell.examples = None;
        let mut report = sample::report();
        report.blocks[0].cells[0][0] = None;
        let html = html(&report, &[cell]);
        let section = &texts(&html, "cell")[0];
        assert!(section.contains("Not finished") && section.contains("dense 4 – – not finished"), "{section}");
        assert!(texts(&html, "chart").is_empty() && texts(&html, "images").is_empty());
        assert!(texts(&self::html(&report, &[]), "cell").is_empty());
    }

    #[test]
    fn what_differs_is_listed_and_nothing_is_said_to_be_nothing() {
        let page = |differences: &[&str]| {
            let differences = differences.iter().map(|text| text.to_string()).collect();
            html(&Report { differences, ..sample::report() }, &[])
        };
        assert!(page(&[]).contains("every setting is as published"));
        let some = page(&["12 epochs for 83."]);
        assert!(some.contains("<li>12 epochs for 83.</li>") && !some.contains("every setting is as published"));
    }

    /// One seed has a dot for each accuracy and no mean; three have as many, and one mean each.
    #[test]
    fn every_seed_is_a_dot() {
        let marks = |html: &str| (html.matches(" r=\"4.5\"").count(), html.matches("class=\"mean\" x1=\"").count());
        let of = |cell: usize| html(&sample::report(), &[cells().remove(cell)]);
        assert_eq!(marks(&of(1)), (2, 0));
        // Two means, and one in the key.
        assert_eq!(marks(&of(0)), (6, 3));
        assert!(of(0).contains("natural: seed 0 90.00, seed 1 90.00, seed 2 90.00, mean 67.19, published 78.86"));
    }
}
