//! The server as the supervisor's child: forked, listened to, started again when it ends, replaced by an upgrade.

use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::ExitCode;
use std::time::Duration;

use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::Signal as NixSignal;
use nix::sys::socket::{MsgFlags, recv};
use nix::unistd::{Pid as NixPid, setpgid};

use super::Supervisor;
use super::handover::{self, Handover};
use super::pipes::Wanted;
use super::pulse::Pulse;
use super::service_manager::Phase;
use super::upgrade::{self, Proving, Upgrade};
use job::outcome::{SpawnFailure, Stage};
use job::time::BootInstant;
use job::{JobId, Signal};
use linux::clock;
use linux::sys::{self, End, Fork, Pid};
use protocol::inherited::Inherited;
use protocol::upgrades::Outcome;
use protocol::wire::messages::{FromMonitor, FromSupervisor, ToSupervisor};
use protocol::wire::{self, Received};

/// How long a server that has closed its socket may take to end.
const SERVER_END: Duration = Duration::from_secs(5);

/// How long the new binary may take to say whether it understands, and the old server to end.
const CHECK_LIMIT: Duration = Duration::from_secs(30);
const SERVER_LIMIT: Duration = Duration::from_secs(10);

/// The server process.
pub(super) struct ServerProcess {
    pub(super) pid: Pid,
    /// `None` once the server has closed its end: it is ending.
    pub(super) socket: Option<OwnedFd>,
    pub(super) started: BootInstant,
    pub(super) ready: bool,
    /// Its signs of life, where a service manager wants to rely on them.
    pub(super) pulse: Option<Pulse>,
    /// When it is killed: it has closed its socket, and still has not ended.
    pub(super) stuck_at: Option<BootInstant>,
}

/// Why there is no monitor, and which limit it is.
fn not_made(error: &io::Error) -> SpawnFailure {
    let errno = error.raw_os_error().unwrap_or_default();
    let limit = match errno {
        libc::EMFILE => {
            let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
            format!(
                "; the service may have {limit} open files (RLIMIT_NOFILE, LimitNOFILE= of a unit), and each job needs some"
            )
        }
        libc::ENFILE => "; the machine's limit of open files (fs.file-max)".to_owned(),
        libc::EAGAIN => {
            "; a limit of processes (RLIMIT_NPROC, pids.max, TasksMax= of a unit)".to_owned()
        }
        _ => String::new(),
    };
    SpawnFailure {
        stage: Stage::Fork,
        errno,
        message: format!("failed to make the monitor: {error}{limit}"),
    }
}

impl Supervisor {
    pub(super) fn start_server(&mut self) -> io::Result<()> {
        let (ours, theirs) = wire::pair()?;
        match sys::fork()? {
            Fork::Parent(pid) => {
                self.restart_at = None;
                self.server = Some(ServerProcess {
                    pid,
                    socket: Some(ours),
                    started: clock::now().boot,
                    ready: false,
                    pulse: None,
                    stuck_at: None,
                });
                Ok(())
            }
            Fork::Child => {
                let code = self.become_server(theirs);
                sys::exit_now(i32::from(code))
            }
        }
    }

