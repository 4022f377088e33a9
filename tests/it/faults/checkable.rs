//! Jobs of which everything is known beforehand: how they end, and every byte that they write.

use std::collections::HashMap;
use std::path::Path;

use rand::Rng;
use serde_json::{Value, json};

use crate::harness::{unique, unique_seconds};

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Writes in bursts and exits.
    Plain,
    /// Exits at once and writes nothing.
    Quick,
    /// Writes so little that the store keeps it.
    Short,
    /// Writes to both streams.
    Streams,
    /// A child in a session of its own writes; two more are left behind, one without the job's pipes.
    Children,
    /// Copies its standard input.
    Stdin,
    /// Ends itself by a signal.
    Killed,
    /// Its program does not exist.
    Missing,
    /// Its timeout ends it.
    TimedOut,
    /// A DELETE ends it.
    Deleted,
}

pub(crate) const KINDS: [Kind; 10] = [
    Kind::Plain,
    Kind::Quick,
    Kind::Short,
    Kind::Streams,
    Kind::Children,
    Kind::Stdin,
    Kind::Killed,
    Kind::Missing,
    Kind::TimedOut,
    Kind::Deleted,
];

/// One job and what is to become of it.
#[derive(Clone, Debug)]
pub(crate) struct Checkable {
    pub(crate) kind: Kind,
    /// Its idempotency key, and the line that it appends to the file of runs.
    pub(crate) token: String,
    /// What sleeps for it longer than any test.
    pub(crate) seconds: String,
    code: u8,
    lines: u32,
    pub(crate) body: Value,
}

impl Checkable {
    /// A job of this kind that appends its token to the file `runs`.
    pub(crate) fn new(kind: Kind, rng: &mut impl Rng, runs: &Path) -> Self {
        let mut job = Self {
            kind,
            token: unique(),
            seconds: unique_seconds(),
            code: if rng.random() {
                0
            } else {
                rng.random_range(1..=255)
            },
            lines: if kind == Kind::Short {
                rng.random_range(1..50)
            } else {
                rng.random_range(100..3000)
            },
            body: Value::Null,
        };
        let pause = f64::from(rng.random_range(0..40_u32)) / 100.0;
        job.body = job.body(pause, runs);
        job
    }

    fn body(&self, pause: f64, runs: &Path) -> Value {
        let Self {
            token,
            seconds,
            code,
            lines,
            ..
        } = self;
        let run = format!("echo {token} >> {}", runs.display());
        let some = |from: u32, to: u32, mark: &str| {
            format!(
                "seq -f '{token} {mark}%06.f' {} {}",
                from * lines + 1,
                to * lines
            )
        };
        // What has been noted is in the pipe, whatever happens to the job then.
        let note = |burst: u32| format!("echo {token}.{burst} >> {}", runs.display());
        let all = format!(
            "{}; {}; sleep {pause}; {}; {}",
            some(0, 1, ""),
            note(1),
            some(1, 2, ""),
            note(2)
        );
        // With its monitor dead, it is found by the cgroup or by its environment alone.
        let hidden = format!("setsid sleep {seconds} < /dev/null > /dev/null 2>&1 &");
        let script = match self.kind {
            Kind::Plain => format!(
                "{run}; {all}; sleep {pause}; {}; exit {code}",
                some(2, 3, "")
            ),
            Kind::Quick => format!("{run}; exit {code}"),
            Kind::Short => format!("{run}; {}; exit {code}", some(0, 1, "")),
            Kind::Streams => format!(
                "{run}; {}; {} >&2; sleep {pause}; {} >&2; {}; exit {code}",
                some(0, 1, ""),
                some(0, 1, "e"),
                some(1, 2, "e"),
                some(1, 2, "")
            ),
            Kind::Children => format!(
                "{run}; setsid sh -c \"{all}\" & wait; setsid sleep {seconds} &
                 {hidden} exit {code}"
            ),
            Kind::Stdin => format!("{run}; sleep {pause}; cat; exit {code}"),
            Kind::Killed => format!("{run}; {all}; kill -9 $$"),
            Kind::Missing => {
                return json!({"command": [format!("/nonexistent/{token}")], "name": token});
            }
            Kind::TimedOut | Kind::Deleted => format!("{run}; {all}; exec sleep {seconds}"),
        };
        let mut body = json!({"script": script, "name": token});
        if self.kind == Kind::Stdin {
            body["stdin"] = json!({"mode": "data", "text": self.stdout()});
        }
        if self.kind == Kind::TimedOut {
            body["timeout_seconds"] = json!(1.0);
        }
        body
    }

    /// Everything that it writes to standard output when nobody stops it.
    fn stdout(&self) -> String {
        let parts = match self.kind {
            Kind::Plain => 3,
            Kind::Short => 1,
            Kind::Streams | Kind::Children | Kind::Stdin | Kind::Killed => 2,
            Kind::TimedOut | Kind::Deleted => 2,
            Kind::Quick | Kind::Missing => 0,
        };
        self.text(parts, "")
    }

