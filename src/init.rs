//! Initialisers.

use crate::choice::choice;

choice! {
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
