use proptest::prelude::*;

use super::*;

fn id(number: usize) -> JobId {
    let number = u128::try_from(number).unwrap();
    JobId::from_bytes(number.to_be_bytes())
}

fn member(number: usize) -> Member {
    Member {
        job: id(number),
        name: Some(format!("j{number}")),
        group: None,
    }
}

fn job(number: usize) -> Target {
    Target::Job(id(number))
}

/// The batch and what its jobs are numbered from.
const BATCH: usize = 1000;

fn tally(left: u32) -> Tally {
    Tally {
        left,
        ..Tally::default()
    }
}

#[test]
fn a_chain_is_doomed_to_its_end_at_once_and_says_why() {
    let mut account = Account::default();
    for number in 1..10_000 {
        let needs = [(job(number - 1), On::Succeeded)];
        account.add(member(number), &needs).unwrap();
    }
    let effects = account.ended(&member(0), State::Failed);
    assert_eq!(effects.doomed.len(), 9_999);
    assert_eq!(effects.doomed[0].1, format!("job {} (j0) failed", id(0)));
    let last = &effects.doomed[9_998];
    assert_eq!(last.0, id(9_999));
    assert_eq!(last.1, format!("job {} (j9998) was canceled", id(9_998)));
}

#[test]
fn who_waits_for_any_end_waits_until_the_doomed_have_ended() {
    let mut account = Account::default();
    account.add(member(1), &[(job(0), On::Succeeded)]).unwrap();
    account.add(member(2), &[(job(1), On::Finished)]).unwrap();
    let effects = account.ended(&member(0), State::TimedOut);
    assert_eq!(effects.doomed.len(), 1);
    assert_eq!(effects.nearer, []);
    let effects = account.ended(&member(1), State::Canceled);
    assert_eq!(effects.nearer, [(id(2), 0)]);
}

#[test]
fn an_entry_of_many_jobs_has_ended_with_the_last_and_failed_with_the_first() {
    let mut account = Account::default();
    let entries = vec![
        ("shard".to_owned(), tally(3)),
        ("join".to_owned(), tally(2)),
    ];
    account.add_batch(id(BATCH), OnFailure::Continue, entries);
    let of = |number: usize, group: u32| Member {
        group: Some((id(BATCH), group)),
        ..member(number)
    };
    let needs = account.needs(&[Dependency {
        awaited: Awaited::Group {
            batch: id(BATCH),
            key: "shard".to_owned(),
        },
        on: On::Succeeded,
    }]);
    account.add(of(10, 1), &needs).unwrap();
    let needs = [(needs[0].0, On::Finished)];
    account.add(of(11, 1), &needs).unwrap();
    let outside = [(Target::Batch(id(BATCH)), On::Failed)];
    account.add(member(20), &outside).unwrap();
    let effects = account.ended(&of(1, 0), State::Succeeded);
    assert_eq!(effects, Effects::default());
    let effects = account.ended(&of(2, 0), State::Lost);
    assert_eq!(effects.doomed.len(), 1);
    assert_eq!(effects.doomed[0].0, id(10));
    let effects = account.ended(&of(3, 0), State::Succeeded);
    assert_eq!(effects.nearer, [(id(11), 0)]);
    assert_eq!(
        account.ended(&of(10, 1), State::Canceled),
        Effects::default()
    );
    let effects = account.ended(&of(11, 1), State::Succeeded);
    assert_eq!(effects.nearer, [(id(20), 0)]);
}

#[test]
fn what_is_wanted_is_not_removed_and_what_is_being_removed_is_not_there() {
    let mut account = Account::default();
    account.add(member(1), &[(job(0), On::Succeeded)]).unwrap();
    assert!(!account.leave(job(0)));
    account.ended(&member(0), State::Succeeded);
    assert!(!account.leave(job(0)), "a restart looks it up");
    account.ended(&member(1), State::Succeeded);
    assert!(account.leave(job(0)));
    let late = [(job(7), On::Succeeded), (job(0), On::Succeeded)];
    assert_eq!(account.add(member(2), &late), Err(1));
    account.gone(job(0));
    assert!(account.targets.is_empty() && account.wanted.is_empty());
    assert!(account.waiters.is_empty() && account.leaving.is_empty());
}