    /// In the forked child: drops what is the supervisor's, and runs the server.
    pub(super) fn become_server(&mut self, supervisor: OwnedFd) -> u8 {
        let keep = [
            supervisor.as_raw_fd(),
            self.listeners.tcp.as_raw_fd(),
            self.listeners.unix.as_raw_fd(),
            self.host.jobs.as_raw_fd(),
        ];
        // A write that the other side or a limit does not let through is an error, not a death; a terminal that is the
        // foreground group's takes log lines all the same; and the supervisor alone says when to end, whoever signals
        // all processes of the service at once.
        sys::ignore_signals(&[
            NixSignal::SIGPIPE,
            NixSignal::SIGXFSZ,
            NixSignal::SIGTTOU,
            NixSignal::SIGTERM,
            NixSignal::SIGINT,
            NixSignal::SIGHUP,
            NixSignal::SIGUSR1,
            NixSignal::SIGUSR2,
        ]);
        // Its own group: Ctrl-C on the terminal is for the supervisor.
        let prepared = setpgid(NixPid::from_raw(0), NixPid::from_raw(0))
            .and_then(|()| prctl::set_name(c"procession-srv"))
            .map_err(io::Error::from)
            .and_then(|()| sys::close_fds_except(&keep))
            .and_then(|()| Ok(sys::unblock_signals()?));
        let listeners = self.listeners.try_clone();
        let jobs = self.host.jobs.try_clone();
        let (listeners, jobs) = match prepared.and_then(|()| Ok((listeners?, jobs?))) {
            Ok(inherited) => inherited,
            Err(error) => {
                tracing::error!(%error, "cannot prepare the server process: {error}");
                return 1;
            }
        };
        (self.become_server)(Inherited {
            supervisor,
            supervisor_pid: std::os::unix::process::parent_id(),
            listeners,
            jobs,
            boot_id: self.host.boot_id.clone(),
            cgroup: self.host.cgroup.clone(),
            no_cgroup: self.no_cgroup.clone(),
            restarts: self.restarts,
            // Twice between two looks.
            beat_every: self.server_limit.map(|limit| limit / 6),
            draining: self.draining,
        })
    }

    pub(super) fn on_server_messages(&mut self) {
        while let Some(server) = &mut self.server
            && let Some(socket) = &server.socket
        {
            match wire::receive::<ToSupervisor>(socket.as_fd()) {
                Ok(Received::Message(ToSupervisor::Ready, _)) => {
                    server.ready = true;
                    let now = clock::now().boot;
                    server.pulse = self.server_limit.map(|limit| Pulse::new(limit, now));
                    self.service_manager
                        .enter(Phase::Ready, self.monitors.jobs());
                    self.upgrade_is_over();
                }
                Ok(Received::Message(ToSupervisor::Alive, _)) => {
                    if let Some(pulse) = &mut server.pulse {
                        pulse.heard();
                    }
                }
                Ok(Received::Message(ToSupervisor::Drain(draining), _)) => self.draining = draining,
                Ok(Received::Message(ToSupervisor::CloseStdin { job }, _)) => {
                    self.monitors.close_stdin(job);
                }
                Ok(Received::Message(
                    ToSupervisor::Launch {
                        job,
                        merge_stderr,
                        open_stdin,
                        pty,
                    },
                    fds,
                )) => {
                    let wanted = Wanted {
                        merge_stderr,
                        open_stdin,
                        pty,
                    };
                    self.launch(job, wanted, fds);
                }
                Ok(Received::Closed) => {
                    server.socket = None;
                    server.stuck_at = Some(clock::now().boot.after(SERVER_END));
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::error!(%error, "a message of the server was not understood: {error}")
                }
            }
        }
    }

    pub(super) fn launch(&mut self, job: JobId, wanted: Wanted, fds: Vec<OwnedFd>) {
        let Ok([control]) = <[OwnedFd; 1]>::try_from(fds) else {
            tracing::error!(job.id = %job, "the launch of job {job} came without its socket");
            return;
        };
        if let Err((error, control)) = self.monitors.launch(&self.host, job, wanted, control) {
            let failure = not_made(&error);
            tracing::error!(job.id = %job, %error, "job {job}: {}", failure.message);
            // A socket that is closed with a packet in it is an error on the other side, before what was sent from here.
            let _ = recv(control.as_raw_fd(), &mut [0], MsgFlags::MSG_DONTWAIT);
            // If this cannot be told either, the control socket closes, which says that there is no monitor.
            let _ = wire::send(control.as_fd(), &FromMonitor::NotLaunched(failure), &[]);
        }
    }

