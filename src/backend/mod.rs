//! The contract of a backend: one small trait per kernel family, [`Backend`] is their sum.
//!
//! Buffers are opaque, so a backend chooses its own layout and precision. There are two kinds: *plain* ones in
//! PyTorch's order (parameters, statistics) and *batches* (activations), whose logical order is NCHW and whose layout
//! is the backend's business. Arguments come in the order dims, inputs, outputs. Shapes are checked by the ops that
//! call these functions; a backend may assume that they fit.
//!
//! Everything is deterministic: the same inputs give the same bits, whatever the number of threads.

pub mod cpu;
pub mod cuda;

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::dims::{ChannelDims, Conv2dDims, LeNetDims, LinearDims, LogitDims, Pool2dDims};
use crate::error::Result;
use crate::rng::Rng;

/// Every kernel family: what the tape, the attacks and the training loop need of a device.
pub trait Backend:
    Elementwise + Conv + Linear + Norm + Pool + ConvPool + Loss + Optim + Prune + Attack + Perturb + Images
{
}

impl<B> Backend for B where
    B: Elementwise + Conv + Linear + Norm + Pool + ConvPool + Loss + Optim + Prune + Attack + Perturb + Images
{
}

/// Buffers, transfers and the split of a batch into parts.
pub trait Memory: Sync + Sized {
    /// A tensor's storage on the device.
    type Buf: Send + Sync;

    /// Plain buffer with these values.
    fn upload(&self, values: &[f32]) -> Self::Buf;
    /// Values of a plain buffer.
    fn download(&self, x: &Self::Buf) -> Vec<f32>;
    /// Batch of `n` with these values in NCHW order.
    fn upload_batch(&self, n: usize, values: &[f32]) -> Self::Buf;
    /// Values of a batch of `n` in NCHW order.
    fn download_batch(&self, n: usize, x: &Self::Buf) -> Vec<f32>;
    /// Plain buffer of `len` elements of this value.
    fn full(&self, len: usize, value: f32) -> Self::Buf;
    /// Plain buffer of `len` zeros.
    fn zeros(&self, len: usize) -> Self::Buf {
        self.full(len, 0.0)
    }
    /// A copy.
    fn copy(&self, x: &Self::Buf) -> Self::Buf;
    /// The samples `range` of a batch of `n`; `range` is one that [`Memory::map_parts`] hands out.
    fn part(&self, n: usize, range: Range<usize>, x: &Self::Buf) -> Self::Buf;
    /// The batch whose parts, in order, are `parts`.
    fn join(&self, parts: &[&Self::Buf]) -> Self::Buf;

    /// Runs `f` on the backend's threads; everything that calls kernels in a loop should be inside.
    fn scope<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R;
    /// Runs `f` on consecutive parts of a batch of `n` whose samples do not depend on each other, side by side where
    /// that is faster, and returns the results in order. The parts do not depend on the number of threads.
    fn map_parts<R: Send>(&self, n: usize, f: impl Fn(Range<usize>) -> R + Sync) -> Vec<R>;
    /// Whether [`Memory::map_parts`] makes several parts of a batch of `n`.
    fn splits(&self, n: usize) -> bool;

    /// Runs `f`, one round of a loop over batches of `samples` that calls the same kernels each time: a device may write
    /// them down and submit them at once. `f` should neither upload nor download.
    fn step<R>(&self, _samples: usize, f: impl FnOnce() -> R) -> R {
        f()
    }
    /// Waits until everything is done that was asked for.
    fn synchronize(&self) {}
    /// Begins or ends what a profiler records, after all work so far.
    fn record(&self, _on: bool) {}
    /// Most bytes that were ever in use by buffers at one time.
    fn peak_bytes(&self) -> usize;
    /// What has gone wrong on the device so far. The functions above and the kernels do not say; after a failure they
    /// compute nothing any more. To be asked before a result is believed.
    ///
    /// # Errors
    /// [`crate::error::Error::Failed`]: memory has run out, or a kernel has failed.
    fn status(&self) -> Result<()> {
        Ok(())
    }
}

