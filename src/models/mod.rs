//! The networks of the paper, each with a width multiplier.

use crate::choice::choice;

choice! {
    /// Network architectures.
    pub enum Network: "network" {
        /// LeNet for 28×28×1 images.
        LeNet = "lenet",
        /// LeNet for 32×32×3 images.
        LeNetCifar = "lenet-cifar",
        /// ResNet-18 for 32×32×3 images.
        ResNet18 = "resnet18",
        /// VGG-16 with batch normalisation for 32×32×3 images.
        Vgg16Bn = "vgg16-bn",
    }
}
