//! Pickles that would do harm, or ask for more than they are.

use super::files::{File, op, pickled};
use super::{import, refused};
use crate::cli::{assert_contains, success};

#[test]
fn nothing_is_called() {
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("called");
    let command = format!("touch {}", trace.display());
    let call = |function: &[u8]| [function, op::MARK, &op::text(&command), op::TUPLE, op::CALL, op::STOP].concat();
    refused(
        &pickled(&call(&op::global("os", "system"))),
        &["asks for 'os.system', which must not be loaded", "state_dict()"],
    );
    let late = [&op::text("builtins")[..], &op::text("eval"), b"\x93"].concat();
    refused(&pickled(&call(&late)), &["asks for 'builtins.eval', which must not be loaded"]);
    // Inside an otherwise good state dict, and even where its result is thrown away.
    let file = File::lenet();
    let bad = [&file.state_dict()[..], op::MARK, &op::text("x"), &op::global("posix", "system")].concat();
    refused(&file.with_pickle(&bad), &["asks for 'posix.system', "]);
    // A whole model instead of its state dict.
    refused(
        &pickled(&[&op::global("__main__", "LeNet")[..], b")\x81."].concat()),
        &["asks for '__main__.LeNet', ", "state_dict()"],
    );
    refused(&pickled(&op::global("torch.nn\u{1b}[2J", "x")), &["asks for 'torch.nn\\u{1b}[2J.x', "]);
    assert!(!trace.exists());
}

#[test]
fn pickles_that_are_no_state_dict() {
    let told = |pickle: &[u8], expected: &str| refused(&pickled(pickle), &[expected]);
    told(b"", "cut short");
    told(b"\x80", "cut short");
    told(b".", "a value is missing");
    told(b"(].", "holds no dict");
    told(b"(.", "a value is missing");
    told(b"N.", "holds no dict; save model.state_dict()");
    told(b"}.", "holds no tensors, neither as it is nor under state_dict");
    told(b"t.", "a mark is missing");
    told(b"}NNNu.", "a mark is missing");
    told(b"}(Nu.", "items of something that has none");
    told(b"}(NNub.", "attributes of something that has none");
    told(b"NNR.", "a call of something that is no function");
    told(b"NQ.", "an external value that is no tuple");
    told(b")Q.", "an external value that is no storage");
    told(b"cos", "cut short");
    told(b"X\xff\xff\xff\xffabc", "cut short");
    told(b"X\x02\x00\x00\x00\xff\xfe.", "text that is not UTF-8");
    told(b"h\x07.", "value 7 was never remembered");
    told(b"j\xff\xff\xff\xff.", "value 4294967295 was never remembered");
    told(b"\x8a\xff", "cut short");
    told(&[b"\x8a\x09", &[1; 9][..], b"."].concat(), "an integer of 9 bytes");
    told(b"\x8b\xff\xff\xff\x7f.", "operation 0x8b, which no state dict needs");
    told(b"\x97.", "operation 0x97");
}

#[test]
fn nesting_copies_and_cycles_cost_no_more_than_their_bytes() {
    let n = 900_000;
    for (deep, expected) in [
        ([&[b'N'][..], &vec![0x85; n], b"."].concat(), "holds no dict"),
        ([&vec![b']'; n / 2][..], &vec![b'a'; n / 2 - 1], b"."].concat(), "holds no dict"),
        ([&vec![b'('; n][..], b"."].concat(), "a value is missing"),
        // A list that holds itself, and itself again.
        ([b"]q\x00".as_slice(), &b"h\x00a".repeat(n / 3), b"."].concat(), "holds no dict"),
        // Each tuple holds the one before it twice.
        ([b"Nq\x00".as_slice(), &b"h\x00h\x00\x86q\x00".repeat(n / 7), b"."].concat(), "holds no dict"),
    ] {
        refused(&pickled(&deep), &[expected]);
    }
    // The highest index that the memo may have.
    let file = File::lenet();
    let pickle = [&file.state_dict()[..], b"r\xff\xff\xff\xff", op::STOP].concat();
    success(&import(&file.with_pickle(&pickle), &[]));
    refused(&pickled(&vec![b'N'; (1 << 20) + 1]), &["its data.pkl has 1048577 bytes"]);
    refused(&pickled(&vec![b'N'; 1 << 20]), &["cut short"]);
}

/// Sizes and devices stand beside the tensors of some state dicts.
#[test]
fn what_is_no_tensor_is_passed_over() {
    let file = File::lenet();
    let size = [&op::text("size")[..], &op::global("torch", "Size"), b"K\x03\x85\x85", op::CALL].concat();
    let device =
        [&op::text("device")[..], &op::global("torch", "device"), &op::text("cpu"), b"\x85", op::CALL].concat();
    let pickle = [&file.state_dict()[..], op::MARK, &size, &device, b"u", op::STOP].concat();
    success(&import(&file.with_pickle(&pickle), &[]));
}

