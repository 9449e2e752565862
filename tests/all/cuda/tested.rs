//! Which test is there for which kernel. A kernel that is not in the table fails `every_kernel_is_tested`, and so does a body that
//! is no test; a body that does not launch what the table says it tests fails where it runs.

use std::any::type_name;
use std::collections::BTreeSet;
use std::process::Command;

use engine::backend::Memory;
use engine::backend::cuda::{Cuda, kernels};

use super::{lenet, mixed, norm, rounds, shapes};
use crate::backends::on;
use crate::cuda_host::launched;
use crate::ops::{apgd, cw_l2, definitions, fab, images, pgd, samples, square};
use crate::prune::selection;

/// A body that compares what kernels compute with PyTorch, with plain loops or with the CPU.
struct Tested {
    /// Its path, `all::cuda::shapes::products<…>`.
    body: &'static str,
    kernels: &'static [&'static str],
}

/// By the function itself, so that the compiler knows that it is there.
fn by<F>(_: F, kernels: &'static [&'static str]) -> Tested {
    Tested { body: type_name::<F>(), kernels }
}

fn table() -> Vec<Tested> {
    vec![
        by(
            shapes::products::<Cuda>,
            &[
                "conv2d_fwd_k3_c8",
                "conv2d_fwd_k3_c16",
                "conv2d_fwd_k3_c32",
                "conv2d_fwd_k3_c64",
                "conv2d_fwd_k5_c8",
                "conv2d_fwd_k5_c32",
                "conv2d_fwd_k5_c64",
                "conv2d_fwd_any_c8",
                "conv2d_fwd_any_c32",
                "conv2d_fwd_any_c64",
                "conv2d_bwd_input_k3_c8",
                "conv2d_bwd_input_k3_c16",
                "conv2d_bwd_input_k3_c32",
                "conv2d_bwd_input_k3_c64",
                "conv2d_bwd_input_k5_c8",
                "conv2d_bwd_input_k5_c32",
                "conv2d_bwd_input_k5_c64",
                "conv2d_bwd_input_any_c8",
                "conv2d_bwd_input_any_c32",
                "conv2d_bwd_input_any_c64",
                "conv2d_bwd_weight_c8",
                "conv2d_bwd_weight_c32",
                "conv2d_bwd_weight_c64",
                "linear_fwd_wide",
                "linear_fwd_few",
                "linear_bwd_input_wide",
                "linear_bwd_input_few",
                "linear_bwd_weight_wide",
                "linear_bwd_weight_few",
                "sum_partials",
            ],
        ),
        by(
            shapes::sums::<Cuda>,
            &["channel_stats", "channel_stats_finish", "bias_bwd", "bias_bwd_finish", "bias_bwd_columns"],
        ),
        by(norm::in_f32::<Cuda>, &["batch_norm_fwd", "batch_norm_bwd_sums", "batch_norm_bwd"]),
        by(definitions::running_statistics::<Cuda>, &["move_running"]),
        by(
            rounds::elements::<Cuda>,
            &["fill", "copy", "add", "axpy", "scale_by", "relu_fwd", "relu_bwd", "masked_copy", "apply_mask"],
        ),
        by(definitions::max_pooling::<Cuda>, &["max_pool2d_fwd", "max_pool2d_bwd"]),
        by(definitions::average_pooling::<Cuda>, &["avg_pool_fwd", "avg_pool_bwd"]),
        by(definitions::losses::<Cuda>, &["loss_fwd", "predictions", "tally_add", "tally_from"]),
        by(definitions::updates::<Cuda>, &["sgd_step", "adam_step"]),
        by(images::gather::<Cuda>, &["gather"]),
        by(images::gather_crops_and_flips::<Cuda>, &["gather_cropped"]),
        by(pgd::random_start::<Cuda>, &["random_start"]),
        by(pgd::pgd_step::<Cuda>, &["pgd_step"]),
        by(lenet::the_same_bits::<Cuda>, &["lenet_attack"]),
        by(apgd::apgd_step::<Cuda>, &["apgd_step"]),
        by(fab::fab_step::<Cuda>, &["fab_step"]),
        by(square::square_update::<Cuda>, &["square_update"]),
        by(samples::copy_samples::<Cuda>, &["copy_samples"]),
        by(fab::interpolate::<Cuda>, &["interpolate"]),
        by(samples::distances::<Cuda>, &["distances"]),
        by(cw_l2::tanh_space::<Cuda>, &["tanh_space", "tanh_image", "tanh_image_bwd"]),
        by(selection::norms_are_those_of_plain_loops::<Cuda>, &["row_norms", "column_norms"]),
        by(
            rounds::many_selections::<Cuda>,
            &["top_k_start", "top_k_count", "top_k_digit", "top_k_ties", "top_k_end", "top_k_mask"],
        ),
        by(rounds::selection::<Cuda>, &["spread_rows", "spread_columns", "admm_update", "admm_norms"]),
        by(
            mixed::convolutions,
            &[
                "to_bf16",
                "to_f32",
                "pack_weights",
                "conv2d_bwd_weight_bf16_c8",
                "conv2d_bwd_weight_bf16_c32",
                "conv2d_bwd_weight_bf16_c64",
            ],
        ),
        by(
            mixed::every_tile,
            &[
                "correlate_bf16_k8_c8",
                "correlate_bf16_k8_c16",
                "correlate_bf16_k8_c32",
                "correlate_bf16_k8_c64",
                "correlate_bf16_k16_c8",
                "correlate_bf16_k16_c16",
                "correlate_bf16_k16_c32",
                "correlate_bf16_k16_c64",
                "correlate_bf16_k32_c8",
                "correlate_bf16_k32_c16",
                "correlate_bf16_k32_c32",
                "correlate_bf16_k32_c64",
                "correlate_bf16_k64_c8",
                "correlate_bf16_k64_c16",
                "correlate_bf16_k64_c32",
                "correlate_bf16_k64_c64",
                "correlate_bf16_k64_c128",
                "correlate_bf16_k8_c8_p256",
                "correlate_bf16_k8_c16_p256",
                "correlate_bf16_k16_c8_p256",
                "correlate_bf16_k16_c16_p256",
                "correlate_bf16_k64_c64_warpgroup",
                "correlate_bf16_k64_c128_warpgroup",
            ],
        ),
        by(norm::in_mixed_precision, &["write_operand", "batch_norm_bwd_sums_bf16", "batch_norm_bwd_finish"]),
        by(mixed::pooling, &["max_pool2d_fwd_bf16", "max_pool2d_bwd_bf16", "avg_pool_fwd_bf16", "avg_pool_bwd_bf16"]),
        by(mixed::the_rest_converts, &["axpy_bf16", "relu_bwd_bf16"]),
    ]
}

