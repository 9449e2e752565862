//! Smaller data sets made from larger ones.

use engine::data::{Dataset, DatasetName, Split};
use sha2::{Digest, Sha256};

fn sample() -> Dataset {
    Dataset::sample(DatasetName::Mnist).unwrap()
}

fn per_class(split: &Split) -> [usize; 10] {
    let mut counts = [0; 10];
    split.labels.iter().for_each(|&label| counts[usize::from(label)] += 1);
    counts
}

#[test]
fn every_class_has_as_many_images() {
    let data = sample().subset(40, 25).unwrap();
    assert_eq!((data.train.len(), data.test.len()), (40, 25));
    assert_eq!(per_class(&data.train), [4; 10]);
    // Half a round more: one more of the first classes.
    assert_eq!(per_class(&data.test), [3, 3, 3, 3, 3, 2, 2, 2, 2, 2]);
    assert_eq!(data.train.images.len(), 40 * 784);
}

#[test]
fn images_keep_their_labels_and_their_order() {
    let all = sample();
    let data = all.clone().subset(200, 100).unwrap();
    let mut at = 0;
    for i in 0..data.train.len() {
        let same =
            |j: &usize| all.train.image(*j) == data.train.image(i) && all.train.labels[*j] == data.train.labels[i];
        at = 1 + (at..all.train.len()).find(same).expect("every image is one of the whole set, after the last one");
    }
    let first: Vec<usize> = (0..200).collect();
    assert!(data.train != all.train.select(&first), "chosen at random, not the first ones");
}

#[test]
fn a_class_that_runs_out_leaves_its_place_to_the_others() {
    let mut data = sample();
    let few: Vec<usize> = (0..data.train.len()).filter(|&i| data.train.labels[i] < 2 || i < 300).collect();
    data.train = data.train.select(&few);
    let counts = per_class(&data.train);
    let chosen = per_class(&data.clone().subset(few.len() - 1, 10).unwrap().train);
    assert_eq!(chosen.iter().sum::<usize>(), few.len() - 1);
    assert!(chosen[2..] == counts[2..], "{chosen:?} of {counts:?}");
}

#[test]
fn a_subset_has_a_name_of_its_own_and_the_whole_is_itself() {
    let all = sample();
    let whole = all.clone().subset(3000, 1000).unwrap();
    assert_eq!((&whole.id, &whole.origin), (&all.id, &all.origin));
    let data = all.clone().subset(3000, 100).unwrap();
    assert_eq!(data.id.subset, "sample:3000+100");
    assert_eq!(data.train, all.train);
    assert_eq!(data.origin, "embedded sample, 3000 training and 100 test images");
    assert_ne!(data.id.fingerprint, all.id.fingerprint);
    assert_eq!(data.id, all.clone().subset(3000, 100).unwrap().id, "the same every time");
    // And in every version: finished stages are found again by it.
    assert_eq!(sample().subset(40, 25).unwrap().id.fingerprint, "fd0a4b6eb9f7aad7");

    for ((train, test), expected) in [
        ((0, 10), "--train-images: must be 1 to 3000, all that mnist has here, got 0"),
        ((3001, 10), "--train-images: must be 1 to 3000, all that mnist has here, got 3001"),
        ((10, 1001), "--test-images: must be 1 to 1000, all that mnist has here, got 1001"),
    ] {
        let error = all.clone().subset(train, test).unwrap_err();
        assert_eq!((error.exit_code(), error.to_string().as_str()), (2, expected));
    }
}

/// At counts that ten classes do not divide, every class has the quotient, and the first ones one more.
#[test]
fn counts_that_do_not_divide_are_spread_over_the_first_classes() {
    for (train, test) in [(7, 1), (33, 29), (1234, 567)] {
        let data = sample().subset(train, test).unwrap();
        for (split, count) in [(&data.train, train), (&data.test, test)] {
            let expected: [usize; 10] = std::array::from_fn(|class| count / 10 + usize::from(class < count % 10));
            assert_eq!(per_class(split), expected, "{count}");
        }
        assert_eq!(data.id.subset, format!("sample:{train}+{test}"));
    }
}

/// Training images stay training images; the fingerprint is that of what was chosen.
#[test]
fn both_parts_come_from_their_own() {
    let all = sample();
    let data = all.clone().subset(120, 90).unwrap();
    let within = |part: &Split, whole: &Split| {
        let images: std::collections::HashSet<&[u8]> = (0..whole.len()).map(|i| whole.image(i)).collect();
        (0..part.len()).filter(|&i| images.contains(part.image(i))).count()
    };
    assert_eq!((within(&data.train, &all.train), within(&data.train, &all.test)), (120, 0));
    assert_eq!((within(&data.test, &all.test), within(&data.test, &all.train)), (90, 0));
    let bytes = [&data.train.images, &data.train.labels, &data.test.images, &data.test.labels];
    let bytes: Vec<u8> = bytes.into_iter().flatten().copied().collect();
    let hash: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(data.id.fingerprint, hash[..16]);
}
