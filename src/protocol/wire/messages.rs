//! What the roles say to each other.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::record::Record;
use job::JobId;
use job::Signal;
use job::life::{Plan, Refusal, Stop};
use job::outcome::{ExitStatus, SpawnFailure};
use job::pty::{Pty, Size};
use job::sandbox::Confinement;
use job::spec::{IoPriority, Limits, Rlimit, RlimitResource, Scope, StopPolicy};
use job::time::BootInstant;

/// Server → supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToSupervisor {
    /// The server accepts requests.
    Ready,
    /// A sign of life.
    Alive,
    /// Start a monitor. Beside it: the monitor's end of its control socket, in which its [`Launch`] is.
    Launch {
        /// Whose monitor.
        job: JobId,
        /// One pipe for both streams.
        merge_stderr: bool,
        /// Standard input is a pipe that stays open.
        #[serde(default)]
        open_stdin: bool,
        /// Standard input, output and error are a terminal.
        #[serde(default)]
        pty: bool,
    },
    /// Keep for the next server whether new jobs are refused.
    Drain(bool),
    /// Let go of the job's standard input: its monitor has closed it, and the job is to see the end.
    CloseStdin {
        /// Whose.
        job: JobId,
    },
}

/// Supervisor → server.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromSupervisor {
    /// The service shuts down: accept nothing new, and end.
    Shutdown {
        /// Stop the jobs first; otherwise leave them to their monitors.
        stop_jobs: bool,
        /// When every job must be gone: the kill comes then.
        kill_at: BootInstant,
    },
    /// Another server takes over in a moment: let every request end, leave the jobs, and end.
    Replace,
}

/// Supervisor → a monitor whose job is over: the next one. Beside it: the monitor's end of its control socket, and
/// both ends of each pipe.
#[derive(Debug, Serialize, Deserialize)]
pub struct NextJob {
    /// There is a pipe of standard input.
    pub open_stdin: bool,
    /// Standard error has its own pipe.
    pub own_stderr: bool,
}

/// Everything a monitor needs to start a job: the first packet in its control socket, as `Some`. `None` stands for one
/// that is too large for a packet, and is in the file beside it.
#[derive(Serialize, Deserialize)]
#[expect(
    missing_debug_implementations,
    reason = "its environment may hold secrets, which no log may show"
)]
pub struct Launch {
    pub job: JobId,
    pub attempt: u32,
    pub plan: Plan,
    pub argv: Vec<String>,
    /// Name and value; secrets included, which is why this type has no `Debug`.
    pub env: Vec<(String, String)>,
    pub cwd: String,
    pub umask: u32,
    pub nice: Option<i32>,
    #[serde(default)]
    pub io_priority: Option<IoPriority>,
    pub oom_score_adj: Option<i32>,
    pub cpu_affinity: Option<Vec<usize>>,
    pub rlimits: Vec<(RlimitResource, Rlimit)>,
    pub ids: Option<Ids>,
    pub no_new_privs: bool,
    #[serde(default)]
    pub sandbox: Option<Confinement>,
    pub limits: Limits,
    /// The bytes of standard input; `None` for `/dev/null`.
    #[serde(with = "serde_bytes")]
    pub stdin: Option<Vec<u8>>,
    /// Standard input is the pipe that the supervisor has made.
    #[serde(default)]
    pub open_stdin: bool,
    /// Standard input, output and error are the terminal that the supervisor has made.
    #[serde(default)]
    pub pty: Option<Pty>,
    /// Where its output begins: behind that of the attempts before.
    #[serde(default)]
    pub log_from: u64,
    /// A job that is over, whose directory it may have if that is still there: see [`record::set_aside`](crate::record::set_aside).
    #[serde(default)]
    pub spare: Option<JobId>,
    /// The job is not durable yet: nothing of it may run before [`Begin`] has come.
    #[serde(default)]
    pub is_held: bool,
    /// Short output goes into the last record, for the server to keep.
    #[serde(default)]
    pub keeps_short: bool,
}

/// Server → a monitor whose launch is held: the job is durable. A socket that is closed before says that it never was.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Begin;

