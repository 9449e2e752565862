//! Bugs planted in `tests/cuda_host/planted.cu`, each beside the same kernel without: the checks stop the first with the right
//! words, and let the second pass with the right result. They play compute-sanitizer, so nothing is proven by kernels that
//! pass them unless the bugs here are caught.
//!
//! - `copies`: those around asynchronous copies

mod copies;

use std::ffi::c_void;
use std::sync::OnceLock;

use engine::backend::cuda::runtime::driver::{Call, Driver, HandedOut};

use super::build::{self, Unit};
use super::driver::{HostDriver, Library};
use crate::skip::{Missing, or_skip};

/// Threads of a block.
const THREADS: u32 = 64;

/// An argument.
#[derive(Clone, Copy)]
enum Arg {
    Number(u32),
    Address(u64),
}
use Arg::{Address, Number};

struct Device(HostDriver);

impl Device {
    fn new() -> Option<Self> {
        static LIBRARY: OnceLock<Result<Library, String>> = OnceLock::new();
        let make = || {
            let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cuda_host/planted.cu"));
            let text = text.map_err(|e| format!("planted.cu: {e}"))?;
            let names = text.lines().filter_map(|line| line.strip_prefix("extern \"C\" __global__ void "));
            let kernels: Vec<&str> = names.filter_map(|rest| rest.split('(').next()).collect();
            Library::open(&build::library(&[Unit { file: "cuda_host/planted", kernels }])?)
        };
        or_skip(Missing::Compiler, LIBRARY.get_or_init(make).as_ref()).map(|library| Device(HostDriver::new(library)))
    }

    /// A buffer of so many bytes, unwritten.
    fn unwritten(&self, bytes: usize) -> Arg {
        let address = self.0.alloc(bytes).unwrap();
        self.0.handed_out(HandedOut { address, bytes, capacity: bytes });
        Address(address)
    }

    fn with<T: bytemuck::NoUninit>(&self, values: &[T]) -> Arg {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let Address(address) = self.unwritten(bytes.len()) else { unreachable!() };
        // SAFETY: as many bytes as were just allocated.
        unsafe { self.0.upload(address, bytes) }.unwrap();
        Address(address)
    }

    /// 0, 1, 2, …
    fn counting(&self, n: u32) -> Arg {
        self.with(&(0..n).map(|i| i as f32).collect::<Vec<_>>())
    }

    fn read<T: bytemuck::AnyBitPattern + bytemuck::NoUninit>(&self, buffer: Arg, n: usize) -> Result<Vec<T>, String> {
        let Address(address) = buffer else { panic!("not a buffer") };
        let mut values = vec![T::zeroed(); n];
        // SAFETY: the runtime checks the length.
        unsafe { self.0.download(address, bytemuck::cast_slice_mut(&mut values)) }?;
        Ok(values)
    }

    fn launch(&self, name: &'static str, blocks: u32, args: &[Arg]) -> Result<(), String> {
        self.launch_sized(name, [blocks, 1, 1], THREADS, 0, args)
    }

    fn launch_sized(
        &self,
        name: &'static str,
        blocks: [u32; 3],
        threads: u32,
        shared: u32,
        args: &[Arg],
    ) -> Result<(), String> {
        let function = self.0.function(name).unwrap();
        let sizes = self.0.param_sizes(function).unwrap().unwrap();
        let wanted: Vec<usize> = args.iter().map(|arg| if matches!(arg, Number(_)) { 4 } else { 8 }).collect();
        assert_eq!(sizes, wanted, "{name}");
        let words: Vec<u64> = args
            .iter()
            .map(|arg| match *arg {
                Number(n) => n.into(),
                Address(a) => a,
            })
            .collect();
        let mut args: Vec<*mut c_void> = words.iter().map(|word| std::ptr::from_ref(word).cast_mut().cast()).collect();
        let mut call = Call {
            function,
            name,
            blocks,
            threads,
            shared,
            args: &mut args,
            overlaps: name == "add_early",
            handed_out: &[],
        };
        // SAFETY: the arguments have the sizes of the parameters; what the kernel does with them is checked.
        unsafe { self.0.launch(&mut call) }
    }