/// Element by element.
pub trait Elementwise: Memory {
    /// `a + b`.
    fn add(&self, a: &Self::Buf, b: &Self::Buf) -> Self::Buf;
    /// `y += a x`.
    fn axpy(&self, a: f32, x: &Self::Buf, y: &mut Self::Buf);
    /// `s x` for a plain scalar `s` that lives on the device.
    fn scale_by(&self, s: &Self::Buf, x: &Self::Buf) -> Self::Buf;
    /// `max(x, 0)`.
    fn relu_fwd(&self, x: &Self::Buf) -> Self::Buf;
    /// `dy` where the output `y` of the ReLU is positive, else 0.
    fn relu_bwd(&self, y: &Self::Buf, dy: &Self::Buf) -> Self::Buf;
}

/// What other ops have contributed to the gradient of an op's input when the op's turn comes.
pub enum Gathered<Buf> {
    /// Others are still to contribute: the op gives its part.
    Part,
    /// The op is the last: it gives the whole, of which this is what there is so far.
    Rest(Option<Buf>),
}

/// An op's part of a gradient on top of what was gathered.
pub(crate) fn sum_gathered<B: Elementwise>(backend: &B, part: B::Buf, gathered: Gathered<B::Buf>) -> B::Buf {
    match gathered {
        Gathered::Part | Gathered::Rest(None) => part,
        Gathered::Rest(Some(mut sum)) => {
            backend.axpy(1.0, &part, &mut sum);
            sum
        }
    }
}

/// 2-d convolution, with the bias and the ReLU that follow it.
pub trait Conv: Memory {
    /// `y = x * w + b`, then ReLU if `relu`. `b` is `[c_out]`.
    fn conv2d_fwd(&self, d: &Conv2dDims, x: &Self::Buf, w: &Self::Buf, b: Option<&Self::Buf>, relu: bool) -> Self::Buf;
    /// Gradient with respect to `x`, of which a backend may want to know how it is stored.
    fn conv2d_bwd_input(&self, d: &Conv2dDims, x: &Self::Buf, dy: &Self::Buf, w: &Self::Buf) -> Self::Buf;
    /// The same, or where this op is the last to contribute, the whole gradient: then a backend may go on with it, to where
    /// `x` came from.
    fn conv2d_bwd_gathered(
        &self,
        d: &Conv2dDims,
        x: &Self::Buf,
        dy: &Self::Buf,
        w: &Self::Buf,
        gathered: Gathered<Self::Buf>,
    ) -> Self::Buf
    where
        Self: Elementwise,
    {
        sum_gathered(self, self.conv2d_bwd_input(d, x, dy, w), gathered)
    }
    /// Gradient with respect to `w`.
    fn conv2d_bwd_weight(&self, d: &Conv2dDims, x: &Self::Buf, dy: &Self::Buf) -> Self::Buf;
    /// Gradient with respect to a per-channel bias: `[c]`. Linear layers use it with `hw = 1`.
    fn bias_bwd(&self, d: &ChannelDims, dy: &Self::Buf) -> Self::Buf;
}

/// Fully connected layers, with the bias and the ReLU that follow.
pub trait Linear: Memory {
    /// `y = x wᵀ + b`, then ReLU if `relu`. `b` is `[f_out]`.
    fn linear_fwd(&self, d: &LinearDims, x: &Self::Buf, w: &Self::Buf, b: Option<&Self::Buf>, relu: bool) -> Self::Buf;
    /// Gradient with respect to `x`.
    fn linear_bwd_input(&self, d: &LinearDims, dy: &Self::Buf, w: &Self::Buf) -> Self::Buf;
    /// Gradient with respect to `w`.
    fn linear_bwd_weight(&self, d: &LinearDims, x: &Self::Buf, dy: &Self::Buf) -> Self::Buf;
}

/// Mean and biased variance per channel, plain `[c]` each.
#[derive(Debug)]
pub struct ChannelStats<Buf> {
    pub mean: Buf,
    pub var: Buf,
}