    pub(super) fn on_server_ended(&mut self, end: End) -> Option<ExitCode> {
        // Its last messages may still be in the socket.
        self.on_server_messages();
        let server = self.server.take()?;
        if self.shutdown.is_some() {
            return self.is_over(end == End::Code(0));
        }
        if self.is_being_replaced() {
            self.become_successor();
            return None;
        }
        if !server.ready && self.restarts == 0 {
            return Some(match end {
                End::Code(code) => ExitCode::from(code.max(1)),
                End::Signal { .. } => ExitCode::FAILURE,
            });
        }
        if let Upgrade::Proving(proving) = &mut self.upgrade
            && !server.ready
            && proving.has_failed()
        {
            self.go_back(&format!(
                "the server of the new program ends before it is ready ({end:?})"
            ));
        }
        let now = clock::now().boot;
        let ran = now.remaining(server.started);
        let pause = self.backoff.after(server.ready, ran);
        tracing::error!(
            restart_in_ms = pause.as_millis(),
            "the server ended ({end:?}) and is started again"
        );
        self.restarts = self.restarts.saturating_add(1);
        self.restart_at = Some(now.after(pause));
        None
    }

    /// Ends a server that gives no sign of life, for the next one to take its place. One that is ending may be silent.
    pub(super) fn on_silent_server(&mut self, now: BootInstant) {
        let is_ending = self.shutdown.is_some() || self.is_being_replaced();
        let Some(server) = &mut self.server else {
            return;
        };
        let is_gone = server
            .pulse
            .as_mut()
            .is_some_and(|pulse| pulse.is_gone(now));
        if is_gone && !is_ending {
            tracing::error!(
                pid = server.pid.as_i32(),
                "the server gives no sign of life and is ended; jobs go on"
            );
            let _ = sys::signal_process(server.pid, Signal::KILL);
            server.pulse = None;
        }
    }

    pub(super) fn tell_server(&mut self, message: &FromSupervisor) {
        let Some(socket) = self
            .server
            .as_ref()
            .and_then(|server| server.socket.as_ref())
        else {
            return;
        };
        // A server that cannot be told is ending, which this process sees.
        let _ = wire::send(socket.as_fd(), message, &[]);
    }

    pub(super) fn is_being_replaced(&self) -> bool {
        matches!(self.upgrade, Upgrade::Replacing { .. })
    }

    /// Asks the binary that is on disk now whether it understands what it would take over.
    pub(super) fn begin_upgrade(&mut self) {
        if self.shutdown.is_some() || !matches!(self.upgrade, Upgrade::None) {
            tracing::warn!(
                "an upgrade or a shutdown is under way; this request for an upgrade changes nothing"
            );
            return;
        }
        let binary = self.invocation.binary().display().to_string();
        upgrade::note_beginning(self.state.path());
        let said = memfd_create(c"said", MFdFlags::MFD_CLOEXEC).map(File::from);
        let asked = said.map_err(io::Error::from).and_then(|said| {
            let pid = self.invocation.check(&said)?;
            Ok((pid, said))
        });
        match asked {
            Ok((pid, said)) => {
                tracing::info!("upgrade: asking {binary} whether it understands the state");
                self.upgrade = Upgrade::Checking {
                    pid,
                    said,
                    give_up_at: clock::now().boot.after(CHECK_LIMIT),
                };
            }
            Err(error) => self.refuse_upgrade(&format!("cannot run {binary}: {error}")),
        }
    }

    fn refuse_upgrade(&mut self, why: &str) {
        tracing::error!("upgrade: {why}; nothing was replaced");
        self.upgrade = Upgrade::None;
        upgrade::note_outcome(self.state.path(), Outcome::Refused(why.to_owned()));
    }

    /// The binary on disk has answered.
    pub(super) fn on_checked(&mut self, end: End) {
        let Upgrade::Checking { said, .. } = mem::replace(&mut self.upgrade, Upgrade::None) else {
            return;
        };
        if end != End::Code(0) {
            let binary = self.invocation.binary().display();
            let why = match (end, upgrade::words(said)) {
                (End::Signal { .. }, words) if words.is_empty() => {
                    format!("{binary} was asked and gave no answer")
                }
                (end, words) => format!("{binary} refuses ({end:?}): {words}"),
            };
            return self.refuse_upgrade(&why);
        }
        if self.shutdown.is_some() {
            return self.refuse_upgrade("the service ends");
        }
        self.restart_at = None;
        self.service_manager
            .enter(Phase::Reloading, self.monitors.jobs());
        self.upgrade = Upgrade::Replacing {
            kill_at: clock::now().boot.after(SERVER_LIMIT),
        };
        if self.server.is_some() {
            self.tell_server(&FromSupervisor::Replace);
        } else {
            self.become_successor();
        }
    }

