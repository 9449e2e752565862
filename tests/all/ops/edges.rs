//! What no recorded value shows: NaN, ties, huge values, batches that do not fill the backend's blocks.

use engine::backend::{Activation, Backend, LossKind, Metrics, NormBwd};
use engine::base::dims::{ChannelDims, Conv2dDims, LinearDims, LogitDims, Pool2dDims};

use crate::backends::{normal, on_every_backend, relu_output};
use crate::compare::{assert_close, bits};

on_every_backend! {
    parts_of_a_batch_join_to_it, transfers_keep_every_bit, nan_passes_through, nan_in_the_loss_is_nan,
    the_first_of_equal_logits_is_predicted, huge_logits, padding_never_leaks, sizes_that_fit_no_block,
}

/// Batch sizes around the blocks of the CPU's layout.
const BATCHES: [usize; 5] = [1, 7, 8, 9, 17];
/// And of which the weight gradients of the CPU take several blocks at a time, and fewer in the end.
const MANY_IMAGES: usize = 40;

pub fn parts_of_a_batch_join_to_it<B: Backend>(backend: &B) {
    for n in BATCHES.into_iter().chain([MANY_IMAGES]) {
        let values = normal(n as u64, n * 6);
        let whole = backend.upload_batch(n, &values);
        let parts = backend.map_parts(n, |range| (range.clone(), backend.part(n, range, &whole)));
        let mut next = 0;
        for (range, part) in &parts {
            assert_eq!(range.start, next, "consecutive");
            assert_eq!(backend.download_batch(range.len(), part), values[range.start * 6..range.end * 6]);
            next = range.end;
        }
        assert_eq!(next, n);
        let joined = backend.join(&parts.iter().map(|(_, part)| part).collect::<Vec<_>>());
        assert_eq!(backend.download_batch(n, &joined), values);
    }
}

pub fn transfers_keep_every_bit<B: Backend>(backend: &B) {
    let values = [0.0, -0.0, f32::MIN_POSITIVE, -1.5e-42, f32::MAX, f32::INFINITY, 1.0 / 3.0, -7.25];
    assert_eq!(bits(&backend.download(&backend.upload(&values))), bits(&values));
    for n in [1, 2, 4, 8] {
        assert_eq!(bits(&backend.download_batch(n, &backend.upload_batch(n, &values))), bits(&values));
    }
}

pub fn nan_passes_through<B: Backend>(backend: &B) {
    // NaN in each place of a 3x3 window, of numbers above and below zero.
    for place in 0..9 {
        let mut x = [1.0, -2.0, 3.0, -4.0, 5.0, -6.0, 7.0, -8.0, 9.0];
        x[place] = f32::NAN;
        let d = Pool2dDims::new([1, 1, 3, 3], 3, 1).unwrap();
        let (y, indices) = backend.max_pool2d_fwd(&d, &backend.upload_batch(1, &x));
        assert!(backend.download_batch(1, &y)[0].is_nan(), "max_pool2d with NaN in place {place}");
        let dx = backend.max_pool2d_bwd(&d, &indices, None, &backend.upload_batch(1, &[1.0]));
        assert_eq!(backend.download_batch(1, &dx)[place], 1.0, "its gradient");
    }
    let x = backend.upload_batch(1, &[f32::NAN, -1.0, 2.0]);
    let y = backend.activation_fwd(Activation::Relu, &x);
    assert!(backend.download_batch(1, &y)[0].is_nan());
    let dx = backend.activation_bwd(relu_output(&y), &backend.upload_batch(1, &[5.0, 6.0, 7.0]));
    assert_eq!(backend.download_batch(1, &dx), [5.0, 0.0, 7.0], "as PyTorch's threshold_backward");

    let d = Conv2dDims::new([1, 1, 2, 2], 1, 1, 1, 0).unwrap();
    let (x, w) = (backend.upload_batch(1, &[f32::NAN, 1.0, -1.0, 2.0]), backend.upload(&[1.0]));
    let y = backend.download_batch(1, &backend.conv2d_fwd(&d, &x, &w, None, Activation::Relu));
    assert!(y[0].is_nan() && y[1..] == [1.0, 0.0, 2.0], "convolution with ReLU: {y:?}");
    let d = LinearDims { n: 1, f_in: 4, f_out: 1 };
    let w = backend.upload(&[0.0, 1.0, 1.0, 1.0]);
    let y = backend.download_batch(1, &backend.linear_fwd(&d, &x, &w, None, Activation::Relu));
    assert!(y[0].is_nan(), "linear with ReLU: {y:?}");
}