/// What a batch normalisation's backward pass starts from.
#[derive(Debug)]
pub struct NormBwd<'a, Buf> {
    /// Added to the variance.
    pub eps: f32,
    /// Input of the forward pass.
    pub x: &'a Buf,
    /// Statistics that it was normalised with.
    pub stats: &'a ChannelStats<Buf>,
    /// Whether they are those of `x` itself, so that the gradient flows through them too.
    pub batch_stats: bool,
    /// Scale.
    pub gamma: &'a Buf,
    /// Output of the forward pass, if a ReLU came last.
    pub relu: Option<&'a Buf>,
    /// Whether a residual was added; then its gradient is wanted.
    pub residual: bool,
    /// Gradient with respect to the output.
    pub dy: &'a Buf,
}

/// Gradients of a batch normalisation.
#[derive(Debug)]
pub struct NormGrads<Buf> {
    /// With respect to the input: a batch.
    pub dx: Buf,
    /// With respect to the scale: `[c]`.
    pub dgamma: Buf,
    /// With respect to the shift: `[c]`.
    pub dbeta: Buf,
    /// With respect to the residual, a batch, where it is wanted.
    pub dresidual: Option<Buf>,
}

/// Running statistics of a normalisation and those of a batch.
#[derive(Debug)]
pub struct RunningMove<'a, Buf> {
    /// From a biased variance to an unbiased one.
    pub unbias: f32,
    /// Of the batch.
    pub batch: &'a ChannelStats<Buf>,
    /// What follows them.
    pub running: &'a mut ChannelStats<Buf>,
}

/// Batch normalisation (Ioffe & Szegedy, 2015): `y = gamma (x - mean) / sqrt(var + eps) + beta`.
pub trait Norm: Memory {
    /// Statistics of the batch itself.
    fn channel_stats(&self, d: &ChannelDims, x: &Self::Buf) -> ChannelStats<Self::Buf>;
    /// Normalises with `stats`, adds `residual`, then ReLU if `relu`.
    #[allow(clippy::too_many_arguments)]
    fn batch_norm_fwd(
        &self,
        d: &ChannelDims,
        eps: f32,
        x: &Self::Buf,
        stats: &ChannelStats<Self::Buf>,
        gamma: &Self::Buf,
        beta: &Self::Buf,
        residual: Option<&Self::Buf>,
        relu: bool,
    ) -> Self::Buf;
    /// Gradients of all inputs.
    fn batch_norm_bwd(&self, d: &ChannelDims, b: &NormBwd<'_, Self::Buf>) -> NormGrads<Self::Buf>;
    /// Moves running statistics towards those of a batch: `running += momentum (batch - running)`, the batch's variance
    /// multiplied by `unbias` before.
    fn move_running(&self, momentum: f32, moves: &mut [RunningMove<'_, Self::Buf>]);
}

/// Pooling.
pub trait Pool: Memory {
    /// What the backward pass of a max pooling needs: which pixel of each window won.
    type Winners: Send + Sync;

    /// Maximum of each window; the first one wins a tie, NaN wins over numbers.
    fn max_pool2d_fwd(&self, d: &Pool2dDims, x: &Self::Buf) -> (Self::Buf, Self::Winners);
    /// `dy` at each window's winner, summed where windows overlap. With `relu`, the output, a ReLU came before or after the
    /// pooling, which is the same; then `dy` goes through it first.
    fn max_pool2d_bwd(
        &self,
        d: &Pool2dDims,
        winners: &Self::Winners,
        relu: Option<&Self::Buf>,
        dy: &Self::Buf,
    ) -> Self::Buf;
    /// Mean over height and width.
    fn avg_pool_fwd(&self, d: &ChannelDims, x: &Self::Buf) -> Self::Buf;
    /// `dy / hw` at every pixel.
    fn avg_pool_bwd(&self, d: &ChannelDims, dy: &Self::Buf) -> Self::Buf;
}

/// A convolution with bias and ReLU together with the max pooling that follows, for backends where the activations in
/// between need not leave the core that computes them.
pub trait ConvPool: Conv + Pool {
    /// [`Pool::max_pool2d_fwd`] of [`Conv::conv2d_fwd`] with ReLU.
    fn conv2d_pool_fwd(
        &self,
        d: &Conv2dDims,
        p: &Pool2dDims,
        x: &Self::Buf,
        w: &Self::Buf,
        b: Option<&Self::Buf>,
    ) -> (Self::Buf, Self::Winners) {
        self.max_pool2d_fwd(p, &self.conv2d_fwd(d, x, w, b, true))
    }

    /// Gradient with respect to `x`: [`Conv::conv2d_bwd_input`] of [`Pool::max_pool2d_bwd`], where `y` is the output.
    #[allow(clippy::too_many_arguments)]
    fn conv2d_pool_bwd_input(
        &self,
        d: &Conv2dDims,
        p: &Pool2dDims,
        winners: &Self::Winners,
        x: &Self::Buf,
        y: &Self::Buf,
        dy: &Self::Buf,
        w: &Self::Buf,
    ) -> Self::Buf {
        self.conv2d_bwd_input(d, x, &self.max_pool2d_bwd(p, winners, Some(y), dy), w)
    }
}

/// A loss of the logits of one sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossKind {
    /// Softmax cross-entropy.
    CrossEntropy,
    /// Carlini & Wagner's margin (2017) as attack loss: `-max(z_y - max_{j != y} z_j + confidence, 0)` with
    /// confidence 50, so that it never saturates in practice.
    Margin,
}

/// Confidence of the margin loss.
pub const MARGIN_CONFIDENCE: f32 = 50.0;

/// A loss and its gradient.
#[derive(Debug)]
pub struct LossOut<Buf> {
    /// `weight × Σ` over the batch: plain, one element.
    pub loss: Buf,
    /// Gradient of `loss` with respect to the logits: a batch.
    pub dlogits: Buf,
}

/// Sums over many batches, on the device until they are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// Samples seen by [`Loss::tally_add`].
    pub samples: u64,
    /// Of those, classified correctly.
    pub correct: u64,
    /// Sum of their cross-entropies.
    pub loss: f64,
    /// Input-gradient elements seen by [`Attack::pgd_step`].
    pub gradients: u64,
    /// Of those, exactly zero.
    pub zero_gradients: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.samples += other.samples;
        self.correct += other.correct;
        self.loss += other.loss;
        self.gradients += other.gradients;
        self.zero_gradients += other.zero_gradients;
    }
}

