//! Data sets: readers of the published formats, finding, checking and downloading files, the embedded sample.
//!
//! Everything is kept in memory as bytes; scaling, augmentation and batching happen on the way to the backend.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::base::error::{Error, Result};
use crate::base::files::hex;
use crate::base::named_enum::named_enum;
use crate::base::rng::{Rng, Stream};

mod cifar10;
pub mod cifar_binary;
pub mod download;
mod fashion_mnist;
pub mod fetch;
pub mod idx;
pub mod info;
pub mod locate;
mod mnist;
pub mod sample;
pub mod source;
pub mod verify;

use info::{Content, DatasetInfo, FileKind, OfficialFile, SplitName};
use locate::Roots;
use source::Source;

named_enum! {
    /// The data sets of the paper. A new one is an entry here and a file with what [`DatasetName::info`] returns; the compiler
    /// asks for it, and for the settings of its trainings.
    pub enum DatasetName: "data set" {
        /// MNIST, 28×28×1.
        Mnist = "mnist",
        /// Fashion-MNIST, 28×28×1.
        FashionMnist = "fashion-mnist",
        /// CIFAR-10, 32×32×3.
        Cifar10 = "cifar10",
    }
}

impl DatasetName {
    /// Everything known about the published data set.
    pub fn info(self) -> &'static DatasetInfo {
        match self {
            DatasetName::Mnist => &mnist::MNIST,
            DatasetName::FashionMnist => &fashion_mnist::FASHION_MNIST,
            DatasetName::Cifar10 => &cifar10::CIFAR10,
        }
    }

    /// The first data set of `[c, h, w]` images.
    pub fn with_shape(shape: [usize; 3]) -> Option<Self> {
        DatasetName::ALL.iter().copied().find(|name| name.info().shape == shape)
    }
}

/// Which images a result was computed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataId {
    /// The data set.
    pub name: DatasetName,
    /// `full`, `sample` for the one embedded in the binary, or `custom` for files of another size than published;
    /// `full:5000+1000` for so many training and test images of it.
    pub subset: String,
    /// First 16 hex digits of the SHA-256 over train images, train labels, test images, test labels.
    pub fingerprint: String,
}

/// Images and labels: `images` is `n × c × h × w` bytes, `labels` is `n`.
#[derive(Clone, Default, PartialEq, Eq)]
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

impl Split {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// True without images.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Bytes of one image, `c × h × w`; 0 without images.
    pub fn image_bytes(&self) -> usize {
        self.images.len().checked_div(self.len()).unwrap_or(0)
    }

    /// The `c × h × w` bytes of image `index`, which must be below [`Split::len`].
    pub fn image(&self, index: usize) -> &[u8] {
        let bytes = self.image_bytes();
        &self.images[index * bytes..][..bytes]
    }

    /// The share of the most frequent class, which is the accuracy of the best constant answer; 1 without images.
    pub fn majority(&self) -> f64 {
        let mut counts = [0usize; 256];
        self.labels.iter().for_each(|&label| counts[usize::from(label)] += 1);
        let most = counts.iter().max().copied().unwrap_or(0);
        if self.is_empty() { 1.0 } else { most as f64 / self.len() as f64 }
    }

    /// Copies of the images and labels at `indices`, each of which must be below [`Split::len`], in that order.
    pub fn select(&self, indices: &[usize]) -> Split {
        let mut images = Vec::with_capacity(indices.len() * self.image_bytes());
        for &index in indices {
            images.extend_from_slice(self.image(index));
        }
        Split { images, labels: indices.iter().map(|&index| self.labels[index]).collect() }
    }
}

/// The size only: nobody reads a million pixels.
impl std::fmt::Debug for Split {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Split({} images, {} bytes)", self.len(), self.images.len())
    }
}

impl Dataset {
    /// Reads the data set from files: in `dir` if one is given, otherwise wherever [`locate`] finds it.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] if a file is missing, damaged or belongs to another data set.
    pub fn load(name: DatasetName, dir: Option<&Path>) -> Result<Dataset> {
        let found = Roots::new(dir).find(name)?;
        let data = Dataset::read(name, None, &|file| Source::open(&found.file(file)?))?;
        reject_another(&data, &found.dir)?;
        let origin = found.dir.display().to_string();
        Ok(data.with_origin(origin))
    }

    /// The small, class-balanced subset embedded in the binary: real images, train and test apart.
    ///
    /// # Errors
    ///
    /// None that a user can cause; a damaged binary shows as [`Error::Input`].
    pub fn sample(name: DatasetName) -> Result<Dataset> {
        let data = Dataset::read(name, Some("sample"), &sample::source)?;
        Ok(data.with_origin("embedded sample".into()))
    }

