//! `load_state_dict(load_file("model.safetensors"))`, strictly: the names are those that PyTorch's own state dict has.

use std::collections::BTreeSet;

use engine::nn::models::Network;
use safetensors::{Dtype, SafeTensors};

use crate::cli::models::write;
use crate::oracle::Oracle;

#[test]
fn a_model_file_is_a_strict_state_dict() {
    let dir = tempfile::tempdir().unwrap();
    for network in Network::ALL {
        let oracle = Oracle::load(&network.name().replace('-', "_"));
        let expected: BTreeSet<String> = oracle.names("state_dict").into_iter().map(str::to_string).collect();
        let bytes = std::fs::read(write(dir.path(), *network, 1, None)).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let found: BTreeSet<String> = file.names().into_iter().map(str::to_string).collect();
        assert_eq!(found, expected, "{network}");
        for (name, tensor) in file.tensors() {
            let counter = name.ends_with("num_batches_tracked");
            assert_eq!(tensor.dtype(), if counter { Dtype::I64 } else { Dtype::F32 }, "{name}");
            assert_eq!(tensor.shape().is_empty(), counter, "{name}");
        }
    }
}
