//! Which tile is the fastest for a convolution, as measured: a table for each architecture, `tuned/sm_*.csv`, which
//! `engine bench --tune` writes. Where it says nothing, the rules of [`super::tiles`] decide.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::tiles::{TILES, WEIGHT_TILES};
use crate::backend::cuda::Timing;
use crate::base::csv::to_csv;
use crate::base::dims::Conv2dDims;
use crate::base::error::{Error, Result};

/// Tables in the program, by major and minor compute capability.
const TABLES: [((i32, i32), &str); 1] = [((9, 0), include_str!("tuned/sm_90.csv"))];

/// A pass of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pass {
    Forward,
    InputGradient,
    WeightGradient,
}

impl Pass {
    /// The index of the tile of this name.
    fn tile(self, name: &str) -> Option<usize> {
        match self {
            Pass::WeightGradient => WEIGHT_TILES.iter().position(|tile| tile.name == name),
            _ => TILES.iter().position(|tile| tile.name == name),
        }
    }
}

/// A line of a table. The field names are its columns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    pass: Pass,
    n: u32,
    c_in: u32,
    h_in: u32,
    w_in: u32,
    c_out: u32,
    k: u32,
    stride: u32,
    pad: u32,
    /// As in the name of its kernel.
    tile: String,
    microseconds: f64,
}

/// A pass and the sizes of its convolution.
type Key = (Pass, [u32; 8]);

fn key(pass: Pass, d: &Conv2dDims) -> Key {
    (pass, [d.n, d.c_in, d.h_in, d.w_in, d.c_out, d.k, d.stride, d.pad])
}

/// The fastest tiles.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table(BTreeMap<Key, (usize, Row)>);

impl Table {
    /// That of an architecture; empty where nobody has measured.
    pub(super) fn of(compute_capability: (i32, i32)) -> Self {
        let found = TABLES.iter().find(|(of, _)| *of == compute_capability);
        found.map_or_else(Table::default, |(_, text)| Table::parse(text).expect("tested"))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let rows: Result<Vec<Row>, _> = csv::Reader::from_reader(text.as_bytes()).into_deserialize().collect();
        let mut table = Table::default();
        for row in rows.map_err(|error| error.to_string())? {
            let tile = row.pass.tile(&row.tile).ok_or_else(|| format!("there is no tile {}", row.tile))?;
            let Row { pass, n, c_in, h_in, w_in, c_out, k, stride, pad, .. } = row;
            table.0.insert((pass, [n, c_in, h_in, w_in, c_out, k, stride, pad]), (tile, row));
        }
        Ok(table)
    }

    /// Reads what [`Table::to_csv`] has written.
    ///
    /// # Errors
    /// [`Error::Input`] if the file cannot be read or is something else.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path, "read"))?;
        Table::parse(&text).map_err(|why| {
            Error::input(
                path,
                format!("is no table of tiles: {why}"),
                "give a file that --tune has written, or a new name",
            )
        })
    }

    /// A CSV file, its lines in order.
    ///
    /// # Errors
    /// [`Error::Failed`] if a line cannot be encoded: not in practice.
    pub fn to_csv(&self) -> Result<Vec<u8>> {
        to_csv(self.0.values().map(|(_, row)| row))
    }

    /// How many convolutions it knows.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes over what `other` knows, in place of what was known of the same convolutions.
    pub fn update(&mut self, other: Table) {
        self.0.extend(other.0);
    }

    /// The index of the tile, if it is known.
    pub(super) fn tile(&self, pass: Pass, d: &Conv2dDims) -> Option<usize> {
        self.0.get(&key(pass, d)).map(|(tile, _)| *tile)
    }

    /// Keeps the fastest tile of each convolution.
    pub(super) fn note(&mut self, timing: &Timing) {
        let (pass, name) = match timing.kernel.strip_prefix("conv2d_bwd_weight_bf16_") {
            Some(name) => (Pass::WeightGradient, name),
            None => match timing.kernel.strip_prefix("correlate_bf16_") {
                Some(name) if timing.arg::<u32>(1) == 0 => (Pass::Forward, name),
                Some(name) => (Pass::InputGradient, name),
                None => return,
            },
        };
        let d: Conv2dDims = timing.arg(0);
        let Conv2dDims { n, c_in, h_in, w_in, c_out, k, stride, pad, .. } = d;
        let microseconds = timing.seconds * 1e6;
        let tile = pass.tile(name).expect("kernels are named after their tiles");
        let row = Row { pass, n, c_in, h_in, w_in, c_out, k, stride, pad, tile: name.to_string(), microseconds };
        let known = self.0.get(&key(pass, &d));
        if known.is_none_or(|(_, known)| microseconds < known.microseconds) {
            self.0.insert(key(pass, &d), (tile, row));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_in_the_program_are_read() {
        for ((major, minor), _) in TABLES {
            Table::of((major, minor));
        }
    }

    #[test]
    fn a_table_is_written_and_read_and_knows_its_tiles() {
        let header = include_str!("tuned/sm_90.csv").lines().next().unwrap();
        let rows = ["forward,2,8,9,9,16,3,1,1,k8_c16,3.5", "weight_gradient,2,8,9,9,16,3,1,1,c8,2.25"];
        let text = format!("{header}\n{}\n{}\n", rows[0], rows[1]);
        let mut table = Table::parse(&text).unwrap();
        assert_eq!(String::from_utf8(table.to_csv().unwrap()).unwrap(), text);
        let d = Conv2dDims::new([2, 8, 9, 9], 16, 3, 1, 1).unwrap();
        let tiles = [Pass::Forward, Pass::InputGradient, Pass::WeightGradient].map(|pass| table.tile(pass, &d));
        assert_eq!(tiles, [Some(1), None, Some(0)]);
        table.update(Table::parse(&text.replace("k8_c16,3.5", "k8_c8,3.0")).unwrap());
        assert_eq!((table.len(), table.tile(Pass::Forward, &d)), (2, Some(0)));
        assert!(Table::parse(&text.replace("k8_c16", "k8_c15")).is_err_and(|why| why.contains("k8_c15")));
        assert!(Table::parse(&text.replace("c_in", "cin")).is_err());
    }
}
