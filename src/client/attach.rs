//! `procession attach`, and `procession run --tty`: this terminal stands for a job's.
//!
//! What is typed goes to the job and what it writes comes here, across breaks of the connection. The terminal is
//! given back as it was, whatever ends the conversation.

mod keys;
mod modes;
mod socket;

use std::future::pending;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until, timeout};

use super::connection::{self, CALM, Client, ConnectArgs};
use super::execute;
use super::failure::{Failure, OURS};
use super::follow::Stream;
use super::lookup;
use super::raw::{Raw, size};
use super::sanitize::escape;
use super::stdio::{Input, Sinks, reader_gone, write_all};
use keys::Keys;
pub(super) use keys::Sequence;
use modes::Modes;
use protocol::stderr::complain;
pub(super) use socket::Begin;
use socket::{FromJob, Said, ToJob};

/// How many lines of earlier output are shown.
const TAIL: u64 = 100;

/// How long leaving may take.
const GOODBYE: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub struct AttachArgs {
    /// Job ID, unique prefix of one, or name
    job: String,
    /// Only watch: send nothing to the job
    #[arg(long)]
    no_stdin: bool,
    /// Start with the last N lines of earlier output
    #[arg(short = 'n', long, value_name = "N", default_value_t = TAIL)]
    tail: u64,
    /// Keys that detach from the job, such as ctrl-],q; empty for none
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    detach_keys: Sequence,
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
    let options = Options {
        writes: takes_input && !args.no_stdin,
        has_terminal,
        begin: Begin::TailLines(args.tail),
        redraw: true,
        detach_keys: args.detach_keys.clone(),
    };
    converse(&client, &id, options).await
}

/// How to attach.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) writes: bool,
    /// The job has one.
    pub(super) has_terminal: bool,
    pub(super) begin: Begin,
    /// Ask the job's program to draw its screen, which this terminal has not seen.
    pub(super) redraw: bool,
    pub(super) detach_keys: Sequence,
}

/// How a conversation ended.
enum Ended {
    Done,
    /// The person here, or a signal, wants to leave.
    Left,
    Broken,
}

/// Stands for the job until it has ended or is left alone; gives the exit code.
pub(super) async fn converse(client: &Client, id: &str, options: Options) -> Result<u8, Failure> {
    let has_terminal = options.has_terminal;
    let mut here = Here::new(options)?;
    let ended = here.stay(client, id).await;
    let status = here.status;
    here.give_back();
    match ended? {
        Ended::Left => {
            // The job has left the cursor anywhere.
            let gap = if has_terminal { "\r\n" } else { "" };
            let _ = write_all(&std::io::stderr(), gap.as_bytes());
            complain(&format!("job {id} continues: procession attach {id}"));
            Ok(0)
        }
        Ended::Done | Ended::Broken => match lookup::get(client, id).await {
            Ok((_, job)) => {
                if let Some(remark) = job.remark() {
                    complain(&escape(&remark));
                }
                Ok(job.exit_code())
            }
            Err(failure) if failure.is_no_such_job() => {
                complain("the job was stopped and its record removed");
                Ok(status.unwrap_or(OURS))
            }
            Err(failure) => Err(failure),
        },
    }
}

/// What is known of the end of the input.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Typing {
    Open,
    /// It has ended, and the job has not been told.
    EndDue,
    /// Told, or nothing is ever sent.
    Over,
}

/// This side of the conversation.
struct Here {
    options: Options,
    input: Input,
    state: Typing,
    keys: Keys,
    /// What was typed and is not known to have been sent.
    unsent: Vec<u8>,
    sinks: Sinks,
    raw: Option<Raw>,
    /// Of this terminal; `None` if output goes elsewhere.
    modes: Option<Modes>,
    /// The job's exit code, if the connection told it.
    status: Option<u8>,
    resized: Signal,
    continued: Signal,
    leave: [Signal; 6],
}

impl Here {
    fn new(options: Options) -> Result<Self, Failure> {
        let catch = |kind| {
            signal(kind).map_err(|error| Failure::Local(format!("cannot catch signals: {error}")))
        };
        let (resized, continued) = (
            catch(SignalKind::window_change())?,
            catch(SignalKind::from_raw(nix::libc::SIGCONT))?,
        );
        // Whichever it is, the terminal is given back.
        let leave = [
            catch(SignalKind::hangup())?,
            catch(SignalKind::interrupt())?,
            catch(SignalKind::quit())?,
            catch(SignalKind::terminate())?,
            catch(SignalKind::user_defined1())?,
            catch(SignalKind::user_defined2())?,
        ];
        let is_shown = options.has_terminal && std::io::stdout().is_terminal();
        Ok(Self {
            input: Input::default(),
            state: if options.writes {
                Typing::Open
            } else {
                Typing::Over
            },
            keys: Keys::new(options.detach_keys.clone()),
            unsent: Vec::new(),
            sinks: Sinks::default(),
            raw: if options.writes && options.has_terminal {
                Raw::enter()?
            } else {
                None
            },
            modes: is_shown.then(Modes::default),
            status: None,
            resized,
            continued,
            leave,
            options,
        })
    }

