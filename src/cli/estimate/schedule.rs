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

/// A stage of the schedule.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    pub state: State,
    /// Time that is left to do for it.
    pub seconds: f64,
    /// Places of the stages that it waits for.
    pub parents: &'a [usize],
}

/// Seconds until the last of `entries` ends, where at most `slots` run side by side and the first that can start does.
pub fn seconds_left(entries: &[Entry<'_>], slots: usize) -> f64 {
    let mut states: Vec<State> = entries.iter().map(|entry| entry.state).collect();
    let is_running = |&i: &usize| entries[i].state == State::Running;
    // Running stages and when they end.
    let mut running: Vec<(f64, usize)> =
        (0..entries.len()).filter(is_running).map(|i| (entries[i].seconds, i)).collect();
    let mut now = 0.0;
    loop {
        while running.len() < slots.max(1) {
            let can_start = |&i: &usize| {
                states[i] == State::Waiting && entries[i].parents.iter().all(|&p| states[p] == State::Finished)
            };
            let Some(next) = (0..entries.len()).find(can_start) else { break };
            states[next] = State::Running;
            running.push((now + entries[next].seconds, next));
        }
        let first = (0..running.len()).min_by(|&a, &b| running[a].0.total_cmp(&running[b].0));
        let Some(first) = first else { return now };
        let (end, stage) = running.swap_remove(first);
        now = end;
        states[stage] = State::Finished;
    }
}

#[cfg(test)]
mod tests {
    use super::State::{Failed, Finished, Running, Waiting};
    use super::*;

    fn seconds(stages: &[(State, f64, &[usize])], slots: usize) -> f64 {
        let entries: Vec<Entry> =
            stages.iter().map(|&(state, seconds, parents)| Entry { state, seconds, parents }).collect();
        seconds_left(&entries, slots)
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
