//! What the runtime asks of the driver, seen by one that counts.

use std::sync::atomic::Ordering;

use engine::backend::cuda::Submission;
use engine::backend::cuda::{Bf16, Cuda};
use engine::backend::{Backend, Elementwise, Images, Loss, Memory};
use engine::nn::models::Network;

use super::spy::{Calls, PLENTY, Training, spied, spied_in};

/// In the steady state a step is one graph, with a few arguments changed; it allocates nothing, waits for nothing, and
/// takes from the host nothing but the batch's indices and labels.
#[test]
fn a_steady_step_is_one_graph() {
    let Some((backend, calls)) = spied(Submission::Graphs, PLENTY, None) else { return };
    let mut training = Training::new(&backend, 6);
    let bytes = training.bytes.clone();
    let images = backend.resident([1, 28, 28], &bytes);
    let mut metrics = backend.metrics();
    for step in 0..3 {
        training.step(&backend, &images, &mut metrics, step).unwrap();
    }
    for step in 3..6 {
        let before = calls.all();
        training.step(&backend, &images, &mut metrics, step).unwrap();
        let after = calls.all();
        let [allocs, uploads, downloads, launches, graphs, set_args, graph_launches, waits] =
            std::array::from_fn(|i| after[i] - before[i]);
        assert_eq!((allocs, downloads, graphs, waits), (0, 0, 0, 0), "allocations, downloads, new graphs, waits");
        assert_eq!((uploads, graph_launches), (2, 1), "indices and labels; the step");
        assert_eq!(launches, 1, "the gathering of the batch");
        // The random start's step and Adam's rate.
        assert_eq!(set_args, 2, "arguments that differ from step to step");
    }
    // The attack is one of them.
    assert_eq!(calls.nodes.load(Ordering::Relaxed), 29);
    assert_eq!(calls.overlaps.load(Ordering::Relaxed), 28, "each begins before the one before it ends");
    let counts = backend.metrics_read(&metrics);
    assert_eq!((counts.samples, counts.gradients), (6 * 6, 6 * 2 * 6 * 784));
}

/// A step of an attack on ResNet-18 in mixed precision: 20 convolutions forwards and back, and with them nearly all that is done
/// for normalisations. Written are the image in bf16, the inputs of the three blocks that halve it, and the last activations;
/// the sums of the last normalisation are taken and put together; the rest are pooling, classifier, loss and the PGD step.
#[test]
fn a_step_of_an_attack_on_resnet18_in_bf16() {
    let launches = |attack_steps| {
        let (backend, calls) = spied_in(Cuda::<Bf16>::with_driver, Submission::Graphs, PLENTY, None)?;
        let mut training = Training::of(Network::ResNet18, 1, &backend, 2);
        let bytes = training.bytes.clone();
        let images = backend.resident([3, 32, 32], &bytes);
        // The first step packs each weight when it meets it, the others all at once.
        for step in 0..2 {
            training.step_of(attack_steps, &backend, &images, &mut backend.metrics(), step).unwrap();
        }
        backend.status().unwrap();
        let nodes = calls.nodes.load(Ordering::Relaxed);
        // All but the first, and the one behind the packing of weights.
        assert_eq!(calls.overlaps.load(Ordering::Relaxed), nodes - 2);
        Some(nodes)
    };
    let (Some(one), Some(two)) = (launches(1), launches(2)) else { return };
    assert_eq!((two - one, one), (53, 176));
}

/// A LeNet that is too wide for the attack in one launch: launches of a step of the attack, and of training with one.
#[test]
fn a_step_of_an_attack_on_a_wide_lenet() {
    fn launches<B: Backend>(backend: &B, calls: &Calls) -> (usize, usize) {
        let [one, two] = [1, 2].map(|attack_steps| {
            let mut training = Training::of(Network::LeNet, 4, backend, 2);
            let bytes = training.bytes.clone();
            let images = backend.resident([1, 28, 28], &bytes);
            for step in 0..2 {
                training.step_of(attack_steps, backend, &images, &mut backend.metrics(), step).unwrap();
            }
            backend.status().unwrap();
            calls.nodes.load(Ordering::Relaxed)
        });
        (two - one, one)
    }
    let Some((f32, f32_calls)) = spied(Submission::Graphs, PLENTY, None) else { return };
    let (bf16, bf16_calls) = spied_in(Cuda::<Bf16>::with_driver, Submission::Graphs, PLENTY, None).unwrap();
    assert_eq!([launches(&f32, &f32_calls), launches(&bf16, &bf16_calls)], [(19, 52), (21, 62)]);
}

