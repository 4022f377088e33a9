//! What a hub and the nodes that have joined it say to each other: one value per message of a WebSocket, in JSON.
//!
//! Either side may be older: fields are only ever added, with a default, and a message that is not known is refused by
//! name.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::messages::{Request, RequestRefused};
use job::event::{Cursor, What};
use job::life::Stop;
use job::retry::Retry;
use job::spec::StopPolicy;
use job::time::Timestamp;
use job::{Job, JobId, NodeName, State};

/// The version of this conversation. It changes only if one side would misunderstand the other.
pub const PROTOCOL: u32 = 1;

/// The first message of a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// Its name.
    pub node: NodeName,
    /// Its store.
    pub store: String,
    /// The life of the machine and of the state directory: a copy of the directory has another one.
    pub place: String,
    /// The version of its program.
    pub version: String,
    /// The most jobs that it runs, by their weights.
    pub slots: u32,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// It takes jobs with files.
    #[serde(default)]
    pub takes_files: bool,
    /// It answers [`ToNode::WhoLeads`].
    #[serde(default)]
    pub hears_others: bool,
    /// The jobs that it has and that have not ended or are lost, each by which claim.
    #[serde(default)]
    pub jobs: Vec<(JobId, u32)>,
}

/// Node → hub.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromNode {
    /// Who it is.
    Hello(Hello),
    /// How a job is.
    Report(Box<Report>),
    /// It has the files of a job that it is about to get.
    Prepared {
        /// Which.
        job: JobId,
    },
    /// It does not have this job.
    NotHeld {
        /// Which.
        job: JobId,
    },
    /// It has not taken a job or its files, and has stored nothing of it.
    Refused {
        /// Which.
        job: JobId,
        /// By which claim; 0 if it has none yet.
        fence: u32,
        /// For people.
        why: String,
        /// It would not on another try either.
        is_final: bool,
    },
    /// The answer to [`ToNode::Ask`], if it has changed nothing that is reported.
    Answer {
        /// About which job.
        job: JobId,
        /// What.
        answered: Answered,
    },
    /// A sign of life.
    Pong {
        /// It takes jobs.
        accepts: bool,
    },
    /// The answer to [`ToNode::WhoLeads`].
    Lead {
        /// That of the question.
        ticket: u64,
        /// What the API node says that has heard of most; nothing if none has answered.
        lead: Option<Lead>,
    },
}

/// How often the lead of a cluster has been taken, and who says so.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Lead {
    /// How often.
    pub epoch: u64,
    /// Where that API node is reached.
    pub url: String,
}

/// How a job is, and what has happened to it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    /// The job.
    pub job: Job,
    /// What has happened since the last report.
    pub events: Vec<Happened>,
    /// Where those end in the store of the node.
    pub seen: Cursor,
    /// The answers to what was asked before, and what came of it is in this report.
    #[serde(default)]
    pub answers: Vec<Answered>,
    /// It is not waited for that the hub has it: another one may follow at once, or none ever.
    #[serde(default)]
    pub unconfirmed: bool,
}

/// The answer to a question.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answered {
    /// That of the question.
    pub ticket: u64,
    /// What came of it.
    pub result: Result<u64, AskRefused>,
}

/// A happening of a job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Happened {
    /// When, by the clock of the node.
    pub at: Timestamp,
    /// The state after it.
    pub state: State,
    /// In which attempt.
    pub attempt: u32,
    /// What.
    pub what: What,
}

/// Hub → node.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(
    missing_debug_implementations,
    reason = "an assignment may hold secrets, which no log may show"
)]
pub enum ToNode {
    /// The hello is taken.
    Welcome {
        /// The store of the hub.
        hub: String,
        /// The link's number, which the streams of the node name.
        epoch: u64,
    },
    /// It is not: the link ends.
    Refused {
        /// For people.
        why: String,
    },
    /// Fetch the files of this job, which is about to be assigned; then say so. Only for a node that takes files.
    Prepare(Box<Job>),
    /// Take this job, unless it is there; then report it. If it has a workspace, its files have been fetched.
    Assign(Box<Assignment>),
    /// Report a job that was taken, with what has happened after this.
    Follow {
        /// Which.
        job: JobId,
        /// The last event that the hub has.
        seen: Cursor,
    },
    /// A report is stored, of those that are waited for.
    Ack {
        /// Of which job.
        job: JobId,
        /// That of the report.
        seen: Cursor,
    },
    /// Do something to a job.
    Ask {
        /// Comes back with the answer.
        ticket: u64,
        /// Which.
        job: JobId,
        /// What.
        ask: Ask,
    },
    /// These jobs are gone at the hub, or go elsewhere: remove what is left of them.
    Forget(Vec<JobId>),
    /// A sign of life; the node answers.
    Ping,
    /// Ask all API nodes that you know how often the lead has been taken. Only for a node that hears others.
    WhoLeads {
        /// Comes back with the answer.
        ticket: u64,
    },
}

