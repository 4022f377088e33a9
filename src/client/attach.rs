//! `procession attach`, and `procession run --tty`: this terminal in the place of a job's.
//!
//! What is typed goes to the job and what it writes comes here, over every break of the connection. Raw mode
//! ends with the conversation, whatever ends it.

mod keys;
mod raw;
mod socket;

use std::future::pending;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, timeout};

use super::connection::{self, Client, ConnectArgs};
use super::execute;
use super::failure::Failure;
use super::follow::Sinks;
use super::lookup;
use super::sanitize::escape;
use keys::Keys;
use protocol::stderr::complain;
use raw::Raw;
pub(super) use raw::size;
pub(super) use socket::Begin;
use socket::{FromJob, Said, ToJob};

/// How much of what was before is shown.
const TAIL: u64 = 100;

/// A connection that has lasted for so long has not been broken off at once.
const CALM: Duration = Duration::from_secs(5);

/// How long leaving may take.
const GOODBYE: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub struct AttachArgs {
    /// An id, the beginning of one, or a name.
    job: String,
    /// Only watch: nothing that is typed here reaches the job.
    #[arg(long)]
    no_stdin: bool,
    /// Begin with the last so many lines of what was before.
    #[arg(short = 'n', long, value_name = "N", default_value_t = TAIL)]
    tail: u64,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub fn run(args: &AttachArgs) -> ExitCode {
    execute::block_on_job(execute(args))
}

async fn execute(args: &AttachArgs) -> Result<u8, Failure> {
    let client = Client::new(&args.connect)?;
    let id = lookup::id(&client, &args.job).await?;
    let (job, _) = lookup::get(&client, &id).await?;
    let has_terminal = job["spec"]["pty"].is_object();
    let takes_input = has_terminal || job["spec"]["stdin"]["mode"] == "open";
    let wish = Wish {
        writes: takes_input && !args.no_stdin,
        has_terminal,
        begin: Begin::TailLines(args.tail),
    };
    converse(&client, &id, wish).await
}

/// How to attach.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub(super) writes: bool,
    /// The job has one.
    pub(super) has_terminal: bool,
    pub(super) begin: Begin,
}

/// How a conversation ended.
enum Ended {
    Done,
    /// Whoever sits here wants to leave.
    Left,
    Broken,
}

/// Stands for the job until it has ended or is left alone; gives what to exit with.
pub(super) async fn converse(client: &Client, id: &str, wish: Wish) -> Result<u8, Failure> {
    let ended = {
        let _raw = if wish.writes && wish.has_terminal {
            Raw::enter()?
        } else {
            None
        };
        Here::new(wish)?.stay(client, id).await
    };
    match ended? {
        Ended::Left => {
            if wish.has_terminal {
                // The job has left the cursor anywhere.
                let _ = writeln!(std::io::stderr());
            }
            complain(&format!("job {id} goes on: procession attach {id}"));
            Ok(0)
        }
        Ended::Done | Ended::Broken => {
            let (_, job) = lookup::get(client, id).await?;
            if let Some(remark) = job.remark() {
                complain(&escape(&remark));
            }
            Ok(job.exit_code())
        }
    }
}

/// This side of the conversation.
struct Here {
    wish: Wish,
    stdin: tokio::io::Stdin,
    /// Nothing more will be typed, or nobody takes it.
    is_over: bool,
    keys: Keys,
    sinks: Sinks,
    resized: Signal,
    leave: [Signal; 4],
}

impl Here {
    fn new(wish: Wish) -> Result<Self, Failure> {
        let catch = |kind| {
            signal(kind).map_err(|error| Failure::Local(format!("cannot catch signals: {error}")))
        };
        Ok(Self {
            wish,
            stdin: tokio::io::stdin(),
            is_over: !wish.writes,
            keys: Keys::default(),
            sinks: Sinks::new(),
            resized: catch(SignalKind::window_change())?,
            // Whichever it is, the terminal gets its modes back.
            leave: [
                catch(SignalKind::hangup())?,
                catch(SignalKind::interrupt())?,
                catch(SignalKind::quit())?,
                catch(SignalKind::terminate())?,
            ],
        })
    }

