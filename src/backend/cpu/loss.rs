//! Losses, predictions and counters. The work is tiny, so it is plain f64, one sample after the other; but the
//! cross-entropy is part of every step of an attack, and is on vector registers in f32.

use std::ops::Range;

use super::jobs::{CrossEntropy, argmax, cross_entropy};
use super::{Buf, Cpu, LANES, Real, lane_index, lanes, lanes_mut};
use crate::backend::{Loss, LossKind, LossOut, MARGIN_CONFIDENCE, Memory, Metrics};
use crate::base::dims::LogitDims;

/// The logits of one sample.
fn sample_logits<T: Real>(d: &LogitDims, logits: &[T], sample: usize) -> Vec<f64> {
    let classes = d.classes as usize;
    (0..classes).map(|c| logits[lane_index(sample, c, classes)].as_f64()).collect()
}

/// `-max(z_y - max_{j != y} z_j + confidence, 0)` and its gradient.
fn margin(z: &[f64], y: usize) -> (f64, Vec<f64>) {
    let others: Vec<f64> = z.iter().enumerate().map(|(c, &v)| if c == y { f64::NEG_INFINITY } else { v }).collect();
    let rival = argmax(&others);
    let value = z[y] - z[rival] + f64::from(MARGIN_CONFIDENCE);
    let mut gradient = vec![0.0; z.len()];
    if value > 0.0 {
        (gradient[y], gradient[rival]) = (-1.0, 1.0);
    }
    // A comparison with NaN is false, so a NaN loss comes out as NaN.
    (if value <= 0.0 { 0.0 } else { -value }, gradient)
}

impl<T: Real> Loss for Cpu<T> {
    type Labels = Vec<u8>;
    type MetricsBuf = Metrics;

    fn labels(&self, labels: &[u8]) -> Vec<u8> {
        labels.to_vec()
    }

    fn labels_part(&self, range: Range<usize>, labels: &Vec<u8>) -> Vec<u8> {
        labels[range].to_vec()
    }

    fn loss_fwd(&self, d: &LogitDims, kind: LossKind, weight: f32, logits: &Buf<T>, labels: &Vec<u8>) -> LossOut<Self> {
        let (classes, weight) = (d.classes as usize, f64::from(weight));
        let mut dlogits = self.zeros(logits.len());
        let mut total = 0.0;
        match kind {
            LossKind::CrossEntropy => {
                let blocks = lanes(logits).chunks_exact(classes).zip(lanes_mut(&mut dlogits).chunks_exact_mut(classes));
                for ((z, dz), labels) in blocks.zip(labels.chunks(LANES)) {
                    total += T::cross_entropy(self.arch, CrossEntropy { weight, z, labels, dz });
                }
            }
            LossKind::Margin => {
                let dlogits = &mut dlogits[..];
                for (sample, &label) in labels.iter().enumerate() {
                    let (loss, gradient) = margin(&sample_logits(d, logits, sample), label as usize);
                    total += weight * loss;
                    for (c, g) in gradient.into_iter().enumerate() {
                        dlogits[lane_index(sample, c, classes)] = T::of_f64(weight * g);
                    }
                }
            }
        }
        LossOut { loss: self.buffer(&[T::of_f64(total)]), dlogits }
    }

    fn predictions(&self, d: &LogitDims, logits: &Buf<T>) -> Vec<u8> {
        (0..d.n as usize).map(|sample| argmax(&sample_logits(d, logits, sample)) as u8).collect()
    }

    fn metrics_from(&self, counts: &Metrics) -> Metrics {
        *counts
    }

    fn metrics_add(&self, d: &LogitDims, logits: &Buf<T>, labels: &Vec<u8>, metrics: &mut Metrics) {
        for (sample, &label) in labels.iter().enumerate() {
            let z = sample_logits(d, logits, sample);
            metrics.samples += 1;
            metrics.correct += u64::from(argmax(&z) == label as usize);
            metrics.loss += cross_entropy(&z, label as usize).0;
        }
    }

    fn metrics_read(&self, metrics: &Metrics) -> Metrics {
        *metrics
    }
}