    pub(super) fn on_upgrade_time(&mut self, now: BootInstant) {
        match &mut self.upgrade {
            Upgrade::Checking {
                pid, give_up_at, ..
            } if *give_up_at <= now => {
                let _ = sys::signal_process(*pid, Signal::KILL);
            }
            Upgrade::Proving(proving) if proving.is_overdue(now) => {
                match &self.server {
                    // Its end is the last that it may have.
                    Some(server) => {
                        let _ = sys::signal_process(server.pid, Signal::KILL);
                        proving.give_up();
                    }
                    None => self.go_back("the new program has no server that becomes ready"),
                }
            }
            Upgrade::Replacing { kill_at } if *kill_at <= now => {
                if let Some(server) = &self.server {
                    let _ = sys::signal_process(server.pid, Signal::KILL);
                }
            }
            Upgrade::None
            | Upgrade::Checking { .. }
            | Upgrade::Replacing { .. }
            | Upgrade::Proving(_) => {}
        }
    }

    /// A server is ready: an upgrade has come to its end, one way or the other.
    fn upgrade_is_over(&mut self) {
        match mem::replace(&mut self.upgrade, Upgrade::None) {
            Upgrade::Proving(proving) => {
                upgrade::note_outcome(self.state.path(), proving.outcome());
            }
            other @ (Upgrade::None | Upgrade::Checking { .. } | Upgrade::Replacing { .. }) => {
                self.upgrade = other;
            }
        }
    }

    /// The new program does not serve: becomes the one before it. If that fails, this one continues.
    fn go_back(&mut self, why: &str) {
        let Upgrade::Proving(Proving {
            previous: Some((program, invocation)),
            ..
        }) = mem::replace(&mut self.upgrade, Upgrade::None)
        else {
            return;
        };
        let error = match self.hand_over() {
            Ok((handover, _own)) => invocation.go_back(program.as_raw_fd(), why, handover),
            Err(error) => error,
        };
        let why = format!("{why}, and the program before it cannot be run: {error}");
        tracing::error!("upgrade: {why}");
        upgrade::note_outcome(self.state.path(), Outcome::Refused(why));
        self.restart_at.get_or_insert(clock::now().boot);
    }

    /// The server has ended: becomes the new program. If that fails, the old one continues.
    pub(super) fn become_successor(&mut self) {
        let error = match self.hand_over() {
            Ok((handover, _own)) => self.invocation.become_successor(&handover),
            Err(error) => error,
        };
        self.refuse_upgrade(&format!("cannot become the new program: {error}"));
        self.restarts = self.restarts.saturating_add(1);
        self.restart_at = Some(clock::now().boot);
    }

    /// What the next program gets, and the file of this one, which it has to find open.
    fn hand_over(&mut self) -> io::Result<(Handover, File)> {
        let own = File::open("/proc/self/exe")?;
        let handover = Handover {
            from_version: env!("CARGO_PKG_VERSION").to_owned(),
            restarts: self.restarts.saturating_add(1),
            draining: self.draining,
            original_nofile: self.host.original_nofile,
            tcp: handover::give_fd(self.listeners.tcp.as_fd())?,
            unix: handover::give_fd(self.listeners.unix.as_fd())?,
            lock: handover::give_fd(self.state.lock().as_fd())?,
            monitors: self.monitors.hand_over()?,
            previous: Some(handover::Previous {
                program: handover::give_fd(own.as_fd())?,
                invocation: self.invocation.clone(),
            }),
            failed: None,
        };
        Ok((handover, own))
    }
}
