//! The change of variables of C&W's l2 attack, against plain loops in f64.

use engine::backend::Backend;

use super::samples::Batch;
use crate::backends::on_every_backend;
use crate::compare::assert_close;

on_every_backend! { tanh_space }

pub fn tanh_space<B: Backend>(backend: &B) {
    let b = Batch::new(17, [3, 7, 6]);
    let (clean, x, dx) = (b.up(backend, &b.clean), b.up(backend, &b.x), b.up(backend, &b.dx));
    let w = backend.tanh_space(&x);
    let got = backend.download_batch(b.n, &w);
    // Towards 0 and 1 the variable grows without bounds, and with it what rounding the pixel does to it.
    let inner: Vec<usize> = (0..got.len()).filter(|&i| (0.01..0.99).contains(&b.x[i])).collect();
    let want: Vec<f64> = inner.iter().map(|&i| (0.999_999 * (2.0 * f64::from(b.x[i]) - 1.0)).atanh()).collect();
    assert_close("w", &inner.iter().map(|&i| got[i]).collect::<Vec<_>>(), &want, 2e-5, 0.0);
    let squashed: Vec<f64> = got.iter().map(|&w| f64::from(w).tanh()).collect();
    let want: Vec<f64> = b.x.iter().map(|&x| 0.999_999 * (2.0 * f64::from(x) - 1.0)).collect();
    assert_close("tanh(w)", &squashed, &want, 0.0, 5e-7);
    let back = backend.download_batch(b.n, &backend.tanh_image(&w));
    let want: Vec<f64> = got.iter().map(|&w| 0.5 * (f64::from(w).tanh() + 1.0)).collect();
    assert_close("x", &back, &want, 0.0, 2e-7);
    assert_close("there and back", &back, &b.x, 0.0, 1e-6);
    let got = backend.download_batch(b.n, &backend.tanh_image_bwd(&clean, &x, &dx));
    let want = b.each(|_, i| {
        let [clean, x, dx] = [b.clean[i], b.x[i], b.dx[i]].map(f64::from);
        2.0 * x * (1.0 - x) * (2.0 * (x - clean) + dx)
    });
    assert_close("dw", &got, &want, 1e-6, 0.0);
}