/// How a job that is a part of a history has ended, or that it never can start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Open,
    Doomed,
    Ended(State),
}

const JOBS: usize = 8;

fn on() -> impl Strategy<Value = On> {
    prop::sample::select(vec![On::Succeeded, On::Failed, On::Finished])
}

fn state() -> impl Strategy<Value = State> {
    let ends: Vec<State> = State::ALL
        .into_iter()
        .filter(|it| it.is_terminal())
        .collect();
    prop::sample::select(ends)
}

/// What a look at everything says: how many ends each job waits for, and which can never start.
fn model(needs: &[Vec<(usize, On)>], fates: &mut [Fate]) -> Vec<u32> {
    // An edge leads to an earlier job, so one pass is enough.
    for number in 0..JOBS {
        let is_doomed = needs[number].iter().any(|(to, on)| match fates[*to] {
            Fate::Open => false,
            Fate::Doomed => !on.holds(End::Canceled),
            Fate::Ended(state) => !on.holds(End::of(state).unwrap()),
        });
        if is_doomed && fates[number] == Fate::Open {
            fates[number] = Fate::Doomed;
        }
    }
    let open = |(to, _): &&(usize, On)| !matches!(fates[*to], Fate::Ended(_));
    let counts = needs.iter().map(|it| it.iter().filter(open).count());
    counts.map(|it| u32::try_from(it).unwrap()).collect()
}

proptest! {
    #[test]
    fn the_account_says_what_a_look_at_everything_says(
        edges in prop::collection::vec((1..JOBS, 0..JOBS, on()), 0..16),
        ends in prop::collection::vec((0..JOBS, state()), 0..24),
    ) {
        let mut needs: Vec<Vec<(usize, On)>> = vec![Vec::new(); JOBS];
        for (from, to, on) in edges {
            let need = (to % from, on);
            if !needs[from].contains(&need) {
                needs[from].push(need);
            }
        }
        let mut account = Account::default();
        for (number, needs) in needs.iter().enumerate() {
            let needs: Vec<_> = needs.iter().map(|(to, on)| (job(*to), *on)).collect();
            account.add(member(number), &needs).unwrap();
        }
        let mut fates = [Fate::Open; JOBS];
        let mut told: HashSet<JobId> = HashSet::new();
        for (number, state) in ends {
            let counts = model(&needs, &mut fates);
            // A job ends well only if it may have started.
            let state = match fates[number] {
                Fate::Ended(_) => continue,
                Fate::Open if counts[number] == 0 => state,
                Fate::Open | Fate::Doomed => State::Canceled,
            };
            fates[number] = Fate::Ended(state);
            let effects = account.ended(&member(number), state);
            for (job, _) in &effects.doomed {
                prop_assert!(told.insert(*job), "doomed twice");
            }
            let counts = model(&needs, &mut fates);
            for (other, fate) in fates.iter().enumerate() {
                let (unmet, doom) = account.standing(id(other));
                match fate {
                    Fate::Ended(_) => prop_assert_eq!((unmet, doom), (0, None)),
                    Fate::Doomed => {
                        prop_assert!(doom.is_some() && unmet > 0);
                        prop_assert!(told.contains(&id(other)));
                    }
                    Fate::Open => {
                        prop_assert_eq!(doom, None);
                        prop_assert_eq!(unmet, counts[other]);
                    }
                }
                let wants = |(to, _): &(usize, On)| *to == other;
                let is_wanted = (0..JOBS).any(|it| {
                    !matches!(fates[it], Fate::Ended(_)) && needs[it].iter().any(wants)
                });
                prop_assert_eq!(account.is_wanted(job(other)), is_wanted);
            }
            for (job, unmet) in effects.nearer {
                prop_assert!(account.standing(job).0 <= unmet);
            }
        }
    }
}
