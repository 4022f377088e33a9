//! Which jobs have been taken: whether one is certainly new, without a look into the store. Pure.

use std::collections::BTreeSet;

use job::JobId;

/// How many are remembered one by one.
const RECENT: usize = 1024;

/// The ids of jobs grow with time, and jobs come nearly in that order.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Nothing is said of this id and those below it.
    floor: Option<JobId>,
    /// Those above it that have come.
    recent: BTreeSet<JobId>,
}

impl Taken {
    /// `newest`: the greatest id of all that are here.
    pub(super) fn since(newest: Option<JobId>) -> Self {
        Self {
            floor: newest,
            recent: BTreeSet::new(),
        }
    }

    /// Notes that this job comes; `true` if it is certain that it has never come before.
    pub(super) fn note(&mut self, id: JobId) -> bool {
        if self.floor.is_some_and(|floor| id <= floor) {
            return false;
        }
        let is_new = self.recent.insert(id);
        if self.recent.len() > RECENT {
            self.floor = self.recent.pop_first();
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u16) -> JobId {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        JobId::from_bytes(bytes)
    }

    #[test]
    fn only_what_is_above_all_that_was_here_and_has_not_come_is_certainly_new() {
        let mut taken = Taken::since(Some(id(10)));
        let told: Vec<bool> = [9, 10, 12, 11, 12, 11, 13]
            .into_iter()
            .map(|it| taken.note(id(it)))
            .collect();
        assert_eq!(told, [false, false, true, true, false, false, true]);
        assert!(Taken::since(None).note(id(0)));
    }

    #[test]
    fn what_is_forgotten_is_not_new() {
        let mut taken = Taken::default();
        for number in 0..3000 {
            assert!(taken.note(id(number)), "{number}");
        }
        assert!((0..3000).all(|number| !taken.note(id(number))));
        assert!(taken.recent.len() <= RECENT);
    }
}