impl Counts {
    /// Percent of the samples classified correctly.
    pub fn accuracy(&self) -> f64 {
        100.0 * self.correct as f64 / self.samples.max(1) as f64
    }

    /// Mean cross-entropy.
    pub fn mean_loss(&self) -> f64 {
        self.loss / self.samples.max(1) as f64
    }

    /// Fraction of the gradient's elements that were exactly zero.
    pub fn zero_gradient(&self) -> f64 {
        self.zero_gradients as f64 / self.gradients.max(1) as f64
    }
}

/// Losses and counters.
pub trait Loss: Memory {
    /// Class labels of a batch.
    type Labels: Send + Sync;
    /// A [`Counts`] on the device.
    type Tally: Send + Sync;

    /// Labels of a batch, 0 to classes - 1.
    fn labels(&self, labels: &[u8]) -> Self::Labels;
    /// Labels of the samples `range`, one that [`Memory::map_parts`] hands out.
    fn labels_part(&self, range: Range<usize>, labels: &Self::Labels) -> Self::Labels;
    /// `weight × Σ loss(logits, labels)` and its gradient, in full precision.
    fn loss_fwd(
        &self,
        d: &LogitDims,
        kind: LossKind,
        weight: f32,
        logits: &Self::Buf,
        labels: &Self::Labels,
    ) -> LossOut<Self::Buf>;
    /// The most likely class of each sample; the first one wins a tie.
    fn predictions(&self, d: &LogitDims, logits: &Self::Buf) -> Vec<u8>;
    /// Counters that go on from `counts`.
    fn tally_from(&self, counts: &Counts) -> Self::Tally;
    /// Counters at zero.
    fn tally(&self) -> Self::Tally {
        self.tally_from(&Counts::default())
    }
    /// Adds a batch's samples, correct predictions and cross-entropies.
    fn tally_add(&self, d: &LogitDims, logits: &Self::Buf, labels: &Self::Labels, tally: &mut Self::Tally);
    /// Reads the counters.
    fn tally_read(&self, tally: &Self::Tally) -> Counts;
}