    /// Panics unless the launch is stopped with a line that has all of `words`.
    #[track_caller]
    fn stops(&self, name: &'static str, blocks: u32, args: &[Arg], words: &[&str]) {
        let line = self.launch(name, blocks, args).expect_err("the bug is not caught");
        assert!(!line.contains('\n'), "{line}");
        for word in words.iter().chain([&name]) {
            assert!(line.contains(word), "no '{word}' in: {line}");
        }
    }

    #[track_caller]
    fn passes(&self, name: &'static str, blocks: u32, args: &[Arg]) {
        self.launch(name, blocks, args).unwrap();
    }
}

fn reversed(n: u32) -> Vec<f32> {
    (0..n).rev().map(|i| i as f32).collect()
}

#[test]
fn shared_memory_of_the_launch() {
    let Some(device) = Device::new() else { return };
    let n = 20_000;
    let (x, y) = (device.counting(n), device.unwritten(4 * n as usize));
    let launch = |bytes| device.launch_sized("reverse_in_dynamic", [2, 1, 1], THREADS, bytes, &[Number(n), x, y]);
    assert!(launch(4 * n).unwrap_err().contains("race"), "two blocks write the same");
    let launch = |bytes| device.launch_sized("reverse_in_dynamic", [1, 1, 1], THREADS, bytes, &[Number(n), x, y]);
    launch(4 * n).unwrap();
    assert_eq!(device.read::<f32>(y, n as usize).unwrap(), reversed(n));
    let line = launch(4 * n - 4).unwrap_err();
    assert!(line.contains("out-of-bounds write of 4 bytes") && line.contains("dynamic shared memory"), "{line}");
    assert!(launch(228 << 10).unwrap_err().contains("233472 bytes of shared memory"));
}

/// Twice the product of a (16 × 16) and b (16 × 8).
fn product(a: &[f32], b: &[f32]) -> Vec<f32> {
    let at = |i: usize| (0..16).map(|k| 2.0 * a[i / 8 * 16 + k] * b[k * 8 + i % 8]).sum();
    (0..128).map(at).collect()
}

#[test]
fn matrices() {
    let Some(device) = Device::new() else { return };
    // Eight bits hold them, and a float their sums.
    let integers = |n: u32, m: u32| (0..n).map(|i| (i * m % 41) as f32 - 20.0).collect::<Vec<_>>();
    let (a, b) = (integers(256, 7), integers(128, 11));
    let transposed: Vec<f32> = (0..256).map(|i| a[i % 16 * 16 + i / 16]).collect();
    let (left, turned_left, right, c) =
        (device.with(&a), device.with(&transposed), device.with(&b), device.unwritten(512));
    for row in [16, 24] {
        device.passes("product_of_matrices", 1, &[Number(0), Number(row), left, right, c]);
        assert_eq!(device.read::<f32>(c, 128).unwrap(), product(&a, &b));
        device.passes("product_of_matrices", 1, &[Number(1), Number(row), turned_left, right, c]);
        assert_eq!(device.read::<f32>(c, 128).unwrap(), product(&a, &b));
        for turned in [0, 1] {
            let args = [Number(turned), Number(row), left, right, c];
            device.stops("product_of_unwritten", 1, &args, &["read of unwritten memory", "'right'"]);
        }
    }
    let args = [Number(0), Number(17), left, right, c];
    device.stops("product_of_matrices", 1, &args, &["misaligned row of a matrix", "2 bytes beyond", "thread 1"]);
    device.stops("product_by_half_a_warp", 1, &[c], &["divergent warp operation", "has left the kernel"]);
}

#[test]
fn products_of_a_warpgroup() {
    let Some(device) = Device::new() else { return };
    let integers = |m: u32| (0..1024).map(|i| (i * m % 41) as f32 - 20.0).collect::<Vec<_>>();
    let (a, b) = (integers(7), integers(11));
    let (left, right, c) = (device.with(&a), device.with(&b), device.unwritten(4 * 64 * 64));
    let launch = |columns, shift| {
        let args = [Number(columns), Number(shift), left, right, c];
        device.launch_sized("product_of_warpgroup", [1, 1, 1], 128, 64 * 128, &args)
    };
    launch(64, 0).unwrap();
    let product = (0..64 * 64).map(|i| (0..16).map(|k| a[i / 64 * 16 + k] * b[i % 64 * 16 + k]).sum());
    assert_eq!(device.read::<f32>(c, 64 * 64).unwrap(), product.collect::<Vec<f32>>());
    let line = launch(63, 0).unwrap_err();
    assert!(line.contains("read of unwritten memory") && line.contains("dynamic shared memory"), "{line}");
    // The second quarter of the rows, which nobody has written; no quarter, and no row of shared memory.
    assert!(launch(64, 32).unwrap_err().contains("read of unwritten memory"));
    for shift in [16, 128] {
        assert!(launch(64, shift).unwrap_err().contains("misaligned row of a matrix"));
    }
}

