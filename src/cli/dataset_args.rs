//! Flags that choose the images.

use std::path::PathBuf;

use clap::Args;

use crate::base::error::Result;
use crate::data::{Dataset, DatasetName};

#[derive(Args)]
pub struct DatasetArgs {
    /// Data set
    #[arg(long = "data-set", value_name = "NAME", default_value_t = DatasetName::Mnist)]
    pub name: DatasetName,
    /// Directory with the data sets
    #[arg(long, value_name = "DIR", conflicts_with = "sample")]
    data: Option<PathBuf>,
    /// Use the sample that is part of this program
    #[arg(long)]
    sample: bool,
}

impl DatasetArgs {
    /// # Errors
    /// As [`Dataset::load`].
    pub fn load(&self) -> Result<Dataset> {
        if self.sample { Dataset::sample(self.name) } else { Dataset::load(self.name, self.data.as_deref()) }
    }
}
