//! CIFAR-10: small colour photographs.

use super::info::{Archive, Content, DatasetInfo, FileKind, OfficialFile, PaperAttack, SplitName};

pub(super) static CIFAR10: DatasetInfo = DatasetInfo {
    title: "CIFAR-10",
    folder: "cifar-10-batches-bin",
    shape: [3, 32, 32],
    class_names: &["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
    train_images: 50_000,
    test_class_counts: &[1000; 10],
    attack: PaperAttack { eps: 8.0 / 255.0, step_size: 2.0 / 255.0, steps: 10, eps_l2: 0.5 },
    files: &FILES,
    fingerprints: &[("f38dc21610daf6c8", Content::JpegCopy), ("417bb4d388eb4baf", Content::JpegCopy)],
    base_url: "https://www.cs.toronto.edu/~kriz/",
    archive: Some(ARCHIVE),
    download_bytes: ARCHIVE.bytes,
};

// The SHA-256 is the one TensorFlow Datasets records; the author's page gives its MD5 only.
const ARCHIVE: Archive = Archive {
    name: "cifar-10-binary.tar.gz",
    bytes: 170_052_171,
    sha256: "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
};

// First hash: as published, which the Ruby port of torchvision checks against. Second: the JPEG copy.
static FILES: [OfficialFile; 6] = [
    file(
        "data_batch_1.bin",
        SplitName::Train,
        "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
        "0a3fcae9a21fd9bb42cd0daa804019e27401ebd0389e91e24559c1aac433ceff",
        include_bytes!("sample/cifar-10-batches-bin/data_batch_1.bin.gz"),
    ),
    file(
        "data_batch_2.bin",
        SplitName::Train,
        "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
        "69903f8c48c8eaf5b9c1e41d8307f175301da096d23a0a38094eb2137bb9ee83",
        include_bytes!("sample/cifar-10-batches-bin/data_batch_2.bin.gz"),
    ),
    file(
        "data_batch_3.bin",
        SplitName::Train,
        "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
        "b9c3249be5b65e9133b9afc53c83f793f9985b9c7e05772a355b6b101c913365",
        include_bytes!("sample/cifar-10-batches-bin/data_batch_3.bin.gz"),
    ),
    file(
        "data_batch_4.bin",
        SplitName::Train,
        "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
        "d7f3d3fe91983b32c764afa03e291a6881ac091d11813671b94e9d53fdcc5376",
        include_bytes!("sample/cifar-10-batches-bin/data_batch_4.bin.gz"),
    ),
    file(
        "data_batch_5.bin",
        SplitName::Train,
        "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
        "83cd13bf7862b36a314ccbfceb2b1ab2e5cba1142e54e6092189b9eef5199f05",
        include_bytes!("sample/cifar-10-batches-bin/data_batch_5.bin.gz"),
    ),
    file(
        "test_batch.bin",
        SplitName::Test,
        "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
        "bdfa0cd795e0edf210dfb35a82cc7e61a99bf21887d5c3488b95e88590143279",
        include_bytes!("sample/cifar-10-batches-bin/test_batch.bin.gz"),
    ),
];

const fn file(
    name: &'static str,
    split: SplitName,
    sha256: &'static str,
    jpeg: &'static str,
    sample_gz: &'static [u8],
) -> OfficialFile {
    OfficialFile {
        name,
        split,
        kind: FileKind::CifarRecords,
        records: 10_000,
        sha256,
        jpeg_sha256: Some(jpeg),
        sample_gz,
    }
}
