//! Initialisers.

use nalgebra::DMatrix;

use crate::base::named_enum::named_enum;
use crate::base::rng::{Rng, Stream};
use crate::nn::models::Architecture;
use crate::nn::params::{ParamSpec, Role};

named_enum! {
    /// Distribution of the convolution weights at the start of training.
    pub enum Init: "initialiser" {
        /// PyTorch's layer default: U(±1/sqrt(fan_in)).
        Default = "default",
        /// U(0, 1).
        Uniform = "uniform",
        /// N(0, 1).
        Normal = "normal",
        /// U(±sqrt(6 / (fan_in + fan_out))) (Glorot & Bengio, 2010).
        XavierUniform = "xavier_uniform",
        /// N(0, 2 / (fan_in + fan_out)) (Glorot & Bengio, 2010).
        XavierNormal = "xavier_normal",
        /// U(±sqrt(6 / fan_in)) (He et al., 2015).
        KaimingUniform = "kaiming_uniform",
        /// N(0, 2 / fan_in) (He et al., 2015).
        KaimingNormal = "kaiming_normal",
        /// A matrix with orthonormal rows or columns (Saxe et al., 2014).
        Orthogonal = "orthogonal",
    }
}

/// Initial values of every parameter, in the architecture's order: convolution weights by `init`, linear layers and
/// biases by PyTorch's default U(±1/sqrt(fan_in)), batch normalisations at scale 1 and shift 0.
pub fn initial_values(architecture: &Architecture, init: Init, seed: u64) -> Vec<Vec<f32>> {
    let rng = |index: usize| Rng::new(seed, Stream::Init, index as u32);
    architecture.params.iter().enumerate().map(|(i, spec)| values(spec, init, &rng(i))).collect()
}

fn values(spec: &ParamSpec, init: Init, rng: &Rng) -> Vec<f32> {
    // For OIHW and [out, in] alike: inputs of one output, outputs of one input.
    let fan_in: usize = spec.shape[1..].iter().product();
    match spec.role {
        Role::ConvWeight => conv_weight(spec, init, rng, fan_in as f64),
        Role::LinearWeight => uniform(spec.len(), 1.0 / (fan_in as f64).sqrt(), rng),
        Role::Bias { fan_in } => uniform(spec.len(), 1.0 / (fan_in as f64).sqrt(), rng),
        Role::Gamma => vec![1.0; spec.len()],
        Role::Beta => vec![0.0; spec.len()],
    }
}

fn conv_weight(spec: &ParamSpec, init: Init, rng: &Rng, fan_in: f64) -> Vec<f32> {
    let len = spec.len();
    let fan_out = (spec.shape[0] * spec.shape[2] * spec.shape[3]) as f64;
    match init {
        Init::Default => uniform(len, 1.0 / fan_in.sqrt(), rng),
        Init::Uniform => (0..len as u64).map(|e| rng.uniform_at(e)).collect(),
        Init::Normal => normal(len, 1.0, rng),
        Init::XavierUniform => uniform(len, (6.0 / (fan_in + fan_out)).sqrt(), rng),
        Init::XavierNormal => normal(len, (2.0 / (fan_in + fan_out)).sqrt(), rng),
        Init::KaimingUniform => uniform(len, (6.0 / fan_in).sqrt(), rng),
        Init::KaimingNormal => normal(len, (2.0 / fan_in).sqrt(), rng),
        Init::Orthogonal => orthogonal(spec.shape[0], len / spec.shape[0], rng),
    }
}

/// U(-bound, bound).
fn uniform(len: usize, bound: f64, rng: &Rng) -> Vec<f32> {
    (0..len as u64).map(|e| (bound * (2.0 * f64::from(rng.uniform_at(e)) - 1.0)) as f32).collect()
}

/// N(0, std²).
fn normal(len: usize, std: f64, rng: &Rng) -> Vec<f32> {
    (0..len as u64).map(|e| (std * rng.normal_at(e)) as f32).collect()
}

/// A `rows × cols` matrix, row by row, with orthonormal rows (or columns, if there are fewer): the Q of a normal
/// matrix. It is uniform over all such matrices, since the diagonal of nalgebra's R is positive (Mezzadri, 2007).
fn orthogonal(rows: usize, cols: usize, rng: &Rng) -> Vec<f32> {
    let (long, short) = (rows.max(cols), rows.min(cols));
    let gaussian = DMatrix::from_fn(long, short, |i, j| rng.normal_at((i * short + j) as u64));
    let q = gaussian.qr().q();
    let at = |i: usize, j: usize| if rows >= cols { q[(i, j)] } else { q[(j, i)] };
    (0..rows * cols).map(|k| at(k / cols, k % cols) as f32).collect()
}