#[test]
fn out_of_bounds() {
    let Some(device) = Device::new() else { return };
    let (x, y) = (device.counting(100), device.unwritten(400));
    device.passes("copy", 2, &[Number(100), x, y]);
    assert_eq!(device.read::<f32>(y, 100).unwrap()[99], 99.0);
    let line = ["out-of-bounds write of 4 bytes at byte 400 of a buffer of 400 bytes", "thread 36 of block 1"];
    device.stops("copy_past_the_end", 2, &[Number(100), x, y], &line);
    device.stops("copy_before_the_beginning", 2, &[Number(100), x, y], &["out-of-bounds read of 4 bytes"]);
    device.passes("copy_vectors", 1, &[Number(100), x, y]);
    let line = ["out-of-bounds", "of 16 bytes at byte 400 of a buffer of 400 bytes"];
    device.stops("copy_vectors", 1, &[Number(102), x, y], &line);
    device.stops("copy_misaligned", 1, &[Number(4), x, y], &["misaligned read of 16 bytes at byte 4"]);
    device.stops("optional", 1, &[Address(0), y], &["out-of-bounds read of 4 bytes at the null pointer"]);
    assert!(device.read::<f32>(y, 101).expect_err("one too many").contains("download of 404 bytes"));
}

#[test]
fn past_the_end_of_shared_memory() {
    let Some(device) = Device::new() else { return };
    let y = device.unwritten(256);
    device.passes("rows_of_a_tile", 1, &[Number(8), y]);
    assert_eq!(device.read::<f32>(y, 64).unwrap(), [7.0; 64]);
    let line = ["out-of-bounds write of 4 bytes at byte 2048 of shared memory 'tile' of 2048 bytes", "by thread 0"];
    device.stops("rows_of_a_tile", 1, &[Number(9), y], &line);
}

#[test]
fn missing_barriers() {
    let Some(device) = Device::new() else { return };
    let fresh = || device.unwritten(256);
    let (x, y) = (device.counting(128), fresh());
    device.passes("reverse", 1, &[x, y]);
    assert_eq!(device.read::<f32>(y, 64).unwrap(), reversed(64));
    let race = ["race: read of 4 bytes", "shared memory 'tile' of 256 bytes", "with no barrier since"];
    device.stops("pairs_without_barrier", 1, &[x, fresh()], &race);
    // Here it is the reader that comes first.
    device.stops("reverse_with_warp_barrier", 1, &[x, fresh()], &["read of unwritten memory", "shared memory 'tile'"]);
    device.passes("two_rounds", 1, &[Number(1), x, fresh()]);
    device.stops("two_rounds", 1, &[Number(0), x, fresh()], &race);
    device.passes("two_rounds_of_warps", 1, &[Number(1), x, fresh()]);
    device.stops("two_rounds_of_warps", 1, &[Number(0), x, fresh()], &race);
    device.passes("sums_of_eight", 1, &[Number(1), x, fresh()]);
    device.stops("sums_of_eight", 1, &[Number(0), x, fresh()], &race);
    let (scratch, y) = (fresh(), fresh());
    device.passes("reverse_in_global", 1, &[Number(1), scratch, y]);
    assert_eq!(device.read::<f32>(y, 64).unwrap(), reversed(64));
    let race = ["race: write of 4 bytes at byte 128 of a buffer of 256 bytes", "thread 31 of block 0 has read"];
    device.stops("reverse_in_global", 1, &[Number(0), scratch, y], &race);
}