/// Constants of an SGD update.
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::NoUninit)]
#[repr(C)]
pub struct SgdStep {
    pub lr: f32,
    pub momentum: f32,
    pub weight_decay: f32,
}

/// Constants of an Adam update.
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::NoUninit)]
#[repr(C)]
pub struct AdamStep {
    pub lr: f32,
    pub beta1: f32,
    pub beta2: f32,
    pub eps: f32,
    pub weight_decay: f32,
    /// Number of this update, counted from 1.
    pub t: u32,
}

/// What keeps a parameter sparse, or makes it so, while it is trained.
#[derive(Debug)]
pub enum Constraint<'a, Buf> {
    /// Nothing.
    Free,
    /// Where the mask is 0, the weight and the optimiser's state are set to zero.
    Mask(&'a Buf),
    /// The ADMM penalty `rho/2 ‖w - z + u‖²`: `rho (w - z + u)` is added to the gradient; `z` and `u` are constants.
    Penalty { rho: f32, z: &'a Buf, u: &'a Buf },
}

/// A parameter that SGD updates.
pub struct SgdParam<'a, Buf> {
    /// What it must respect.
    pub constraint: Constraint<'a, Buf>,
    /// Gradient.
    pub g: &'a Buf,
    /// Velocity.
    pub v: &'a mut Buf,
    /// Weight.
    pub w: &'a mut Buf,
}

/// A parameter that Adam updates.
pub struct AdamParam<'a, Buf> {
    /// What it must respect.
    pub constraint: Constraint<'a, Buf>,
    /// Gradient.
    pub g: &'a Buf,
    /// First moment.
    pub m: &'a mut Buf,
    /// Second moment.
    pub v: &'a mut Buf,
    /// Weight.
    pub w: &'a mut Buf,
}

