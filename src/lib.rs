//! `engine` trains, attacks and prunes small convolutional networks.
//!
//! The modules are floors; each imports only what is below it, and no files of a folder import each other in a circle
//! (`tests/all/floors.rs` enforces both):
//!
//! | floor | modules | owns |
//! |---|---|---|
//! | 0 | [`base`] | errors, named enums, op shapes, the counter-based random generator, CSV records, files, values borrowed or made, layouts of structs, NVTX ranges |
//! | 1 | [`backend`] | the contract of a backend and its implementations: CPU, CUDA in f32 and in bf16 |
//! | 2 | [`autograd`] | tensors, the tape of reverse-mode differentiation, differentiable ops |
//! | 3 | [`nn`], [`data`] | parameters, networks, initialisers, optimisers and schedules; data sets |
//! | 4 | [`prune`] | projections, ADMM, masks, shrinking |
//! | 5 | [`checkpoint`] | models and training states in files, formats of other programs |
//! | 6 | [`attack`] | adversarial attacks, evaluation, suites of attacks and checks that they can be believed |
//! | 7 | [`train`] | the training loop |
//! | 8 | [`experiments`] | stages and the store of their results, the paper's tables, reports |
//! | 9 | [`cli`] | the command line: the only place that prints or exits |

pub mod attack;
pub mod autograd;
pub mod backend;
pub mod base;
pub mod checkpoint;
pub mod cli;
pub mod data;
pub mod experiments;
pub mod nn;
pub mod prune;
pub mod train;