    /// A smaller data set of `train` training and `test` test images: as many of every class as there are, chosen at
    /// random but always the same, in their order. The whole of it is the data set itself.
    ///
    /// # Errors
    /// [`Error::Usage`] for more images than there are, and for none.
    pub fn subset(self, train: usize, test: usize) -> Result<Dataset> {
        if (train, test) == (self.train.len(), self.test.len()) {
            return Ok(self);
        }
        let choose = |split: &Split, count: usize, part: &str, step: u32| {
            if (1..=split.len()).contains(&count) {
                return Ok(split.select(&balanced(&split.labels, count, Rng::new(0, Stream::Subset, step))));
            }
            let (name, all) = (self.id.name, split.len());
            Err(Error::Usage(format!("--{part}-images: must be 1 to {all}, all that {name} has here, got {count}")))
        };
        let (chosen, chosen_test) = (choose(&self.train, train, "train", 0)?, choose(&self.test, test, "test", 1)?);
        let id = DataId {
            name: self.id.name,
            subset: format!("{}:{train}+{test}", self.id.subset),
            fingerprint: fingerprint(&chosen, &chosen_test),
        };
        let origin = format!("{}, {train} training and {test} test images", self.origin);
        Ok(Dataset { id, train: chosen, test: chosen_test, origin, ..self })
    }

    /// Reads all files, train and test at the same time.
    fn read(name: DatasetName, subset: Option<&str>, open: Open<'_>) -> Result<Dataset> {
        let info = name.info();
        let (train, test) =
            rayon::join(|| read_split(name, SplitName::Train, open), || read_split(name, SplitName::Test, open));
        let (train, test) = (train?, test?);
        let published = (train.len(), test.len()) == (info.train_images, info.test_images());
        let subset = subset.unwrap_or(if published { "full" } else { "custom" });
        let id = DataId { name, subset: subset.into(), fingerprint: fingerprint(&train, &test) };
        Ok(Dataset { id, shape: info.shape, classes: info.classes(), train, test, origin: String::new() })
    }

    /// Sets `origin`, with what must be said of the content.
    fn with_origin(mut self, place: String) -> Dataset {
        self.origin = match self.id.name.info().recognise(&self.id.fingerprint) {
            Content::JpegCopy => format!("{place} (JPEG copy)"),
            Content::Official | Content::Unrecognised => place,
        };
        self
    }
}

/// Opens one file of a data set.
type Open<'a> = &'a (dyn Fn(&'static OfficialFile) -> Result<Source> + Sync);

fn read_split(name: DatasetName, split_name: SplitName, open: Open<'_>) -> Result<Split> {
    let mut split = Split::default();
    let mut last = PathBuf::new();
    for file in name.info().files.iter().filter(|file| file.split == split_name) {
        let source = open(file)?;
        last = source.path().to_path_buf();
        read_file(file, source, &mut split)?;
    }
    check_pairing(name, &split, &last)?;
    Ok(split)
}

/// Reads one file into `split` and returns the number of records.
fn read_file(file: &OfficialFile, source: Source, split: &mut Split) -> Result<usize> {
    match file.kind {
        FileKind::IdxImages => {
            split.images = idx::read(source, &idx::IMAGES)?;
            Ok(split.images.len() / idx::IMAGE_BYTES)
        }
        FileKind::IdxLabels => {
            split.labels = idx::read(source, &idx::LABELS)?;
            Ok(split.labels.len())
        }
        FileKind::CifarRecords => cifar_binary::read(source, split),
    }
}

/// Every image needs its label; `labels` is the file to blame.
fn check_pairing(name: DatasetName, split: &Split, labels: &Path) -> Result<()> {
    let images = split.images.len() / name.info().shape.iter().product::<usize>();
    if images == split.labels.len() {
        return Ok(());
    }
    let problem = format!("expected {images} labels, one for each image, found {}", split.labels.len());
    Err(Error::input(labels, problem, "get images and labels of the same set again with `engine data fetch`"))
}

/// All IDX sets use the same file names, so a directory given by the user may hold another set than was asked for.
fn reject_another(data: &Dataset, dir: &Path) -> Result<()> {
    let wanted = data.id.name;
    let is = |name: &DatasetName| name.info().recognise(&data.id.fingerprint) != Content::Unrecognised;
    match DatasetName::ALL.iter().copied().find(is) {
        Some(found) if found != wanted => Err(Error::input(
            dir,
            format!("expected {}, found {}", wanted.info().title, found.info().title),
            format!("give the directory above one named {}", wanted.info().folder),
        )),
        _ => Ok(()),
    }
}

/// Ascending indices of `count` images: of every class as many, one more of some, as far as a class has them.
fn balanced(labels: &[u8], count: usize, rng: Rng) -> Vec<usize> {
    let mut seen = [0usize; 256];
    let mut rank = |index: u32| {
        let label = labels[index as usize];
        seen[usize::from(label)] += 1;
        (seen[usize::from(label)], label, index as usize)
    };
    // The first of every class, then the second of every class, and so on.
    let mut ranked: Vec<(usize, u8, usize)> = rng.permutation(labels.len()).into_iter().map(&mut rank).collect();
    ranked.sort_unstable();
    let mut chosen: Vec<usize> = ranked[..count].iter().map(|&(_, _, index)| index).collect();
    chosen.sort_unstable();
    chosen
}

fn fingerprint(train: &Split, test: &Split) -> String {
    let mut hash = Sha256::new();
    for bytes in [&train.images, &train.labels, &test.images, &test.labels] {
        hash.update(bytes);
    }
    hex(&hash.finalize()[..8])
}
