//! `engine` trains, attacks and prunes small convolutional networks.
//!
//! The modules are floors; each imports only what is below it (`tests/all/floors.rs` enforces that):
//!
//! | floor | modules | owns |
//! |---|---|---|
//! | 0 | [`error`], [`choice`], [`dims`], [`rng`], [`rows`], [`profile`] | errors, named choices, op shapes, the counter-based random generator, rows as CSV, marks for a profiler |
//! | 1 | [`backend`] | the contract of a backend and its implementations |
//! | 2 | [`tensor`] | buffer + shape |
//! | 3 | [`tape`] | reverse-mode differentiation |
//! | 4 | [`ops`] | differentiable ops, one file a family |
//! | 5 | [`params`], [`data`] | named parameters; data sets |
//! | 6 | [`models`], [`init`], [`optim`] | networks, initialisers, optimisers and schedules |
//! | 7 | [`attack`], [`prune`] | adversarial attacks; projections, ADMM, masks, shrinking |
//! | 8 | [`checkpoint`], [`eval`], [`train`] | crash-safe state, models in the formats of other programs; evaluation; the training loop |
//! | 9 | [`robustness`] | suites of attacks in order, and checks that they can be believed |
//! | 10 | [`pipeline`] | stages, the store of their results, the plan that runs them |
//! | 11 | [`tables`], [`report`] | the paper's tables; CSV, Markdown and SVG |
//! | 12 | [`cli`] | the command line: the only place that prints or exits |

pub mod attack;
pub mod backend;
pub mod checkpoint;
pub mod choice;
pub mod cli;
pub mod data;
pub mod dims;
pub mod error;
pub mod eval;
pub mod init;
pub mod models;
pub mod ops;
pub mod optim;
pub mod params;
pub mod pipeline;
pub mod profile;
pub mod prune;
pub mod report;
pub mod rng;
pub mod robustness;
pub mod rows;
pub mod tables;
pub mod tape;
pub mod tensor;
pub mod train;