/// The user and groups of a job, looked up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

/// Server → monitor. The ticket comes back with the reply.
#[derive(Debug, Serialize, Deserialize)]
pub struct ToMonitor {
    pub ticket: u64,
    pub request: Request,
}

/// What the server wants of a job.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// End it.
    Stop(Stop),
    /// Send a signal.
    Signal {
        /// Which.
        signal: Signal,
        /// To whom.
        scope: Scope,
    },
    /// Stop every process until a resume.
    Pause,
    /// Let them continue.
    Resume,
    /// Follow another plan from now on.
    Amend {
        /// How long the job may run.
        timeout: Option<Duration>,
        /// How a stop goes.
        stop: StopPolicy,
    },
    /// Tell of new output from now on, or no more. Told at once: how much there is.
    WatchOutput(bool),
    /// Write to standard input. Answered with the offset after it, once it has been written.
    Stdin(Input),
    /// Give the terminal another size.
    Resize(Size),
    /// All output before this offset has been read: the answer to [`FromMonitor::OutputFull`]. Answered with 1 where
    /// the job still waits for more to be read, else with 0.
    OutputRead(u64),
}

/// A packet for a job's standard input.
#[derive(Debug, Serialize, Deserialize)]
pub struct Input {
    /// Refused if another number of bytes has been written before.
    pub offset: Option<u64>,
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
    /// Close it after these bytes.
    pub eof: bool,
}

/// The most bytes of one piece of standard input; the packet around it has its own limit.
pub const INPUT_BYTES: usize = 12 * 1024;

/// Monitor → server.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromMonitor {
    /// How things are now. Later ones supersede earlier ones, so a slow reader may miss some.
    Record(Box<Record>),
    /// The answer to a request.
    Reply {
        /// The request's.
        ticket: u64,
        /// A number that depends on the request, such as how many processes were reached; or why not.
        result: Result<u64, RequestRefused>,
    },
    /// There is output up to this offset. Said while it is watched; later ones supersede earlier ones.
    Output {
        /// The offset after the last byte.
        next_offset: u64,
    },
    /// The log is full, and the job waits until more of it has been read.
    OutputFull,
    /// No monitor could be made.
    NotLaunched(SpawnFailure),
}

/// Supervisor → rescue monitor.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromReaper {
    /// The supervisor has reaped the leader of the job whose monitor died.
    LeaderEnded {
        /// How it ended.
        status: ExitStatus,
    },
}

/// Why a monitor did not do what was asked.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum RequestRefused {
    /// Wrong state.
    Refused(Refusal),
    /// The operating system refused.
    Errno(i32),
    /// The job's standard input takes nothing (any more).
    StdinClosed,
    /// The bytes do not go where the input is.
    StdinOffset {
        /// Where it is; `None` if nobody knows.
        expected: Option<u64>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{decode, encode};

    #[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
    struct Stdin {
        #[serde(with = "serde_bytes")]
        stdin: Option<Vec<u8>>,
    }

    /// A monitor may be older or newer than the server: the bytes are what they always were.
    #[test]
    fn bytes_are_one_binary_value() {
        let input = Input {
            offset: Some(7),
            bytes: vec![0, 255, 10],
            eof: true,
        };
        let wanted = b"\x83\xa6offset\x07\xa5bytes\xc4\x03\x00\xff\x0a\xa3eof\xc3";
        assert_eq!(encode(&input).unwrap()[1..], wanted[..]);
        let back: Input = decode(&encode(&input).unwrap()).unwrap();
        assert_eq!(back.bytes, input.bytes);
        for (stdin, wanted) in [
            (Some(vec![1, 2]), &b"\x81\xa5stdin\xc4\x02\x01\x02"[..]),
            (Some(Vec::new()), b"\x81\xa5stdin\xc4\x00"),
            (None, b"\x81\xa5stdin\xc0"),
        ] {
            let launch = Stdin { stdin };
            let bytes = encode(&launch).unwrap();
            assert_eq!(bytes[1..], *wanted);
            assert_eq!(decode::<Stdin>(&bytes).unwrap(), launch);
        }
    }
}
