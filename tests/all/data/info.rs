//! What is published of the data sets, a second time. The hashes of MNIST and Fashion-MNIST are those that `sha256sum` finds
//! in the published files.

use engine::data::info::{Content, DatasetInfo, FileKind, SplitName};
use engine::data::{Dataset, DatasetName, Split};

/// SplitName, kind, name, records, bytes, SHA-256.
const MNIST: &str = "\
Train IdxImages train-images-idx3-ubyte 60000 47040016 \
ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db
Train IdxLabels train-labels-idx1-ubyte 60000 60008 \
65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5
Test IdxImages t10k-images-idx3-ubyte 10000 7840016 \
0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7
Test IdxLabels t10k-labels-idx1-ubyte 10000 10008 \
ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2";

const FASHION_MNIST: &str = "\
Train IdxImages train-images-idx3-ubyte 60000 47040016 \
c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888
Train IdxLabels train-labels-idx1-ubyte 60000 60008 \
bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9
Test IdxImages t10k-images-idx3-ubyte 10000 7840016 \
5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b
Test IdxLabels t10k-labels-idx1-ubyte 10000 10008 \
0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34";

/// The last column is the SHA-256 of the JPEG copy.
const CIFAR10: &str = "\
Train CifarRecords data_batch_1.bin 10000 30730000 \
cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5 \
0a3fcae9a21fd9bb42cd0daa804019e27401ebd0389e91e24559c1aac433ceff
Train CifarRecords data_batch_2.bin 10000 30730000 \
a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed \
69903f8c48c8eaf5b9c1e41d8307f175301da096d23a0a38094eb2137bb9ee83
Train CifarRecords data_batch_3.bin 10000 30730000 \
bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67 \
b9c3249be5b65e9133b9afc53c83f793f9985b9c7e05772a355b6b101c913365
Train CifarRecords data_batch_4.bin 10000 30730000 \
014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48 \
d7f3d3fe91983b32c764afa03e291a6881ac091d11813671b94e9d53fdcc5376
Train CifarRecords data_batch_5.bin 10000 30730000 \
755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add \
83cd13bf7862b36a314ccbfceb2b1ab2e5cba1142e54e6092189b9eef5199f05
Test CifarRecords test_batch.bin 10000 30730000 \
8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b \
bdfa0cd795e0edf210dfb35a82cc7e61a99bf21887d5c3488b95e88590143279";

