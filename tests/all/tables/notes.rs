//! What is said under a table is said of its stages: every setting is changed, and the sentence must follow.

use std::collections::BTreeSet;

use engine::experiments::pipeline::{StageConfig, paths};
use engine::experiments::tables;
use engine::experiments::tables::{Cell, Difference, Profile, Settings, TABLES, Table};
use serde_json::Value;

use super::pruning::settings;

/// The settings of a run of all methods of a table, in a few cells.
fn all_methods(table: &Table, profile: Profile) -> Settings {
    let methods: Vec<String> = table.blocks.iter().map(|block| block.method.to_string()).collect();
    let cells = match table.id {
        "b1" => &["uniform:*"][..],
        "fashion" => &["4:*"],
        _ => &["4:dense", "4:1"],
    };
    Settings { methods, cells: cells.iter().map(|cell| cell.to_string()).collect(), ..settings(table.id, profile) }
}

/// What is said of a run, and which of its settings are not the paper's.
fn said(table: &'static Table, settings: &Settings) -> Option<(Vec<String>, Vec<Difference>)> {
    let cells = tables::cells(table, settings).ok()?;
    Some((tables::notes(table, &cells), tables::differences(table, settings, &cells).unwrap()))
}

fn stages(cells: &[Cell]) -> Vec<&StageConfig> {
    cells.iter().flat_map(|cell| &cell.chain).collect()
}

/// The value at a dotted path of a stage that has it.
fn value(stages: &[&StageConfig], path: &str) -> Value {
    let of = |stage: &&&StageConfig| {
        let pointer = format!("/{}", path.replace('.', "/"));
        serde_json::to_value(stage).unwrap().pointer(&pointer).cloned()
    };
    stages.iter().find_map(|stage| of(&stage)).unwrap()
}

/// Another value for a setting that has this one.
fn another(path: &str, old: &Value) -> Option<String> {
    let names = match path.rsplit('.').next().unwrap() {
        "ramp" => ["linear", "cosine"],
        "shape" => ["multi-step", "cosine"],
        "loss" => ["margin", "cross-entropy"],
        "bn" => ["eval", "train"],
        "init" => ["orthogonal", "normal"],
        "select" => ["held-out", "last"],
        "scheme" => ["column", "filter"],
        "every" => ["step", "epoch"],
        _ => ["", ""],
    };
    Some(match old {
        Value::Bool(old) => (!old).to_string(),
        Value::Number(old) if old.is_f64() => "0.0625".to_string(),
        Value::Number(old) => if old.as_u64() == Some(7) { "9" } else { "7" }.to_string(),
        Value::Array(_) => "[7, 9]".to_string(),
        Value::String(old) => names.into_iter().find(|name| name != old && !name.is_empty())?.to_string(),
        Value::Null | Value::Object(_) => return None,
    })
}

/// The settings that a sentence is made of, and what it then says of the new value.
const IN_SENTENCES: &[(&str, &str)] = &[
    ("attack.eps", "in eps 0.0625"),
    ("attack.loss", "margin loss"),
    ("attack.random_start", "from the clean image"),
    ("attack.step_size", "steps of 0.0625"),
    ("attack.steps", "PGD-7"),
    ("augment", ""),
    ("batch", "batch 7"),
    ("eps_schedule.epochs", "over the first 0.06 epochs"),
    ("eps_schedule.ramp", "linearly"),
    ("eval_attack.eps", "in eps 0.0625"),
    ("eval_attack.loss", "margin loss"),
    ("eval_attack.random_start", "from the clean image"),
    ("eval_attack.restarts", "7 starts"),
    ("eval_attack.step_size", "steps of 0.0625"),
    ("eval_attack.steps", "PGD-7"),
    ("optimizer.lr", " 0.0625"),
    ("optimizer.momentum", "momentum 0.0625"),
    ("optimizer.weight_decay", "weight decay 0.0625"),
    ("schedule.gamma", "times 0.0625"),
    ("schedule.milestones", "at epochs 7, 9"),
    ("schedule.period", "each third of 7 epochs"),
    ("schedule.shape", "at epochs"),
    ("schedule.warmup_epochs", "growing linearly over the first 0.06 epochs"),
    ("sparsity.every", "after every step"),
    ("sparsity.growth", "times 0.0625 at each update"),
    ("sparsity.linear", "convolutions only"),
    ("sparsity.rho", "rho 0.0625"),
    ("sparsity.scheme", "the columns of largest norm"),
    ("sparsity.update_every", "every 7 epochs"),
];

