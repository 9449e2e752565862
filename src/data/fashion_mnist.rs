//! Fashion-MNIST: pictures of clothes, in the format of MNIST.

use super::info::{Content, DatasetInfo, OfficialFile, PaperAttack, idx_files};

pub(super) static FASHION_MNIST: DatasetInfo = DatasetInfo {
    title: "Fashion-MNIST",
    folder: "fashion-mnist",
    shape: [1, 28, 28],
    class_names: &[
        "t-shirt",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    ],
    train_images: 60_000,
    test_class_counts: &[1000; 10],
    // Unpublished and ours.
    attack: PaperAttack { eps: 0.1, step_size: 0.005, steps: 40, eps_l2: 2.0 },
    files: &FILES,
    fingerprints: &[("ca3ab2a37f845e1b", Content::Official), ("78b006a1b6660a70", Content::Official)],
    base_url: "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    archive: None,
    // The four .gz files.
    download_bytes: 26_421_880 + 29_515 + 4_422_102 + 5_148,
};

static FILES: [OfficialFile; 4] = idx_files([
    (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        include_bytes!("sample/fashion-mnist/train-images-idx3-ubyte.gz"),
    ),
    (
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        include_bytes!("sample/fashion-mnist/train-labels-idx1-ubyte.gz"),
    ),
    (
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        include_bytes!("sample/fashion-mnist/t10k-images-idx3-ubyte.gz"),
    ),
    (
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        include_bytes!("sample/fashion-mnist/t10k-labels-idx1-ubyte.gz"),
    ),
]);
