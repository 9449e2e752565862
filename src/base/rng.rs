//! Random numbers without state: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
//!
//! A number is a pure function of (seed, stream, step, element), so any thread, chunk or GPU block can compute its
//! own part and the bits do not depend on who computes what, or on where a run was interrupted.

use crate::base::layout::layout;

/// The uses of random numbers; each has numbers of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Stream {
    /// Initial parameters; the step is the parameter's index.
    Init = 1,
    /// Order of the training images; the step is the epoch.
    Shuffle = 2,
    /// Crop and flip; the step is the training step.
    Augment = 3,
    /// Random start of the training attack; the step is the training step.
    TrainAttack = 4,
    /// Random start of an evaluation attack; the step is the restart.
    EvalAttack = 5,
    /// Which training images are put aside for held-out selection.
    HeldOut = 6,
    /// Which images a smaller data set keeps; the step is 0 for training and 1 for test images.
    Subset = 7,
    /// Random starts of the attacks of a suite; the step names attack and round.
    SuiteStart = 8,
    /// Proposals of the Square attack; the step names attack and round.
    Square = 9,
}

/// Random access to the numbers of one (seed, stream, step). Passed whole to a kernel.
#[derive(Clone, Copy, Debug, bytemuck::NoUninit)]
#[repr(C)]
pub struct Rng {
    key: [u32; 2],
    step: u32,
    stream: u32,
}

layout!(Rng { key, step, stream });

/// Of the Philox4x32 round.
pub const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
/// The increment of the key from round to round.
pub const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
/// Of Philox4x32-10.
pub const ROUNDS: usize = 10;

/// The Philox4x32-10 block function.
pub fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..ROUNDS {
        if round > 0 {
            key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
        }
        let product0 = u64::from(MULTIPLIERS[0]) * u64::from(counter[0]);
        let product1 = u64::from(MULTIPLIERS[1]) * u64::from(counter[2]);
        counter = [
            (product1 >> 32) as u32 ^ counter[1] ^ key[0],
            product1 as u32,
            (product0 >> 32) as u32 ^ counter[3] ^ key[1],
            product0 as u32,
        ];
    }
    counter
}

impl Rng {
    /// The numbers of `step` of `stream` under `seed`.
    pub fn new(seed: u64, stream: Stream, step: u32) -> Self {
        Rng { key: [seed as u32, (seed >> 32) as u32], step, stream: stream as u32 }
    }

    /// Block `index`: the elements `4 * index .. 4 * index + 4`.
    pub fn block(&self, index: u64) -> [u32; 4] {
        let (counter, key) = self.counter(index);
        philox4x32(counter, key)
    }

    /// The counter of block `index`, and the key: what [`philox4x32`] makes a block of.
    pub fn counter(&self, index: u64) -> ([u32; 4], [u32; 2]) {
        ([index as u32, (index >> 32) as u32, self.step, self.stream], self.key)
    }

    /// 32 random bits.
    pub fn u32_at(&self, element: u64) -> u32 {
        self.block(element / 4)[(element % 4) as usize]
    }

    /// Uniform in [0, 1), a multiple of 2^-24, so exact in `f32`.
    pub fn uniform_at(&self, element: u64) -> f32 {
        unit_interval(self.u32_at(element))
    }

    /// Uniform in `0..n`; the bias of the multiply-shift is below n / 2^32.
    pub fn below_at(&self, element: u64, n: u32) -> u32 {
        ((u64::from(self.u32_at(element)) * u64::from(n)) >> 32) as u32
    }

    /// Standard normal by the Box-Muller transform; each element uses half a block.
    pub fn normal_at(&self, element: u64) -> f64 {
        let block = self.block(element / 2);
        let (a, b) = if element.is_multiple_of(2) { (block[0], block[1]) } else { (block[2], block[3]) };
        let radius = (-2.0 * ((f64::from(a) + 1.0) / 4294967296.0).ln()).sqrt();
        radius * (std::f64::consts::TAU * f64::from(b) / 4294967296.0).cos()
    }

    /// A random order of `0..n` (Fisher-Yates).
    pub fn permutation(&self, n: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below_at(i as u64, i as u32 + 1) as usize);
        }
        order
    }
}

