//! The gathering of batches, against plain loops.

use engine::backend::{Backend, CropFlip};
use engine::base::rng::{Rng, Stream};

use crate::backends::{on_every_backend, uniform};

on_every_backend! { gather, gather_crops_and_flips }

/// Features in fours and odd ones, fewer and more than a block of threads makes.
const SHAPES: [[usize; 3]; 4] = [[2, 5, 6], [1, 5, 7], [3, 20, 20], [3, 21, 17]];
const IMAGES: usize = 12;
/// So many images that they need a third block of sixteen.
const SAMPLES: usize = 37;

fn bytes(shape: [usize; 3]) -> Vec<u8> {
    uniform(10, IMAGES * shape.iter().product::<usize>()).iter().map(|u| (256.0 * u) as u8).collect()
}

/// Some images several times, in no order.
fn indices() -> Vec<u32> {
    let rng = Rng::new(12, Stream::Shuffle, 0);
    (0..SAMPLES as u64).map(|i| rng.below_at(i, IMAGES as u32)).collect()
}

pub fn gather<B: Backend>(backend: &B) {
    for shape in SHAPES {
        let (bytes, indices, features) = (bytes(shape), indices(), shape.iter().product::<usize>());
        let batch = backend.gather(&backend.resident(shape, &bytes), &indices, None);
        let image = |&i: &u32| bytes[i as usize * features..][..features].iter().map(|&byte| f32::from(byte) / 255.0);
        let want: Vec<f32> = indices.iter().flat_map(image).collect();
        assert!(backend.download_batch(SAMPLES, &batch) == want, "{shape:?}");
    }
}

/// A sample's crop and flip are the first three numbers of its own block of four.
pub fn gather_crops_and_flips<B: Backend>(backend: &B) {
    for shape in SHAPES {
        let (bytes, indices, [channels, h, w]) = (bytes(shape), indices(), shape);
        let rng = Rng::new(11, Stream::Augment, 4);
        let batch = backend.gather(&backend.resident(shape, &bytes), &indices, Some(&CropFlip { rng, pad: 2 }));
        let mut want = Vec::new();
        let mut seen = (0, 0);
        for (position, &index) in indices.iter().enumerate() {
            let draws = rng.block(position as u64);
            let below = |k: usize, n: u64| ((u64::from(draws[k]) * n) >> 32) as usize;
            let (top, left, flip) = (below(0, 5), below(1, 5), below(2, 2) == 1);
            seen = (seen.0 + usize::from(flip), seen.1 + usize::from((top, left) != (2, 2)));
            for i in 0..channels * h * w {
                let (channel, row, col) = (i / (h * w), i / w % h, i % w);
                // In the padded image, then in the image itself.
                let (row, col) = (row + top, left + if flip { w - 1 - col } else { col });
                let inside = (2..h + 2).contains(&row) && (2..w + 2).contains(&col);
                let at = |row: usize, col: usize| bytes[((index as usize * channels + channel) * h + row) * w + col];
                want.push(if inside { f32::from(at(row - 2, col - 2)) / 255.0 } else { 0.0 });
            }
        }
        assert!((1..SAMPLES).contains(&seen.0) && seen.1 > 4, "the draw has flips, no flips and crops: {seen:?}");
        assert!(backend.download_batch(SAMPLES, &batch) == want, "{shape:?}");
    }
}