    /// The terminal gets back what the job has changed.
    fn give_back(mut self) {
        if let Some(modes) = &mut self.modes {
            let _ = write_all(&std::io::stdout(), &modes.restore());
        }
        drop(self.raw.take());
    }

    async fn stay(&mut self, client: &Client, id: &str) -> Result<Ended, Failure> {
        let mut begin = self.options.begin;
        let mut waiting = None;
        let mut is_first = true;
        let mut broken = None;
        loop {
            if let Some(failure) = broken.take() {
                let waiting = waiting.get_or_insert_with(|| client.patience());
                tokio::select! {
                    paused = waiting.pause(failure) => paused?,
                    () = self.wants_to_leave() => return Ok(Ended::Left),
                }
            }
            let connecting = socket::connect(client, id, self.options.writes, begin);
            let connected = if is_first {
                tokio::select! {
                    connected = connecting => connected,
                    () = left(&mut self.leave) => return Ok(Ended::Left),
                }
            } else {
                tokio::select! {
                    connected = connecting => connected,
                    () = self.wants_to_leave() => return Ok(Ended::Left),
                }
            };
            let (to_job, from_job, first) = match connected {
                Ok(connected) => connected,
                Err(failure) if !is_first && may_pass(&failure) => {
                    broken = Some(failure);
                    continue;
                }
                // The job has ended meanwhile and is gone.
                Err(failure) if !is_first && failure.is_no_such_job() => return Ok(Ended::Broken),
                Err(failure) => return Err(failure),
            };
            let redraw = is_first && self.options.redraw;
            is_first = false;
            let mut at = first;
            let since = Instant::now();
            match self.talk(to_job, from_job, &mut at, redraw).await? {
                ended @ (Ended::Done | Ended::Left) => return Ok(ended),
                Ended::Broken => begin = Begin::Offset(at),
            }
            if since.elapsed() > CALM {
                waiting = None;
            }
            broken = Some(Failure::Lost("the connection keeps breaking".to_owned()));
        }
    }

    /// Both directions side by side: a job that does not read must not keep its output from being seen. Input
    /// waits while output is not taken, since a connection that is not read from may be gone.
    async fn talk(
        &mut self,
        mut to_job: ToJob,
        mut from_job: FromJob,
        at: &mut u64,
        redraw: bool,
    ) -> Result<Ended, Failure> {
        let output_is_taken = Mutex::new(());
        let mut typist = Typist {
            options: &self.options,
            input: &mut self.input,
            state: &mut self.state,
            keys: &mut self.keys,
            unsent: &mut self.unsent,
            raw: self.raw.as_ref(),
            resized: &mut self.resized,
            continued: &mut self.continued,
            output_is_taken: &output_is_taken,
        };
        let mut screen = Screen {
            sinks: &mut self.sinks,
            modes: self.modes.as_mut(),
            status: &mut self.status,
            output_is_taken: &output_is_taken,
        };
        let ended = tokio::select! {
            ended = typist.speak(&mut to_job, redraw) => ended,
            ended = screen.hear(&mut from_job, at) => ended,
            () = left(&mut self.leave) => Ok(Ended::Left),
            () = reader_gone() => Err(Failure::ReaderGone),
        };
        if let Ok(Ended::Left) = ended {
            // The service answers once somebody else may type, which may be the next thing that is done here.
            to_job.close().await;
            let _ = timeout(GOODBYE, from_job.drain()).await;
        }
        ended
    }

    /// Resolves when somebody wants to leave while there is no job to type to. What else is typed on a terminal is
    /// kept for it; other input is not read.
    async fn wants_to_leave(&mut self) {
        let reads = self.state == Typing::Open && self.options.has_terminal;
        loop {
            tokio::select! {
                () = left(&mut self.leave) => return,
                typed = self.input.next(), if reads => {
                    let typed = typed.unwrap_or_default();
                    if typed.is_empty() {
                        self.state = Typing::EndDue;
                        return pending().await;
                    }
                    if keys::has_interrupt(&typed) {
                        return;
                    }
                    match self.keys.pass(&typed) {
                        Ok(bytes) => self.unsent.extend(bytes),
                        Err(_) => return,
                    }
                }
            }
        }
    }
}

/// The direction to the job, for one connection.
struct Typist<'a> {
    options: &'a Options,
    input: &'a mut Input,
    state: &'a mut Typing,
    keys: &'a mut Keys,
    unsent: &'a mut Vec<u8>,
    raw: Option<&'a Raw>,
    resized: &'a mut Signal,
    continued: &'a mut Signal,
    output_is_taken: &'a Mutex<()>,
}

