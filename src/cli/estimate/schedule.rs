//! How long a plan takes: what [`Prepared::run`](crate::experiments::pipeline::Prepared::run) does, with seconds for work.

/// How far a stage has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Waiting,
    Running,
    Finished,
    /// Its children never run.
    Failed,
}

/// How stages side by side slow each other down. Where all slots are taken a stage has speed 1; where fewer are, it goes faster by a
/// power of `slots / running`.
#[derive(Clone, Copy, Debug)]
pub struct Sharing {
    /// Most stages side by side.
    pub slots: usize,
    /// 1: those that run divide all there is among themselves. 0: they do not notice each other.
    pub exponent: f64,
}

impl Sharing {
    /// Speed of each of so many stages.
    pub fn speed(self, running: usize) -> f64 {
        (self.slots.max(1) as f64 / running.max(1) as f64).powf(self.exponent)
    }
}

/// A stage of the schedule.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    pub state: State,
    /// Time that is left to do for it, at speed 1.
    pub seconds: f64,
    /// Places of the stages that it waits for.
    pub parents: &'a [usize],
}

/// Seconds until the last of `entries` ends, where the first that can start does as soon as a slot is free.
pub fn seconds_left(entries: &[Entry<'_>], sharing: Sharing) -> f64 {
    let mut states: Vec<State> = entries.iter().map(|entry| entry.state).collect();
    let is_running = |&i: &usize| entries[i].state == State::Running;
    // What is left of running stages.
    let mut running: Vec<(f64, usize)> =
        (0..entries.len()).filter(is_running).map(|i| (entries[i].seconds, i)).collect();
    let mut now = 0.0;
    loop {
        while running.len() < sharing.slots.max(1) {
            let can_start = |&i: &usize| {
                states[i] == State::Waiting && entries[i].parents.iter().all(|&p| states[p] == State::Finished)
            };
            let Some(next) = (0..entries.len()).find(can_start) else { break };
            states[next] = State::Running;
            running.push((entries[next].seconds, next));
        }
        let first = (0..running.len()).min_by(|&a, &b| running[a].0.total_cmp(&running[b].0));
        let Some(first) = first else { return now };
        let speed = sharing.speed(running.len());
        let (seconds, stage) = running.swap_remove(first);
        now += seconds / speed;
        running.iter_mut().for_each(|(left, _)| *left -= seconds);
        states[stage] = State::Finished;
    }
}

#[cfg(test)]
mod tests {
    use super::State::{Failed, Finished, Running, Waiting};
    use super::*;

    /// Where stages do not notice each other.
    fn seconds(stages: &[(State, f64, &[usize])], slots: usize) -> f64 {
        shared(stages, Sharing { slots, exponent: 0.0 })
    }

    fn shared(stages: &[(State, f64, &[usize])], sharing: Sharing) -> f64 {
        let entries: Vec<Entry> =
            stages.iter().map(|&(state, seconds, parents)| Entry { state, seconds, parents }).collect();
        seconds_left(&entries, sharing)
    }

    #[test]
    fn stages_without_parents_share_the_slots() {
        let four = [(Waiting, 3.0, &[][..]), (Waiting, 1.0, &[]), (Waiting, 1.0, &[]), (Waiting, 2.0, &[])];
        assert_eq!(seconds(&four, 1), 7.0);
        // 3 beside 1 + 1, then 2 from second 2 to 4.
        assert_eq!(seconds(&four, 2), 4.0);
        assert_eq!(seconds(&four, 9), 3.0);
        assert_eq!(seconds(&[], 2), 0.0);
    }

    #[test]
    fn a_chain_takes_one_slot_however_many_there_are() {
        let chain = [(Waiting, 1.0, &[][..]), (Waiting, 2.0, &[0]), (Waiting, 4.0, &[1])];
        assert_eq!(seconds(&chain, 2), 7.0);
        // Two branches of 2 and 4 from a trunk of 1, and a stage alone, which starts first beside the trunk.
        let tree = [(Waiting, 1.0, &[][..]), (Waiting, 2.0, &[0]), (Waiting, 4.0, &[0]), (Waiting, 5.0, &[])];
        // The branch of 4 waits for the one of 2: 1 + 2 + 4.
        assert_eq!(seconds(&tree, 2), 7.0);
        assert_eq!(seconds(&tree, 3), 5.0);
    }

    /// Seconds at speed 1 are those on one of sixteen cores.
    #[test]
    fn stages_that_divide_the_cores_take_all_work_over_all_cores() {
        let sixteen = Sharing { slots: 16, exponent: 1.0 };
        let chain = [(Waiting, 16.0, &[][..]), (Waiting, 32.0, &[0]), (Waiting, 64.0, &[1])];
        assert_eq!(shared(&chain, sixteen), 7.0);
        let four = [(Waiting, 16.0, &[][..]), (Waiting, 32.0, &[]), (Waiting, 48.0, &[]), (Waiting, 64.0, &[])];
        assert_eq!(shared(&four, sixteen), 10.0);
        // Half of them running already, beside a chain, and more stages than slots.
        let both = [&four[..], &[(Running, 8.0, &[]), (Waiting, 8.0, &[4])]].concat();
        assert_eq!(shared(&both, sixteen), 11.0);
        assert_eq!(shared(&both, Sharing { slots: 2, exponent: 1.0 }), 88.0);
    }

    /// Two threads are 1.5 times as fast as one: a power of log2 1.5.
    #[test]
    fn threads_that_do_not_double_the_speed_make_stages_side_by_side_faster_than_one_after_the_other() {
        let sharing = Sharing { slots: 4, exponent: 1.5_f64.log2() };
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");
        [(1, 2.25), (2, 1.5), (4, 1.0)].into_iter().for_each(|(running, speed)| near(sharing.speed(running), speed));
        // Two of three at 1.5 for 2 s, then one at 2.25 for 4 s; and one after the other.
        near(shared(&[(Waiting, 3.0, &[][..]), (Waiting, 12.0, &[])], sharing), 6.0);
        near(shared(&[(Waiting, 9.0, &[][..]), (Waiting, 9.0, &[0])], sharing), 8.0);
    }

    #[test]
    fn finished_and_running_stages_count_with_what_is_left_of_them() {
        let resumed = [(Finished, 9.0, &[][..]), (Running, 0.5, &[0]), (Waiting, 2.0, &[0]), (Waiting, 2.0, &[1])];
        // One slot is taken for half a second.
        assert_eq!(seconds(&resumed, 1), 4.5);
        assert_eq!(seconds(&resumed, 2), 2.5);
    }

    #[test]
    fn what_follows_a_failure_takes_no_time() {
        assert_eq!(seconds(&[(Failed, 9.0, &[][..]), (Waiting, 2.0, &[0]), (Waiting, 4.0, &[1])], 2), 0.0);
    }
}
