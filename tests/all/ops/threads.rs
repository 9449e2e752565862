//! No number of threads changes a bit of a convolution, on any vector path of the CPU.

use engine::backend::cpu::{Cpu, VectorPath};
use engine::backend::{Activation, Conv};
use engine::base::dims::Conv2dDims;

use crate::backends::normal;

#[test]
fn threads_change_no_bit() {
    let dims = [
        ([12, 8, 8], 40, (3, 1, 1)),
        ([16, 4, 4], 33, (3, 2, 1)),
        ([8, 32, 32], 16, (3, 1, 1)),
        ([5, 7, 9], 18, (1, 2, 0)),
        ([2, 2, 2], 9, (3, 1, 1)),
    ];
    let cases = [5, 70].into_iter().flat_map(|n| dims.map(|dims| (n, dims)));
    for (path, (n, ([c, h, w], c_out, (k, stride, pad)))) in
        VectorPath::available().into_iter().flat_map(|path| cases.clone().map(move |case| (path, case)))
    {
        let d = Conv2dDims::new([n, c, h, w], c_out, k, stride, pad).unwrap();
        let len = |dims: [usize; 4]| dims.iter().product::<usize>();
        let bits = |threads: usize| {
            let cpu = Cpu::<f32>::with_path(threads, path).unwrap();
            let x = cpu.batch(n, &normal(1, len(d.x())));
            let weight = cpu.buffer(&normal(2, len(d.w())));
            let dy = cpu.batch(n, &normal(3, len(d.y())));
            let y = cpu.batch_values(n, &cpu.conv2d_fwd(&d, &x, &weight, None, Activation::Relu));
            let dx = cpu.batch_values(n, &cpu.conv2d_bwd_input(&d, &x, &dy, &weight));
            let dw = cpu.conv2d_bwd_weight(&d, &x, &dy).to_vec();
            [y, dx, dw].map(|values| values.into_iter().map(f32::to_bits).collect::<Vec<_>>())
        };
        let one = bits(1);
        for threads in [2, 3, 5] {
            assert!(bits(threads) == one, "{path}, {d:?}, {threads} threads");
        }
    }
}
