//! The facts of a published data set: shape, classes, files, hashes, where it is downloaded from. The values are in a
//! file for each data set.

use super::{cifar_binary, idx};

/// Train or test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitName {
    /// For training.
    Train,
    /// For testing.
    Test,
}

/// Content and layout of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// IDX, unsigned bytes, `n × 28 × 28`.
    IdxImages,
    /// IDX, unsigned bytes, `n`.
    IdxLabels,
    /// CIFAR-10 binary: `n` records of one label byte and 3 × 32 × 32 pixel bytes.
    CifarRecords,
}

/// Origin of the content of a file or a data set.
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
pub struct OfficialFile {
    /// File name without folder and without `.gz`.
    pub name: &'static str,
    /// The split it belongs to.
    pub split: SplitName,
    /// Its format.
    pub kind: FileKind,
    /// Images or labels in the published file.
    pub records: usize,
    /// SHA-256 of the uncompressed content of the published file.
    pub sha256: &'static str,
    /// The same of the JPEG copy, where there is one.
    pub jpeg_sha256: Option<&'static str>,
    /// The embedded version of it, compressed.
    pub(super) sample_gz: &'static [u8],
}

/// A data set as published.
#[derive(Debug)]
pub struct DatasetInfo {
    /// The name people write: "Fashion-MNIST".
    pub title: &'static str,
    /// Sub-folder of a data directory.
    pub folder: &'static str,
    /// Channels, height, width.
    pub shape: [usize; 3],
    /// Names of the classes, in lower case, by label.
    pub class_names: &'static [&'static str],
    /// Images in the published training split.
    pub train_images: usize,
    /// Images of each class in the published test split.
    pub test_class_counts: &'static [usize],
    /// The attack that the paper trains and measures with.
    pub attack: PaperAttack,
    /// Training files first; images before their labels.
    pub files: &'static [OfficialFile],
    /// Fingerprints ([`super::DataId`]) of known content, the whole set's and the embedded sample's. Those of the
    /// official CIFAR-10 are missing: only the hashes of its files are on record.
    pub fingerprints: &'static [(&'static str, Content)],
    /// Where `fetch` downloads from: this and a file name, or the archive's name.
    pub base_url: &'static str,
    /// The one archive that holds all files, if they are not downloaded one by one.
    pub archive: Option<Archive>,
    /// Bytes that a download of the whole set transfers from there.
    pub download_bytes: u64,
}

/// PGD on a data set, and the radius of attacks in another norm. Lengths are of pixels from 0 to 1.
#[derive(Clone, Copy, Debug)]
pub struct PaperAttack {
    /// Radius of the l-infinity ball.
    pub eps: f32,
    /// Length of a step.
    pub step_size: f32,
    /// Number of steps.
    pub steps: usize,
    /// Usual radius of the l2 ball; the paper has none.
    pub eps_l2: f32,
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

impl OfficialFile {
    /// Size of the published file, uncompressed.
    pub fn bytes(&self) -> u64 {
        (match self.kind {
            FileKind::IdxImages => 16 + self.records * idx::IMAGE_BYTES,
            FileKind::IdxLabels => 8 + self.records,
            FileKind::CifarRecords => self.records * cifar_binary::RECORD_BYTES,
        }) as u64
    }

    /// Recognises the file by the SHA-256 of its uncompressed content.
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

impl DatasetInfo {
    /// Number of classes; labels are below it.
    pub const fn classes(&self) -> usize {
        self.class_names.len()
    }

    /// Images in the published test split.
    pub fn test_images(&self) -> usize {
        self.test_class_counts.iter().sum()
    }

    /// Recognises a data set by its fingerprint.
    pub fn recognise(&self, fingerprint: &str) -> Content {
        let known = self.fingerprints.iter().find(|(known, _)| *known == fingerprint);
        known.map_or(Content::Unrecognised, |(_, content)| *content)
    }
}

/// The name only: nobody reads a sample's bytes.
impl std::fmt::Debug for OfficialFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OfficialFile({})", self.name)
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

/// The four files of a data set in the format of MNIST: SHA-256 and sample of training images and labels, then of test images
/// and labels.
pub(super) const fn idx_files(content: [(&'static str, &'static [u8]); 4]) -> [OfficialFile; 4] {
    const fn file(
        name: &'static str,
        split: SplitName,
        kind: FileKind,
        records: usize,
        (sha256, sample_gz): (&'static str, &'static [u8]),
    ) -> OfficialFile {
        OfficialFile { name, split, kind, records, sha256, jpeg_sha256: None, sample_gz }
    }
    [
        file("train-images-idx3-ubyte", SplitName::Train, FileKind::IdxImages, 60_000, content[0]),
        file("train-labels-idx1-ubyte", SplitName::Train, FileKind::IdxLabels, 60_000, content[1]),
        file("t10k-images-idx3-ubyte", SplitName::Test, FileKind::IdxImages, 10_000, content[2]),
        file("t10k-labels-idx1-ubyte", SplitName::Test, FileKind::IdxLabels, 10_000, content[3]),
    ]
}