pub fn nan_in_the_loss_is_nan<B: Backend>(backend: &B) {
    let d = LogitDims { n: 2, classes: 3 };
    let labels = backend.labels(&[0, 2]);
    for place in 0..6 {
        let mut logits = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        logits[place] = f32::NAN;
        let logits = backend.upload_batch(2, &logits);
        for kind in [LossKind::CrossEntropy, LossKind::Margin] {
            let loss = backend.download(&backend.loss_fwd(&d, kind, 1.0, &logits, &labels).loss)[0];
            assert!(loss.is_nan(), "{kind:?} with NaN in place {place}: {loss}");
        }
        let mut metrics = backend.metrics();
        backend.metrics_add(&d, &logits, &labels, &mut metrics);
        assert!(backend.metrics_read(&metrics).loss.is_nan(), "metrics with NaN in place {place}");
    }
}

pub fn the_first_of_equal_logits_is_predicted<B: Backend>(backend: &B) {
    let logits = [[1.0, 1.0, 1.0], [0.0, 2.0, 2.0], [3.0, -1.0, 3.0], [-1.0, -2.0, 5.0], [-0.0, 0.0, 0.0]];
    let d = LogitDims { n: 5, classes: 3 };
    let batch = backend.upload_batch(5, &logits.concat());
    assert_eq!(backend.predictions(&d, &batch), [0, 1, 0, 2, 0]);
    let mut metrics = backend.metrics();
    backend.metrics_add(&d, &batch, &backend.labels(&[0, 2, 0, 2, 1]), &mut metrics);
    let counts = backend.metrics_read(&metrics);
    assert_eq!((counts.samples, counts.correct, counts.accuracy()), (5, 3, 60.0));
    let counts = Metrics { gradients: 7, zero_gradients: 3, ..counts };
    let mut twice = backend.metrics_from(&counts);
    backend.metrics_add(&d, &batch, &backend.labels(&[0, 2, 0, 2, 1]), &mut twice);
    let twice = backend.metrics_read(&twice);
    assert_eq!((twice.samples, twice.correct, twice.loss), (10, 6, 2.0 * counts.loss));
    assert_eq!((twice.gradients, twice.zero_gradients), (7, 3));
}

pub fn huge_logits<B: Backend>(backend: &B) {
    let d = LogitDims { n: 2, classes: 2 };
    let logits = backend.upload_batch(2, &[1e30, -1e30, 1e30, 1e30]);
    let out = backend.loss_fwd(&d, LossKind::CrossEntropy, 1.0, &logits, &backend.labels(&[1, 0]));
    assert_close("loss", &backend.download(&out.loss), &[2e30], 1e-6, 0.0);
    assert_close("dlogits", &backend.download_batch(2, &out.dlogits), &[1.0, -1.0, -0.5, 0.5], 1e-6, 0.0);
}

/// A batch with these values whose padding, if the layout has any, does not hold the zeros of an upload.
fn with_dirty_padding<B: Backend>(backend: &B, dims: [usize; 4], values: &[f32]) -> B::Batch {
    let channels = dims[1];
    let identity: Vec<f32> = (0..channels * channels).map(|i| f32::from(i % (channels + 1) == 0)).collect();
    let moved: Vec<f32> = values.iter().map(|v| v - 64.0).collect();
    let d = Conv2dDims::new(dims, channels, 1, 1, 0).unwrap();
    let (x, w, b) =
        (backend.upload_batch(dims[0], &moved), backend.upload(&identity), backend.upload(&vec![64.0; channels]));
    backend.conv2d_fwd(&d, &x, &w, Some(&b), Activation::Identity)
}