#[test]
fn every_setting_that_is_changed_is_among_the_differences_and_in_its_sentence() {
    let mut in_sentences = BTreeSet::new();
    for table in TABLES {
        for profile in [Profile::Demo, Profile::Paper] {
            let base = all_methods(table, profile);
            let cells = tables::cells(table, &base).unwrap();
            let stages = stages(&cells);
            let known: BTreeSet<String> = stages.iter().flat_map(|stage| paths(*stage).unwrap()).collect();
            let (notes, _) = said(table, &base).unwrap();
            for path in known {
                let Some(new) = another(&path, &value(&stages, &path)) else { continue };
                let changed = Settings { overrides: vec![(path.clone(), new.clone())], ..base.clone() };
                // Some have their own flags, and of some this value is out of range.
                let Some((now, differences)) = said(table, &changed) else { continue };
                let at = format!("{} {profile}: {path}={new}", table.id);
                let found = differences.iter().any(|d| d.setting == path && d.here.replace(',', ", ") == new);
                // The width of a cell or the initialiser of a row is the paper's in another cell.
                assert!(found || ["width", "init"].contains(&&*path), "{at}: {differences:?}");
                if now != notes {
                    let Some((_, text)) = IN_SENTENCES.iter().find(|(known, _)| *known == path) else {
                        panic!("{at}: a sentence follows, and no test knows");
                    };
                    let text = match (&*path, &*new) {
                        ("schedule.shape", "cosine") => "learning rate on half a cosine to 0",
                        ("eval_attack.loss", "cross-entropy") => "under PGD-40 in eps 0.3",
                        _ => text,
                    };
                    let new: Vec<&String> = now.iter().filter(|note| !notes.contains(note)).collect();
                    assert!(new.iter().any(|note| note.contains(text)), "{at}: {new:?}");
                    in_sentences.insert(path);
                }
            }
        }
    }
    assert_eq!(in_sentences.iter().collect::<Vec<_>>(), IN_SENTENCES.iter().map(|(path, _)| path).collect::<Vec<_>>());
}

/// With the flags that have names of their own.
#[test]
fn lengths_and_images_are_those_of_the_run() {
    for table in TABLES {
        for profile in [Profile::Demo, Profile::Quick, Profile::Smoke] {
            let settings = Settings { epochs: Some(23), train_images: 77, ..all_methods(table, profile) };
            let (notes, differences) = said(table, &settings).unwrap();
            assert!(notes.iter().any(|note| note.contains("23 epochs")), "{}: {notes:?}", table.id);
            let here = |setting: &str| differences.iter().find(|d| d.setting == setting).map(|d| d.here.as_str());
            assert_eq!((here("training images"), here("epochs")), (Some("77"), Some("23")), "{}", table.id);
        }
    }
}

#[test]
fn only_the_published_settings_on_the_published_data_have_no_differences() {
    for table in TABLES {
        let known = |content: &str| {
            let known = table.dataset.info().fingerprints.iter().find(|(_, known)| known.to_string() == content);
            known.map(|(fingerprint, _)| fingerprint.to_string())
        };
        let mut paper = settings(table.id, Profile::Paper);
        paper.data.fingerprint = known("official").unwrap_or_default();
        let of = |settings: &Settings| said(table, settings).unwrap().1;
        assert_eq!(of(&paper), [], "{}", table.id);
        let data = |settings: &Settings| of(settings).iter().filter(|d| d.of == ["data"]).count();
        assert_eq!(data(&Settings { test_images: 100, ..paper.clone() }), 1);
        paper.data.fingerprint = known("JPEG copy").unwrap_or("another".into());
        assert_eq!(data(&paper), 1, "{}: other content", table.id);
        assert!(!of(&settings(table.id, Profile::Quick)).is_empty());
    }
}

/// Equal settings are said once; others with the methods, columns or rows that have them.
#[test]
fn what_differs_between_cells_is_said_with_where() {
    let b1 = Table::find("b1").unwrap();
    let (notes, _) = said(b1, &Settings { cells: vec!["*:*".into()], ..all_methods(b1, Profile::Paper) }).unwrap();
    let training = &notes[0];
    for expected in [
        "Training: 300 epochs; Adam 0.0001 (adam, adam-1e-4), SGD 0.1, momentum 0.9 (sgd, cosanneal), Adam 0.001 (adam-1e-3);",
        "learning rate times 0.1 at epoch 20 (sgd), learning rate on half a cosine to 0 (cosanneal); batch 64; against \
         PGD-40 in eps 0.3, steps of 0.01; eps and steps growing along half a cosine over the first 30 epochs (warmup).",
    ] {
        assert!(training.contains(expected), "{training}");
    }
    let t2 = Table::find("t2").unwrap();
    let (notes, _) = said(t2, &all_methods(t2, Profile::Paper)).unwrap();
    let epochs = notes.iter().find(|note| note.starts_with("Epochs of a cell")).unwrap();
    assert_eq!(
        epochs,
        "Epochs of a cell, the stages before it included: 83 (natural-training, adversarial-training, no-retrain), 163 \
         (admm, post-prune, proximal, scratch), 246 (inherited)."
    );
    assert!(
        notes
            .iter()
            .any(|note| note.starts_with("Measured on clean images and under PGD-40 in eps 0.3, steps of 0.01"))
    );
}

/// What the paper says of a table stands under that table.
#[test]
fn remarks_stand_under_their_own_tables() {
    for (text, expected) in [
        ("Without retraining, the paper says, almost every cell is 10.00/10.00.", "a1"),
        ("The paper does not give the attack's settings.", "c1"),
        ("The paper gives neither numbers nor the attack's settings for Fashion-MNIST", "fashion"),
        ("The paper names its optimisers only.", "b1"),
        ("near is 96.22/89.41, which the paper reaches at w=1 by pruning w=4 with ADMM.", "b1"),
    ] {
        let under: Vec<&str> = TABLES
            .iter()
            .filter(|table| {
                let (notes, _) = said(table, &all_methods(table, Profile::Paper)).unwrap();
                notes.iter().any(|note| note.contains(text))
            })
            .map(|table| table.id)
            .collect();
        assert_eq!(under, [expected], "{text}");
    }
    let b1 = Table::find("b1").unwrap();
    let scratch = Settings { methods: vec!["scratch".into()], ..all_methods(b1, Profile::Paper) };
    assert!(said(b1, &scratch).unwrap().0.iter().all(|note| !note.contains("warm-up")));
}
