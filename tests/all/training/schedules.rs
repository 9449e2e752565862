//! Learning rate and attack radius over time, against closed forms.

use engine::attack::{EpsSchedule, Ramp};
use engine::nn::optim::{LrSchedule, LrShape};

use crate::compare::assert_close;

const EPOCHS: usize = 8;
const STEPS: u64 = 5;

/// The factor of every step of eight epochs of five steps.
fn factors(shape: LrShape, milestones: &[usize], warmup_epochs: f64) -> Vec<f64> {
    let schedule = LrSchedule { shape, milestones: milestones.to_vec(), gamma: 0.1, period: 0, warmup_epochs };
    (0..EPOCHS as u64 * STEPS).map(|step| schedule.factor(step, STEPS, EPOCHS)).collect()
}

fn strengths(ramp: Ramp, epochs: f64) -> Vec<f64> {
    let schedule = EpsSchedule { ramp, epochs };
    (0..EPOCHS as u64 * STEPS).map(|step| schedule.strength(step, STEPS)).collect()
}

#[test]
fn constant() {
    assert_eq!(factors(LrShape::Constant, &[3], 0.0), [1.0; 40]);
}

/// PyTorch's `MultiStepLR`, stepped once an epoch.
#[test]
fn multi_step_drops_at_the_start_of_an_epoch() {
    let want: Vec<f64> =
        (0..40).map(|step| [1.0, 0.1, 0.01][usize::from(step >= 15) + usize::from(step >= 30)]).collect();
    // gamma is an f32.
    assert_close("factors", &factors(LrShape::MultiStep, &[3, 6], 0.0), &want, 1e-7, 0.0);
    assert_close("in any order", &factors(LrShape::MultiStep, &[6, 3], 0.0), &want, 1e-7, 0.0);
}

#[test]
fn periodic_drops_by_thirds_and_starts_over() {
    let schedule =
        LrSchedule { shape: LrShape::Periodic, milestones: vec![], gamma: 0.1, period: 3, warmup_epochs: 0.0 };
    // Periods of 15 steps, thirds of 5.
    let found: Vec<f64> = (0..40).map(|step| schedule.factor(step, STEPS, EPOCHS)).collect();
    let want: Vec<f64> = (0..40).map(|step| [1.0, 0.1, 0.01][step % 15 / 5]).collect();
    assert_close("factors", &found, &want, 1e-6, 0.0);
}

/// A milestone of the first epoch, two that are the same, and one after the end.
#[test]
fn milestones_count_however_they_lie() {
    let want: Vec<f64> = (0..40).map(|step| if step < 5 { 0.1 } else { 0.001 }).collect();
    assert_close("factors", &factors(LrShape::MultiStep, &[0, 1, 8, 1], 0.0), &want, 1e-6, 0.0);
}

/// Five steps a period: a third of them is over after 1 2/3 and after 3 1/3 steps.
#[test]
fn periods_that_no_third_divides_drop_after_the_third() {
    for (period, steps) in [(1, 5), (0, 5), (5, 1)] {
        let schedule =
            LrSchedule { shape: LrShape::Periodic, milestones: vec![], gamma: 0.1, period, warmup_epochs: 0.0 };
        let found: Vec<f64> = (0..10).map(|step| schedule.factor(step, steps, EPOCHS)).collect();
        let want: Vec<f64> = (0..10).map(|step| [1.0, 1.0, 0.1, 0.1, 0.01][step % 5]).collect();
        assert_close("factors", &found, &want, 1e-6, 0.0);
    }
}

/// Of one epoch, and of one step: the last factor is above zero.
#[test]
fn a_short_run_is_half_a_cosine_too() {
    let schedule = LrSchedule { shape: LrShape::Cosine, milestones: vec![], gamma: 0.1, period: 0, warmup_epochs: 0.0 };
    let found: Vec<f64> = (0..3).map(|step| schedule.factor(step, 3, 1)).collect();
    assert_close("three steps", &found, &[1.0, 0.75, 0.25], 1e-12, 0.0);
    assert_eq!(schedule.factor(0, 1, 1), 1.0);
}

/// Epochs that are no whole number of steps: 0.7 of five are 3.5, 1.5 of seven are 10.5.
#[test]
fn ramps_end_within_a_step() {
    let found = factors(LrShape::Constant, &[], 0.7);
    assert_close("warm-up", &found[..5], &[1.0 / 3.5, 2.0 / 3.5, 3.0 / 3.5, 1.0, 1.0], 1e-12, 0.0);
    let schedule = EpsSchedule { ramp: Ramp::Linear, epochs: 1.5 };
    let found: Vec<f64> = (8..12).map(|step| schedule.strength(step, 7)).collect();
    assert_close("radius", &found, &[9.0 / 10.5, 10.0 / 10.5, 1.0, 1.0], 1e-12, 0.0);
}

/// PyTorch's `CosineAnnealingLR` with `T_max` in steps, stepped once a step.
#[test]
fn cosine_moves_at_every_step() {
    let found = factors(LrShape::Cosine, &[], 0.0);
    assert_eq!(found[0], 1.0);
    // The recursion that PyTorch computes it by.
    let cos = |step: usize| (std::f64::consts::PI * step as f64 / 40.0).cos();
    let mut want = vec![1.0];
    for step in 1..40 {
        want.push(want[step - 1] * (1.0 + cos(step)) / (1.0 + cos(step - 1)));
    }
    assert_close("factors", &found, &want, 1e-12, 1e-14);
    assert_close("half way", &[found[20]], &[0.5], 1e-12, 0.0);
    assert!(found.windows(2).all(|pair| pair[1] < pair[0]), "{found:?}");
}

#[test]
fn warm_up_is_linear_and_multiplies() {
    let found = factors(LrShape::Constant, &[], 2.0);
    let want: Vec<f64> = (1..=40).map(|step| f64::from(step.min(10)) / 10.0).collect();
    assert_close("constant", &found, &want, 1e-12, 0.0);
    let cosine = factors(LrShape::Cosine, &[], 0.0);
    let want: Vec<f64> = cosine.iter().zip(&want).map(|(shape, warm_up)| shape * warm_up).collect();
    assert_close("cosine", &factors(LrShape::Cosine, &[], 2.0), &want, 1e-12, 0.0);
}

#[test]
fn the_radius_grows_to_its_full_size_and_stays() {
    let ramp = |f: fn(f64) -> f64| (1..=40).map(|step| f(f64::from(step.min(20)) / 20.0)).collect::<Vec<f64>>();
    assert_eq!(strengths(Ramp::Constant, 4.0), [1.0; 40]);
    assert_close("linear", &strengths(Ramp::Linear, 4.0), &ramp(|t| t), 1e-12, 0.0);
    // (1 - cos(pi t)) / 2, written otherwise.
    let cosine = ramp(|t| (std::f64::consts::FRAC_PI_2 * t).sin().powi(2));
    assert_close("cosine", &strengths(Ramp::Cosine, 4.0), &cosine, 1e-12, 0.0);
    for ramp in [Ramp::Linear, Ramp::Cosine] {
        assert_eq!(strengths(ramp, 0.0), [1.0; 40], "{ramp} over no epochs");
        assert_eq!(strengths(ramp, 4.0)[19..], [1.0; 21], "{ramp}");
    }
}
