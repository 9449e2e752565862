//! Networks that look at one pixel: what an attack must do on them can be said without a network.

use std::sync::Arc;

use engine::backend::Backend;
use engine::data::Split;
use engine::nn::models::{Architecture, Model, Network};

/// A LeNet whose logits are functions of `p`, the brightest pixel of the upper left 4×4 of an image. Those of class `c` go
/// straight from one of the points `(p, logit)` of `curves[c]` to the next, the first of which is at 0, and go on as between
/// the last two; a curve of one point is constant.
pub fn network<B: Backend>(backend: &B, curves: &[&[(f32, f32)]]) -> Model<B> {
    let classes = curves.len();
    let architecture = Arc::new(Architecture::new(Network::LeNet, 1, classes).unwrap());
    let mut values: Vec<Vec<f32>> = architecture.params.iter().map(|p| vec![0.0; p.len()]).collect();
    // The middle of the first filter: two poolings of the image are left.
    values[0][12] = 1.0;
    values[2][12] = 1.0;
    let mut hidden = 0;
    for (class, points) in curves.iter().enumerate() {
        let mut slope = 0.0;
        values[7][class] = points[0].1;
        for pair in points.windows(2) {
            let next = (pair[1].1 - pair[0].1) / (pair[1].0 - pair[0].0);
            // From this point on the logit rises by so much more.
            values[4][196 * hidden] = 1.0;
            values[5][hidden] = -pair[0].0;
            values[6][64 * class + hidden] = next - slope;
            (slope, hidden) = (next, hidden + 1);
        }
    }
    Model::new(backend, architecture, &values).unwrap()
}

/// An image for each of `levels`, black but for one pixel of that level in the upper left, of class 0.
pub fn images(levels: &[u8]) -> Split {
    let image = |&level: &u8| (0..784).map(move |at| if at == 29 { level } else { 0 });
    Split { images: levels.iter().flat_map(image).collect(), labels: vec![0; levels.len()] }
}

#[cfg(test)]
mod tests {
    use engine::attack::target_model::TargetModel;
    use engine::autograd::tensor::Tensor;
    use engine::backend::cpu::Cpu;

    #[test]
    fn logits_lie_on_the_curves() {
        let backend = Cpu::<f32>::new(1).unwrap();
        let model = super::network(&backend, &[&[(0.0, 1.0), (0.25, 2.0), (0.75, -1.0)], &[(0.0, 0.5)]]);
        let split = super::images(&[0, 51, 102, 255]);
        let pixels: Vec<f32> = split.images.iter().map(|&v| f32::from(v) / 255.0).collect();
        let x = Tensor::upload(&backend, [4, 1, 28, 28], &pixels);
        let logits = TargetModel::new(&backend, &model, &|_| Ok(())).logits(&x).unwrap();
        let of = |class: usize| (0..4).map(|i| logits.of_image(i)[class]).collect::<Vec<_>>();
        crate::compare::assert_close("curve", &of(0), &[1.0, 1.8, 1.1, -2.5], 1e-6, 0.0);
        assert_eq!(of(1), [0.5; 4]);
    }
}
