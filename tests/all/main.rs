//! The integration tests, one binary (see `Cargo.toml`):
//!
//! - `backends`: stamps generic tests out, one copy per backend
//! - `cli`: the built binary: exit codes, messages and files; bad input, full disks, kill -9, Ctrl-C, threads, memory
//! - `compare`: how tests compare floats, and that the comparator itself can fail
//! - `data`: readers of damaged files, finding, checking and downloading data sets, the embedded sample
//! - `floors`: no module imports from a floor above its own
//! - `gradients`: every backward pass against central differences, ops and whole networks
//! - `networks`: networks with the weights recorded from PyTorch
//! - `numdiff`: central differences, and that the check itself can fail
//! - `ops`: every kernel of every backend, on recorded and on awkward values
//! - `oracle`: values recorded from PyTorch
//! - `pipeline`: stages, keys, store, locks and plan
//! - `tables`: cells, published values, settings and reports

mod backends;
mod cli;
mod compare;
mod data;
mod floors;
mod gradients;
mod networks;
mod numdiff;
mod ops;
mod oracle;
mod pipeline;
mod tables;
