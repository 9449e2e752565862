//! Smaller data sets made from larger ones.

use engine::data::{Dataset, DatasetName, Split};

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

    for ((train, test), expected) in [
        ((0, 10), "--train-images: must be 1 to 3000, all that mnist has here, got 0"),
        ((3001, 10), "--train-images: must be 1 to 3000, all that mnist has here, got 3001"),
        ((10, 1001), "--test-images: must be 1 to 1000, all that mnist has here, got 1001"),
    ] {
        let error = all.clone().subset(train, test).unwrap_err();
        assert_eq!((error.exit_code(), error.to_string().as_str()), (2, expected));
    }
}
