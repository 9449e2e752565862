//! The paper's numbers a second time, as the paper prints them: original widths down, pruned ones across.

use std::collections::BTreeMap;

use engine::experiments::tables::{BlockSpec, Coordinates, Published, TABLES, Table};

const A1: &str = "
post-prune
2   64.39/38.05
4   62.49/36.77  73.47/43.09
8   60.40/37.05  72.52/43.34  78.64/45.19
16  60.26/36.18  69.47/42.14  78.59/46.17  80.79/46.40
";

const C1: &str = "
adversarial-training
2   -/11.35
4   -/91.42
8   -/93.57
16  -/94.78
admm
2   -/11.35
4   -/89.63  -/91.75
8   -/92.33  -/93.83  -/94.46
16  -/89.26  -/91.34  -/95.08  -/95.62
";

const T2: &str = "
natural-training
1   98.25/0.00
2   98.72/0.00
4   99.07/0.00
8   99.20/0.00
16  99.31/0.00
adversarial-training
1   11.35/11.35
2   11.35/11.35
4   98.15/91.38
8   98.85/93.51
16  99.02/94.65
admm
2   11.35/11.35
4   96.22/89.41  97.68/91.77
8   97.31/92.16  98.31/93.93  98.87/94.27
16  96.19/87.79  98.07/89.95  98.87/94.77  99.01/95.44
";

const T3: &str = "
adversarial-training
1   10.00/10.00
2   55.03/33.29
4   65.01/36.30
8   72.80/37.67
16  74.91/38.65
admm
2   50.30/31.33
4   53.30/32.41  62.77/34.52
8   52.27/31.91  62.22/35.42  70.50/37.92
16  51.28/31.30  62.10/35.55  70.59/37.93  71.93/39.00
";

const T4: &str = "
natural-training
1   84.23/0.00
2   87.05/0.00
4   91.93/0.00
8   93.11/0.00
16  94.80/0.00
adversarial-training
1   57.16/34.40
2   71.16/42.45
4   77.35/44.99
8   77.26/47.28
16  82.71/49.31
admm
2   64.53/37.90
4   64.36/37.78  73.21/43.14
8   64.52/38.01  73.36/43.17  78.12/45.49
16  64.17/37.99  71.80/42.86  78.85/47.19  81.83/48.00
";

/// What is published of a table: method, row and column of each cell, and its numbers.
type Cells = BTreeMap<(String, String, String), Published>;

fn read(texts: &[&str]) -> Cells {
    let number = |text: &str| (text != "-").then(|| text.parse::<f64>().unwrap());
    let mut cells = Cells::new();
    let mut method = "";
    for line in texts.iter().flat_map(|text| text.lines()).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [row, values @ ..] = &words[..] else { unreachable!("a line has words") };
        if values.is_empty() {
            method = row;
        }
        let columns: &[&str] = if method.ends_with("-training") { &["dense"] } else { &["1", "2", "4", "8"] };
        for (value, column) in values.iter().zip(columns) {
            let (natural, adversarial) = value.split_once('/').unwrap();
            let published = Published { natural: number(natural), adversarial: number(adversarial).unwrap() };
            assert!(cells.insert((method.into(), row.to_string(), column.to_string()), published).is_none(), "{line}");
        }
    }
    cells
}

/// Of 21 cells, all but two are a network that always answers 1.
fn b1() -> Cells {
    let inits =
        ["uniform", "normal", "xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal", "orthogonal"];
    let cells = inits.iter().flat_map(|init| ["adam", "sgd", "cosanneal"].map(|optimizer| (*init, optimizer)));
    let numbers = |cell| match cell {
        ("uniform", "adam") => (78.86, 70.47),
        ("kaiming_normal", "adam") => (19.68, 19.02),
        _ => (11.35, 11.35),
    };
    let published = |cell| Published { natural: Some(numbers(cell).0), adversarial: numbers(cell).1 };
    cells.map(|(row, column)| (("scratch".into(), row.into(), column.into()), published((row, column)))).collect()
}

fn found(block: &'static BlockSpec, (row, column): (&'static str, &'static str), table: &Table) -> Option<Published> {
    table.published(&Coordinates { block, row, column, seed: 0 })
}

#[test]
fn every_number_of_every_table_is_the_papers() {
    for (id, texts) in [("a1", &[A1, T4][..]), ("c1", &[C1]), ("fashion", &[]), ("t2", &[T2]), ("t3", &[T3])]
        .into_iter()
        .chain([("t4", &[T4, A1][..]), ("b1", &[])])
    {
        let expected = if id == "b1" { b1() } else { read(texts) };
        let table = Table::find(id).unwrap();
        let mut published = Cells::new();
        for block in table.blocks {
            for cell in block.cells() {
                let key = (block.method.to_string(), cell.0.to_string(), cell.1.to_string());
                let numbers = found(block, cell, table);
                assert_eq!(numbers, expected.get(&key).copied(), "{id} {key:?}");
                published.extend(numbers.map(|numbers| (key, numbers)));
            }
        }
        // Table A1 leaves out the dense networks that nothing is pruned from, and those of natural training.
        let left_out = if id == "a1" { 5 + 1 } else { 0 };
        assert_eq!(published.len() + left_out, expected.len(), "{id}");
    }
    assert_eq!(TABLES.len(), 7, "a table that this test does not know");
}
