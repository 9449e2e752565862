//! The integration tests, one binary (see `Cargo.toml`):
//!
//! - `cli`: exit codes and messages of the built binary
//! - `data`: readers of damaged files, finding, checking and downloading data sets, the embedded sample
//! - `pipeline`: stages, keys, store, locks and plan
//! - `tables`: cells, published values, settings and reports

mod cli;
mod data;
mod pipeline;
mod tables;
