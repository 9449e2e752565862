//! Images under attack, for the page of a run: made once and kept beside the stage's other files.

use std::cell::OnceCell;
use std::path::Path;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::device_args::Device;
use super::interrupt;
use crate::attack::PgdConfig;
use crate::attack::config::AttackConfig;
use crate::attack::evaluation::Subset;
use crate::attack::suite::{Assessment, Suite};
use crate::backend::Backend;
use crate::base::error::{Error, Result};
use crate::checkpoint::{Checkpoint, encode, load_model, write_atomic};
use crate::data::{Dataset, Split};
use crate::experiments::pipeline::{AnyBackend, on_backend};
use crate::experiments::report::page::{Examples, Pictured};
use crate::experiments::tables::attack_name;

/// Where a stage keeps them.
const FILE: &str = "examples.safetensors";

/// Name of its one tensor, `[n, c, h, w]`.
const ATTACKED: &str = "attacked";

/// Images of a cell: enough to see, and few enough for any network on any device.
const IMAGES: usize = 8;

/// A network, the attack that measured it, and the directory for what comes of it.
pub struct Attacked<'a> {
    pub model: &'a Path,
    pub attack: &'a PgdConfig,
    pub seed: u64,
    pub dir: &'a Path,
}

/// The metadata of the file: the network's answers.
#[derive(Serialize, Deserialize)]
struct Answers {
    /// Places of the images in the test set.
    images: Vec<u32>,
    /// Classes predicted for the clean images.
    natural: Vec<u8>,
    /// Classes predicted for the attacked images.
    adversarial: Vec<u8>,
}

/// Attacks the same test images for every cell of a run.
pub struct ExampleMaker<'a> {
    data: &'a Dataset,
    device: &'a Device,
    /// Started when something has to be attacked: most runs of a finished table have nothing to do.
    backend: OnceCell<AnyBackend>,
    images: Vec<u32>,
}

impl<'a> ExampleMaker<'a> {
    /// For networks on the test images of `data`.
    pub fn new(data: &'a Dataset, device: &'a Device) -> Self {
        ExampleMaker { data, device, backend: OnceCell::new(), images: of_different_classes(&data.test) }
    }

    /// The images under an attack on a network, read from the stage's directory where they are there already.
    ///
    /// # Errors
    /// As [`load_model`] and [`Suite::run`]; [`Error::Io`] if the file cannot be written.
    pub fn make(&self, of: &Attacked<'_>) -> Result<Examples> {
        let path = of.dir.join(FILE);
        let (answers, pixels) = match self.read(&path) {
            Some(found) => found,
            None => self.attack_and_write(of, &path)?,
        };
        let names = self.data.id.name.info().class_names;
        let name = |class: u8| names.get(usize::from(class)).copied().unwrap_or("?").to_string();
        let test = &self.data.test;
        let [c, h, w] = self.data.shape;
        let pictured = |(i, attacked): (usize, &[f32])| {
            let image = self.images[i] as usize;
            Pictured {
                clean: test.image(image).iter().map(|&byte| f32::from(byte) / 255.0).collect(),
                attacked: attacked.to_vec(),
                label: name(test.labels[image]),
                natural: name(answers.natural[i]),
                adversarial: name(answers.adversarial[i]),
            }
        };
        Ok(Examples {
            attack: attack_name(of.attack),
            eps: of.attack.eps,
            shape: self.data.shape,
            images: pixels.chunks_exact(c * h * w).enumerate().map(pictured).collect(),
        })
    }

    fn shape(&self) -> [usize; 4] {
        let [c, h, w] = self.data.shape;
        [self.images.len(), c, h, w]
    }

    /// What an earlier run left; `None` for a file that is missing, damaged or of other images, which is made again.
    fn read(&self, path: &Path) -> Option<(Answers, Vec<f32>)> {
        let file = Checkpoint::read(path, "it is made again").ok()?;
        let answers: Answers = file.metadata().ok()?;
        let pixels = file.tensor(ATTACKED, &self.shape()).ok()?;
        let n = self.images.len();
        let fits =
            answers.images == self.images && [&answers.natural, &answers.adversarial].iter().all(|a| a.len() == n);
        fits.then_some((answers, pixels))
    }

    fn attack_and_write(&self, of: &Attacked<'_>, path: &Path) -> Result<(Answers, Vec<f32>)> {
        if self.backend.get().is_none() {
            let _ = self.backend.set(self.device.start()?);
        }
        let backend = self.backend.get().ok_or_else(|| Error::Failed("no backend was started".to_string()))?;
        let Assessment { verdicts, attempts, .. } = on_backend!(backend, |backend| self.attack(backend, of))?;
        let adversarial = verdicts.iter().map(|v| v.broken.as_ref().map_or(v.natural, |broken| broken.class)).collect();
        let natural = verdicts.iter().map(|v| v.natural).collect();
        let answers = Answers { images: self.images.clone(), natural, adversarial };
        let pixels = attempts.concat();
        let entry = (ATTACKED.to_string(), self.shape().to_vec(), pixels.clone());
        write_atomic(path, &encode(&[entry], &answers)?)?;
        Ok((answers, pixels))
    }

    fn attack<B: Backend>(&self, backend: &B, of: &Attacked<'_>) -> Result<Assessment> {
        let (model, _) = load_model(backend, of.model)?;
        model.architecture().check_data(self.data.shape, self.data.classes)?;
        let images = backend.resident(self.data.shape, &self.data.test.images);
        let stop = interrupt::flag()?;
        let suite = Suite {
            backend,
            model: &model,
            surrogate: None,
            subset: &Subset { images: &images, labels: &self.data.test.labels, indices: &self.images },
            attacks: &[AttackConfig::Pgd(of.attack.clone())],
            seed: of.seed,
            on_image_passes: &|_| if stop.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) },
        };
        let mut assessment = Assessment::default();
        backend.scope(|| suite.run(&mut assessment, &mut |_, _| Ok(())))?;
        Ok(assessment)
    }
}

/// The first image of each class in the order of the test set, up to [`IMAGES`]; if there are not as many classes, the first
/// ones of the others too.
fn of_different_classes(test: &Split) -> Vec<u32> {
    let mut seen = [false; 256];
    let (mut first, others): (Vec<u32>, Vec<u32>) = (0..test.len() as u32)
        .partition(|&i| !std::mem::replace(&mut seen[usize::from(test.labels[i as usize])], true));
    first.truncate(IMAGES);
    first.extend(others.iter().take(IMAGES - first.len()));
    first.sort_unstable();
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(labels: &[u8]) -> Vec<u32> {
        of_different_classes(&Split { images: vec![0; labels.len()], labels: labels.to_vec() })
    }

    #[test]
    fn images_are_of_as_many_classes_as_there_are() {
        assert_eq!(chosen(&[7, 7, 2, 1, 2, 0, 4, 1, 9, 5, 3, 6]), [0, 2, 3, 5, 6, 8, 9, 10], "eight of nine classes");
        assert_eq!(chosen(&[1, 1, 1, 0, 1, 1, 0, 1, 1, 1]), [0, 1, 2, 3, 4, 5, 6, 7], "two classes");
        assert_eq!(chosen(&[1, 1, 1, 1, 1, 1, 1, 1, 1, 0]), [0, 1, 2, 3, 4, 5, 6, 9], "the only image of a class");
        assert_eq!(chosen(&[3, 3]), [0, 1], "no more than there are");
    }
}