#[test]
fn divergent_barriers() {
    let Some(device) = Device::new() else { return };
    let fresh = || device.unwritten(256);
    for (name, n, other) in [
        ("skipped_barrier", 40, "thread 40 has left the kernel"),
        ("early_return", 50, "thread 50 has left the kernel"),
        ("two_barriers", 50, "thread 50 waits in the barrier"),
    ] {
        device.passes(name, 1, &[Number(THREADS), fresh()]);
        device.stops(
            name,
            1,
            &[Number(n), fresh()],
            &["divergent barrier: thread 0 waits in the barrier at planted.cu", other],
        );
    }
    let x = device.counting(64);
    device.passes("shuffle_sum", 1, &[Number(32), x, fresh()]);
    device.stops(
        "shuffle_sum",
        1,
        &[Number(7), x, fresh()],
        &["divergent warp operation", "thread 7 has left the kernel"],
    );
    device.passes("half_shuffle", 1, &[Number(3), fresh()]);
    device.stops("half_shuffle", 1, &[Number(20), fresh()], &["reads lane 20, which takes no part"]);
}

#[test]
fn unwritten_memory() {
    let Some(device) = Device::new() else { return };
    let y = device.with(&[1.0_f32; 64]);
    device.passes("add_into", 1, &[Number(64), y]);
    assert_eq!(device.read::<f32>(y, 64).unwrap(), [2.0; 64]);
    let unwritten = device.unwritten(256);
    device.stops(
        "add_into",
        1,
        &[Number(64), unwritten],
        &["read of unwritten memory", "byte 0 of a buffer of 256 bytes"],
    );
    assert!(device.read::<f32>(unwritten, 64).expect_err("unwritten").contains("unwritten"));
    // A buffer that is used again is unwritten again, and as long as it is now.
    let Address(address) = y else { unreachable!() };
    device.0.handed_out(HandedOut { address, bytes: 128, capacity: 256 });
    device.stops("add_into", 1, &[Number(32), y], &["read of unwritten memory", "a buffer of 128 bytes"]);
    device.stops("optional", 1, &[device.counting(64), y], &["out-of-bounds write"]);
    device.passes("half_a_tile", 1, &[Number(64), device.unwritten(256)]);
    let line = ["read of unwritten memory", "byte 252 of shared memory 'tile'", "by thread 63"];
    device.stops("half_a_tile", 1, &[Number(63), device.unwritten(256)], &line);
    device.passes("tile_of_another_block", 2, &[Number(2), device.unwritten(512)]);
    let line = ["read of unwritten memory", "shared memory 'tile'", "of block 1"];
    device.stops("tile_of_another_block", 2, &[Number(1), device.unwritten(512)], &line);
}

#[test]
fn races_between_blocks() {
    let Some(device) = Device::new() else { return };
    device.passes("block_results", 4, &[Number(1), device.unwritten(16)]);
    let race = ["race: write of 4 bytes at byte 0", "thread 0 of block 0 has written in the same launch", "of block 1"];
    device.stops("block_results", 4, &[Number(0), device.unwritten(16)], &race);
    device.passes("neighbours", 4, &[Number(4), device.counting(8)]);
    device.stops("neighbours", 4, &[Number(1), device.counting(8)], &["race: read of 4 bytes", "in the same launch"]);
}

/// What the launch before the last one has written is there, what the last one has written is not before it is waited for.
#[test]
fn launches_that_overlap() {
    let Some(device) = Device::new() else { return };
    let (x, weights, sums, y) =
        (device.counting(64), device.unwritten(256), device.unwritten(256), device.unwritten(256));
    let n = Number(64);
    let before = || {
        device.passes("copy", 1, &[n, x, weights]);
        device.passes("copy", 1, &[n, x, sums]);
    };
    before();
    device.passes("add_early", 1, &[Number(0), weights, sums, y]);
    assert_eq!(device.read::<f32>(y, 64).unwrap(), (0..64).map(|i| 2.0 * i as f32).collect::<Vec<_>>());
    let write = "early write of 4 bytes at byte 0 of a buffer of 256 bytes: the launch before may still run";
    let read = "early read of 4 bytes at byte 0 of a buffer of 256 bytes, which the launch before has written";
    for (early, words) in [(1, write), (2, read), (4, read)] {
        before();
        device.stops("add_early", 1, &[Number(early), weights, sums, y], &[words, "thread 0 of block 0"]);
    }
    // Weights that the launch before has written; the same from the host.
    device.passes("copy", 1, &[n, x, weights]);
    device.stops("add_early", 1, &[Number(0), weights, x, y], &[read]);
    device.passes("copy", 1, &[n, x, sums]);
    device.passes("add_early", 1, &[Number(0), x, sums, y]);
}

