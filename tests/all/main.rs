//! The integration tests, one binary (see `Cargo.toml`):
//!
//! - `attack`: PGD against PyTorch's iterates, its cost, and that it attacks
//! - `backends`: stamps generic tests out, one copy per backend
//! - `cli`: the built binary: exit codes, messages and files; bad input, full disks, kill -9, Ctrl-C, threads, memory
//! - `cuda`: the CUDA backend as a whole: what reaches the driver, steps of training against the CPU
//! - `cuda_host`: the CUDA kernels compiled for the host, every access checked; that the checks catch planted bugs
//! - `compare`: how tests compare floats, and that the comparator itself can fail
//! - `data`: readers of damaged files, finding, checking and downloading data sets, the embedded sample
//! - `exchange`: models from PyTorch and to PyTorch, ONNX and NumPy; files made to do harm
//! - `floors`: no module imports from a floor above its own
//! - `gradients`: central differences of every op and of whole networks, in f64
//! - `init`: moments, ranges and orthogonality of the initialisers
//! - `kernels`: the CUDA kernels' registers and spills, prototypes and sizes against the launch table, embedded images,
//!   compilation at run time
//! - `machine_code`: what the compiled kernels touch before they wait for the launch before
//! - `models`: sizes and names of the networks, whole passes against PyTorch
//! - `networks`: networks with the weights recorded from PyTorch
//! - `numdiff`: central differences, and that the check itself can fail
//! - `ops`: every kernel of every backend, on recorded and on awkward values
//! - `oracle`: values recorded from PyTorch
//! - `page`: the page of a run in a real browser
//! - `pipeline`: stages, keys, store, locks and plan
//! - `prune`: projections, ADMM, masks, shrinking, and what they leave
//! - `skip`: tests that cannot be run here, counted at the end
//! - `small_runs`: training runs of seconds
//! - `suite`: the attacks beyond PGD against PyTorch's iterates, verdicts, resumption, checks for masked gradients
//! - `tables`: cells, published values, settings and reports
//! - `training`: steps against PyTorch, the loop's bits, memory and interruptions, schedules

mod attack;
mod backends;
mod cli;
mod compare;
mod cuda;
mod cuda_host;
mod data;
mod exchange;
mod floors;
mod gradients;
mod init;
mod kernels;
mod machine_code;
mod models;
mod networks;
mod numdiff;
mod ops;
mod oracle;
mod page;
mod pipeline;
mod prune;
mod skip;
mod small_runs;
mod suite;
mod tables;
mod training;