#[test]
fn tensors_beyond_their_storage() {
    let told = |edit: &dyn Fn(&mut File), expected: &str| {
        let mut file = File::lenet();
        edit(&mut file);
        refused(&file.bytes(), &[expected]);
    };
    let weight = "fc1.weight";
    told(&|f| f.tensor(weight).len = 1 << 40, "storage 4 has 50176 bytes, not 1099511627776 elements of F32");
    told(&|f| f.tensor(weight).len = i64::MAX, "not 9223372036854775807 elements");
    told(&|f| f.tensor(weight).len = -1, "a storage of -1 elements");
    told(&|f| f.tensor(weight).offset = 1, "'fc1.weight': shape [64, 196] does not fit into the 50176 bytes");
    told(&|f| f.tensor(weight).offset = i64::MAX, "does not fit");
    told(&|f| f.tensor(weight).offset = -1, "a tensor at -1");
    told(&|f| f.tensor(weight).stride[0] = 197, "does not fit");
    told(&|f| f.tensor(weight).stride[0] = i64::MAX, "does not fit");
    told(&|f| f.tensor(weight).stride[0] = -1, "a size or stride of -1");
    told(&|f| f.tensor(weight).shape[0] = i64::MAX, "does not fit");
    told(&|f| f.tensor(weight).shape.push(1), "3 sizes and 2 strides");
    told(&|f| f.tensor(weight).shape = vec![1; 9], "a tensor of 9 dimensions");
    told(&|f| f.tensor(weight).kind = "HalfStorage", "not 12544 elements of F16");
    for (kind, len, name) in [
        ("IntStorage", 12_544, "I32"),
        ("ShortStorage", 25_088, "I16"),
        ("CharStorage", 50_176, "I8"),
        ("ByteStorage", 50_176, "U8"),
        ("BoolStorage", 50_176, "BOOL"),
    ] {
        let edit = |f: &mut File| (f.tensor(weight).kind, f.tensor(weight).len) = (kind, len);
        told(&edit, &format!("'fc1.weight' is {name}, no floating-point type"));
    }
    let wide = |f: &mut File| {
        f.storages[4].1.resize(8 * 12_544, 0);
        f.tensor(weight).kind = "LongStorage";
    };
    told(&wide, "'fc1.weight' is I64, no floating-point type");
    told(&|f| f.tensor(weight).kind = "ComplexFloatStorage", "asks for 'torch.ComplexFloatStorage', ");
    told(&|f| f.tensor(weight).key = "44".to_string(), "has no entry archive/data/44");
    told(&|f| f.tensor(weight).key = "../x\n".to_string(), "has no entry archive/data/../x\\n");
    told(&|f| f.tensor(weight).name = "x".repeat(257), "a name in it has 257 bytes");
    told(&|f| f.tensor(weight).name = "x".repeat(256), "missing fc1.weight; unexpected xxx");
    told(&|f| f.tensor(weight).name = "a\nb".to_string(), "missing fc1.weight; unexpected a\\nb");
}

#[test]
fn many_values_of_few_bytes() {
    // 220 MB of weights, all of them the same four bytes.
    let mut file = File::of(engine::nn::models::Network::LeNet, 64);
    for tensor in &mut file.tensors {
        (tensor.key, tensor.len) = ("0".to_string(), 1);
        tensor.stride.fill(0);
    }
    file.storages = vec![("0".to_string(), vec![0; 4])];
    refused(&file.bytes(), &["its tensors share their bytes: "]);
    // Sizes that are no network's are refused by their shape.
    file.tensor("fc1.weight").shape = vec![1 << 31, 1 << 31];
    refused(&file.bytes(), &["fc1.weight"]);
}

#[test]
fn weights_that_are_no_numbers() {
    refused(&File::lenet().set_first(f32::NAN).bytes(), &["'conv1.weight' holds NaN"]);
    refused(&File::lenet().set_first(f32::NEG_INFINITY).bytes(), &["'conv1.weight' holds infinity"]);
    let mut file = File::lenet().set_first(0.0);
    // Too large for f32.
    file.storages[0].1 = vec![1e300f64; 50].into_iter().flat_map(f64::to_le_bytes).collect();
    file.tensor("conv1.weight").kind = "DoubleStorage";
    refused(&file.bytes(), &["'conv1.weight' holds infinity"]);
}

#[test]
fn no_cut_or_changed_byte_is_a_panic() {
    let mut file = File::lenet();
    file.storages.iter_mut().for_each(|(_, bytes)| bytes.fill(0));
    let bytes = file.bytes();
    let path = std::path::Path::new("file.pt");
    let read = |bytes: &[u8]| engine::checkpoint::import_bytes(path, bytes, Default::default()).map(drop);
    let pickle = bytes.len() - 4000..bytes.len();
    for cut in (0..3000).chain((3000..bytes.len()).step_by(97)).chain(pickle.clone()) {
        assert_eq!(read(&bytes[..cut]).unwrap_err().exit_code(), 2, "cut at {cut}");
    }
    for at in (0..3000).chain(pickle) {
        for flip in [0x01, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[at] ^= flip;
            if let Err(error) = read(&changed) {
                assert_contains(&error.to_string(), &["file.pt: "]);
                assert_eq!(error.exit_code(), 2);
            }
        }
    }
}
