//! The life of an attempt, walked through as a table and at random.

use proptest::prelude::*;

use super::*;
use crate::Spec;
use crate::outcome::Stage;
use crate::spec::{OutputPolicy, StopPolicy, TimeoutWarning};

fn plan(wait_for: WaitFor) -> Plan {
    Plan {
        stop: StopPolicy {
            grace: Duration::from_secs(10),
            ..StopPolicy::default()
        },
        wait_for,
        timeout: Some(Duration::from_secs(100)),
        warning: None,
        output: OutputPolicy::default(),
    }
}

fn at(seconds: u64) -> Now {
    Now {
        wall: Timestamp::from_micros(i64::try_from(seconds).unwrap() * 1_000_000),
        boot: BootInstant::from_boot(Duration::from_secs(1000 + seconds)),
    }
}

fn exit(code: u8) -> Exit {
    Exit {
        status: ExitStatus::Code(code),
        at: Timestamp::from_micros(1),
        oom_killed: None,
    }
}

fn killed_by(signal: Signal) -> Exit {
    let status = ExitStatus::Signal {
        signal,
        core_dumped: false,
    };
    Exit { status, ..exit(0) }
}

fn failure() -> SpawnFailure {
    SpawnFailure {
        stage: Stage::Exec,
        errno: 2,
        message: "no".to_owned(),
    }
}

fn cancel() -> Stop {
    Stop {
        requested_by: Some("token:ci".to_owned()),
        ..Stop::for_cause(Cause::Canceled)
    }
}

/// A life in each phase, reached by the events that lead there.
fn in_phase(name: &str) -> Life {
    let mut life = Life::new(plan(WaitFor::Leader));
    let _ = match name {
        "starting" => None,
        _ => life.on(Event::Started, at(0)),
    };
    match name {
        "starting" | "running" => {}
        "paused" => assert_eq!(life.pause(at(1)), Verdict::Do(None)),
        "terminating" => assert!(matches!(life.stop(cancel(), at(1)), Verdict::Do(Some(_)))),
        "killing" => {
            let stop = Stop {
                force: true,
                ..cancel()
            };
            assert_eq!(life.stop(stop, at(1)), Verdict::Do(Some(Effect::Kill)));
        }
        "draining" => {
            let _ = life.on(Event::LeaderExited(exit(0)), at(1));
            assert_eq!(life.on(Event::Emptied, at(1)), None);
        }
        "ended" => {
            let _ = life.on(Event::LeaderExited(exit(0)), at(1));
            let _ = life.on(Event::OutputClosed, at(1));
            assert_eq!(life.on(Event::Emptied, at(1)), Some(Effect::Finish));
        }
        other => panic!("{other}"),
    }
    life
}

fn name_of(phase: Phase) -> &'static str {
    match phase {
        Phase::Starting => "starting",
        Phase::Running { .. } => "running",
        Phase::Paused { .. } => "paused",
        Phase::Terminating { .. } => "terminating",
        Phase::Killing => "killing",
        Phase::Draining { .. } => "draining",
        Phase::Ended => "ended",
    }
}

const PHASES: [&str; 7] = [
    "starting",
    "running",
    "paused",
    "terminating",
    "killing",
    "draining",
    "ended",
];

