//! Names, shapes and roles of a network's parameters and running statistics.

/// What a parameter is, which decides how it is initialised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// OIHW.
    ConvWeight,
    /// `[out, in]`.
    LinearWeight,
    /// Bias of a layer with this many inputs per output.
    Bias {
        /// Inputs per output.
        fan_in: usize,
    },
    /// Scale of a batch normalisation.
    Gamma,
    /// Shift of a batch normalisation.
    Beta,
}

/// One trainable parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamSpec {
    /// PyTorch's name: `layer1.0.conv1.weight`.
    pub name: String,
    /// PyTorch's shape.
    pub shape: Vec<usize>,
    /// What it is.
    pub role: Role,
}

impl ParamSpec {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One batch normalisation, whose running statistics are `<name>.running_mean` and `<name>.running_var`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NormSpec {
    /// PyTorch's name of the layer: `layer1.0.bn1`.
    pub name: String,
    /// Number of channels.
    pub channels: usize,
}