/// Groups of four blocks, twice with the same counters.
#[test]
fn the_last_block_adds_up() {
    let Some(device) = Device::new() else { return };
    let (x, arrivals) = (device.counting(12 * THREADS), device.with(&[0_u32; 3]));
    let (parts, sums) = (device.unwritten(48), device.unwritten(12));
    let args = |counted| [Number(4), Number(counted), x, parts, arrivals, sums];
    for _ in 0..2 {
        device.passes("sums_by_the_last", 12, &args(1));
        let n = 4 * THREADS;
        let want: Vec<f32> = (0..3).map(|group| (group * n * n + n * (n - 1) / 2) as f32).collect();
        assert_eq!(device.read::<f32>(sums, 3).unwrap(), want);
        assert_eq!(device.read::<u32>(arrivals, 3).unwrap(), [0; 3]);
    }
    let race = ["race: write of 4 bytes", "of block 0 has read in the same launch", "of block 1"];
    device.stops("sums_by_the_last", 12, &args(0), &race);
}

#[test]
fn atomic_operations() {
    let Some(device) = Device::new() else { return };
    let count = device.with(&[0_u32]);
    device.passes("count_odd", 2, &[Number(0), count, device.unwritten(8)]);
    assert_eq!(device.read::<u32>(count, 1).unwrap(), [64]);
    device.stops("count_odd", 2, &[Number(1), count, device.unwritten(8)], &["race: atomic operation of 4 bytes"]);
    let y = device.unwritten(8);
    device.passes("shared_counter", 2, &[Number(1), y]);
    assert_eq!(device.read::<u32>(y, 2).unwrap(), [64, 64]);
    device.stops("shared_counter", 2, &[Number(0), y], &["race: atomic operation", "shared memory 'count'"]);
    let y = device.unwritten(8);
    device.passes("warp_counters", 1, &[Number(1), y]);
    assert_eq!(device.read::<u32>(y, 2).unwrap(), [64, 64]);
    device.stops("warp_counters", 1, &[Number(0), device.unwritten(8)], &["shared memory 'count'"]);

    let x = device.with(&[0, 0, u32::MAX, 0, u32::MAX, 7, 0]);
    let (wide, old) = (device.with(&[0_u64, 0]), device.unwritten(64 * 8 * 4));
    device.passes("atomics", 1, &[x, wide, old]);
    // Every thread is 0 to 63 once, in this order.
    assert_eq!(device.read::<u32>(x, 7).unwrap(), [192, 63, 937, u32::MAX, 0, 63, 64]);
    assert_eq!(device.read::<u64>(wide, 2).unwrap(), [64 << 32, 63 << 40]);
    let old = device.read::<u32>(old, 8 * 64).unwrap();
    assert_eq!(old[8 * 63..], [189, 62, 938, u32::MAX, 0, 62, 63, 63]);
}

#[test]
fn warps_and_narrow_words() {
    let Some(device) = Device::new() else { return };
    let y = device.unwritten(64 * 12 * 4);
    device.passes("warp_operations", 1, &[y]);
    let rows = device.read::<u32>(y, 64 * 12).unwrap();
    for (i, row) in rows.chunks_exact(12).enumerate() {
        let (i, warp) = (i as u32, i as u32 / 32 * 32);
        let (lane, four, eight) = (i % 32, i / 4 * 4, i / 8 * 8);
        let votes = (0..32).filter(|l| (warp + l) % 3 == 0).map(|l| 1_u32 << l).sum::<u32>();
        let want = [
            warp + 5,
            eight + (i + 9) % 8,
            i ^ 3,
            // A lane outside of the group is not reached.
            i,
            if lane + 7 < 32 { i + 7 } else { i },
            if i + 3 < four + 4 { i + 3 } else { i },
            if lane >= 7 { i - 7 } else { i },
            if i >= four + 3 { i - 3 } else { i },
            votes,
            u32::from(warp == 32),
            u32::from(warp == 0),
            1,
        ];
        assert_eq!(row[..3], want[..3], "thread {i}");
        assert_eq!(row[4..], want[4..], "thread {i}");
    }
    let (bytes, halves) = (device.unwritten(64), device.unwritten(128));
    device.passes("narrow_stores", 1, &[Number(0), bytes, halves]);
    device.stops("narrow_stores", 1, &[Number(1), bytes, halves], &["race: write of 1 byte"]);
    device.passes("narrow_stores", 1, &[Number(0), bytes, halves]);
    let y = device.unwritten(256);
    device.passes("narrow_loads", 1, &[bytes, halves, y]);
    let want: Vec<u32> = (0..64).map(|i| (i ^ 1) + 1000 + i).collect();
    assert_eq!(device.read::<u32>(y, 64).unwrap(), want);
    let dozens: Vec<u32> = (0..60).collect();
    let (x, y) = (device.with(&dozens), device.unwritten(240));
    device.passes("copy_structs", 1, &[Number(5), x, y]);
    assert_eq!(device.read::<u32>(y, 60).unwrap(), dozens);
    device.stops("copy_structs", 1, &[Number(6), x, y], &["out-of-bounds"]);
}