#[test]
fn every_phase_answers_every_event() {
    let term_group = Effect::Terminate {
        signal: Signal::TERM,
        scope: Scope::Group,
    };
    let term_all = Effect::Terminate {
        signal: Signal::TERM,
        scope: Scope::All,
    };
    let rest = Effect::TerminateRest {
        signal: Signal::TERM,
        reached: Scope::Group,
    };
    // For each event: the phase after it and its effect, in the order of PHASES.
    type Row = [(&'static str, Option<Effect>); 7];
    let table: Vec<(Event, Row)> = vec![
        (
            Event::Started,
            [
                ("running", None),
                ("running", None),
                ("paused", None),
                ("terminating", None),
                ("killing", None),
                ("draining", None),
                ("ended", None),
            ],
        ),
        (
            Event::SpawnFailed(failure()),
            [
                ("ended", Some(Effect::Finish)),
                ("running", None),
                ("paused", None),
                ("terminating", None),
                ("killing", None),
                ("draining", None),
                ("ended", None),
            ],
        ),
        (
            Event::LeaderExited(exit(1)),
            [
                ("starting", None),
                ("running", None),
                ("paused", None),
                ("terminating", None),
                ("killing", None),
                ("draining", None),
                ("ended", None),
            ],
        ),
        // Even if nobody could see how the leader ended.
        (
            Event::LeftBehind(2),
            [
                ("starting", None),
                ("terminating", Some(term_all)),
                ("terminating", Some(term_all)),
                ("terminating", Some(rest)),
                ("killing", None),
                ("draining", None),
                ("ended", None),
            ],
        ),
        (
            Event::Emptied,
            [
                ("starting", None),
                ("draining", None),
                ("draining", None),
                ("draining", None),
                ("draining", None),
                ("draining", None),
                ("ended", None),
            ],
        ),
        (
            Event::OutputClosed,
            [
                ("starting", None),
                ("running", None),
                ("paused", None),
                ("terminating", None),
                ("killing", None),
                ("ended", Some(Effect::Finish)),
                ("ended", None),
            ],
        ),
        (
            Event::OutputLimitReached,
            [
                ("killing", Some(Effect::Kill)),
                ("terminating", Some(term_group)),
                ("terminating", Some(term_group)),
                ("terminating", None),
                ("killing", None),
                ("draining", None),
                ("ended", None),
            ],
        ),
        // Long after every deadline.
        (
            Event::Tick,
            [
                ("starting", None),
                ("terminating", Some(term_group)),
                ("paused", None),
                ("killing", Some(Effect::Kill)),
                ("killing", None),
                ("ended", Some(Effect::Finish)),
                ("ended", None),
            ],
        ),
    ];
    for (event, row) in table {
        for (before, (after, effect)) in PHASES.iter().zip(row) {
            let mut life = in_phase(before);
            let got = life.on(event.clone(), at(5000));
            assert_eq!(
                (name_of(life.phase()), got),
                (after, effect),
                "{event:?} while {before}"
            );
        }
    }
    // With the leader gone, what it left behind is stopped.
    let mut life = in_phase("running");
    let _ = life.on(Event::LeaderExited(exit(0)), at(1));
    assert_eq!(life.on(Event::LeftBehind(2), at(1)), Some(term_all));
    assert_eq!(life.state(&[0]), State::Stopping);
}

#[test]
fn every_phase_answers_every_request() {
    let refuse = Verdict::Refuse;
    for name in PHASES {
        let fresh = || in_phase(name);
        let expected = match name {
            "starting" => refuse(Refusal::NotStarted),
            "running" => Verdict::Do(None),
            "paused" => Verdict::Already,
            "terminating" | "killing" => refuse(Refusal::Stopping),
            _ => refuse(Refusal::Finished),
        };
        assert_eq!(fresh().pause(at(1)), expected, "pause while {name}");
        let expected = match name {
            "starting" => refuse(Refusal::NotStarted),
            "running" => Verdict::Already,
            "paused" => Verdict::Do(None),
            "terminating" | "killing" => refuse(Refusal::Stopping),
            _ => refuse(Refusal::Finished),
        };
        assert_eq!(fresh().resume(at(1)), expected, "resume while {name}");
        let expected = match name {
            "starting" => refuse(Refusal::NotStarted),
            "draining" | "ended" => refuse(Refusal::Finished),
            _ => Verdict::Do(None),
        };
        assert_eq!(fresh().may_signal(), expected, "signal while {name}");
        let force = Stop {
            force: true,
            ..cancel()
        };
        let expected = match name {
            "starting" | "running" | "paused" | "terminating" => Verdict::Do(Some(Effect::Kill)),
            _ => Verdict::Already,
        };
        assert_eq!(fresh().stop(force, at(1)), expected, "force while {name}");
    }
}

#[test]
fn a_repeated_stop_shortens_the_grace_and_never_lengthens_it() {
    let mut life = in_phase("terminating"); // Asked at 1, so the kill is due at 11.
    let within = |seconds| Stop {
        grace: Some(Duration::from_secs(seconds)),
        ..cancel()
    };
    assert_eq!(life.stop(within(60), at(2)), Verdict::Already);
    assert_eq!(life.wake_at(), Some(at(11).boot));
    assert_eq!(life.stop(cancel(), at(2)), Verdict::Already);
    assert_eq!(life.stop(within(3), at(2)), Verdict::Do(None));
    assert_eq!(life.wake_at(), Some(at(5).boot));
    assert_eq!(life.stop(within(0), at(3)), Verdict::Do(Some(Effect::Kill)));
}

#[test]
fn a_leader_that_ended_by_itself_keeps_its_result() {
    let mut life = in_phase("running");
    let _ = life.on(Event::LeaderExited(exit(7)), at(1));
    let _ = life.stop(cancel(), at(1));
    let _ = life.on(Event::OutputClosed, at(1));
    let _ = life.on(Event::Emptied, at(1));
    let termination = life.termination().unwrap();
    assert_eq!(termination.cause, Cause::Exited);
    assert_eq!(termination.requested_by.as_deref(), Some("token:ci"));
    assert_eq!(life.state(&[7]), State::Succeeded);
}

#[test]
fn the_first_reason_stays_the_cause() {
    let mut life = in_phase("running");
    let _ = life.on(Event::Tick, at(100));
    let _ = life.stop(cancel(), at(101));
    let _ = life.on(Event::LeaderExited(killed_by(Signal::TERM)), at(102));
    let _ = life.on(Event::OutputClosed, at(102));
    let _ = life.on(Event::Emptied, at(102));
    assert_eq!(life.termination().unwrap().cause, Cause::Timeout);
    assert_eq!(life.state(&[0]), State::TimedOut);
}

#[test]
fn paused_time_does_not_count_towards_the_timeout() {
    let mut life = in_phase("running");
    let _ = life.pause(at(40));
    assert_eq!(life.wake_at(), None);
    assert_eq!(life.on(Event::Tick, at(4000)), None);
    let _ = life.resume(at(4000));
    assert_eq!(life.wake_at(), Some(at(4060).boot));
}

#[test]
fn with_all_the_job_runs_until_its_last_process() {
    let mut life = Life::new(plan(WaitFor::All));
    let _ = life.on(Event::Started, at(0));
    let _ = life.on(Event::LeaderExited(exit(0)), at(1));
    assert_eq!(life.on(Event::LeftBehind(3), at(1)), None);
    assert_eq!(life.state(&[0]), State::Running);
    // A stop is then a stop, though the leader has a result.
    assert_eq!(
        life.stop(cancel(), at(2)),
        Verdict::Do(Some(Effect::Terminate {
            signal: Signal::TERM,
            scope: Scope::All
        }))
    );
    let _ = life.on(Event::OutputClosed, at(3));
    assert_eq!(life.on(Event::Emptied, at(3)), Some(Effect::Finish));
    assert_eq!(life.termination().unwrap().cause, Cause::Canceled);
}

#[test]
fn those_that_the_signal_did_not_reach_get_it_when_the_leader_is_gone() {
    let mut life = in_phase("terminating");
    let _ = life.on(Event::LeaderExited(killed_by(Signal::TERM)), at(2));
    assert_eq!(
        life.on(Event::LeftBehind(1), at(2)),
        Some(Effect::TerminateRest {
            signal: Signal::TERM,
            reached: Scope::Group
        })
    );
    // The grace period is not prolonged by it, and the group's end is what counts.
    assert_eq!(life.wake_at(), Some(at(11).boot));
    assert_eq!(life.on(Event::Tick, at(11)), Some(Effect::Kill));
    let _ = life.on(Event::OutputClosed, at(12));
    let _ = life.on(Event::Emptied, at(12));
    let termination = life.termination().unwrap();
    assert!(termination.escalated);
    assert_eq!(termination.killed_leftovers, 1);
    let sent: Vec<Signal> = termination
        .signals_sent
        .iter()
        .map(|sent| sent.signal)
        .collect();
    assert_eq!(sent, [Signal::TERM, Signal::KILL]);
}

#[test]
fn a_kill_by_the_memory_limit_is_told_from_other_kills() {
    for (oom_killed, cause) in [
        (Some(true), Cause::OomKilled),
        (Some(false), Cause::Signaled),
        (None, Cause::Signaled),
    ] {
        let mut life = in_phase("running");
        let exit = Exit {
            oom_killed,
            ..killed_by(Signal::KILL)
        };
        let _ = life.on(Event::LeaderExited(exit), at(1));
        let _ = life.on(Event::OutputClosed, at(1));
        let _ = life.on(Event::Emptied, at(1));
        assert_eq!(life.termination().unwrap().cause, cause);
    }
}

/// Anything that can happen to a life, in any order.
#[derive(Clone, Debug)]
enum Step {
    Event(Event),
    Stop(Stop),
    Pause,
    Resume,
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let event = prop_oneof![
        Just(Event::Started),
        Just(Event::SpawnFailed(failure())),
        any::<u8>().prop_map(|code| Event::LeaderExited(exit(code))),
        Just(Event::LeaderExited(killed_by(Signal::KILL))),
        (0_u32..4).prop_map(Event::LeftBehind),
        Just(Event::Emptied),
        Just(Event::OutputClosed),
        Just(Event::OutputLimitReached),
        Just(Event::Tick),
    ];
    let stop = (any::<bool>(), prop::option::of(0_u64..30)).prop_map(|(force, grace)| Stop {
        force,
        grace: grace.map(Duration::from_secs),
        ..cancel()
    });
    let step = prop_oneof![
        4 => event.prop_map(Step::Event),
        2 => stop.prop_map(Step::Stop),
        1 => Just(Step::Pause),
        1 => Just(Step::Resume),
        2 => (0_u64..60).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_order_of_events_breaks_a_life(steps in steps(), all in any::<bool>()) {
        let mut life = Life::new(plan(if all { WaitFor::All } else { WaitFor::Leader }));
        let mut now = 0;
        let (mut finishes, mut emptied) = (0, false);
        let mut kill_at: Option<BootInstant> = None;
        for step in steps {
            let before = life.clone();
            let effect = match step {
                Step::Event(event) => {
                    emptied |= event == Event::Emptied && before.phase() != Phase::Starting;
                    life.on(event, at(now))
                }
                Step::Stop(stop) => match life.stop(stop, at(now)) {
                    Verdict::Do(effect) => effect,
                    Verdict::Already => None,
                    Verdict::Refuse(_) => {
                        prop_assert_eq!(&life, &before, "a refusal changes nothing");
                        None
                    }
                },
                Step::Pause => { let _ = life.pause(at(now)); None }
                Step::Resume => { let _ = life.resume(at(now)); None }
                Step::Pass(seconds) => { now += seconds; life.on(Event::Tick, at(now)) }
            };
            finishes += usize::from(effect == Some(Effect::Finish));
            // The end is announced once, and never taken back or changed.
            if before.phase() == Phase::Ended {
                prop_assert_eq!(&life, &before);
                prop_assert_eq!(effect, None);
            }
            prop_assert_eq!(finishes, usize::from(life.phase() == Phase::Ended));
            prop_assert_eq!(life.termination().is_some(), life.phase() == Phase::Ended);
            // The process set was empty, unless nothing was ever executed.
            if life.phase() == Phase::Ended {
                prop_assert!(emptied || life.spawn_failure().is_some());
            }
            // An exit status, once known, stays.
            if let Some(exit) = before.exit() {
                prop_assert_eq!(life.exit(), Some(exit));
            }
            // A grace period never grows.
            if let Phase::Terminating { kill_at: at } = life.phase() {
                prop_assert!(kill_at.is_none_or(|before| at <= before));
                kill_at = Some(at);
            }
            // Nothing that was due is still due after a tick.
            if effect.is_none() && life.wake_at().is_some_and(|due| due <= at(now).boot) {
                let ticked = life.clone().on(Event::Tick, at(now));
                prop_assert!(ticked.is_some());
            }
            // What is written in a record comes back as it was.
            let packed = rmp_serde::to_vec_named(&life).unwrap();
            prop_assert_eq!(&rmp_serde::from_slice::<Life>(&packed).unwrap(), &life);
        }
    }
}

#[test]
fn a_new_timeout_counts_from_the_start_and_leaves_pauses_out() {
    let stop = StopPolicy::default();
    let mut life = Life::new(plan(WaitFor::Leader));
    assert_eq!(life.on(Event::Started, at(0)), None);
    assert_eq!(life.amend(None, stop, at(5)), Verdict::Do(None));
    assert_eq!(life.timeout_at(), None);
    assert_eq!(life.pause(at(10)), Verdict::Do(None));
    assert_eq!(
        life.amend(Some(Duration::from_secs(30)), stop, at(15)),
        Verdict::Do(None)
    );
    assert_eq!(life.resume(at(20)), Verdict::Do(None));
    // Ten seconds have been run, and ten paused.
    assert_eq!(life.timeout_at(), Some(at(40).boot));
    let longer = Some(Duration::from_secs(60));
    assert_eq!(life.amend(longer, stop, at(25)), Verdict::Do(None));
    assert_eq!(life.timeout_at(), Some(at(70).boot));
    let shorter = Some(Duration::from_secs(1));
    assert_eq!(life.amend(shorter, stop, at(30)), Verdict::Do(None));
    assert!(matches!(
        life.on(Event::Tick, at(30)),
        Some(Effect::Terminate { .. })
    ));
}

#[test]
fn a_plan_is_changed_until_the_job_stops() {
    let stop = StopPolicy {
        signal: Signal::CONT,
        ..StopPolicy::default()
    };
    for name in PHASES {
        let mut life = in_phase(name);
        let expected = match name {
            "starting" | "running" | "paused" => Verdict::Do(None),
            "terminating" | "killing" => Verdict::Refuse(Refusal::Stopping),
            _ => Verdict::Refuse(Refusal::Finished),
        };
        assert_eq!(life.amend(None, stop, at(5)), expected, "{name}");
        let is_changed = life.plan().stop == stop;
        assert_eq!(is_changed, expected == Verdict::Do(None), "{name}");
    }
}

#[test]
fn a_stop_before_the_program_runs_is_the_cause_of_the_end() {
    let now = Now {
        wall: Timestamp::from_micros(1_700_000_000_000_000),
        boot: BootInstant::from_boot(Duration::from_secs(1_000)),
    };
    let mut life = Life::new(Plan::from(&Spec::default()));
    let verdict = life.stop(Stop::for_cause(Cause::Canceled), now);
    assert_eq!(verdict, Verdict::Do(Some(Effect::Kill)));
    let killed = Exit {
        status: ExitStatus::Signal {
            signal: Signal::KILL,
            core_dumped: false,
        },
        at: now.wall,
        oom_killed: None,
    };
    for event in [
        Event::LeaderExited(killed),
        Event::Emptied,
        Event::OutputClosed,
    ] {
        let _ = life.on(event, now);
    }
    assert_eq!(life.termination().unwrap().cause, Cause::Canceled);
}

/// One that is warned 30 s before its timeout of 100 s.
fn warned() -> Life {
    let warning = TimeoutWarning {
        before: Duration::from_secs(30),
        signal: Some(Signal::CONT),
        scope: Scope::Leader,
    };
    let mut life = Life::new(Plan {
        warning: Some(warning),
        ..plan(WaitFor::Leader)
    });
    let _ = life.on(Event::Started, at(0));
    life
}

const WARN: Effect = Effect::Warn {
    signal: Some(Signal::CONT),
    scope: Scope::Leader,
};

#[test]
fn a_warning_comes_once_before_the_timeout() {
    let mut life = warned();
    assert_eq!(life.wake_at(), Some(at(70).boot));
    assert_eq!(life.on(Event::Tick, at(69)), None);
    assert_eq!(life.warned_at(), None);
    assert_eq!(life.on(Event::Tick, at(70)), Some(WARN));
    assert_eq!(life.warned_at(), Some(at(70).wall));
    assert_eq!(life.on(Event::Tick, at(71)), None);
    assert_eq!(life.wake_at(), Some(at(100).boot));
    let stop = life.on(Event::Tick, at(100));
    assert!(matches!(stop, Some(Effect::Terminate { .. })), "{stop:?}");
    assert_eq!(life.warned_at(), Some(at(70).wall));
}

#[test]
fn a_timer_that_is_too_late_for_the_warning_stops_the_job() {
    let mut life = warned();
    let stop = life.on(Event::Tick, at(100));
    assert!(matches!(stop, Some(Effect::Terminate { .. })), "{stop:?}");
    assert_eq!(life.warned_at(), None);
}

#[test]
fn a_pause_moves_the_warning_with_the_timeout() {
    let mut life = warned();
    assert_eq!(life.pause(at(60)), Verdict::Do(None));
    assert_eq!((life.wake_at(), life.on(Event::Tick, at(75))), (None, None));
    assert_eq!(life.resume(at(1060)), Verdict::Do(None));
    assert_eq!(life.wake_at(), Some(at(1070).boot));
    assert_eq!(life.on(Event::Tick, at(1070)), Some(WARN));
}

#[test]
fn another_timeout_is_warned_of_again() {
    let mut life = warned();
    let stop = life.plan().stop;
    assert_eq!(life.on(Event::Tick, at(70)), Some(WARN));
    // The same one is not another one.
    let same = Some(Duration::from_secs(100));
    assert_eq!(life.amend(same, stop, at(71)), Verdict::Do(None));
    assert_eq!(life.wake_at(), Some(at(100).boot));
    let later = Some(Duration::from_secs(200));
    assert_eq!(life.amend(later, stop, at(72)), Verdict::Do(None));
    assert_eq!(life.wake_at(), Some(at(170).boot));
    assert_eq!(life.on(Event::Tick, at(170)), Some(WARN));
    // One that leaves less time than the warning wants is warned of at once.
    let sooner = Some(Duration::from_secs(180));
    assert_eq!(life.amend(sooner, stop, at(171)), Verdict::Do(None));
    assert_eq!(life.on(Event::Tick, at(171)), Some(WARN));
    assert_eq!(life.amend(None, stop, at(172)), Verdict::Do(None));
    assert_eq!(life.wake_at(), None);
}
