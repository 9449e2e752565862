//! `engine attack`: its numbers, its pictures, and what it refuses.

use std::fs;
use std::path::{Path, PathBuf};

use super::{assert_contains, engine, error_line, finished, run, stage_dirs, success};

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

    // A class that was right and is wrong has changed.
    let number = |name: &str| value(&text, name).parse::<f64>().unwrap();
    let (natural, adversarial) = (number("natural"), number("adversarial"));
    let changed: f64 = value(&text, "changed class").strip_suffix(" of 20").unwrap().parse().unwrap();
    assert!(adversarial <= natural && changed >= (natural - adversarial) / 5.0, "{text}");

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

#[test]
fn the_same_numbers_as_eval_and_the_same_bytes_again() {
    let (model, out) = (model(), tempfile::tempdir().unwrap());
    let attack = [WEAK, &["--attack", "cw", "--restarts", "2", "--seed", "5"]].concat();
    let measured = success(&engine(&on("eval", &model, &attack)).output().unwrap());
    let attacked = |dir: &str| {
        let out = out.path().join(dir);
        let text = success(&run(&[on("attack", &model, &attack), vec!["--n", "1000"]].concat(), &out));
        (text, fs::read(out.join("grid-000.png")).unwrap(), fs::read_dir(out).unwrap().count())
    };
    let (text, png, pages) = attacked("one");
    assert!(text.starts_with(&measured), "{measured}\n{text}");
    assert_eq!(pages, 63);
    assert_eq!(attacked("two").1, png);
}

#[test]
fn what_cannot_be_attacked() {
    let (model, dir) = (model(), tempfile::tempdir().unwrap());
    let out = dir.path().join("out");
    let told = |extra: &[&str], expected: &[&str]| {
        assert_contains(&error_line(&run(&on("attack", &model, extra), &out), 2), expected);
    };
    told(&["--attack", "none"], &["--attack none attacks nothing", "engine eval"]);
    told(&["--attack", "pdg"], &["unknown attack 'pdg'"]);
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
    for attack in ["pgd", "cw"] {
        let attack = [WEAK, &["--attack", attack]].concat();
        assert_eq!(error_line(&run(&on("attack", &path, &attack), dir.path()), 2), expected);
        assert_eq!(error_line(&engine(&on("eval", &path, &attack)).output().unwrap(), 2), expected);
    }
    // Its natural accuracy is as good as any.
    let text = success(&engine(&on("eval", &path, &["--attack", "none"])).output().unwrap());
    assert!(!text.contains("adversarial") && value(&text, "natural").parse::<f64>().is_ok(), "{text}");
}