/// A job for a node.
#[derive(Serialize, Deserialize)]
#[expect(
    missing_debug_implementations,
    reason = "it may hold secrets, which no log may show"
)]
pub struct Assignment {
    /// The job, with what concerns its execution.
    pub job: Job,
    /// The values of its secrets.
    pub secrets: BTreeMap<String, String>,
}

/// What is asked about a job that a node has.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// End it.
    Stop(Stop),
    /// Something for its monitor.
    Relay(Request),
    /// Change it.
    Amend(Box<Change>),
    /// Has it ended, and is nothing left of it? Answered with 1 or 0, within this time.
    IsGone(Duration),
}

/// What a node has to know of a change of a job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Change {
    /// How long it may run.
    pub timeout: Option<Duration>,
    /// How a stop goes.
    pub stop: StopPolicy,
    /// Whether it is tried again.
    pub retry: Option<Retry>,
    /// Between two attempts, when the next one may begin.
    pub next_attempt_at: Option<Timestamp>,
}

/// Why a node did not do what was asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AskRefused {
    /// As the job's monitor has it.
    Refused(RequestRefused),
    /// It has no such job.
    NoSuchJob,
    /// The job has changed meanwhile.
    Changed,
    /// The job does not wait any more.
    NotQueued,
    /// The job has no terminal.
    NoTerminal,
    /// Its monitor or its store does not answer.
    Unavailable,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use job::Spec;

    #[test]
    fn a_message_comes_back_as_it_was_with_the_values_of_secrets() {
        let mut job = Job::accepted(
            JobId::generate(),
            "token:ci".to_owned(),
            Arc::new(Spec::default()),
            Timestamp::from_micros(7),
        );
        job.state = State::Running;
        let assign = ToNode::Assign(Box::new(Assignment {
            job: job.clone(),
            secrets: [("A".to_owned(), "hunter2".to_owned())].into(),
        }));
        let text = serde_json::to_string(&assign).unwrap();
        let ToNode::Assign(back) = serde_json::from_str(&text).unwrap() else {
            panic!("{text}");
        };
        assert_eq!((back.job, back.secrets["A"].as_str()), (job, "hunter2"));
    }

    #[test]
    fn a_report_of_an_earlier_version_waits_to_be_acknowledged() {
        let id = JobId::generate();
        let spec = Arc::new(Spec::default());
        let job = Job::accepted(id, "uid:7".to_owned(), spec, Timestamp::from_micros(7));
        let report = Report {
            job,
            events: Vec::new(),
            seen: 3,
            answers: Vec::new(),
            unconfirmed: true,
        };
        let mut value = serde_json::to_value(&report).unwrap();
        let back: Report = serde_json::from_value(value.clone()).unwrap();
        assert!(back.unconfirmed && back.job == report.job);
        let fields = value.as_object_mut().unwrap();
        fields.remove("answers");
        fields.remove("unconfirmed");
        let back: Report = serde_json::from_value(value).unwrap();
        assert!(!back.unconfirmed && back.answers.is_empty() && back.seen == 3);
    }

    #[test]
    fn a_message_of_a_later_version_is_refused_by_name_and_its_fields_are_passed_over() {
        let error = serde_json::from_str::<FromNode>(r#"{"teleport":{}}"#).unwrap_err();
        assert!(error.to_string().contains("teleport"), "{error}");
        let pong = serde_json::from_str(r#"{"pong":{"accepts":true,"mood":1}}"#).unwrap();
        assert!(matches!(pong, FromNode::Pong { accepts: true }));
    }
}
