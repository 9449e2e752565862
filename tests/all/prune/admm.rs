//! A problem with a known answer, and what an update does.

use engine::autograd::tensor::Param;
use engine::backend::cpu::Cpu;
use engine::backend::{AdmmParam, Backend, Constraint};
use engine::nn::models::{Architecture, Model, Network};
use engine::nn::optim::{Optimizer, OptimizerConfig};
use engine::prune::{Admm, AdmmConfig, Scheme, groups, project};

use super::{params, random_model, random_values, target, with_params};
use crate::backends::{normal, on_every_backend};
use crate::compare::assert_close;

on_every_backend! { updates_are_those_of_plain_loops, finds_the_best_subset }

fn config(scheme: Scheme, ratio: f64, rho: f32, growth: f32) -> AdmmConfig {
    AdmmConfig { target: target(scheme, ratio), rho, growth, update_every: 1 }
}

pub fn updates_are_those_of_plain_loops<B: Backend>(backend: &B) {
    let lens = [1, 7, 8, 9, 1000];
    let mask_of = |len: usize| (0..len).map(|i| f32::from(u8::from(i % 3 == 0))).collect::<Vec<f32>>();
    let mut bufs = lens.map(|len| {
        let [w, z, u] = [1, 2, 3].map(|seed| normal(seed, len));
        let sum: Vec<f32> = w.iter().zip(&u).map(|(w, u)| w + u).collect();
        (backend.upload(&mask_of(len)), backend.upload(&w), backend.upload(&z), backend.upload(&sum))
    });
    let mut params: Vec<_> = bufs.iter_mut().map(|(mask, w, z, u)| AdmmParam { mask, w, z, u }).collect();
    let all = backend.admm_update(&mut params);
    assert_eq!(all.len(), lens.len());
    for ((len, got), (_, _, new_z, new_u)) in lens.into_iter().zip(all).zip(&bufs) {
        let ([w, z, u], mask) = ([1, 2, 3].map(|seed| normal(seed, len)), mask_of(len));
        let [w, z, u, mask] = [w, z, u, mask].map(|v| v.into_iter().map(f64::from).collect::<Vec<_>>());
        let want_z: Vec<f64> = (0..len).map(|i| mask[i] * (w[i] + u[i])).collect();
        let want_u: Vec<f64> = (0..len).map(|i| u[i] + (w[i] - want_z[i])).collect();
        let norm = |f: &dyn Fn(usize) -> f64| (0..len).map(|i| f(i).powi(2)).sum::<f64>().sqrt();
        let want = [norm(&|i| w[i] - want_z[i]), norm(&|i| want_z[i] - z[i]), norm(&|i| w[i])];
        assert_close("residuals", &[got.primal, got.dual, got.weight], &want, 1e-6, 0.0);
        assert_close("z", &backend.download(new_z), &want_z, 1e-7, 1e-7);
        assert_close("u", &backend.download(new_u), &want_u, 1e-7, 1e-7);
    }
}

/// LeNet with one filter of 25 weights in each convolution: the first tensor is conv1's weight.
fn tiny() -> Architecture {
    Architecture::shrunk(Network::LeNet, 1, vec![1, 1, 2], 10).unwrap()
}