/// Every sum over a batch, of batches whose padding is dirty.
pub fn padding_never_leaks<B: Backend>(backend: &B) {
    for n in BATCHES {
        let dims = [n, 3, 2, 2];
        let (d, elements) = (ChannelDims::new(dims), n * 12);
        // Multiples of 1/16, which survive the detour through 64 exactly.
        let values: Vec<f32> = normal(3, elements).iter().map(|v| (v * 16.0).round() / 16.0).collect();
        let dirty = with_dirty_padding(backend, dims, &values);
        let clean = backend.upload_batch(n, &values);
        assert_eq!(backend.download_batch(n, &dirty), values);
        let same = |what: &str, dirty: &B::Buf, clean: &B::Buf| {
            assert_close(what, &backend.download(dirty), &backend.download(clean), 1e-6, 0.0);
        };
        let (dirty_stats, stats) = (backend.channel_stats(&d, &dirty), backend.channel_stats(&d, &clean));
        same("mean", &dirty_stats.mean, &stats.mean);
        same("var", &dirty_stats.var, &stats.var);
        let (dy, gamma) = (backend.upload_batch(n, &normal(4, elements)), backend.upload(&[1.0, 2.0, 3.0]));
        let bwd = |x: &B::Batch| {
            let b = NormBwd {
                eps: 1e-5,
                x,
                stats: &stats,
                batch_stats: true,
                gamma: &gamma,
                beta: &gamma,
                activated: None,
                residual: false,
            };
            backend.batch_norm_bwd(&d, &b, backend.copy_batch(&dy))
        };
        same("dgamma", &bwd(&dirty).dgamma, &bwd(&clean).dgamma);
        same("dbeta", &bwd(&dirty).dbeta, &bwd(&clean).dbeta);
        let conv = Conv2dDims::new(dims, 3, 1, 1, 0).unwrap();
        same("dw", &backend.conv2d_bwd_weight(&conv, &dirty, &dy), &backend.conv2d_bwd_weight(&conv, &clean, &dy));
        let linear = LinearDims { n: n as u32, f_in: 12, f_out: 12 };
        let dw = |x: &B::Batch| backend.linear_bwd_weight(&linear, x, &dy);
        same("linear dw", &dw(&dirty), &dw(&clean));
        // Gradients that come out of a normalisation go into the sums of the layers before it.
        same("db", &backend.bias_bwd(&d, &bwd(&dirty).dx), &backend.bias_bwd(&d, &bwd(&clean).dx));
        let logits = LogitDims { n: n as u32, classes: 12 };
        let labels = backend.labels(&vec![3; n]);
        let loss = |x: &B::Batch| backend.loss_fwd(&logits, LossKind::CrossEntropy, 1.0, x, &labels);
        same("loss", &loss(&dirty).loss, &loss(&clean).loss);
        same(
            "db of the loss",
            &backend.bias_bwd(&d, &loss(&dirty).dlogits),
            &backend.bias_bwd(&d, &loss(&clean).dlogits),
        );
        assert_eq!(backend.predictions(&logits, &dirty).len(), n);
    }
}

/// Shapes that leave rows, columns, channels and images over, against plain loops.
pub fn sizes_that_fit_no_block<B: Backend>(backend: &B) {
    for (case, n) in BATCHES.into_iter().chain([MANY_IMAGES]).enumerate() {
        for (h, width, c_in, c_out, k, stride, pad) in [
            (8, 11, 3, 5, 3, 2, 0),
            (6, 5, 1, 9, 5, 3, 2),
            (5, 8, 17, 2, 1, 2, 0),
            (3, 3, 2, 3, 3, 5, 0),
            (2, 2, 2, 2, 5, 1, 2),
            (7, 4, 2, 1, 2, 2, 1),
            (9, 13, 3, 19, 3, 1, 1),
        ] {
            let d = Conv2dDims::new([n, c_in, h, width], c_out, k, stride, pad).unwrap();
            let what = format!("batch {n}, {d:?}");
            let [_, _, h_out, w_out] = d.y();
            let (x, w) = (normal(case as u64, n * c_in * h * width), normal(9, c_out * c_in * k * k));
            let dy = normal(10, n * c_out * h_out * w_out);
            let (mut y, mut dx, mut dw) = (vec![0f64; dy.len()], vec![0f64; x.len()], vec![0f64; w.len()]);
            // (output, input, weight) of every product.
            for o in 0..y.len() {
                let (col, row) = (o % w_out, o / w_out % h_out);
                let (filter, image) = (o / (w_out * h_out) % c_out, o / (w_out * h_out * c_out));
                for i in 0..c_in * k * k {
                    let (r, c) = (row * stride + i / k % k, col * stride + i % k);
                    if (pad..h + pad).contains(&r) && (pad..width + pad).contains(&c) {
                        let at = ((image * c_in + i / (k * k)) * h + r - pad) * width + c - pad;
                        let weight = filter * c_in * k * k + i;
                        y[o] += f64::from(x[at]) * f64::from(w[weight]);
                        dx[at] += f64::from(dy[o]) * f64::from(w[weight]);
                        dw[weight] += f64::from(dy[o]) * f64::from(x[at]);
                    }
                }
            }
            let (x, w, dy) = (backend.upload_batch(n, &x), backend.upload(&w), backend.upload_batch(n, &dy));
            let got = backend.download_batch(n, &backend.conv2d_fwd(&d, &x, &w, None, Activation::Identity));
            assert_close(&format!("{what}: y"), &got, &y, 1e-5, 0.0);
            let got = backend.download_batch(n, &backend.conv2d_bwd_input(&d, &x, &dy, &w));
            assert_close(&format!("{what}: dx"), &got, &dx, 1e-5, 0.0);
            let got = backend.download(&backend.conv2d_bwd_weight(&d, &x, &dy));
            assert_close(&format!("{what}: dw"), &got, &dw, 1e-5, 0.0);
        }
    }
}