/// The upper 24 bits as a number in [0, 1).
pub fn unit_interval(bits: u32) -> f32 {
    (bits >> 8) as f32 * (1.0 / 16_777_216.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers that ship with Random123 (kat_vectors, philox4x32 10).
    #[test]
    fn philox_known_answers() {
        let cases = [
            ([0; 4], [0; 2], [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]),
            (
                [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
                [0xa4093822, 0x299f31d0],
                [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
            ),
        ];
        for (counter, key, answer) in cases {
            assert_eq!(philox4x32(counter, key), answer);
        }
    }

    /// The third of them, by way of a seed, a stream and a step: where each of them goes is what makes runs repeatable.
    #[test]
    fn seed_and_element_stream_and_step_are_key_and_counter() {
        let seed = 0x299f31d0_a4093822;
        let rng = Rng { stream: 0x03707344, ..Rng::new(seed, Stream::Init, 0x13198a2e) };
        let block = 0x85a308d3_243f6a88;
        let answer = [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1];
        assert_eq!(rng.block(block), answer);
        let narrow = Rng::new(5, Stream::Square, 6);
        for element in 0..12 {
            let answer = philox4x32([element / 4, 0, 6, 9], [5, 0])[element as usize % 4];
            assert_eq!(narrow.u32_at(element.into()), answer);
            assert_eq!(narrow.below_at(element.into(), 7), (f64::from(answer) / 2f64.powi(32) * 7.0) as u32);
        }
    }

    /// Numbers drawn with them are in files that must stay as they are.
    #[test]
    fn streams_keep_their_numbers() {
        use Stream::*;
        let streams = [Init, Shuffle, Augment, TrainAttack, EvalAttack, HeldOut, Subset, SuiteStart, Square];
        assert_eq!(streams.map(|stream| stream as u32), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn the_unit_interval_has_its_lower_end_only() {
        assert_eq!((unit_interval(0), unit_interval(255), unit_interval(256)), (0.0, 0.0, 2f32.powi(-24)));
        assert_eq!(unit_interval(u32::MAX), 1.0 - 2f32.powi(-24));
    }

    /// Box and Muller's formula, of the two halves of a block.
    #[test]
    fn normal_numbers_are_of_half_a_block_each() {
        let rng = Rng::new(11, Stream::Init, 4);
        for element in 0..20 {
            let block = philox4x32([element / 2, 0, 4, 1], [11, 0]).map(|bits| f64::from(bits) / 2f64.powi(32));
            let (u, v) = if element.is_multiple_of(2) { (block[0], block[1]) } else { (block[2], block[3]) };
            let want = (-2.0 * (u + 2f64.powi(-32)).ln()).sqrt() * (2.0 * std::f64::consts::PI * v).cos();
            assert!((rng.normal_at(element.into()) - want).abs() < 1e-12, "{element}: {want}");
        }
    }

    /// All six orders of three come equally often.
    #[test]
    fn permutations_are_uniform() {
        let mut counts = std::collections::BTreeMap::new();
        for epoch in 0..6000 {
            *counts.entry(Rng::new(3, Stream::Shuffle, epoch).permutation(3)).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 6);
        // Five standard deviations.
        assert!(counts.values().all(|count| (855..=1145).contains(count)), "{counts:?}");
    }

    #[test]
    fn streams_steps_seeds_and_elements_differ() {
        let base = Rng::new(7, Stream::Init, 3).u32_at(5);
        assert_ne!(base, Rng::new(8, Stream::Init, 3).u32_at(5));
        assert_ne!(base, Rng::new(7 | 1 << 40, Stream::Init, 3).u32_at(5));
        assert_ne!(base, Rng::new(7, Stream::Shuffle, 3).u32_at(5));
        assert_ne!(base, Rng::new(7, Stream::Init, 4).u32_at(5));
        assert_ne!(base, Rng::new(7, Stream::Init, 3).u32_at(6));
        assert_ne!(base, Rng::new(7, Stream::Init, 3).u32_at(5 + (1 << 34)));
    }

    #[test]
    fn moments() {
        let rng = Rng::new(1, Stream::Init, 0);
        let n = 200_000;
        let mean = |f: &dyn Fn(u64) -> f64| (0..n).map(f).sum::<f64>() / n as f64;
        assert!((mean(&|e| f64::from(rng.uniform_at(e))) - 0.5).abs() < 0.003);
        assert!((mean(&|e| f64::from(rng.uniform_at(e)).powi(2)) - 1.0 / 3.0).abs() < 0.003);
        assert!(mean(&|e| rng.normal_at(e)).abs() < 0.01);
        assert!((mean(&|e| rng.normal_at(e).powi(2)) - 1.0).abs() < 0.015);
        assert!((mean(&|e| rng.normal_at(e).powi(4)) - 3.0).abs() < 0.1);
    }

    #[test]
    fn permutation_is_one() {
        let mut order = Rng::new(3, Stream::Shuffle, 9).permutation(1000);
        assert_ne!(order[..5], [0, 1, 2, 3, 4]);
        order.sort_unstable();
        assert!(order.iter().enumerate().all(|(i, &v)| i == v as usize));
    }
}