/// Minimises `f(w) = 1/2 Σ d_i (w_i - a_i)²` over conv1's 25 weights, 20 % of which may be left.
///
/// The answer is known: f is a sum over weights and a weight costs `d_i a_i² / 2` if it is removed and nothing if it is
/// kept at `a_i`, so the best point is a on the 5 weights of the largest `d_i a_i²` and zero elsewhere. For a removed
/// weight ADMM stands still where the gradient `-d_i a_i` of f balances `rho u_i`, so `u_i = d_i a_i / rho` is known,
/// too. With `d >= rho` and d growing with |a|, every other choice keeps a weight i and removes one j with
/// `|w_i + u_i| = |a_i| < |w_j + u_j| = d_j |a_j| / rho`, so it is left: the best point is the only one that is stable.
/// The start is a point whose projection keeps other weights.
pub fn finds_the_best_subset<B: Backend>(backend: &B) {
    const RHO: f32 = 1.0;
    // Magnitudes 0.04, 0.08, … 1.0 in a mixed order and of either sign, with a step above the fifth largest.
    let rank = |i: usize| (7 * i) % 25 + 1;
    let a: Vec<f32> = (0..25)
        .map(|i| {
            let magnitude = rank(i) as f32 / 25.0 + if rank(i) > 20 { 1.0 } else { 0.0 };
            if i % 2 == 0 { magnitude } else { -magnitude }
        })
        .collect();
    let d: Vec<f32> = (0..25).map(|i| 1.0 + rank(i) as f32 / 50.0).collect();
    let best: Vec<f32> = (0..25).map(|i| if rank(i) > 20 { a[i] } else { 0.0 }).collect();
    let cost = |i: usize| d[i] * a[i] * a[i];
    assert!((0..25).all(|i| (0..25).all(|j| best[i] == 0.0 || best[j] != 0.0 || cost(i) > cost(j))));

    let mut model = random_values(backend, tiny(), 1);
    // Weights that are no part of the problem have no gradient.
    let start: Vec<f32> = (0..25).map(|i| if rank(i) <= 5 { 0.5 } else { 0.1 }).collect();
    let mut values = params(backend, &model);
    values[0] = start;
    model = with_params(backend, &model, &values);
    let mut admm = Admm::start(backend, &config(Scheme::Irregular, 0.8, RHO, 1.0), &model).unwrap();
    let kept = |admm: &Admm<B>, model: &Model<B>| {
        let z = admm.state(backend, model).into_iter().find(|(name, _, _)| name == "z.conv1.weight").unwrap().2;
        z.iter().map(|&z| z != 0.0).collect::<Vec<_>>()
    };
    let wanted: Vec<bool> = best.iter().map(|&b| b != 0.0).collect();
    assert!(kept(&admm, &model).iter().zip(&wanted).all(|(&kept, &wanted)| !(kept && wanted)), "starts elsewhere");

    let sgd = OptimizerConfig::Sgd { lr: 0.3, momentum: 0.0, weight_decay: 0.0 };
    let mut optimizer = Optimizer::new(backend, &sgd, model.params());
    let mut residuals = Vec::new();
    for _ in 0..200 {
        for _ in 0..20 {
            let w = params(backend, &model);
            let gradient = |(i, p): (usize, &Param<B>)| {
                let zeros = vec![0.0; p.len()];
                let of_f = || (0..25).map(|j| d[j] * (w[0][j] - a[j])).collect();
                Param::upload(backend, p.dims(), &if i == 0 { of_f() } else { zeros })
            };
            let grads: Vec<Param<B>> = model.params().iter().enumerate().map(gradient).collect();
            let constraint = |i: usize| if i == 0 { admm.constraint(0) } else { Constraint::Free };
            optimizer.step(backend, 0.3, &grads, model.params_mut(), constraint).unwrap();
        }
        residuals = admm.update(backend, &model).unwrap();
    }
    assert_eq!(kept(&admm, &model), wanted, "the best subset");
    assert_close("w", &params(backend, &model)[0], &best, 0.0, 1e-5);
    let (param, norms) = &residuals[0];
    assert_eq!(param, "conv1.weight");
    assert!(norms.primal < 1e-4 && norms.dual < 1e-4, "{norms:?}");
    let u = admm.state(backend, &model).into_iter().find(|(name, _, _)| name == "u.conv1.weight").unwrap().2;
    let multipliers: Vec<f32> = (0..25).map(|i| if wanted[i] { 0.0 } else { d[i] * a[i] / RHO }).collect();
    assert_close("u", &u, &multipliers, 0.0, 1e-5);
}

