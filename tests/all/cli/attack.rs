//! `engine attack`: its numbers, its pictures, and what it refuses.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{
    MOMENT, assert_contains, copy_of_finished, engine, error_line, finished, run, stage_dirs, success, table_dirs,
};

/// The attack of `MOMENT`, so weak that a test takes a moment.
const WEAK: &[&str] = &["--eps", "0.3", "--step-size", "0.04", "--attack-steps", "1"];

/// A model that was trained for an epoch.
fn model() -> PathBuf {
    stage_dirs(finished())[0].join("model.safetensors")
}

/// `verb` on `model` and the sample.
fn on<'a>(verb: &'a str, model: &'a Path, extra: &[&'a str]) -> Vec<&'a str> {
    [&[verb, "--sample", "--quiet", "--model", model.to_str().unwrap()], extra].concat()
}

/// What follows `name` in a line of the output.
fn value<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no '{name}' in {text}")).trim()
}

/// Width, height and RGB bytes of a picture.
fn decode(path: &Path) -> (u32, u32, Vec<u8>) {
    let file = std::io::BufReader::new(fs::File::open(path).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut rgb).unwrap();
    (info.width, info.height, rgb)
}

#[test]
fn pictures_hold_every_image_and_numbers_agree() {
    let (model, out) = (model(), tempfile::tempdir().unwrap());
    let grids = out.path().join("new/grids");
    let text = success(&run(&[on("attack", &model, WEAK), vec!["--n", "20"]].concat(), &grids));
    assert_eq!(value(&text, "images"), "20 from embedded sample");
    assert_eq!(value(&text, "pictures"), format!("2 in {}", grids.display()));
    let delta = value(&text, "max |delta|").strip_suffix(", eps 0.3").unwrap().parse::<f64>().unwrap();
    assert!(delta > 0.0 && delta <= 0.3, "{text}");

    // What was right and is wrong was broken.
    let number = |name: &str| value(&text, name).parse::<f64>().unwrap();
    let broken: f64 = value(&text, "pgd").split_whitespace().nth(2).unwrap().parse().unwrap();
    assert!(broken > 0.0 && broken == (number("natural") - number("adversarial")) / 5.0, "{text}");

    let mut names: Vec<String> =
        fs::read_dir(&grids).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["grid-000.png", "grid-001.png"]);
    let pages = names.iter().map(|name| decode(&grids.join(name))).collect::<Vec<_>>();
    // Eight images of 4 × 28 pixels a row; two rows, then the row of the last four images.
    let row = 3 * (112 + 6) + 4 * 15;
    assert_eq!((pages[0].0, pages[1].0), (pages[1].0, 2 * 12 + 100 + 8 * (112 + 6) - 6));
    assert_eq!(pages[0].1 - pages[1].1, row);

    // The last page has four images, drawn at the pixels of the data set, and white beside them.
    let data = engine::data::Dataset::sample(engine::data::DatasetName::Mnist).unwrap();
    let (width, _, rgb) = &pages[1];
    let pixel = |x: usize, y: usize| rgb[3 * (y * *width as usize + x)..][..3].to_vec();
    for (column, index) in (16..20).enumerate() {
        for (i, &level) in data.test.image(index).iter().enumerate() {
            let at = (12 + 100 + column * 118 + i % 28 * 4, 12 + 30 + i / 28 * 4);
            assert_eq!(pixel(at.0, at.1), [level; 3], "image {index}, pixel {i}");
        }
    }
    let beside = (12 + 100 + 4 * 118..*width as usize).all(|x| (42..42 + 400).all(|y| pixel(x, y) == [255; 3]));
    assert!(beside, "no fifth image");
}

/// The natural accuracy is the evaluation's, and the same command gives the same bytes.
#[test]
fn the_same_numbers_as_eval_and_the_same_bytes_again() {
    let (model, out) = (model(), tempfile::tempdir().unwrap());
    let numbers = |text: &str| ["images", "natural", "adversarial"].map(|name| value(text, name).to_string());
    let attacked = |dir: &str, attack: &[&str]| {
        let out = out.path().join(dir);
        let n = ["--n", "1000", "--save", "--seed", "5"];
        let text = success(&run(&[on("attack", &model, attack), n.to_vec()].concat(), &out));
        let files =
            ["grid-000.png", "verdicts.csv", "adversarial.safetensors"].map(|file| fs::read(out.join(file)).unwrap());
        (text, files, fs::read_dir(out).unwrap().count())
    };
    let (fgsm, _, _) = attacked("fgsm", &["--attack", "fgsm", "--eps", "0.3"]);
    assert_eq!(value(&fgsm, "max |delta|"), "0.300000, eps 0.3");

    let cw = [WEAK, &["--attack", "cw", "--restarts", "2"]].concat();
    let (text, files, count) = attacked("one", &cw);
    let evaluated = success(&engine(&on("eval", &model, &[&cw[..], &["--seed", "5"]].concat())).output().unwrap());
    assert_eq!(numbers(&text)[..2], numbers(&evaluated)[..2], "{text}{evaluated}");
    assert_eq!(count, 63 + 2, "pictures, images, verdicts; no state");
    let (again, same, _) = attacked("two", &cw);
    assert!(same == files, "not the same bytes");
    assert_eq!(numbers(&again), numbers(&text));
}

