//! What the published data sets look like: files, sizes, hashes, where they are downloaded from.

use super::DatasetName;

/// Train or test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// For training.
    Train,
    /// For testing.
    Test,
}

/// What a file holds and how it is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// IDX, unsigned bytes, `n × 28 × 28`.
    IdxImages,
    /// IDX, unsigned bytes, `n`.
    IdxLabels,
    /// CIFAR-10 binary: `n` records of one label byte and 3 × 32 × 32 pixel bytes.
    CifarRecords,
}

/// What is known about the content of a file or a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Byte for byte the published data.
    Official,
    /// CIFAR-10 after lossy JPEG compression, in another order but with the published train/test split.
    JpegCopy,
    /// Neither.
    Unrecognised,
}

/// One file of a data set, under its uncompressed name; `<name>.gz` is read as well.
#[derive(Debug)]
pub struct OfficialFile {
    /// File name without folder and without `.gz`.
    pub name: &'static str,
    /// The split it belongs to.
    pub part: Part,
    /// Its format.
    pub kind: FileKind,
    /// Images or labels in the published file.
    pub records: usize,
    /// SHA-256 of the uncompressed content of the published file.
    pub sha256: &'static str,
    /// The same of the JPEG copy, where there is one.
    pub jpeg_sha256: Option<&'static str>,
}

/// A data set as published.
#[derive(Debug)]
pub struct Official {
    /// The name people write: "Fashion-MNIST".
    pub title: &'static str,
    /// Sub-folder of a data directory.
    pub folder: &'static str,
    /// Channels, height, width.
    pub shape: [usize; 3],
    /// Labels are 0 to `classes - 1`.
    pub classes: usize,
    /// What the classes are called, in lower case.
    pub class_names: &'static [&'static str],
    /// Images in the published training split.
    pub train_images: usize,
    /// Images in the published test split.
    pub test_images: usize,
    /// Training files first; images before their labels.
    pub files: &'static [OfficialFile],
    /// Fingerprints ([`super::DataId`]) of known content, the whole set's and the embedded sample's. Those of the
    /// official CIFAR-10 are missing: only the hashes of its files are on record.
    pub fingerprints: &'static [(&'static str, Content)],
    /// Where `fetch` downloads from: this and a file name, or the archive's name.
    pub base_url: &'static str,
    /// The one archive that holds all files, if they are not downloaded one by one.
    pub archive: Option<Archive>,
}

/// A `.tar.gz` with all files of a data set in its folder.
#[derive(Clone, Copy, Debug)]
pub struct Archive {
    /// File name.
    pub name: &'static str,
    /// Length of the archive itself.
    pub bytes: u64,
    /// SHA-256 of the archive itself.
    pub sha256: &'static str,
}

impl DatasetName {
    /// Everything known about the published data set.
    pub fn official(self) -> &'static Official {
        match self {
            DatasetName::Mnist => &MNIST,
            DatasetName::FashionMnist => &FASHION_MNIST,
            DatasetName::Cifar10 => &CIFAR10,
        }
    }
}

impl OfficialFile {
    /// Size of the published file, uncompressed.
    pub fn bytes(&self) -> u64 {
        (match self.kind {
            FileKind::IdxImages => 16 + self.records * 28 * 28,
            FileKind::IdxLabels => 8 + self.records,
            FileKind::CifarRecords => self.records * super::cifar::RECORD_BYTES,
        }) as u64
    }

    /// What the file is, by the SHA-256 of its uncompressed content.
    pub fn recognise(&self, sha256: &str) -> Content {
        if sha256 == self.sha256 {
            Content::Official
        } else if Some(sha256) == self.jpeg_sha256 {
            Content::JpegCopy
        } else {
            Content::Unrecognised
        }
    }
}

impl Official {
    /// What a data set is, by its fingerprint.
    pub fn recognise(&self, fingerprint: &str) -> Content {
        let known = self.fingerprints.iter().find(|(known, _)| *known == fingerprint);
        known.map_or(Content::Unrecognised, |(_, content)| *content)
    }
}

impl std::fmt::Display for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Content::Official => "official",
            Content::JpegCopy => "JPEG copy",
            Content::Unrecognised => "content not recognised",
        })
    }
}

