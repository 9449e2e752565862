//! How far a suite has come, on disk.

use engine::attack::suite::state::SuiteState;
use engine::attack::suite::{Assessment, Broken, Cost, Verdict};
use engine::attack::target_model::ImagePasses;

const SHAPE: [usize; 3] = [2, 3, 1];

fn assessment() -> Assessment {
    let verdict = |label: u8, broken| Verdict { label, natural: 3, broken, tried: Some((1, 4)) };
    let broken = Broken { attack: 1, round: 2, class: 7, distance: 0.1 };
    let passes = ImagePasses { queries: 12, gradients: 5 };
    Assessment {
        verdicts: vec![verdict(3, None), verdict(3, Some(broken)), verdict(4, None)],
        costs: vec![Cost { seconds: 1.5, passes }],
        attempts: (0..3u8).map(|image| (0..6u8).map(|i| f32::from(10 * image + i) / 64.0).collect()).collect(),
    }
}

#[test]
fn a_suite_goes_on_from_what_was_saved() {
    let dir = tempfile::tempdir().unwrap();
    let state = |key: &str| SuiteState::new(dir.path(), &key, SHAPE).unwrap();
    assert_eq!(state("one").load().unwrap(), Assessment::default(), "nothing was saved");
    state("one").save(&assessment()).unwrap();
    assert_eq!(state("one").load().unwrap(), assessment());
    let error = state("other").load().unwrap_err().to_string();
    assert!(error.contains("is of an interrupted attack with other settings"), "{error}");
    state("other").discard().unwrap();
    state("other").discard().unwrap();
    assert_eq!(state("one").load().unwrap(), Assessment::default(), "it was discarded");
}

/// A state is large, and a batch may take a moment only.
#[test]
fn a_state_is_not_saved_again_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = SuiteState::new(dir.path(), &"one", SHAPE).unwrap();
    state.save_at_times(&assessment()).unwrap();
    assert_eq!(state.load().unwrap(), Assessment::default());
    state.save(&assessment()).unwrap();
    state.save_at_times(&Assessment::default()).unwrap();
    assert_eq!(state.load().unwrap(), assessment());
}
