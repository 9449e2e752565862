//! The network under attack, as attacks see it: logits, and gradients of functions of them.

use std::cell::Cell;
use std::ops::Add;

use serde::{Deserialize, Serialize};

use super::OnImagePasses;
use super::objective::descending;
use crate::autograd::tape::{Tape, Var};
use crate::autograd::tensor::Tensor;
use crate::backend::Backend;
use crate::base::error::Result;
use crate::nn::models::{Mode, Model};

/// Images sent through the network under attack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImagePasses {
    /// Forward passes.
    pub queries: u64,
    /// Those that a backward pass followed.
    pub gradients: u64,
}

impl Add for ImagePasses {
    type Output = ImagePasses;

    fn add(self, other: ImagePasses) -> ImagePasses {
        ImagePasses { queries: self.queries + other.queries, gradients: self.gradients + other.gradients }
    }
}

/// A network under attack, as it is used: with running statistics. Counts the image passes. For one thread.
pub struct TargetModel<'a, B: Backend> {
    /// The backend.
    pub backend: &'a B,
    /// The network.
    pub model: &'a Model<B>,
    /// Told of the images of every forward pass.
    pub on_image_passes: OnImagePasses<'a>,
    image_passes: Cell<ImagePasses>,
}

impl<'a, B: Backend> TargetModel<'a, B> {
    /// `model`, which was asked nothing yet.
    pub fn new(backend: &'a B, model: &'a Model<B>, on_image_passes: OnImagePasses<'a>) -> Self {
        TargetModel { backend, model, on_image_passes, image_passes: Cell::default() }
    }

    /// All passes so far.
    pub fn image_passes(&self) -> ImagePasses {
        self.image_passes.get()
    }

    /// Counts passes that were done without it.
    pub fn add(&self, passes: ImagePasses) {
        self.image_passes.set(self.image_passes.get() + passes);
    }

    /// A forward pass of `x`, from which gradients can be taken.
    ///
    /// # Errors
    /// Whatever [`TargetModel::on_image_passes`] returns; [`crate::base::error::Error::Shape`] if `x` does not fit the network.
    pub fn forward(&self, x: &Tensor<B>) -> Result<ForwardPass<'_, 'a, B>> {
        let n = x.shape().dims()[0] as u64;
        (self.on_image_passes)(n)?;
        self.add(ImagePasses { queries: n, gradients: 0 });
        let tape = Tape::new(self.backend);
        let params = self.model.leaves(&tape);
        let input = tape.leaf(x.clone());
        let output = self.model.forward(&tape, &params, &input, Mode::Eval)?.logits;
        let logits = Logits::of(self.backend, output.tensor());
        Ok(ForwardPass { target_model: self, tape, input, output, logits })
    }

    /// Logits of `x`.
    ///
    /// # Errors
    /// As [`TargetModel::forward`].
    pub fn logits(&self, x: &Tensor<B>) -> Result<Logits> {
        Ok(self.forward(x)?.logits)
    }

    /// Value and gradient of a function of the logits of `x`, as [`ForwardPass::value_and_gradient`].
    ///
    /// # Errors
    /// As [`TargetModel::forward`].
    pub fn value_and_gradient(
        &self,
        x: &Tensor<B>,
        objective: impl Fn(usize, &[f32], &mut [f32]) -> f64,
    ) -> Result<ValueAndGradient<B>> {
        self.forward(x)?.value_and_gradient(objective)
    }
}

/// A forward pass, with all that a backward pass needs.
pub struct ForwardPass<'p, 'a, B: Backend> {
    target_model: &'p TargetModel<'a, B>,
    tape: Tape<'a, B>,
    input: Var<B>,
    output: Var<B>,
    /// Logits of the images.
    pub logits: Logits,
}

/// A function of the logits at a point, and its gradient there.
pub struct ValueAndGradient<B: Backend> {
    /// The logits.
    pub logits: Logits,
    /// The function of each image's logits.
    pub values: Vec<f64>,
    /// Its gradient with respect to the images.
    pub dx: Tensor<B>,
}

impl<B: Backend> ForwardPass<'_, '_, B> {
    /// The values `objective(i, z, dz)` of the images `i`, and the gradient of their sum with respect to the images.
    /// `objective` gets an image's logits `z`, returns its value and writes the derivatives to `dz`, which is zero before.
    ///
    /// # Errors
    /// [`crate::base::error::Error::Shape`] if the tape does not lead back to the images: not for networks.
    pub fn value_and_gradient(
        self,
        objective: impl Fn(usize, &[f32], &mut [f32]) -> f64,
    ) -> Result<ValueAndGradient<B>> {
        let ForwardPass { target_model, tape, input, output, logits } = self;
        let mut dlogits = vec![0.0; logits.values.len()];
        let slots = dlogits.chunks_exact_mut(logits.classes).enumerate();
        let values: Vec<f64> = slots.map(|(i, dz)| objective(i, logits.of_image(i), dz)).collect();
        target_model.add(ImagePasses { queries: 0, gradients: values.len() as u64 });
        let dlogits = target_model.backend.upload_batch(values.len(), &dlogits);
        let mut gradients = tape.vjp(&output, dlogits, &[&input], &[])?.tensors;
        Ok(ValueAndGradient { logits, values, dx: gradients.remove(0) })
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