/// The four files of MNIST and of everything in its format.
const fn idx_files(sha256: [&'static str; 4]) -> [OfficialFile; 4] {
    const fn file(
        name: &'static str,
        part: Part,
        kind: FileKind,
        records: usize,
        sha256: &'static str,
    ) -> OfficialFile {
        OfficialFile { name, part, kind, records, sha256, jpeg_sha256: None }
    }
    [
        file("train-images-idx3-ubyte", Part::Train, FileKind::IdxImages, 60_000, sha256[0]),
        file("train-labels-idx1-ubyte", Part::Train, FileKind::IdxLabels, 60_000, sha256[1]),
        file("t10k-images-idx3-ubyte", Part::Test, FileKind::IdxImages, 10_000, sha256[2]),
        file("t10k-labels-idx1-ubyte", Part::Test, FileKind::IdxLabels, 10_000, sha256[3]),
    ]
}

const fn cifar_file(name: &'static str, part: Part, sha256: &'static str, jpeg: &'static str) -> OfficialFile {
    OfficialFile { name, part, kind: FileKind::CifarRecords, records: 10_000, sha256, jpeg_sha256: Some(jpeg) }
}

// The mirror that torchvision prefers to the author's own host.
static MNIST: Official = Official {
    title: "MNIST",
    folder: "mnist",
    shape: [1, 28, 28],
    classes: 10,
    class_names: &["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
    train_images: 60_000,
    test_images: 10_000,
    files: &MNIST_FILES,
    fingerprints: &[("06b0d1f124c4e5fa", Content::Official), ("860ec10b283e4e9f", Content::Official)],
    base_url: "https://ossci-datasets.s3.amazonaws.com/mnist/",
    archive: None,
};

static MNIST_FILES: [OfficialFile; 4] = idx_files([
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
]);

static FASHION_MNIST: Official = Official {
    title: "Fashion-MNIST",
    folder: "fashion-mnist",
    shape: [1, 28, 28],
    classes: 10,
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
    test_images: 10_000,
    files: &FASHION_MNIST_FILES,
    fingerprints: &[("ca3ab2a37f845e1b", Content::Official), ("78b006a1b6660a70", Content::Official)],
    base_url: "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    archive: None,
};

static FASHION_MNIST_FILES: [OfficialFile; 4] = idx_files([
    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
]);

// The archive's SHA-256 is the one TensorFlow Datasets records; the author's page gives its MD5 only.
static CIFAR10: Official = Official {
    title: "CIFAR-10",
    folder: "cifar-10-batches-bin",
    shape: [3, 32, 32],
    classes: 10,
    class_names: &["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
    train_images: 50_000,
    test_images: 10_000,
    files: &CIFAR10_FILES,
    fingerprints: &[("f38dc21610daf6c8", Content::JpegCopy), ("417bb4d388eb4baf", Content::JpegCopy)],
    base_url: "https://www.cs.toronto.edu/~kriz/",
    archive: Some(Archive {
        name: "cifar-10-binary.tar.gz",
        bytes: 170_052_171,
        sha256: "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    }),
};

// First column: as published, the hashes that the Ruby port of torchvision checks against. Second: the JPEG copy.
static CIFAR10_FILES: [OfficialFile; 6] = [
    cifar_file(
        "data_batch_1.bin",
        Part::Train,
        "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
        "0a3fcae9a21fd9bb42cd0daa804019e27401ebd0389e91e24559c1aac433ceff",
    ),
    cifar_file(
        "data_batch_2.bin",
        Part::Train,
        "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
        "69903f8c48c8eaf5b9c1e41d8307f175301da096d23a0a38094eb2137bb9ee83",
    ),
    cifar_file(
        "data_batch_3.bin",
        Part::Train,
        "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
        "b9c3249be5b65e9133b9afc53c83f793f9985b9c7e05772a355b6b101c913365",
    ),
    cifar_file(
        "data_batch_4.bin",
        Part::Train,
        "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
        "d7f3d3fe91983b32c764afa03e291a6881ac091d11813671b94e9d53fdcc5376",
    ),
    cifar_file(
        "data_batch_5.bin",
        Part::Train,
        "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
        "83cd13bf7862b36a314ccbfceb2b1ab2e5cba1142e54e6092189b9eef5199f05",
    ),
    cifar_file(
        "test_batch.bin",
        Part::Test,
        "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
        "bdfa0cd795e0edf210dfb35a82cc7e61a99bf21887d5c3488b95e88590143279",
    ),
];
