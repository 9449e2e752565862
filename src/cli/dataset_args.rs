//! Flags that choose the images.

use std::path::PathBuf;

use clap::Args;

use super::fetch::FetchArgs;
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
    #[arg(long, conflicts_with_all = ["fetch", "mirror"])]
    sample: bool,
    #[command(flatten)]
    fetch: FetchArgs,
}

impl DatasetArgs {
    /// # Errors
    /// As [`FetchArgs::load`].
    pub fn load(&self) -> Result<Dataset> {
        if self.sample {
            return Dataset::sample(self.name);
        }
        self.fetch.load(self.name, self.data.as_deref(), "--sample needs none")
    }
}
