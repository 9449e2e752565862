//! Data sets.
//!
//! - `files`: makes small data files for the others
//! - `readers`: the two formats, well-formed and damaged in every way, and under random bytes
//! - `info`: what is published of the sets, a second time
//! - `sets`: whole data sets: finding, loading, verifying
//! - `sample`: the embedded sample, and the rule that makes it
//! - `subset`: fewer images of a set
//! - `fetch`: downloads from `server`, which fails in all the usual ways

mod fetch;
mod files;
mod info;
mod readers;
mod sample;
pub mod server;
pub mod sets;
mod subset;
