//! Masks and penalties inside an update of the weights.

use engine::autograd::tensor::Param;
use engine::backend::cpu::Cpu;
use engine::backend::{Backend, Constraint, Optim, SgdParam, SgdStep};
use engine::nn::models::{Model, Network};
use engine::nn::optim::{Optimizer, OptimizerConfig};
use engine::prune::{Admm, AdmmConfig, Masks, Scheme, hard_prune};

use super::{params, random_model, target};
use crate::backends::{normal, on_every_backend};
use crate::compare::{assert_close, bits};
use crate::numdiff::check_gradient;

on_every_backend! { masked_weights_and_their_state_stay_zero, the_penalty_is_a_gradient_of_w_alone }

fn optimizers() -> [OptimizerConfig; 2] {
    [
        OptimizerConfig::Sgd { lr: 0.1, momentum: 0.9, weight_decay: 5e-2 },
        OptimizerConfig::Adam { lr: 0.1, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 5e-2 },
    ]
}

/// Gradients that are zero nowhere.
fn gradients<B: Backend>(backend: &B, model: &Model<B>, seed: u64) -> Vec<Param<B>> {
    let gradient =
        |(i, p): (usize, &Param<B>)| Param::upload(backend, p.dims(), &normal(100 * seed + i as u64, p.len()));
    model.params().iter().enumerate().map(gradient).collect()
}

/// In training that began dense, so that there is momentum to remove.
pub fn masked_weights_and_their_state_stay_zero<B: Backend>(backend: &B) {
    for (config, scheme) in optimizers().iter().zip([Scheme::Filter, Scheme::Irregular]) {
        let mut model = random_model(backend, Network::Vgg16Bn, 4, 1);
        let mut optimizer = Optimizer::new(backend, config, model.params());
        for step in 0..2 {
            let grads = gradients(backend, &model, step);
            optimizer.step(backend, 0.1, &grads, model.params_mut(), |_| Constraint::Free).unwrap();
        }
        hard_prune(backend, &target(scheme, 0.75), &mut model).unwrap();
        let masks = Masks::of(backend, &model);
        let before = params(backend, &model);
        let masked = |name: &str| {
            // The classifier has no mask, and of the rest only what is zero.
            let i = model.architecture().params.iter().position(|p| p.name == name).unwrap();
            before[i].iter().map(|&v| v == 0.0).collect::<Vec<bool>>()
        };
        let masked: Vec<(String, Vec<bool>)> =
            model.architecture().params.iter().map(|p| (p.name.clone(), masked(&p.name))).collect();
        let share = masked.iter().flat_map(|(_, m)| m).filter(|&&m| m).count() as f64
            / model.architecture().parameters() as f64;
        assert!(share > 0.7, "{share} of the parameters are masked");
        for step in 2..5 {
            let grads = gradients(backend, &model, step);
            optimizer.step(backend, 0.1, &grads, model.params_mut(), |i| masks.constraint(i)).unwrap();
            let after = params(backend, &model);
            let state = optimizer.state(backend, &model.architecture().params);
            for (i, (name, masked)) in masked.iter().enumerate() {
                let zero = |values: &[f32]| values.iter().zip(masked).all(|(v, &m)| !m || v.to_bits() == 0);
                assert!(zero(&after[i]), "{scheme}: {name} after step {step}");
                let moved = after[i].iter().zip(&before[i]).zip(masked).all(|((a, b), &m)| m || a != b);
                assert!(moved, "{scheme}: {name} moves where it is not masked");
                for (slot, _, values) in state.iter().filter(|(slot, _, _)| slot.ends_with(&format!(".{name}"))) {
                    assert!(zero(values), "{scheme}: {slot} after step {step}");
                }
            }
        }
    }
}

/// What a step of plain gradient descent adds to the weights is exactly `-lr (g + rho (w - z + u))`; z and u, which
/// the step may only read, keep their bits.
pub fn the_penalty_is_a_gradient_of_w_alone<B: Backend>(backend: &B) {
    let config = AdmmConfig { target: target(Scheme::Filter, 0.5), rho: 0.5, growth: 1.5, update_every: 1 };
    let mut model = random_model(backend, Network::LeNet, 2, 1);
    let mut admm = Admm::start(backend, &config, &model).unwrap();
    // U is zero before the first update.
    admm.update(backend, &random_model(backend, Network::LeNet, 2, 2)).unwrap();
    let state = admm.state(backend, &model);
    let sgd = OptimizerConfig::Sgd { lr: 1.0, momentum: 0.0, weight_decay: 0.0 };
    let mut optimizer = Optimizer::new(backend, &sgd, model.params());
    for step in 0..3 {
        let (before, grads) = (params(backend, &model), gradients(backend, &model, step));
        optimizer.step(backend, 0.25, &grads, model.params_mut(), |i| admm.constraint(i)).unwrap();
        for (i, p) in model.architecture().params.iter().enumerate() {
            let variable = |prefix: &str| {
                let name = format!("{prefix}.{}", p.name);
                state.iter().find(|(n, _, _)| *n == name).map(|(_, _, values)| values)
            };
            let gradients = grads[i].values(backend).into_iter().map(f64::from).enumerate();
            let want: Vec<f64> = match (variable("z"), variable("u")) {
                (Some(z), Some(u)) => gradients
                    .map(|(j, g)| {
                        let w = f64::from(before[i][j]);
                        w - 0.25 * (g + f64::from(admm.rho()) * (w - f64::from(z[j]) + f64::from(u[j])))
                    })
                    .collect(),
                _ => gradients.map(|(j, g)| f64::from(before[i][j]) - 0.25 * g).collect(),
            };
            assert_close(&p.name, &params(backend, &model)[i], &want, 3e-7, 0.0);
        }
    }
    for ((name, _, before), (_, _, after)) in state.iter().zip(admm.state(backend, &model)) {
        assert_eq!(bits(before), bits(&after), "{name} is a constant of a step");
    }
}

/// Against central differences of `rho/2 ‖w - z + u‖²` with z and u held, to f64.
#[test]
fn the_penalty_gradient_is_that_of_the_penalty() {
    const RHO: f32 = 0.75;
    let backend = Cpu::<f64>::new(1).unwrap();
    let [w, z, u] = [1, 2, 3].map(|seed| normal(seed, 33).into_iter().map(f64::from).collect::<Vec<_>>());
    let (constant_z, constant_u) = (z.clone(), u.clone());
    let penalty =
        |w: &[f64]| (0..33).map(|i| (w[i] - constant_z[i] + constant_u[i]).powi(2)).sum::<f64>() * f64::from(RHO) / 2.0;
    let (z, u) = (backend.buffer(&z), backend.buffer(&u));
    let (g, mut v, mut after) = (backend.buffer(&[0.0; 33]), backend.buffer(&[0.0; 33]), backend.buffer(&w));
    let step = SgdStep { lr: 1.0, momentum: 0.0, weight_decay: 0.0 };
    let constraint = Constraint::Penalty { rho: RHO, z: &z, u: &u };
    backend.sgd_step(&step, &mut [SgdParam { constraint, g: &g, v: &mut v, w: &mut after }]);
    let gradient: Vec<f64> = w.iter().zip(after.iter()).map(|(before, after)| before - after).collect();
    check_gradient("penalty", penalty, &w, &gradient, 1e-5, 1e-9, None);
}