/// The rows of the CSV add up to what was printed, and the file of images holds what they say.
#[test]
fn what_is_saved() {
    let (model, out) = (model(), tempfile::tempdir().unwrap());
    let attack = ["--attack", "apgd-dlr", "--attack-steps", "5", "--eps", "0.1", "--n", "30", "--save"];
    let text = success(&run(&on("attack", &model, &attack), out.path()));
    let csv = fs::read_to_string(out.path().join("verdicts.csv")).unwrap();
    let rows: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows[0], ["image", "label", "natural", "stands", "broken_by", "adversarial", "distance"]);
    assert_eq!(rows.len(), 31);
    let percent = |count: usize| format!("{:.2}", 100.0 * count as f64 / 30.0);
    let count = |of: &dyn Fn(&Vec<&str>) -> bool| rows[1..].iter().filter(|row| of(row)).count();
    assert_eq!(value(&text, "natural"), percent(count(&|row| row[1] == row[2])));
    assert_eq!(value(&text, "adversarial"), percent(count(&|row| row[3] == "true")));
    let broken = count(&|row| row[4] == "apgd-dlr" && row[5] != row[1] && row[6].parse::<f64>().unwrap() <= 0.1 + 1e-6);
    assert!(broken > 0 && broken == count(&|row| !row[4].is_empty()), "{csv}");
    assert!(text.contains(&format!("broke {broken} in")), "{text}");

    let bytes = fs::read(out.path().join("adversarial.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("images").unwrap().shape(), [30, 1, 28, 28]);
    let labels = file.tensor("labels").unwrap();
    let label = |i: usize| i64::from_le_bytes(labels.data()[8 * i..][..8].try_into().unwrap()).to_string();
    let flags = file.tensor("broken").unwrap();
    for (i, row) in rows[1..].iter().enumerate() {
        assert_eq!((row[0], row[1]), (i.to_string().as_str(), label(i).as_str()));
        assert_eq!(flags.data()[8 * i] == 1, !row[4].is_empty(), "image {i}");
    }
}

/// In the Euclidean norm every image has a distance of its own.
#[test]
fn the_largest_distance_is_that_of_any_image() {
    let (model, out) = (model(), tempfile::tempdir().unwrap());
    let attack = ["--attack", "cw-l2", "--attack-steps", "20", "--n", "60", "--save"];
    let text = success(&run(&on("attack", &model, &attack), out.path()));
    let csv = fs::read_to_string(out.path().join("verdicts.csv")).unwrap();
    let distances: Vec<f64> = csv.lines().skip(1).filter_map(|line| line.split(',').nth(6)?.parse().ok()).collect();
    let largest = distances.iter().copied().fold(0.0, f64::max);
    assert!(distances.len() > 1 && [distances[0], *distances.last().unwrap()].iter().all(|d| *d < largest), "{csv}");
    let said: f64 = value(&text, "max |delta|_2").trim_end_matches(", eps 2").parse().unwrap();
    assert!((said - largest).abs() < 1e-5, "{said} {largest}");
}

/// The ensemble, on few images: an attack a line, then the checks.
#[test]
fn the_ensemble_and_its_checks() {
    let (model, out) = (model(), tempfile::tempdir().unwrap());
    let attack = ["--attack", "autoattack", "--eps", "0.02", "--n", "8"];
    let text = success(&run(&on("attack", &model, &attack), out.path()));
    let names: Vec<&str> = text.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(names[..7], ["images", "natural", "apgd-ce", "apgd-t", "fab-t", "square", "adversarial"], "{text}");
    assert_eq!(
        text.lines().filter(|line| line.starts_with("pass  ") || line.starts_with("FAIL  ")).count(),
        6,
        "{text}"
    );
}

/// Killed in the middle and started again: it goes on, and comes to the same verdicts.
#[test]
fn an_interrupted_attack_is_resumed() {
    let (model, dir) = (model(), tempfile::tempdir().unwrap());
    let (whole, stopped) = (dir.path().join("whole"), dir.path().join("stopped"));
    // So small a ball that nothing breaks, and all queries are made.
    let attack =
        ["--attack", "square", "--attack-steps", "2000", "--eps", "1e-5", "--n", "1000", "--save", "--threads", "1"];
    let args = on("attack", &model, &attack);
    let verdicts = |out: &Path| fs::read_to_string(out.join("verdicts.csv")).unwrap();
    success(&run(&args, &whole));
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_engine"))
        .args(&args)
        .args(["--out", stopped.to_str().unwrap()])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // The directory is made when all is read.
    while !stopped.exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(500));
    // SIGINT, as from Ctrl-C.
    std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130));
    let state = stopped.join("state.safetensors");
    assert!(state.exists() && !stopped.join("verdicts.csv").exists());

    // Another attack must not take it for its own, nor throw it away.
    let other = on("attack", &model, &["--attack", "fgsm", "--n", "10"]);
    let line = error_line(&run(&other, &stopped), 2);
    assert_contains(&line, &["state.safetensors", "is of an interrupted attack with other settings", "--fresh"]);
    assert!(state.exists());
    success(&run(&args, &stopped));
    assert!(!state.exists());
    assert_eq!(verdicts(&stopped), verdicts(&whole));
}

