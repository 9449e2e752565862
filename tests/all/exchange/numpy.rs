//! `engine export --format numpy`.

use std::io::{Cursor, Read};

use engine::backend::cpu::Cpu;
use engine::checkpoint::load_model;
use engine::nn::models::Network;

use crate::cli::models::write;
use crate::cli::{engine, success};

#[test]
fn arrays_have_pytorchs_names_and_values() {
    let dir = tempfile::tempdir().unwrap();
    let model = write(dir.path(), Network::ResNet18, 1, None);
    let out = dir.path().join("model.npz");
    let paths = ["--model", model.to_str().unwrap(), "--out", out.to_str().unwrap()];
    success(&engine(&[&["export", "--format", "numpy"], &paths[..]].concat()).output().unwrap());
    let mut zip = zip::ZipArchive::new(Cursor::new(std::fs::read(&out).unwrap())).unwrap();
    let backend = Cpu::<f32>::new(1).unwrap();
    let state = load_model(&backend, &model).unwrap().0.state(&backend);
    let mut array = |name: &str| {
        let mut bytes = Vec::new();
        zip.by_name(&format!("{name}.npy")).unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
        let header = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        assert!(header.is_multiple_of(64) && bytes[header - 1] == b'\n', "{name}");
        (String::from_utf8(bytes[10..header].to_vec()).unwrap(), bytes[header..].to_vec())
    };
    for (name, shape, values) in &state {
        let (header, data) = array(name);
        let sizes = shape.iter().map(|n| format!("{n},")).collect::<Vec<_>>().join(" ");
        let expected = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({sizes}), }}");
        assert_eq!(header.trim_end(), expected);
        let expected: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(data, expected, "{name}");
    }
    let (header, data) = array("bn1.num_batches_tracked");
    assert_eq!(header.trim_end(), "{'descr': '<i8', 'fortran_order': False, 'shape': (), }");
    assert_eq!(data, [0; 8]);
    assert_eq!(zip.len(), state.len() + state.iter().filter(|(name, _, _)| name.ends_with("running_mean")).count());
}