fn files(info: &DatasetInfo) -> String {
    let lines = info.files.iter().map(|file| {
        let jpeg = file.jpeg_sha256.map_or(String::new(), |sha256| format!(" {sha256}"));
        format!(
            "{:?} {:?} {} {} {} {}{jpeg}",
            file.split,
            file.kind,
            file.name,
            file.records,
            file.bytes(),
            file.sha256
        )
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The rest, in the order of the fields.
fn rest(info: &DatasetInfo) -> String {
    let DatasetInfo { title, folder, shape: [c, h, w], train_images, base_url, .. } = info;
    let (classes, test_images) = (info.classes(), info.test_images());
    format!("{title}, {folder}, {c}x{h}x{w}, {classes} classes, {train_images} + {test_images}, {base_url}")
}

#[test]
fn every_file_is_the_published_one() {
    for (name, expected) in
        [(DatasetName::Mnist, MNIST), (DatasetName::FashionMnist, FASHION_MNIST), (DatasetName::Cifar10, CIFAR10)]
    {
        assert_eq!(files(name.info()), expected, "{name}");
        for file in name.info().files {
            assert_eq!(file.recognise(file.sha256), Content::Official);
            assert_eq!(file.recognise(&file.sha256.replace('a', "b")), Content::Unrecognised);
            assert!(file.jpeg_sha256.is_none_or(|sha256| file.recognise(sha256) == Content::JpegCopy));
        }
    }
}

#[test]
fn every_set_is_the_published_one() {
    let shown: Vec<String> = DatasetName::ALL.iter().map(|name| rest(name.info())).collect();
    assert_eq!(
        shown,
        [
            "MNIST, mnist, 1x28x28, 10 classes, 60000 + 10000, https://ossci-datasets.s3.amazonaws.com/mnist/",
            "Fashion-MNIST, fashion-mnist, 1x28x28, 10 classes, 60000 + 10000, \
             http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "CIFAR-10, cifar-10-batches-bin, 3x32x32, 10 classes, 50000 + 10000, https://www.cs.toronto.edu/~kriz/",
        ]
    );
    let archive = DatasetName::Cifar10.info().archive.unwrap();
    assert_eq!(
        (archive.name, archive.bytes, archive.sha256),
        ("cifar-10-binary.tar.gz", 170_052_171, "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd")
    );
    assert!([DatasetName::Mnist, DatasetName::FashionMnist].iter().all(|name| name.info().archive.is_none()));
    let downloads: Vec<u64> = DatasetName::ALL.iter().map(|name| name.info().download_bytes).collect();
    assert_eq!(downloads, [11_594_722, 30_878_645, 170_052_171]);
    let known = |name: DatasetName| name.info().fingerprints;
    let (official, jpeg) = (Content::Official, Content::JpegCopy);
    assert_eq!(known(DatasetName::Mnist), [("06b0d1f124c4e5fa", official), ("860ec10b283e4e9f", official)]);
    assert_eq!(known(DatasetName::FashionMnist), [("ca3ab2a37f845e1b", official), ("78b006a1b6660a70", official)]);
    assert_eq!(known(DatasetName::Cifar10), [("f38dc21610daf6c8", jpeg), ("417bb4d388eb4baf", jpeg)]);
}

/// Label 0 is the first: a shifted list names every picture wrongly.
#[test]
fn classes_have_their_published_names_in_their_order() {
    let names = |name: DatasetName| name.info().class_names.join(" ");
    assert_eq!(names(DatasetName::Mnist), "0 1 2 3 4 5 6 7 8 9");
    assert_eq!(
        names(DatasetName::FashionMnist),
        "t-shirt trouser pullover dress coat sandal shirt sneaker bag ankle boot"
    );
    assert_eq!(names(DatasetName::Cifar10), "airplane automobile bird cat deer dog frog horse ship truck");
}

/// Mean and standard deviation of the values of one channel, in [0, 1].
fn moments(split: &Split, channel: usize, channels: usize) -> [f64; 2] {
    let plane = split.image_bytes() / channels;
    let values: Vec<f64> = (0..split.len())
        .flat_map(|i| split.image(i)[channel * plane..][..plane].iter().map(|&byte| f64::from(byte) / 255.0))
        .collect();
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64;
    [mean, variance.sqrt()]
}

/// Near the means and deviations that everyone normalises by; in the order red, green, blue.
#[test]
fn the_samples_have_the_published_means_and_deviations() {
    for (name, published) in [
        (DatasetName::Mnist, &[[0.1307, 0.3081]][..]),
        (DatasetName::FashionMnist, &[[0.2860, 0.3530]]),
        (DatasetName::Cifar10, &[[0.4914, 0.2470], [0.4822, 0.2435], [0.4465, 0.2616]]),
    ] {
        let data = Dataset::sample(name).unwrap();
        assert_eq!(data.shape[0], published.len());
        for split in [&data.train, &data.test] {
            let found: Vec<[f64; 2]> = (0..published.len()).map(|c| moments(split, c, published.len())).collect();
            let near = |(found, published): (&[f64; 2], &[f64; 2])| {
                found.iter().zip(published).all(|(found, published)| (found - published).abs() < 0.015)
            };
            assert!(found.iter().zip(published).all(near), "{name}: {found:?}");
        }
    }
}

/// Training files first, images before their labels: the readers rely on it.
#[test]
fn files_are_in_the_order_of_reading() {
    for name in DatasetName::ALL {
        let files = name.info().files;
        let train = files.iter().filter(|file| file.split == SplitName::Train).count();
        assert!(files[..train].iter().all(|file| file.split == SplitName::Train), "{name}");
        let labels = |i: usize| files[i].kind == FileKind::IdxLabels;
        assert!((0..files.len()).filter(|&i| labels(i)).all(|i| files[i - 1].kind == FileKind::IdxImages), "{name}");
    }
}