/// Runs a body on kernels compiled for the host, if they are there. It must launch those that it tests.
pub fn on_host<B: Memory, F: FnOnce(&B)>(device: Option<B>, body: F) {
    if device.is_none() {
        return;
    }
    launched();
    on(device, body);
    let (launched, body) = (launched(), type_name::<F>());
    let of_body = table().into_iter().filter(|tested| tested.body == body);
    let missing: Vec<&str> =
        of_body.flat_map(|tested| tested.kernels).filter(|k| !launched.contains(*k)).copied().collect();
    assert!(missing.is_empty(), "{body} is to test {missing:?}, but launches {launched:?}");
}

#[test]
fn every_kernel_is_tested() {
    let table = table();
    let tested: BTreeSet<&str> = table.iter().flat_map(|tested| tested.kernels).copied().collect();
    let all: BTreeSet<&str> = kernels().iter().map(|kernel| kernel.name).collect();
    assert_eq!(all.difference(&tested).collect::<Vec<_>>(), Vec::<&&str>::new(), "kernels without a test");
    assert_eq!(tested.difference(&all).collect::<Vec<_>>(), Vec::<&&str>::new(), "there are no such kernels");

    let list = Command::new(std::env::current_exe().unwrap()).args(["--list", "--format", "terse"]).output().unwrap();
    let tests = String::from_utf8(list.stdout).unwrap();
    for Tested { body, .. } in &table {
        let path = body.split(['<', '>']).next().unwrap();
        let (module, name) = path.split_once("::").unwrap().1.rsplit_once("::").unwrap();
        let is_test = |line: &str| line.starts_with(module) && line.ends_with(&format!("::cuda_host::{name}: test"));
        assert!(tests.lines().any(is_test), "{body} does not run on kernels compiled for the host");
    }
}
