//! Which test is there for which kernel. A kernel that no body covers fails `every_kernel_is_tested`, and so does a body that is no
//! test; a body that does not launch what the table says it tests fails where it runs.

use std::any::type_name;
use std::process::Command;

use engine::backend::Memory;
use engine::backend::cuda::runtime::kernel::KernelSpec;
use engine::backend::cuda::{Cuda, F32, kernels};

use super::{bf16, lenet, norm, rounds, shapes};
use crate::backends::on;
use crate::cuda_host::launched;
use crate::ops::{apgd, cw_l2, definitions, fab, images, pgd, samples, square};
use crate::prune::selection;

/// A body that compares what kernels compute with PyTorch, with plain loops or with the CPU.
struct Tested {
    /// Its path, `all::cuda::shapes::products<…>`.
    body: &'static str,
    /// Which kernels it tests, as `file/name`; a star at the end stands for any end.
    patterns: &'static [&'static str],
}

impl Tested {
    /// Whether it tests a kernel.
    fn covers(&self, kernel: &KernelSpec) -> bool {
        self.patterns.iter().any(|pattern| covers(pattern, kernel))
    }
}

fn covers(pattern: &str, kernel: &KernelSpec) -> bool {
    let name = pattern.strip_prefix(kernel.file).and_then(|rest| rest.strip_prefix('/'));
    name.is_some_and(|name| match name.strip_suffix('*') {
        Some(start) => kernel.name.starts_with(start),
        None => kernel.name == name,
    })
}

/// By the function itself, so that the compiler knows that it is there.
fn by<F>(_: F, patterns: &'static [&'static str]) -> Tested {
    Tested { body: type_name::<F>(), patterns }
}

fn table() -> Vec<Tested> {
    vec![
        by(shapes::products::<Cuda<F32>>, &["f32/conv/conv2d_*", "f32/linear/*"]),
        by(shapes::sums::<Cuda<F32>>, &["f32/norm/channel_stats*", "f32/conv/bias_bwd*"]),
        by(norm::in_f32::<Cuda<F32>>, &["f32/norm/batch_norm_*"]),
        by(definitions::running_statistics::<Cuda<F32>>, &["f32/norm/update_running_stats"]),
        by(rounds::elements::<Cuda<F32>>, &["f32/elementwise/*", "f32/prune/masked_copy", "f32/prune/apply_mask"]),
        by(definitions::max_pooling::<Cuda<F32>>, &["f32/pool/max_pool2d_*"]),
        by(definitions::average_pooling::<Cuda<F32>>, &["f32/pool/avg_pool_*"]),
        by(definitions::losses::<Cuda<F32>>, &["f32/loss/*"]),
        by(definitions::updates::<Cuda<F32>>, &["f32/optim/*"]),
        by(images::gather::<Cuda<F32>>, &["f32/images/gather"]),
        by(images::gather_crops_and_flips::<Cuda<F32>>, &["f32/images/gather_cropped"]),
        by(pgd::random_start::<Cuda<F32>>, &["f32/pgd/random_start"]),
        by(pgd::pgd_step::<Cuda<F32>>, &["f32/pgd/pgd_step"]),
        by(lenet::the_same_bits::<Cuda<F32>>, &["f32/lenet/*"]),
        by(apgd::apgd_step::<Cuda<F32>>, &["f32/apgd/*"]),
        by(fab::fab_step::<Cuda<F32>>, &["f32/fab/fab_step"]),
        by(fab::interpolate::<Cuda<F32>>, &["f32/fab/interpolate"]),
        by(square::square_update::<Cuda<F32>>, &["f32/square/*"]),
        by(samples::copy_samples::<Cuda<F32>>, &["f32/samples/copy_samples"]),
        by(samples::distances::<Cuda<F32>>, &["f32/samples/distances"]),
        by(cw_l2::tanh_space::<Cuda<F32>>, &["f32/cw_l2/*"]),
        by(selection::norms_are_those_of_plain_loops::<Cuda<F32>>, &["f32/prune/row_norms", "f32/prune/column_norms"]),
        by(rounds::many_selections::<Cuda<F32>>, &["f32/prune/top_k_*"]),
        by(rounds::selection::<Cuda<F32>>, &["f32/prune/broadcast_*", "f32/prune/admm_*"]),
        by(bf16::convolutions, &["bf16/cast/*", "bf16/weights/*"]),
        by(bf16::every_tile, &["bf16/conv/*"]),
        by(norm::in_bf16, &["bf16/norm/*"]),
        by(bf16::pooling, &["bf16/pool/*"]),
        by(bf16::the_rest_converts, &["bf16/elementwise/*"]),
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
    let table = table();
    let of_body = |kernel: &&KernelSpec| table.iter().any(|tested| tested.body == body && tested.covers(kernel));
    let names = kernels().iter().filter(of_body).map(|kernel| kernel.name);
    let missing: Vec<&str> = names.filter(|name| !launched.contains(name)).collect();
    assert!(missing.is_empty(), "{body} is to test {missing:?}, but launches {launched:?}");
}

#[test]
fn every_kernel_is_tested() {
    let table = table();
    let untested = kernels().iter().filter(|kernel| !table.iter().any(|tested| tested.covers(kernel)));
    assert_eq!(untested.map(|kernel| kernel.name).collect::<Vec<_>>(), Vec::<&str>::new(), "kernels without a test");
    let patterns = table.iter().flat_map(|tested| tested.patterns);
    let empty: Vec<_> = patterns.filter(|pattern| !kernels().iter().any(|kernel| covers(pattern, kernel))).collect();
    assert!(empty.is_empty(), "there are no kernels {empty:?}");

    let list = Command::new(std::env::current_exe().unwrap()).args(["--list", "--format", "terse"]).output().unwrap();
    let tests = String::from_utf8(list.stdout).unwrap();
    for Tested { body, .. } in &table {
        let path = body.split(['<', '>']).next().unwrap();
        let (module, name) = path.split_once("::").unwrap().1.rsplit_once("::").unwrap();
        let is_test = |line: &str| line.starts_with(module) && line.ends_with(&format!("::cuda_host::{name}: test"));
        assert!(tests.lines().any(is_test), "{body} does not run on kernels compiled for the host");
    }
}