impl Typist<'_> {
    /// Sends what is typed until somebody wants to leave. Once sending fails it only waits: the other direction
    /// learns why.
    async fn speak(&mut self, to_job: &mut ToJob, redraw: bool) -> Result<Ended, Failure> {
        if let (true, Some((rows, cols))) = (redraw, self.size()) {
            // A program draws again when its size has changed.
            to_job.size((rows, cols.saturating_sub(1).max(1))).await;
        }
        self.tell_size(to_job).await;
        loop {
            if !self.send(to_job).await {
                return pending().await;
            }
            let typed = tokio::select! {
                typed = self.input.next(), if *self.state == Typing::Open => typed,
                () = sleep_until(Instant::now() + keys::HOLD), if self.keys.is_holding() => {
                    let held = self.keys.release();
                    self.unsent.extend(held);
                    continue;
                }
                _ = self.resized.recv() => {
                    self.tell_size(to_job).await;
                    continue;
                }
                _ = self.continued.recv() => {
                    // A shell had the terminal meanwhile.
                    self.raw.map_or(Ok(()), Raw::again)?;
                    self.tell_size(to_job).await;
                    continue;
                }
            };
            match typed {
                Ok(typed) if typed.is_empty() => *self.state = Typing::EndDue,
                Ok(typed) if !self.options.has_terminal => self.unsent.extend(typed),
                Ok(typed) => match self.keys.pass(&typed) {
                    Ok(bytes) => self.unsent.extend(bytes),
                    Err(bytes) => {
                        to_job.input(&bytes).await;
                        return Ok(Ended::Left);
                    }
                },
                // A terminal that is gone comes with a signal.
                Err(_) if self.options.has_terminal => *self.state = Typing::Over,
                Err(error) => {
                    return Err(Failure::Local(format!(
                        "cannot read standard input: {error}"
                    )));
                }
            }
        }
    }

    fn size(&self) -> Option<(u16, u16)> {
        let has_say = self.options.writes && self.options.has_terminal;
        size().filter(|_| has_say)
    }

    async fn tell_size(&self, to_job: &mut ToJob) {
        if let Some(size) = self.size() {
            to_job.size(size).await;
        }
    }

    /// Sends what is due; what fails is kept for the next connection.
    async fn send(&mut self, to_job: &mut ToJob) -> bool {
        while !self.unsent.is_empty() {
            drop(self.output_is_taken.lock().await);
            let count = self.unsent.len().min(socket::INPUT_BYTES);
            if !to_job.input(&self.unsent[..count]).await {
                return false;
            }
            self.unsent.drain(..count);
        }
        if *self.state == Typing::EndDue {
            if !to_job.end_of_input().await {
                return false;
            }
            *self.state = Typing::Over;
        }
        true
    }
}

/// The direction from the job, for one connection.
struct Screen<'a> {
    sinks: &'a mut Sinks,
    modes: Option<&'a mut Modes>,
    status: &'a mut Option<u8>,
    output_is_taken: &'a Mutex<()>,
}

impl Screen<'_> {
    /// Writes what the job writes, until nothing more comes over this connection.
    async fn hear(&mut self, from_job: &mut FromJob, at: &mut u64) -> Result<Ended, Failure> {
        loop {
            match from_job.next().await {
                Said::Output(stream, bytes) => {
                    if let (Some(modes), Stream::Stdout) = (self.modes.as_mut(), stream) {
                        modes.see(&bytes);
                    }
                    let _writing = self.output_is_taken.lock().await;
                    self.sinks.write(stream, &bytes).await?;
                    self.sinks.flush().await?;
                    *at += u64::try_from(bytes.len()).unwrap_or_default();
                }
                Said::Gap { from, to } => {
                    let missed = to.saturating_sub(from);
                    complain(&format!("{missed} bytes of output are no longer kept\r"));
                    *at = to;
                }
                Said::Status(code) => *self.status = code,
                Said::InputClosed | Said::Nothing => {}
                Said::Done => return Ok(Ended::Done),
                Said::Broken => return Ok(Ended::Broken),
                Said::Refused(why) => return Err(Failure::Lost(escape(&why).into_owned())),
            }
        }
    }
}

/// May it work a moment later? The service may not have noticed yet that the previous connection is gone.
fn may_pass(failure: &Failure) -> bool {
    let is_taken = matches!(failure, Failure::Refused(problem) if problem.code == "stdin_taken");
    is_taken || connection::is_passing(failure)
}

/// Resolves when a signal asks this command to leave.
async fn left(signals: &mut [Signal; 6]) {
    let [hangup, interrupt, quit, terminate, user1, user2] = signals;
    tokio::select! {
        _ = hangup.recv() => {}
        _ = interrupt.recv() => {}
        _ = quit.recv() => {}
        _ = terminate.recv() => {}
        _ = user1.recv() => {}
        _ = user2.recv() => {}
    }
}
