//! Training.
//!
//! - `recorded`: whole steps of adversarial training against PyTorch, their memory
//! - `runs`: the loop: same bits whatever the threads and interruptions, divergence, selection, collapse
//! - `schedules`: learning rate and attack radius over time
//! - `sparse`: ADMM, proximal gradient, masks and inherited initialisations

mod recorded;
mod runs;
mod schedules;
mod sparse;