/// Updates of all parameters, in place, on plain buffers.
pub trait Optim: Memory {
    /// `v = momentum v + (g + weight_decay w)`, `w -= lr v`, under each parameter's constraint.
    fn sgd_step(&self, s: &SgdStep, params: &mut [SgdParam<'_, Self::Buf>]);
    /// Adam with coupled weight decay and bias correction, in PyTorch's order of operations, under each parameter's
    /// constraint.
    fn adam_step(&self, s: &AdamStep, params: &mut [AdamParam<'_, Self::Buf>]);
}

/// Euclidean norms of an ADMM update.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Residuals {
    /// `‖w - z‖` with the new `z`.
    pub primal: f64,
    /// `‖z - z_old‖`.
    pub dual: f64,
    /// `‖w‖`.
    pub weight: f64,
}

/// A parameter with ADMM's variables.
pub struct AdmmParam<'a, Buf> {
    /// What the projection keeps of `w + u`.
    pub mask: &'a Buf,
    /// Weight.
    pub w: &'a Buf,
    /// Its projection.
    pub z: &'a mut Buf,
    /// The scaled dual variable.
    pub u: &'a mut Buf,
}

/// Selection of what to keep, and ADMM's variables; on plain buffers. A mask is 1 where something is kept and 0 where
/// it is removed.
pub trait Prune: Memory {
    /// Euclidean norm of each of `rows` rows, over all `members` together; each member is `rows` × columns of its own.
    fn row_norms(&self, rows: usize, members: &[&Self::Buf]) -> Self::Buf;
    /// Euclidean norm of each of the `cols` columns of `x`.
    fn column_norms(&self, cols: usize, x: &Self::Buf) -> Self::Buf;
    /// For each `(k, x)` the mask of the `k` largest magnitudes of `x`, among equal ones those of the lowest indices; `None`
    /// where there is a NaN.
    fn top_k_masks(&self, selections: &[(usize, &Self::Buf)]) -> Vec<Option<Self::Buf>>;
    /// Mask of `rows` × `cols` elements from one of the rows.
    fn spread_rows(&self, rows: usize, cols: usize, mask: &Self::Buf) -> Self::Buf;
    /// Mask of `rows` × `cols` elements from one of the columns.
    fn spread_columns(&self, rows: usize, cols: usize, mask: &Self::Buf) -> Self::Buf;
    /// `x` where `mask` is 1, else +0.
    fn masked_copy(&self, mask: &Self::Buf, x: &Self::Buf) -> Self::Buf;
    /// Sets `x` to +0 where `mask` is 0.
    fn apply_mask(&self, mask: &Self::Buf, x: &mut Self::Buf);
    /// The update of ADMM's variables, for each parameter: `z = w + u` where the mask is 1 and 0 elsewhere, `u += w - z`.
    fn admm_update(&self, params: &mut [AdmmParam<'_, Self::Buf>]) -> Vec<Residuals>;
}

/// An l-infinity attack by projected gradient ascent, all of it.
#[derive(Clone, Copy, Debug)]
pub struct Ascent<'r> {
    /// Radius.
    pub eps: f32,
    /// Length of a step.
    pub step: f32,
    /// How many.
    pub steps: u32,
    /// What is ascended.
    pub loss: LossKind,
    /// Numbers of the random start and the place of the first sample among them, as [`Attack::random_start`] takes them;
    /// without, it starts at the images.
    pub start: Option<(&'r Rng, u64)>,
}

/// Steps of the l-infinity attacks. Images are in [0, 1].
pub trait Attack: Loss {
    /// `clamp(clean + eps (2u - 1), 0, 1)` with `u` uniform: element `(first + i) * features + j` of `rng` for
    /// feature `j` of sample `i`, so that a batch and its parts start at the same points.
    fn random_start(&self, n: usize, features: usize, eps: f32, rng: &Rng, first: u64, clean: &Self::Buf) -> Self::Buf;
    /// One step of projected gradient ascent: `x += step sign(dx)` with sign(0) = 0, projected to the eps-ball around
    /// `clean`, then clamped to [0, 1]. Counts the gradient's elements and its zeros.
    #[allow(clippy::too_many_arguments)]
    fn pgd_step(
        &self,
        n: usize,
        eps: f32,
        step: f32,
        clean: &Self::Buf,
        dx: &Self::Buf,
        x: &mut Self::Buf,
        tally: &mut Self::Tally,
    );
    /// All of an attack on a LeNet with these parameters, in PyTorch's order, without leaving the device's cores between the
    /// steps: up to rounding what the other ops come to. `None` where a backend has no such kernel, or not for this size.
    fn attack_lenet(
        &self,
        _d: &LeNetDims,
        _ascent: &Ascent<'_>,
        _params: [&Self::Buf; 8],
        _clean: &Self::Buf,
        _labels: &Self::Labels,
        _tally: &mut Self::Tally,
    ) -> Option<Self::Buf> {
        None
    }
}

/// What lies between the iterates of APGD: four batches.
pub struct ApgdPoints<'a, Buf> {
    /// Where the gradient was taken last.
    pub x: &'a mut Buf,
    /// Where it was taken before that.
    pub previous: &'a mut Buf,
    /// Where the loss was highest so far.
    pub best: &'a mut Buf,
    /// The gradient there.
    pub best_dx: &'a mut Buf,
}

/// What APGD does with one image of a batch.
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::NoUninit)]
#[repr(C)]
pub struct ApgdMove {
    /// Length of the step.
    pub step: f32,
    /// Not 0: the loss has risen above all before, so that point and gradient are the best ones now.
    pub improved: u32,
    /// Not 0: the step goes from the best point.
    pub restart: u32,
}

/// Constants of the l-infinity FAB attack (Croce & Hein, 2020).
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::NoUninit)]
#[repr(C)]
pub struct FabStep {
    /// How far beyond the hyperplane a step goes; 1 is onto it.
    pub eta: f32,
    /// Most weight of the step that starts from the clean image.
    pub alpha_max: f32,
}

/// A square within one image, all of whose pixels move by the same amount in each channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::NoUninit)]
#[repr(C)]
pub struct Window {
    /// First row.
    pub top: u32,
    /// First column.
    pub left: u32,
    /// Rows and columns; 0 for no window.
    pub side: u32,
    /// Bit `c`: channel `c` moves up; else down.
    pub up: u32,
}

/// How far images are apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distance {
    /// Largest difference of a pixel.
    LInf,
    /// Euclidean.
    L2,
}

