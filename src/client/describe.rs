//! What `procession show` says about a job: a line for each fact that there is.

use super::sanitize::escape;
use super::show::run_time;
use super::text::{size, span};
use super::view::{Job, Output};
use job::time::Timestamp;

/// The facts about a job, in their order.
#[derive(Default)]
struct Facts(Vec<(&'static str, String)>);

impl Facts {
    fn say(&mut self, what: &'static str, text: Option<String>) {
        self.0.extend(text.map(|text| (what, text)));
    }

    /// The same for a moment.
    fn at(&mut self, what: &'static str, time: Option<Timestamp>) {
        self.say(what, time.map(|time| time.to_string()));
    }

    /// Texts in one line; nothing if there are none.
    fn list(&mut self, what: &'static str, texts: impl Iterator<Item = String>, between: &str) {
        let text = texts.collect::<Vec<_>>().join(between);
        self.say(what, (!text.is_empty()).then_some(text));
    }

    fn lines(&self) -> String {
        let lines = self.0.iter();
        let lines = lines.map(|(what, text)| format!("{what:<12}{}\n", escape(text)));
        lines.collect()
    }
}

/// What people want to know about a job, a line each.
pub(super) fn describe(job: &Job) -> String {
    let mut facts = Facts::default();
    what_it_is(job, &mut facts);
    when(job, &mut facts);
    how_it_went(job, &mut facts);
    facts.lines()
}

fn what_it_is(job: &Job, facts: &mut Facts) {
    facts.say("id", Some(job.id.clone()));
    facts.say("name", job.name.clone());
    let labels = job.labels.iter();
    let labels = labels.map(|(key, value)| format!("{key}={value}"));
    facts.list("labels", labels, " ");
    let reason = job.state_reason.as_ref();
    let reason = reason.map(|reason| format!(" ({reason})"));
    let state = format!("{}{}", job.state, reason.unwrap_or_default());
    facts.say("state", Some(state));
    facts.say("message", job.state_message.clone());
    facts.say("attempt", job.attempt_of());
    let ended = job.attempts.iter().map(|attempt| {
        let message = attempt.message.as_deref().unwrap_or("ended");
        format!("{}: {message}", attempt.number)
    });
    facts.list("attempts", ended, "; ");
    let kind = match job.spec.script {
        Some(_) => "script",
        None => "command",
    };
    facts.say(kind, Some(job.program()));
    facts.say("directory", job.spec.cwd.clone());
    let queue = job.spec.queue.clone();
    facts.say("queue", queue.filter(|queue| queue != "default"));
}

fn when(job: &Job, facts: &mut Facts) {
    facts.at("created", Some(job.created_at));
    facts.say("created by", job.created_by.clone());
    facts.at("started", job.started_at);
    let sign = job.ready_message.as_ref();
    let sign = sign.map(|sign| format!(" ({sign})")).unwrap_or_default();
    let ready = job.ready_at.map(|at| format!("{at}{sign}"));
    let late = job.not_ready_at.filter(|_| job.ready_at.is_none());
    facts.say(
        "ready",
        ready.or(late.map(|at| format!("not by {at}{sign}"))),
    );
    facts.at("finished", job.finished_at);
    facts.say("ran", run_time(job).map(span));
    facts.at("timeout at", job.deadline_at);
    facts.at("expires", job.expires_at);
}

fn how_it_went(job: &Job, facts: &mut Facts) {
    let process = job.process.as_ref().map(|process| {
        let kind = process.containment.as_deref().unwrap_or("unknown");
        format!("{} ({kind})", process.pid)
    });
    facts.say("process", process);
    let exit = job.exit.as_ref();
    let exit = exit.map(|exit| match (exit.code, &exit.signal) {
        (Some(code), _) => format!("code {code}"),
        (None, Some(signal)) => signal.clone(),
        (None, None) => "unknown".to_owned(),
    });
    facts.say("exit", exit);
    let usage = job.usage.as_ref().map(|usage| {
        format!(
            "{:.2} s user, {:.2} s system, {} at most",
            usage.user_cpu_seconds,
            usage.system_cpu_seconds,
            size(usage.max_rss_bytes)
        )
    });
    facts.say("usage", usage);
    facts.say("output", Some(output(&job.output)));
}

fn output(output: &Output) -> String {
    let dropped = match output.dropped_bytes {
        0 => String::new(),
        bytes => format!(", {} dropped", size(bytes)),
    };
    let (stdout, stderr) = (size(output.stdout_bytes), size(output.stderr_bytes));
    format!("{stdout} on stdout, {stderr} on stderr{dropped}")
}
