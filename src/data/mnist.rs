//! MNIST: handwritten digits.

use super::info::{Content, DatasetInfo, OfficialFile, PaperAttack, idx_files};

pub(super) static MNIST: DatasetInfo = DatasetInfo {
    title: "MNIST",
    folder: "mnist",
    shape: [1, 28, 28],
    class_names: &["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
    train_images: 60_000,
    test_class_counts: &[980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
    attack: PaperAttack { eps: 0.3, step_size: 0.01, steps: 40, eps_l2: 2.0 },
    files: &FILES,
    fingerprints: &[("06b0d1f124c4e5fa", Content::Official), ("860ec10b283e4e9f", Content::Official)],
    // The mirror that torchvision prefers to the author's own host.
    base_url: "https://ossci-datasets.s3.amazonaws.com/mnist/",
    archive: None,
    // The four .gz files.
    download_bytes: 9_912_422 + 28_881 + 1_648_877 + 4_542,
};

static FILES: [OfficialFile; 4] = idx_files([
    (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        include_bytes!("sample/mnist/train-images-idx3-ubyte.gz"),
    ),
    (
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        include_bytes!("sample/mnist/train-labels-idx1-ubyte.gz"),
    ),
    (
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        include_bytes!("sample/mnist/t10k-images-idx3-ubyte.gz"),
    ),
    (
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        include_bytes!("sample/mnist/t10k-labels-idx1-ubyte.gz"),
    ),
]);
