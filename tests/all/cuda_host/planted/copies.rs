//! Bugs around asynchronous copies to shared memory.

use super::Arg::Number;
use super::{Device, THREADS};

#[test]
fn copies_under_way() {
    let Some(device) = Device::new() else { return };
    let y = device.unwritten(256);
    let pairs = |bugs, words: &[&str]| device.stops("copy_to_pairs", 1, &[Number(bugs), device.counting(64), y], words);
    device.passes("copy_to_pairs", 1, &[Number(0), device.counting(64), y]);
    assert_eq!(device.read::<f32>(y, 64).unwrap(), (0..64).map(|i| (i / 2 * 2) as f32).collect::<Vec<_>>());
    for bug in [1, 2] {
        let read = "read of 4 bytes at byte 248 of shared memory 'tile' of 256 bytes, to which a copy of thread 62 is";
        pairs(bug, &[read, "still on its way, by thread 63 of block 0"]);
    }
    let race =
        "race: read of 4 bytes at byte 0 of shared memory 'tile' of 256 bytes, which thread 0 of block 0 has written";
    pairs(4, &[race]);
    let write = "write of 4 bytes at byte 252 of shared memory 'tile' of 256 bytes, to which a copy of thread 63 is";
    pairs(8, &[write, "still on its way, by thread 63 of block 0"]);
    pairs(16, &["race: write of 4 bytes", "of a buffer of 256 bytes", "has read with no barrier since"]);
    // Between two barriers no check sees that write, but it is what the copy brings.
    device.passes("copy_to_pairs", 1, &[Number(16 + 32), device.counting(64), y]);
    assert_eq!(device.read::<f32>(y, 64).unwrap(), [0.0; 64]);
}

#[test]
fn copies_of_a_pipeline() {
    let Some(device) = Device::new() else { return };
    let (x, y) = (device.counting(5 * THREADS), device.unwritten(256));
    let args = |pending, early, beyond| [Number(pending), Number(early), Number(beyond), Number(5), x, y];
    // The last groups are empty, and so may be pending at the end.
    device.passes("sum_slices", 1, &args(1, 0, 0));
    let want = (0..THREADS).map(|i| (0..5).map(|slice| (slice * THREADS + i / 32 * 32) as f32).sum::<f32>());
    assert_eq!(device.read::<f32>(y, 64).unwrap(), want.collect::<Vec<_>>());
    let read = "read of 4 bytes at byte 128 of shared memory 'slices' of 768 bytes, to which a copy of thread 32 is";
    device.stops("sum_slices", 1, &args(2, 0, 0), &[read, "still on its way"]);
    let race = ["race: write of 4 bytes at byte ", "of shared memory 'slices'", "has read with no barrier since"];
    device.stops("sum_slices", 1, &args(1, 1, 0), &race);
    let left = ["copy that its thread has not waited for: write of 4 bytes at byte ", "of shared memory 'slices'"];
    device.stops("sum_slices", 1, &args(1, 0, 1), &left);
}

#[test]
fn addresses_of_copies() {
    let Some(device) = Device::new() else { return };
    let (x, y) = (device.counting(260), device.unwritten(1024));
    let args = |first, exists| [Number(first), Number(exists), x, y];
    device.passes("copy_fours", 1, &args(4, 1));
    assert_eq!(device.read::<f32>(y, 256).unwrap(), (4..260).map(|i| i as f32).collect::<Vec<_>>());
    device.passes("copy_fours", 1, &args(9, 0));
    assert_eq!(device.read::<f32>(y, 256).unwrap(), [0.0; 256]);
    device.stops("copy_fours", 1, &args(8, 1), &["out-of-bounds read of 16 bytes at byte 1040", "by thread 63"]);
    device.stops("copy_fours", 1, &args(1, 1), &["misaligned read of 16 bytes at byte 4 of a buffer of 1040 bytes"]);
    let unwritten = ["read of unwritten memory: read of 16 bytes at byte 16 of a buffer of 2048 bytes"];
    device.stops("copy_fours", 1, &[Number(4), Number(1), device.unwritten(2048), y], &unwritten);
    let to = "copy to other than shared memory: write of 4 bytes at byte 0 of a buffer of 1024 bytes";
    device.stops("copy_within_global", 1, &[x, y], &[to]);
    let from = "copy from other than global memory: read of 4 bytes at byte 0 of shared memory 'tile' of 512 bytes";
    device.stops("copy_within_shared", 1, &[x, y], &[from]);
}
