//! What an attack may ask of the network under attack: logits, and gradients of what it makes of them.

use std::cell::Cell;
use std::ops::Add;

use serde::{Deserialize, Serialize};

use super::objective::descending;
use crate::autograd::tape::{Tape, Var};
use crate::autograd::tensor::Tensor;
use crate::backend::Backend;
use crate::base::error::Result;
use crate::nn::models::{Mode, Model};

/// What attacks cost, in images sent through the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Forward passes: queries.
    pub queries: u64,
    /// Those that a backward pass followed.
    pub gradients: u64,
}

impl Add for Cost {
    type Output = Cost;

    fn add(self, other: Cost) -> Cost {
        Cost { queries: self.queries + other.queries, gradients: self.gradients + other.gradients }
    }
}

/// A network under attack, as it is used: with running statistics. Of one thread.
pub struct Probe<'a, B: Backend> {
    /// What computes.
    pub backend: &'a B,
    /// The network.
    pub model: &'a Model<B>,
    /// Told after every pass how many images it was of, from any thread; its error ends the attack.
    pub watch: &'a (dyn Fn(u64) -> Result<()> + Sync),
    cost: Cell<Cost>,
}

impl<'a, B: Backend> Probe<'a, B> {
    /// Nothing was asked yet.
    pub fn new(backend: &'a B, model: &'a Model<B>, watch: &'a (dyn Fn(u64) -> Result<()> + Sync)) -> Self {
        Probe { backend, model, watch, cost: Cell::default() }
    }

    /// What was asked so far.
    pub fn cost(&self) -> Cost {
        self.cost.get()
    }

    /// Adds what was asked in other ways.
    pub fn add(&self, cost: Cost) {
        self.cost.set(self.cost.get() + cost);
    }

    /// Logits of `x`, with the way back.
    ///
    /// # Errors
    /// Whatever the watcher returns; [`crate::base::error::Error::Shape`] if `x` does not fit the network.
    pub fn pass(&self, x: &Tensor<B>) -> Result<Pass<'_, 'a, B>> {
        let n = x.shape().dims()[0] as u64;
        (self.watch)(n)?;
        self.add(Cost { queries: n, gradients: 0 });
        let tape = Tape::new(self.backend);
        let params = self.model.leaves(&tape);
        let input = tape.leaf(x.clone());
        let output = self.model.forward(&tape, &params, &input, Mode::Eval)?.logits;
        let logits = Logits::of(self.backend, output.tensor());
        Ok(Pass { probe: self, tape, input, output, logits })
    }

    /// Logits of `x`.
    ///
    /// # Errors
    /// As [`Probe::pass`].
    pub fn logits(&self, x: &Tensor<B>) -> Result<Logits> {
        Ok(self.pass(x)?.logits)
    }

    /// Logits of `x`, and the gradient of a function of them.
    ///
    /// # Errors
    /// As [`Probe::pass`].
    pub fn gradient(&self, x: &Tensor<B>, objective: impl Fn(usize, &[f32], &mut [f32]) -> f64) -> Result<Climb<B>> {
        self.pass(x)?.gradient(objective)
    }
}

/// A forward pass that may be gone back.
pub struct Pass<'p, 'a, B: Backend> {
    probe: &'p Probe<'a, B>,
    tape: Tape<'a, B>,
    input: Var<B>,
    output: Var<B>,
    /// What came out.
    pub logits: Logits,
}

/// A function of the logits at a point, and how it rises there.
pub struct Climb<B: Backend> {
    /// The logits.
    pub logits: Logits,
    /// The function of each image's logits.
    pub values: Vec<f64>,
    /// Its gradient with respect to the images.
    pub dx: Tensor<B>,
}

impl<B: Backend> Pass<'_, '_, B> {
    /// The gradient of `Σ objective(i, z, dz)` over the images `i` with respect to the images; `objective` gets an image's
    /// logits, returns its value and writes the derivatives to `dz`, which is zero before.
    ///
    /// # Errors
    /// [`crate::base::error::Error::Shape`] if the tape does not lead back to the images: not for networks.
    pub fn gradient(self, objective: impl Fn(usize, &[f32], &mut [f32]) -> f64) -> Result<Climb<B>> {
        let Pass { probe, tape, input, output, logits } = self;
        let mut dlogits = vec![0.0; logits.values.len()];
        let slots = dlogits.chunks_exact_mut(logits.classes).enumerate();
        let values: Vec<f64> = slots.map(|(i, dz)| objective(i, logits.of_image(i), dz)).collect();
        probe.add(Cost { queries: 0, gradients: values.len() as u64 });
        let dlogits = probe.backend.upload_batch(values.len(), &dlogits);
        let mut gradients = tape.pull_back(&output, dlogits, &[&input])?;
        Ok(Climb { logits, values, dx: gradients.remove(0) })
    }
}

/// Logits of a batch, on the host.
pub struct Logits {
    classes: usize,
    values: Vec<f32>,
}

impl Logits {
    fn of<B: Backend>(backend: &B, logits: &Tensor<B>) -> Self {
        Logits { classes: logits.shape().dims()[1], values: logits.values(backend) }
    }

    /// Those of one image.
    pub fn of_image(&self, i: usize) -> &[f32] {
        &self.values[i * self.classes..][..self.classes]
    }

    /// The class predicted for each image: the largest logit, the first one in a tie; a NaN counts as largest.
    pub fn predictions(&self) -> Vec<u8> {
        let largest =
            |z: &[f32]| (1..z.len()).fold(0, |best, c| if z[c] > z[best] || z[c].is_nan() { c } else { best });
        self.values.chunks_exact(self.classes).map(|z| largest(z) as u8).collect()
    }

    /// Per image, whether another class than its label is predicted.
    pub fn wrong(&self, labels: &[u8]) -> Vec<bool> {
        self.predictions().iter().zip(labels).map(|(prediction, label)| prediction != label).collect()
    }

    /// Per image, the class with the `rank`-th largest logit, counted from 1; among equal ones the lowest class first.
    pub fn ranked(&self, rank: usize) -> Vec<usize> {
        self.values.chunks_exact(self.classes).map(|z| descending(z)[rank - 1]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Logits;

    const NAN: f32 = f32::NAN;

    /// Four images of three classes.
    fn logits() -> Logits {
        let values = vec![1.0, 3.0, 2.0, 5.0, 5.0, 4.0, 0.0, 7.0, 7.0, NAN, 9.0, NAN];
        Logits { classes: 3, values }
    }

    #[test]
    fn the_first_of_equal_logits_is_predicted_and_a_nan_before_all() {
        assert_eq!(logits().predictions(), [1, 0, 1, 2]);
        assert_eq!(logits().wrong(&[1, 1, 1, 1]), [false, true, false, true]);
        assert_eq!(Logits { classes: 2, values: vec![NAN, 1.0, 1.0, NAN] }.predictions(), [0, 1]);
    }

    #[test]
    fn ranks_count_from_one_and_the_lowest_of_equal_classes_comes_first() {
        let first_three = Logits { values: logits().values[..9].to_vec(), ..logits() };
        let ranks = [1, 2, 3].map(|rank| first_three.ranked(rank));
        assert_eq!(ranks, [[1, 0, 1], [2, 1, 2], [0, 2, 0]]);
    }
}
