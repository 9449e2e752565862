//! Small data files, made by hand.

use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

/// An IDX file of unsigned bytes.
pub fn idx(dims: &[u32], bytes: &[u8]) -> Vec<u8> {
    let mut file = vec![0, 0, 8, dims.len() as u8];
    file.extend(dims.iter().flat_map(|d| d.to_be_bytes()));
    file.extend(bytes);
    file
}

/// Different pixels in every image.
pub fn pixels(n: usize, bytes: usize) -> Vec<u8> {
    (0..n * bytes).map(|i| (i * 31 + i / bytes * 7) as u8).collect()
}

/// 0, 1, … 9, 0, …
pub fn labels(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i % 10) as u8).collect()
}

pub fn idx_images(n: usize) -> Vec<u8> {
    idx(&[n as u32, 28, 28], &pixels(n, 784))
}

pub fn idx_labels(n: usize) -> Vec<u8> {
    idx(&[n as u32], &labels(n))
}

/// CIFAR-10 records.
pub fn cifar(labels: &[u8], pixels: &[u8]) -> Vec<u8> {
    labels.iter().zip(pixels.chunks(3072)).flat_map(|(label, image)| [&[*label][..], image].concat()).collect()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn write(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    std::fs::create_dir_all(dir).unwrap();
    let path = dir.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// A data set in MNIST's format with so many training and test images.
pub fn mnist(dir: &Path, train: usize, test: usize) {
    write(dir, "train-images-idx3-ubyte", &idx_images(train));
    write(dir, "train-labels-idx1-ubyte.gz", &gzip(&idx_labels(train)));
    write(dir, "t10k-images-idx3-ubyte.gz", &gzip(&idx_images(test)));
    write(dir, "t10k-labels-idx1-ubyte", &idx_labels(test));
}