/// Z is the projection of W at the start, and of W + U, jointly for tied layers, at an update; rho grows.
#[test]
fn updates_project_whole_groups() {
    let backend = Cpu::<f32>::new(2).unwrap();
    for (network, scheme) in [
        (Network::LeNet, Scheme::Irregular),
        (Network::LeNet, Scheme::Column),
        (Network::ResNet18, Scheme::BnFilter),
        (Network::ResNet18, Scheme::Tied),
    ] {
        let model = random_model(&backend, network, 2, 5);
        let config = config(scheme, 0.5, 1e-3, 1.3);
        let groups = groups(model.architecture(), &config.target).unwrap();
        let mut members: Vec<usize> = groups.iter().flat_map(|g| g.members.clone()).collect();
        members.sort_unstable();
        let projected = |values: &[Vec<f32>]| {
            let mut point = with_params(&backend, &model, values);
            project(&backend, &groups, &mut point).unwrap();
            params(&backend, &point)
        };
        let mut admm = Admm::start(&backend, &config, &model).unwrap();
        let w0 = params(&backend, &model);
        // Per parameter: z, u, where there are any.
        let variables = |admm: &Admm<Cpu<f32>>| {
            let state = admm.state(&backend, &model);
            assert_eq!(state.len(), 2 * members.len(), "{scheme}");
            let of = |prefix: &str, i: usize| {
                let name = format!("{prefix}.{}", model.architecture().params[i].name);
                state.iter().find(|(n, _, _)| *n == name).unwrap_or_else(|| panic!("no {name}")).2.clone()
            };
            members.iter().map(|&i| (of("z", i), of("u", i))).collect::<Vec<_>>()
        };
        for (&i, (z, u)) in members.iter().zip(variables(&admm)) {
            assert_eq!(z, projected(&w0)[i], "{scheme}");
            assert!(u.iter().all(|&u| u == 0.0), "{scheme}");
        }
        // Moved on, so that the second selection is not the first.
        let w1: Vec<Vec<f32>> = w0
            .iter()
            .enumerate()
            .map(|(i, w)| w.iter().zip(normal(i as u64, w.len())).map(|(w, n)| w + 0.3 * n).collect())
            .collect();
        let moved = with_params(&backend, &model, &w1);
        let mut u0 = w0.clone();
        for w in [&model, &moved] {
            let before = variables(&admm);
            let mut sums = params(&backend, w);
            for (&i, (_, u)) in members.iter().zip(&before) {
                sums[i].iter_mut().zip(u).for_each(|(s, u)| *s += u);
                u0[i].clone_from(u);
            }
            let residuals = admm.update(&backend, w).unwrap();
            let names: Vec<&str> = residuals.iter().map(|(param, _)| param.as_str()).collect();
            assert_eq!(
                names,
                members.iter().map(|&i| model.architecture().params[i].name.as_str()).collect::<Vec<_>>()
            );
            for (&i, (z, u)) in members.iter().zip(variables(&admm)) {
                assert_eq!(z, projected(&sums)[i], "{scheme}: z of parameter {i}");
                let want: Vec<f32> = sums[i].iter().zip(&z).map(|(s, z)| s - z).collect();
                assert_eq!(u, want, "{scheme}: u of parameter {i}");
            }
        }
        assert_eq!(admm.rho(), 1e-3 * 1.3 * 1.3);
    }
}

#[test]
fn state_comes_back() {
    let backend = Cpu::<f32>::new(1).unwrap();
    let model = random_model(&backend, Network::LeNet, 2, 5);
    let config = config(Scheme::Filter, 0.5, 1e-2, 1.3);
    let mut admm = Admm::start(&backend, &config, &model).unwrap();
    admm.update(&backend, &random_model(&backend, Network::LeNet, 2, 6)).unwrap();
    let state = admm.state(&backend, &model);
    let mut other = Admm::start(&backend, &config, &model).unwrap();
    assert_ne!(other.state(&backend, &model), state);
    let lookup = |name: &str, shape: &[usize]| {
        let (_, found, values) = state.iter().find(|(n, _, _)| n == name).expect("a name of the state");
        assert_eq!(found, shape);
        Ok(values.clone())
    };
    other.load_state(&backend, &model, admm.rho(), lookup).unwrap();
    assert_eq!(other.state(&backend, &model), state);
    assert_eq!(other.rho(), admm.rho());
    let missing = |_: &str, _: &[usize]| Err(engine::base::error::Error::Failed("missing".into()));
    assert!(other.load_state(&backend, &model, 1.0, missing).is_err());
}