/// However launches are submitted, the result has the same bits.
#[test]
fn submissions_agree() {
    let run = |how| {
        let (backend, calls) = spied(how, PLENTY, None)?;
        let mut training = Training::new(&backend, 5);
        let bytes = training.bytes.clone();
        let images = backend.resident([1, 28, 28], &bytes);
        let mut metrics = backend.metrics();
        for step in 0..3 {
            training.step(&backend, &images, &mut metrics, step).unwrap();
        }
        assert_eq!(calls.overlaps.load(Ordering::Relaxed) > 0, how == Submission::Graphs);
        Some((training.trainer.model.state(&backend), backend.metrics_read(&metrics)))
    };
    let graphs = run(Submission::Graphs);
    for how in [Submission::Serial, Submission::Single, Submission::Waiting] {
        assert!(graphs == run(how), "{how:?}");
    }
}

/// A transfer inside a step makes the step go out in pieces, in order.
#[test]
fn a_transfer_inside_a_step_is_in_order() {
    let Some((backend, calls)) = spied(Submission::Graphs, PLENTY, None) else { return };
    let x = backend.upload_batch(1, &[1.0, 2.0]);
    let (before, sum) = backend.capture(1, || {
        let mut y = backend.copy_batch(&x);
        backend.add_assign(&x, &mut y);
        let before = backend.download_batch(1, &y);
        backend.add_assign(&backend.upload_batch(1, &[10.0, 20.0]), &mut y);
        (before, y)
    });
    assert_eq!((before, backend.download(&sum)), (vec![2.0, 4.0], vec![12.0, 24.0]));
    assert_eq!(calls.all()[6], 0, "no graph");
    // Steps inside a step are part of it.
    let y = backend.capture(1, || backend.capture(1, || backend.add(&x, &x)));
    assert_eq!(backend.download(&y), [2.0, 4.0]);
    assert_eq!(calls.all()[6], 1);
}

#[test]
fn running_out_of_memory_says_what_would_fit() {
    const ROOM: usize = 3 << 20;
    let Some((backend, _)) = spied(Submission::Graphs, ROOM, None) else { return };
    let mut training = Training::new(&backend, 400);
    let bytes = training.bytes.clone();
    let images = backend.resident([1, 28, 28], &bytes);
    let mut metrics = backend.metrics();
    let error = training.step(&backend, &images, &mut metrics, 0).expect_err("3 MiB are not enough");
    let line = error.to_string();
    for part in ["out of GPU memory: asked for ", "this stage holds ", "of 16.0 MiB", "a batch of ", "--jobs 1"] {
        assert!(line.contains(part), "{line}");
    }
    assert!(!line.contains('\n') && error.exit_code() == 1, "{line}");
    let fits: usize =
        line.split("a batch of ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().parse().unwrap();
    assert!((20..400).contains(&fits), "{line}");
    // What it promises holds, and not much more does.
    let outcome = |batch| {
        let (backend, _) = spied(Submission::Graphs, ROOM, None).unwrap();
        let mut training = Training::new(&backend, batch);
        training.bytes.clone_from(&bytes);
        let images = backend.resident([1, 28, 28], &bytes);
        training.step(&backend, &images, &mut backend.metrics(), 0)
    };
    assert!(outcome(fits).is_ok(), "{fits}: {line}");
    assert!(outcome(fits + fits / 2).is_err(), "{fits}: {line}");
}

#[test]
fn a_failing_kernel_is_named_with_its_sizes() {
    let Some((backend, calls)) = spied(Submission::Waiting, PLENTY, Some("add_assign")) else { return };
    let x = backend.upload_batch(1, &[1.0; 7]);
    let mut y = backend.copy_batch(&x);
    backend.add_assign(&x, &mut y);
    let line = backend.status().expect_err("the launch failed").to_string();
    assert!(line.contains("kernel add_assign(n = [7]") && line.contains("planted failure"), "{line}");
    let launches = calls.all()[3];
    let z = backend.add(&x, &y);
    assert_eq!(calls.all()[3], launches, "nothing is launched after a fault");
    assert_eq!(backend.download(&z), [0.0; 7]);
    assert_eq!(backend.status().expect_err("it stays").to_string(), line);
}

/// Buffers come back, at the same addresses, and the high-water mark counts what was in use at one time.
#[test]
fn memory_is_used_again() {
    let Some((backend, calls)) = spied(Submission::Graphs, PLENTY, None) else { return };
    let before = backend.memory_use();
    let round = || {
        let a = backend.full(1000, 1.0);
        let b = backend.full(1000, 2.0);
        backend.download(&backend.add(&a, &b))
    };
    assert_eq!(round(), [3.0; 1000]);
    let (allocs, peak) = (calls.all()[0], backend.memory_use().peak);
    for _ in 0..3 {
        round();
    }
    let after = backend.memory_use();
    assert_eq!((calls.all()[0], after.peak, after.live), (allocs, peak, before.live));
    assert!(peak - before.live >= 3 * 4000 && peak - before.live < 3 * 4000 + 3 * 1024, "{after:?}");
    // What nobody uses goes back to the device; what is asked for then is new.
    backend.empty_cache();
    assert_eq!(backend.memory_use().held, before.live);
    assert_eq!(round(), [3.0; 1000]);
    assert!(calls.all()[0] > allocs);
}
