//! Training.
//!
//! - `cores`: same bits when the number of threads changes at every step
//! - `ranges`: where the settings end
//! - `recorded`: whole steps of adversarial training against PyTorch, their memory
//! - `runs`: the loop: same bits whatever the threads and interruptions, divergence, selection, collapse
//! - `schedules`: learning rate and attack radius over time
//! - `sparse`: ADMM, proximal gradient, masks and inherited initialisations
//! - `steps`: a step and a run by their definition, which epoch is kept

mod cores;
mod ranges;
mod recorded;
mod runs;
mod schedules;
mod sparse;
mod steps;
