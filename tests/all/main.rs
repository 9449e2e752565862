//! The integration tests, one binary (see `Cargo.toml`):
//!
//! - `cli`: exit codes and messages of the built binary
//! - `pipeline`: stages, keys, store, locks and plan
//! - `tables`: cells, published values, settings and reports

mod cli;
mod pipeline;
mod tables;
