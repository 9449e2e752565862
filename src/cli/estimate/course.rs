//! The image passes of a stage, in the order in which they are made.

use crate::data::Dataset;
use crate::experiments::pipeline::{Job, Plan, StageConfig};

/// Epochs of training, and a measurement after some of them. What is not a training is one measurement.
#[derive(Clone, Copy, Debug)]
pub struct Course {
    pub epochs: u64,
    /// Epochs from one measurement to the next; there is one after the last epoch too.
    pub eval_every: u64,
    /// Image passes that train, in an epoch.
    pub trained: u64,
    /// Image passes of a measurement.
    pub evaluated: u64,
}

impl Course {
    /// That of `job`, a job of `plan`.
    pub fn of(plan: &Plan, job: &Job, data: &Dataset) -> Self {
        let (train, test) = (data.train.len(), data.test.len());
        match &job.stage.config {
            StageConfig::Train(config) => Course {
                epochs: config.epochs as u64,
                eval_every: config.eval_every.max(1) as u64,
                trained: config.image_passes_of_an_epoch(train),
                evaluated: config.image_passes_of_a_measurement(test),
            },
            config => {
                let once = config.image_passes(train, test);
                let has_measured = |parent: &StageConfig| matches!(parent, StageConfig::Train(_));
                let parents = job.parents.iter().map(|id| &plan.jobs()[id.index()].stage.config);
                // A prune also measures the model that it prunes, unless the parent has.
                let twice = matches!(config, StageConfig::Prune(_)) && !parents.clone().any(has_measured);
                Course { epochs: 1, eval_every: 1, trained: 0, evaluated: if twice { 2 * once } else { once } }
            }
        }
    }

    /// All image passes.
    pub fn total(&self) -> u64 {
        self.after(self.epochs) + if self.epochs.is_multiple_of(self.eval_every) { 0 } else { self.evaluated }
    }

    /// Image passes done after so many epochs of more.
    pub fn after(&self, epochs: u64) -> u64 {
        let epochs = epochs.min(self.epochs);
        epochs * self.trained + epochs / self.eval_every * self.evaluated
    }

    /// How many of the first `done` image passes train, and how many measure.
    pub fn split(&self, done: u64) -> [u64; 2] {
        let done = done.min(self.total());
        let round = self.eval_every * self.trained + self.evaluated;
        let rounds = (done / round.max(1)).min(self.epochs / self.eval_every);
        let epochs = rounds * self.eval_every;
        let trained = self.trained * (self.epochs - epochs).min(self.eval_every);
        let trained = epochs * self.trained + (done - rounds * round).min(trained);
        [trained, done - trained]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_are_those_of_training_until_a_measurement_is_due() {
        // Five epochs of 10, measured by 7 after the second, the fourth and the last.
        let course = Course { epochs: 5, eval_every: 2, trained: 10, evaluated: 7 };
        assert_eq!(course.total(), 5 * 10 + 3 * 7);
        let splits = [0, 15, 20, 24, 27, 28, 54, 63, 64, 66, 71, 99].map(|done| course.split(done));
        let expected = [
            [0, 0],
            [15, 0],
            [20, 0],
            [20, 4],
            [20, 7],
            [21, 7],
            [40, 14],
            [49, 14],
            [50, 14],
            [50, 16],
            [50, 21],
            [50, 21],
        ];
        assert_eq!(splits, expected);
        assert_eq!([0, 1, 2, 3, 4, 9].map(|epochs| course.after(epochs)), [0, 10, 27, 37, 54, 64]);
    }

    #[test]
    fn a_measurement_alone_measures_from_the_first_pass_on() {
        let course = Course { epochs: 1, eval_every: 1, trained: 0, evaluated: 9 };
        assert_eq!((course.total(), course.split(4), course.after(0)), (9, [0, 4], 0));
        let nothing = Course { evaluated: 0, ..course };
        assert_eq!((nothing.total(), nothing.split(4)), (0, [0, 0]));
    }
}