    fn stderr(&self) -> String {
        match self.kind {
            Kind::Streams => self.text(2, "e"),
            Kind::Plain
            | Kind::Quick
            | Kind::Short
            | Kind::Children
            | Kind::Stdin
            | Kind::Killed
            | Kind::Missing
            | Kind::TimedOut
            | Kind::Deleted => String::new(),
        }
    }

    fn text(&self, parts: u32, mark: &str) -> String {
        (1..=parts * self.lines)
            .map(|number| format!("{} {mark}{number:06}\n", self.token))
            .collect()
    }

    /// What is wrong with how it went.
    pub(crate) fn check(&self, job: &Value, found: &Found<'_>) -> Result<(), String> {
        let equal = |what: &str, is: &Value, should: Value| {
            if *is == should {
                Ok(())
            } else {
                Err(format!("{what} is {is}, and should be {should}"))
            }
        };
        if job["state"] == "lost" && found.may_be_lost {
            equal("a lost job's exit", &job["exit"], Value::Null)?;
            // Nobody has taken what was in the pipe.
            return self.check_beginning(found, 0);
        }
        let (state, code, signal) = match self.kind {
            Kind::Missing => {
                equal(
                    "the cause",
                    &job["termination"]["cause"],
                    json!("spawn_failed"),
                )?;
                ("failed", Value::Null, Value::Null)
            }
            Kind::Killed => ("failed", Value::Null, json!("SIGKILL")),
            Kind::TimedOut => ("timed_out", Value::Null, json!("SIGTERM")),
            // The DELETE may have come before the program ran.
            Kind::Deleted => ("canceled", Value::Null, job["exit"]["signal"].clone()),
            Kind::Plain
            | Kind::Quick
            | Kind::Short
            | Kind::Streams
            | Kind::Children
            | Kind::Stdin => {
                let state = if self.code == 0 {
                    "succeeded"
                } else {
                    "failed"
                };
                (state, json!(self.code), Value::Null)
            }
        };
        equal("the state", &job["state"], json!(state))?;
        equal("the exit code", &job["exit"]["code"], code)?;
        equal("the exit signal", &job["exit"]["signal"], signal)?;
        equal("complete output", &job["output"]["complete"], json!(true))?;
        match self.kind {
            Kind::TimedOut | Kind::Deleted => self.check_beginning(found, found.bursts),
            Kind::Missing => equal("runs", &json!(found.runs), json!(0)),
            Kind::Plain
            | Kind::Quick
            | Kind::Short
            | Kind::Streams
            | Kind::Children
            | Kind::Stdin
            | Kind::Killed => {
                equal("runs", &json!(found.runs), json!(1))?;
                let streams = [("stdout", &self.stdout()), ("stderr", &self.stderr())];
                for ((name, should), is) in streams.into_iter().zip([found.stdout, found.stderr]) {
                    if should != is {
                        return Err(differs(name, is, should));
                    }
                    let bytes = &job["output"][format!("{name}_bytes")];
                    equal("the count of bytes", bytes, json!(should.len()))?;
                }
                Ok(())
            }
        }
    }

    /// How many of its bursts of lines it has noted as written.
    pub(crate) fn noted(&self, ran: &HashMap<String, usize>) -> u32 {
        let is_noted = |burst: &u32| ran.contains_key(&format!("{}.{burst}", self.token));
        [2, 1].into_iter().find(is_noted).unwrap_or_default()
    }

    /// It was stopped somewhere: what there is must be the beginning of what there would have been, and
    /// hold all that it had written by then as far as that is known.
    fn check_beginning(&self, found: &Found<'_>, bursts: u32) -> Result<(), String> {
        if found.runs > 1 {
            return Err(format!("it ran {} times", found.runs));
        }
        for (name, is, should) in [
            ("stdout", found.stdout, self.stdout()),
            ("stderr", found.stderr, self.stderr()),
        ] {
            // A shell may tell of the signal that ended it.
            if name == "stdout" && !should.starts_with(is) {
                return Err(differs(name, is, &should));
            }
        }
        let written = self.text(bursts, "");
        if !found.stdout.starts_with(&written) {
            return Err(differs(
                "what was written of stdout",
                found.stdout,
                &written,
            ));
        }
        Ok(())
    }
}

fn differs(name: &str, is: &str, should: &str) -> String {
    let at = is
        .bytes()
        .zip(should.bytes())
        .take_while(|(a, b)| a == b)
        .count();
    let near = |text: &str| text.get(at..(at + 60).min(text.len())).map(str::to_owned);
    format!(
        "{name} has {} bytes and should have {}; from {at} it has {:?} and should have {:?}",
        is.len(),
        should.len(),
        near(is),
        near(should)
    )
}

/// What was found of a job when it had ended.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    pub(crate) stdout: &'a str,
    pub(crate) stderr: &'a str,
    pub(crate) runs: usize,
    /// How many bursts of lines it had written, at least.
    pub(crate) bursts: u32,
    /// Its monitor and its supervisor were both killed while it lived.
    pub(crate) may_be_lost: bool,
}