/// On a table that was run without it only the ensemble is left to do; then nothing is.
#[test]
fn a_table_takes_the_ensemble() {
    let out = copy_of_finished();
    let args = [MOMENT, &["--attack", "autoattack", "--attack-images", "20"]].concat();
    let text = success(&run(&args, out.path()));
    assert!(text.contains("2 stages, 1 finished") && text.contains("AutoAttack"), "{text}");
    let accuracy = |table: &PathBuf| -> Option<f64> {
        let mut rows = csv::Reader::from_path(table.join("table.csv")).unwrap();
        let at = rows.headers().unwrap().iter().position(|name| name == "autoattack").unwrap();
        rows.records().next().unwrap().unwrap()[at].parse().ok()
    };
    let tables = table_dirs(out.path());
    assert_eq!(tables.len(), 2, "with the ensemble it is another question: {tables:?}");
    let accuracies: Vec<f64> = tables.iter().filter_map(accuracy).collect();
    let [accuracy] = accuracies[..] else { panic!("{accuracies:?}") };
    assert!((0.0..=100.0).contains(&accuracy) && accuracy % 5.0 == 0.0, "of 20 images: {accuracy}");
    assert_eq!(stage_dirs(out.path()).len(), 2);
    assert!(success(&run(&args, out.path())).contains("2 stages, 2 finished"));
    let line = error_line(&run(&[MOMENT, &["--attack", "pgd"]].concat(), out.path()), 2);
    assert_contains(&line, &["'pgd'", "autoattack"]);
}

#[test]
fn what_cannot_be_attacked() {
    let (model, dir) = (model(), tempfile::tempdir().unwrap());
    let out = dir.path().join("out");
    let told = |extra: &[&str], expected: &[&str]| {
        assert_contains(&error_line(&run(&on("attack", &model, extra), &out), 2), expected);
    };
    told(&["--attack", "none"], &["unknown attack 'none'"]);
    told(&["--attack", "pdg"], &["unknown attack 'pdg'"]);
    told(&["--attack", "transfer"], &["--attack transfer: needs another network", "--from FILE"]);
    told(&["--attack", "transfer", "--from", "none.safetensors"], &["none.safetensors"]);
    told(&["--attack", "autoattack", "--attack-steps", "5"], &["--attack-steps: --attack autoattack has none"]);
    told(&["--attack", "square", "--attack-steps", "0"], &["queries must be at least 1, got 0"]);
    told(&["--attack", "fab", "--restarts", "2"], &["--restarts: --attack fab has none"]);
    told(&["--attack", "apgd-ce", "--step-size", "0.1"], &["--step-size: --attack apgd-ce has none"]);
    told(&["--attack", "square", "--eps", "nan"], &["--eps: must be at least 0, got NaN"]);
    told(&["--n", "0"], &["--n: must be 1 to 1000", "got 0"]);
    told(&["--n", "1001"], &["--n: must be 1 to 1000", "got 1001"]);
    told(&["--eps", "-1"], &["attack.eps: must be at least 0"]);
    told(&["--data-set", "cifar10"], &["'lenet' takes 28x28x1 images", "the data set has 32x32x3 images"]);
    assert!(!out.exists(), "nothing may be written before all is checked");
    fs::write(&out, "a file").unwrap();
    let line = error_line(&run(&on("attack", &model, WEAK), &out), 1);
    assert_contains(&line, &[out.to_str().unwrap(), "cannot create directory"]);
}

#[test]
fn a_network_that_was_never_trained_is_not_attacked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    let mut bytes = fs::read(model()).unwrap();
    let trained = br#"\"epochs\":1"#;
    let at = bytes.windows(trained.len()).position(|window| window == trained).unwrap();
    bytes[at + trained.len() - 1] = b'0';
    fs::write(&path, bytes).unwrap();
    let expected = format!("{}: was never trained; attacking it says nothing; train it first", path.display());
    let autoattack = ["--attack", "autoattack"];
    assert_eq!(error_line(&run(&on("attack", &path, &autoattack), dir.path()), 2), expected);
    for attack in ["pgd", "cw"] {
        let attack = [WEAK, &["--attack", attack]].concat();
        assert_eq!(error_line(&run(&on("attack", &path, &attack), dir.path()), 2), expected);
        assert_eq!(error_line(&engine(&on("eval", &path, &attack)).output().unwrap(), 2), expected);
    }
    // Its natural accuracy is as good as any.
    let text = success(&engine(&on("eval", &path, &["--attack", "none"])).output().unwrap());
    assert!(!text.contains("adversarial") && value(&text, "natural").parse::<f64>().is_ok(), "{text}");
}