/// After a launch that was stopped, the next one is as if nothing had been.
#[test]
fn a_stopped_launch_leaves_nothing_behind() {
    let Some(device) = Device::new() else { return };
    for _ in 0..20 {
        let (x, y) = (device.counting(128), device.unwritten(256));
        device.stops("skipped_barrier", 1, &[Number(40), device.unwritten(256)], &["divergent barrier"]);
        device.stops("two_rounds", 1, &[Number(0), x, device.unwritten(256)], &["race"]);
        device.stops("copy_to_pairs", 1, &[Number(2), x, device.unwritten(256)], &["still on its way"]);
        device.passes("copy_to_pairs", 1, &[Number(0), x, device.unwritten(256)]);
        device.passes("reverse", 1, &[x, y]);
        assert_eq!(device.read::<f32>(y, 64).unwrap(), reversed(64));
    }
}

#[test]
fn blocks_in_two_dimensions() {
    let Some(device) = Device::new() else { return };
    let (n, y) = (48_u32, device.unwritten(48 * 48 * 4));
    let (a, b) = (device.counting(n * n), device.counting(n * n));
    device.launch_sized("matmul", [3, 3, 1], 256, 0, &[Number(n), a, b, y]).unwrap();
    let y = device.read::<f32>(y, (n * n) as usize).unwrap();
    for (i, &y) in y.iter().enumerate() {
        let (row, column) = (i as u32 / n, i as u32 % n);
        // Sums of integers, not all below 2^24.
        let want: f32 =
            (0..n).map(|k| ((row * n + k) as f32, (k * n + column) as f32)).fold(0.0, |sum, (a, b)| a.mul_add(b, sum));
        assert_eq!(y, want, "{row}, {column}");
    }
    let (y, small) = (device.unwritten(48 * 48 * 4), device.unwritten(48 * 47 * 4));
    let line = ["out-of-bounds write", "of block (0, 2, 0) in matmul"];
    let stopped =
        device.launch_sized("matmul", [3, 3, 1], 256, 0, &[Number(n), a, b, small]).expect_err("out of bounds");
    assert!(line.iter().all(|word| stopped.contains(word)), "{stopped}");
    for (blocks, threads) in [([3, 0, 1], 256), ([3, 3, 65_536], 256), ([3, 3, 1], 0), ([3, 3, 1], 1025)] {
        device.launch_sized("matmul", blocks, threads, 0, &[Number(n), a, b, y]).expect_err("no such grid");
    }
}

#[test]
#[ignore = "a measurement"]
fn cost_of_the_checks() {
    let Some(device) = Device::new() else { return };
    let time = |name, blocks, threads, args: &[Arg], count: u64| {
        let start = std::time::Instant::now();
        device.launch_sized(name, blocks, threads, 0, args).unwrap();
        println!("{name}, {threads} threads: {:.1} ns", start.elapsed().as_secs_f64() * 1e9 / count as f64);
    };
    for threads in [64, 256, 1024] {
        time("barriers", [1, 1, 1], threads, &[Number(2000)], 2000 * u64::from(threads));
        time("warp_barriers", [1, 1, 1], threads, &[Number(2000)], 2000 * u64::from(threads));
    }
    let n = 512_u64;
    let (a, b) = (device.counting(512 * 512), device.counting(512 * 512));
    // Two reads a product; with all that is around them.
    time("matmul", [32, 32, 1], 256, &[Number(512), a, b, device.unwritten(512 * 512 * 4)], 2 * n * n * n);
}
