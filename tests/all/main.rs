//! The integration tests, one binary (see `Cargo.toml`):
//!
//! - `data`: readers of damaged files, finding, checking and downloading data sets, the embedded sample

mod data;