    async fn stay(mut self, client: &Client, id: &str) -> Result<Ended, Failure> {
        let mut begin = self.wish.begin;
        let mut waiting = None;
        let mut is_first = true;
        let mut broken = None;
        loop {
            if let Some(failure) = broken.take() {
                let waiting = waiting.get_or_insert_with(|| client.patience());
                tokio::select! {
                    paused = waiting.pause(failure) => paused?,
                    () = left(&mut self.leave) => return Ok(Ended::Left),
                    () = wants_to_leave(&mut self.stdin, &mut self.keys), if !self.is_over => return Ok(Ended::Left),
                }
            }
            let connected = {
                let connecting = socket::connect(client, id, self.wish.writes, begin);
                tokio::select! {
                    connected = connecting => connected,
                    () = left(&mut self.leave) => return Ok(Ended::Left),
                    () = wants_to_leave(&mut self.stdin, &mut self.keys), if !is_first && !self.is_over => return Ok(Ended::Left),
                }
            };
            let (to_job, from_job, first) = match connected {
                Ok(connected) => connected,
                Err(failure) if !is_first && may_pass(&failure) => {
                    broken = Some(failure);
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            is_first = false;
            let mut at = first;
            let since = Instant::now();
            match self.talk(to_job, from_job, &mut at).await? {
                ended @ (Ended::Done | Ended::Left) => return Ok(ended),
                Ended::Broken => begin = Begin::Offset(at),
            }
            if since.elapsed() > CALM {
                waiting = None;
            }
            broken = Some(Failure::Lost(
                "the connection breaks again and again".to_owned(),
            ));
        }
    }

    /// Both directions side by side: a job that does not read must not keep its output from being seen.
    async fn talk(
        &mut self,
        mut to_job: ToJob,
        mut from_job: FromJob,
        at: &mut u64,
    ) -> Result<Ended, Failure> {
        let Self {
            wish,
            stdin,
            is_over,
            keys,
            sinks,
            resized,
            leave,
        } = self;
        let typing = async {
            if wish.has_terminal
                && let (true, Some(size)) = (wish.writes, size())
            {
                to_job.size(size).await;
            }
            let mut buffer = vec![0; socket::INPUT_BYTES];
            loop {
                let typed = tokio::select! {
                    read = stdin.read(&mut buffer), if !*is_over => read.unwrap_or(0),
                    _ = resized.recv() => {
                        if let (true, Some(size)) = (wish.writes, size()) {
                            to_job.size(size).await;
                        }
                        continue;
                    }
                };
                let typed = buffer.get(..typed).unwrap_or_default();
                if typed.is_empty() {
                    *is_over = true;
                    to_job.end_of_input().await;
                    continue;
                }
                match if wish.has_terminal {
                    keys.pass(typed)
                } else {
                    Ok(typed.to_vec())
                } {
                    Ok(bytes) => to_job.input(&bytes).await,
                    Err(bytes) => {
                        to_job.input(&bytes).await;
                        return Ended::Left;
                    }
                }
            }
        };
        let ended = tokio::select! {
            ended = typing => Ok(ended),
            ended = hear(&mut from_job, sinks, at) => ended,
            () = left(leave) => Ok(Ended::Left),
        };
        if let Ok(Ended::Left) = ended {
            // Answered when somebody else may type, which may be the next thing that is done here.
            to_job.close().await;
            let _ = timeout(GOODBYE, from_job.drain()).await;
        }
        ended
    }
}

/// Writes what the job writes, until nothing more comes over this connection.
async fn hear(from_job: &mut FromJob, sinks: &mut Sinks, at: &mut u64) -> Result<Ended, Failure> {
    loop {
        match from_job.next().await {
            Said::Output(stream, bytes) => {
                sinks.write(stream, &bytes).await?;
                sinks.flush().await?;
                *at += u64::try_from(bytes.len()).unwrap_or_default();
            }
            Said::Gap { from, to } => {
                let missed = to.saturating_sub(from);
                complain(&format!(
                    "{missed} bytes of the output are not kept any more\r"
                ));
                *at = to;
            }
            Said::InputClosed | Said::Nothing => {}
            Said::Done => return Ok(Ended::Done),
            Said::Broken => return Ok(Ended::Broken),
            Said::Refused(why) => return Err(Failure::Lost(escape(&why).into_owned())),
        }
    }
}

/// May it work a moment later? The service may not have noticed yet that the connection before is gone.
fn may_pass(failure: &Failure) -> bool {
    let is_taken = matches!(failure, Failure::Refused(problem) if problem.code == "stdin_taken");
    is_taken || connection::is_passing(failure)
}

/// Resolves when a signal asks this command to go.
async fn left(signals: &mut [Signal; 4]) {
    let [hangup, interrupt, quit, terminate] = signals;
    tokio::select! {
        _ = hangup.recv() => {}
        _ = interrupt.recv() => {}
        _ = quit.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// Resolves when somebody types that he wants to leave, while there is no job to type to.
async fn wants_to_leave(stdin: &mut tokio::io::Stdin, keys: &mut Keys) {
    let mut buffer = [0; 256];
    loop {
        match stdin.read(&mut buffer).await {
            Ok(count @ 1..) => {
                if keys.leaves(buffer.get(..count).unwrap_or_default()) {
                    return;
                }
            }
            Ok(0) | Err(_) => pending().await,
        }
    }
}
