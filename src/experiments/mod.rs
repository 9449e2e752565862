//! The paper's tables: the stages that they are made of, their definitions, and the reports of their results.

pub mod pipeline;
pub mod report;
pub mod tables;
