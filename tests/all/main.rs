//! The integration tests, one module a subject.

mod cli; // exit codes and messages of the built binary
mod pipeline; // stages, keys, store, locks, plan
mod tables; // cells, published values, settings, reports