/// Moves of the attacks beyond PGD, each image of a batch by its own numbers: a slice has one element an image. Images
/// are in [0, 1].
pub trait Perturb: Memory {
    /// One step of APGD (Croce & Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
    /// parameter-free attacks", 2020). With `p` the projection to the eps-ball around `clean` and to [0, 1], `x` and its
    /// gradient `dx` or, after a restart, the best ones:
    ///
    /// `z = p(x + step sign(dx))`, then `p(x + momentum (z - x) + (1 - momentum) (x - previous))`.
    fn apgd_step(
        &self,
        eps: f32,
        momentum: f32,
        moves: &[ApgdMove],
        clean: &Self::Buf,
        dx: &Self::Buf,
        points: ApgdPoints<'_, Self::Buf>,
    );
    /// One step of FAB towards the hyperplane `value + dx (y - x) = 0`, the linearised boundary between two classes:
    /// with `d` the smallest l-infinity move onto it within [0, 1] (as far as it goes, if there is none), from `x` and
    /// from `clean`, `x = clamp((1 - a) (x + eta d(x)) + a (clean + eta d(clean)), 0, 1)`,
    /// `a = min(|d(x)| / (|d(x)| + |d(clean)|), alpha_max)`, either length at least 1e-8. `values` is what the linearised
    /// function is at `x`.
    fn fab_step(&self, step: &FabStep, values: &[f32], clean: &Self::Buf, dx: &Self::Buf, x: &mut Self::Buf);
    /// Square's proposal: `x`, but within each image's window `clean ± eps`, clamped to [0, 1].
    /// `shape` is an image's `[c, h, w]`.
    fn windows(&self, shape: [usize; 3], eps: f32, windows: &[Window], clean: &Self::Buf, x: &Self::Buf) -> Self::Buf;
    /// `to = from` for the images that are `chosen`.
    fn copy_samples(&self, chosen: &[bool], from: &Self::Buf, to: &mut Self::Buf);
    /// `x = clean + t (x - clean)` for each image; one with `t = 1` stays as it is to the bit.
    fn towards(&self, t: &[f32], clean: &Self::Buf, x: &mut Self::Buf);
    /// Distance of each of `n` images of `a` from that of `b`, in f64.
    fn distances(&self, n: usize, distance: Distance, a: &Self::Buf, b: &Self::Buf) -> Vec<f64>;
    /// `atanh(0.999999 (2 x - 1))`: the variable that C&W's l2 attack descends in (2017).
    fn tanh_space(&self, x: &Self::Buf) -> Self::Buf;
    /// `(tanh(w) + 1) / 2`.
    fn tanh_image(&self, w: &Self::Buf) -> Self::Buf;
    /// Gradient of `‖x - clean‖² + f(x)` with respect to `w`, where `x` comes from it and `dx` is the gradient of `f`:
    /// `2 x (1 - x) (2 (x - clean) + dx)`.
    fn tanh_image_bwd(&self, clean: &Self::Buf, x: &Self::Buf, dx: &Self::Buf) -> Self::Buf;
}

/// Random crop after zero padding, and horizontal flip: which one, for the sample at a position of a training step.
#[derive(Clone, Copy, Debug)]
pub struct CropFlip {
    /// Numbers of the training step.
    pub rng: Rng,
    /// Zero pixels on each side.
    pub pad: u32,
}

impl CropFlip {
    /// Row and column offset of the crop in the padded image, and whether to flip it.
    pub fn of(&self, position: usize) -> (usize, usize, bool) {
        let at = |k: u64, n: u32| self.rng.below_at(4 * position as u64 + k, n);
        (at(0, 2 * self.pad + 1) as usize, at(1, 2 * self.pad + 1) as usize, at(2, 2) == 1)
    }
}

/// A data set on the device.
pub trait Images: Memory {
    /// All images of a split, as bytes.
    type Resident<'a>: Sync;

    /// Puts `n × c × h × w` bytes on the device.
    fn resident<'a>(&self, shape: [usize; 3], images: &'a [u8]) -> Self::Resident<'a>;
    /// The batch of the images at `indices`, pixels divided by 255, cropped and flipped if asked.
    fn gather(&self, images: &Self::Resident<'_>, indices: &[u32], augment: Option<&CropFlip>) -> Self::Buf;
}
