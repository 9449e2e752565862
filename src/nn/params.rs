//! Names, shapes and roles of a network's parameters and running statistics, and how its layers hang together.

/// The role of a parameter, which decides how it is initialised.
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
    /// Its role.
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

/// One convolution or fully connected layer, with what belongs to its outputs. Layers are joined by *channel spaces*:
/// what one writes another reads, and layers whose outputs are added write the same space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerSpec {
    /// PyTorch's name: `layer1.0.conv1`.
    pub name: String,
    /// Index of its weight, `[outputs, ...]`, among the parameters.
    pub weight: usize,
    /// Index of its bias.
    pub bias: Option<usize>,
    /// The batch normalisation of its outputs.
    pub norm: Option<NormOf>,
    /// The channel space of its inputs; 0 is the image.
    pub reads: usize,
    /// The channel space of its outputs.
    pub writes: usize,
    /// Of the forward pass of one image.
    pub multiply_adds: u64,
}

/// Where a batch normalisation's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NormOf {
    /// Index of its scale among the parameters.
    pub gamma: usize,
    /// Index of its shift among the parameters.
    pub beta: usize,
    /// Its index among the normalisations.
    pub norm: usize,
}
