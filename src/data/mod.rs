//! Data sets.

use serde::{Deserialize, Serialize};

use crate::choice::choice;

choice! {
    /// The data sets of the paper.
    pub enum DatasetName: "data set" {
        /// MNIST, 28×28×1.
        Mnist = "mnist",
        /// Fashion-MNIST, 28×28×1.
        FashionMnist = "fashion-mnist",
        /// CIFAR-10, 32×32×3.
        Cifar10 = "cifar10",
    }
}

/// Which images a result was computed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataId {
    /// The data set.
    pub name: DatasetName,
    /// `full`, or `sample` for the one embedded in the binary.
    pub subset: String,
    /// First 16 hex digits of the SHA-256 over train images, train labels, test images, test labels.
    pub fingerprint: String,
}

/// Images and labels: `images` is `n × c × h × w` bytes, `labels` is `n`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// NCHW, 0 to 255.
    pub images: Vec<u8>,
    /// 0 to 9.
    pub labels: Vec<u8>,
}

/// A data set in memory.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// Name, subset and fingerprint.
    pub id: DataId,
    /// Channels, height, width.
    pub shape: [usize; 3],
    /// Number of classes.
    pub classes: usize,
    /// Training images.
    pub train: Split,
    /// Test images.
    pub test: Split,
    /// Where it came from, for the run's first line: a directory or "embedded sample", with "JPEG copy" where true.
    pub origin: String,
}
