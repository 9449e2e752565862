//! Networks, their parameters, and what initialises and updates them.

pub mod init;
pub mod models;
pub mod optim;
pub mod params;
