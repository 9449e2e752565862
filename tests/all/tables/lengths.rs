//! What follows from the names of cells and from `--epochs`: ratios, and schedules of other lengths.

use engine::experiments::pipeline::StageConfig;
use engine::experiments::tables::{Profile, Settings};

use super::pruning::{cells, settings};
use super::stages::chain;

/// What `--epochs` stretches, at lengths that nothing divides.
#[test]
fn other_lengths_stretch_drops_periods_and_ramps() {
    let phase = |id: &str, profile, method: &str, cell: &str, epochs, stage: usize| -> String {
        let [_, phase] = &chain(id, profile, method, cell, Some(epochs))[stage];
        let (_, phase) = phase.split_once(": ").unwrap();
        phase.split(", compact").next().unwrap().split(" filter").next().unwrap().to_string()
    };
    let (paper, quick) = (Profile::Paper, Profile::Quick);
    for (id, profile, method, epochs, stage, expected) in [
        // 80 and 150 of 300, in proportion and rounded down.
        ("t3", paper, "admm", 25, 0, "25 epochs, sgd 0.1 0.0001 multi-step [6, 12], best each 1, dense"),
        ("t3", paper, "admm", 29, 1, "29 epochs, sgd 0.01 0.0001 periodic 2, last each 2, admm 0.001 x 1.3 each 2"),
        ("t3", paper, "post-prune", 25, 2, "50 epochs, sgd 0.01 0.0001 cosine, best each 1"),
        ("t3", paper, "scratch", 25, 0, "75 epochs, sgd 0.1 0.0001 multi-step [20, 37], best each 1, dense"),
        ("t2", paper, "proximal", 9, 1, "9 epochs, sgd 0.01 0 periodic 1, last each 1, proximal each epoch"),
        ("t2", quick, "admm", 19, 1, "19 epochs, sgd 0.01 0 periodic 1, last each 19, admm 0.03 x 1.3 each 1"),
        ("t2", quick, "admm", 7, 0, "7 epochs, adam 0.001 constant, ramp 2.8000, best each 7, dense"),
        ("t2", quick, "scratch", 7, 0, "21 epochs, adam 0.001 constant, ramp 7.0000, best each 21, dense"),
        ("t2", quick, "inherited", 7, 2, "21 epochs, adam 0.001 constant, ramp 7.0000, best each 21"),
    ] {
        assert_eq!(phase(id, profile, method, "16:4", epochs, stage), expected, "{id} {profile} {method} {epochs}");
    }
    // A third, but 5 to 30 epochs, and never more than 0.6 of all.
    for (epochs, ramp) in [(1, "0.6000"), (7, "4.2000"), (12, "5.0000"), (50, "16.6667"), (100, "30.0000")] {
        let expected = format!("{epochs} epochs, sgd 0.1 0 multi-step [20], ramp {ramp}, best each 1, dense");
        assert_eq!(phase("b1", paper, "warmup", "normal:sgd", epochs, 0), expected);
    }
}

/// From width W to w the share 1 - w/W goes, by a rate of r the share 1 - 1/r, in every phase.
#[test]
fn every_cell_prunes_what_its_name_says() {
    let ratios = |id: &str, method: &str| -> Vec<(String, usize, Vec<f64>)> {
        let settings = Settings { methods: vec![method.into()], ..settings(id, Profile::Paper) };
        let ratios = |chain: &[StageConfig]| chain.iter().filter_map(|config| Some(config.target()?.ratio)).collect();
        cells(id, &settings)
            .iter()
            .map(|cell| {
                let widths: Vec<usize> = cell.chain.iter().map(|config| config.network().1).collect();
                assert!(widths.iter().all(|&width| width == widths[0]), "{method} {widths:?}");
                (format!("{}:{}", cell.at.row, cell.at.column), widths[0], ratios(&cell.chain))
            })
            .collect()
    };
    let widths = [
        ("2:1", 2, 1, 0.5),
        ("4:1", 4, 1, 0.75),
        ("4:2", 4, 2, 0.5),
        ("8:1", 8, 1, 0.875),
        ("8:2", 8, 2, 0.75),
        ("8:4", 8, 4, 0.5),
        ("16:1", 16, 1, 0.9375),
        ("16:2", 16, 2, 0.875),
        ("16:4", 16, 4, 0.75),
        ("16:8", 16, 8, 0.5),
    ];
    for (id, method, stages) in [
        ("t2", "admm", 3),
        ("t2", "proximal", 3),
        ("t2", "post-prune", 2),
        ("t2", "no-retrain", 1),
        ("t2", "inherited", 2),
        ("t2", "scratch", 0),
        ("c1", "admm", 4),
        ("t4", "admm", 3),
    ] {
        // The small network from scratch has the pruned width, and nothing to prune.
        let small = method == "scratch";
        let expected: Vec<_> = widths
            .iter()
            .map(|&(cell, large, w, ratio)| (cell.to_string(), if small { w } else { large }, vec![ratio; stages]))
            .collect();
        assert_eq!(ratios(id, method), expected, "{id} {method}");
    }
    let rates = [0.5, 0.75, 0.875, 0.9375, 0.96875];
    let cells = [(16, &rates[..]), (8, &rates[..4]), (4, &rates[..3])];
    let expected: Vec<_> = cells
        .into_iter()
        .flat_map(|(width, ratios)| {
            ratios
                .iter()
                .zip(["2x", "4x", "8x", "16x", "32x"])
                .map(move |(&ratio, rate)| (format!("{width}:{rate}"), width, vec![ratio; 3]))
        })
        .collect();
    assert_eq!(ratios("fashion", "admm"), expected);
}
