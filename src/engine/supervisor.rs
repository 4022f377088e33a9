//! The supervisor: the first process, one thread, about a megabyte; PID 1 in a container.
//!
//! It forks monitors and the server, reaps everything, restarts the server, and holds what must outlive
//! them: the listening sockets and a spare read end of every job's pipes, so that nobody's death sends a
//! job SIGPIPE or refuses a connection. It holds no policy, parses no JSON and knows no HTTP.

mod backoff;
mod beginning;
mod fork_among_many;
mod handover;
mod idle_monitors;
mod monitors;
mod pipes;
mod pulse;
mod server_process;
mod service_manager;
mod signals;
mod stop;
mod upgrade;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;

use crate::monitor::{Host, Note};
use backoff::Backoff;
use beginning::{Beginning, Surroundings};
use handover::Invocation;
pub use handover::{go_back, understands_handover};
use job::Signal;
use job::time::BootInstant;
use linux::clock;
use linux::sys::{self, Pid, WaitTarget};
use monitors::Monitors;
use protocol::inherited::Inherited;
use protocol::listeners::Listeners;
use protocol::record;
use protocol::state_dir::StateDir;
use protocol::stderr::Failure;
use protocol::wire::messages::FromSupervisor;
use server_process::ServerProcess;
use service_manager::{Phase, ServiceManager};
use signals::{Arrived, Signals};
use stop::{Asked, Shutdown};
use upgrade::Upgrade;

/// From so many monitors on, launches and ends must not cost more the more there are: a signal's sender is
/// reaped and not every child asked, since waitid(2) for any child looks at all of them.
const MANY: usize = 64;

/// How long after a signal every child is asked all the same: signals of ends that come together are one.
const SWEEP_AFTER: Duration = Duration::from_millis(50);

/// How long supervisor, monitors and server run at a time while others wait, the least that the kernel takes: each does
/// little when it is woken, and somebody waits for it. Jobs have the kernel's own slice.
const SLICE: Duration = Duration::from_micros(100);

/// Runs the service until it is told to end. One line on stderr says why it could not start.
#[must_use]
pub fn run(settings: Settings, server: Server) -> ExitCode {
    match Supervisor::start(settings, server) {
        Ok(mut supervisor) => {
            let code = supervisor.serve();
            if let Some(home) = &supervisor.host.cgroup {
                home.leave();
            }
            code
        }
        Err(failure) => {
            tracing::error!("cannot start: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}

/// What the supervisor needs to know of the service's settings.
#[derive(Debug)]
pub struct Settings {
    /// The address to listen on.
    pub listen: SocketAddr,
    /// Where everything is kept; absolute.
    pub state_dir: PathBuf,
    /// The most time that jobs get when the service ends.
    pub shutdown_grace: Duration,
    /// Running jobs are stopped when the service ends; otherwise their monitors continue with them.
    pub stop_jobs: bool,
}

/// What a forked server does; the result is its exit code.
pub type Server = Box<dyn Fn(Inherited) -> u8>;

struct Supervisor {
    settings: Settings,
    become_server: Server,
    /// Held for its lock.
    state: StateDir,
    host: Host,
    /// Why there is no cgroup home.
    no_cgroup: Option<String>,
    listeners: Listeners,
    signals: Signals,
    server: Option<ServerProcess>,
    restarts: u32,
    backoff: Backoff,
    /// New jobs are refused, whichever server is asked.
    draining: bool,
    restart_at: Option<BootInstant>,
    /// When every child is looked at for ends that no signal has told of one by one.
    sweep_at: Option<BootInstant>,
    monitors: Monitors,
    /// Where monitors say that their jobs are over.
    idle_notes: OwnedFd,
    shutdown: Option<Shutdown>,
    invocation: Invocation,
    upgrade: Upgrade,
    service_manager: ServiceManager,
    /// How long a server may give no sign of life.
    server_limit: Option<Duration>,
}

impl Supervisor {
    fn start(settings: Settings, become_server: Server) -> Result<Self, Failure> {
        let signals = Signals::take().map_err(Failure::system("cannot take signals"))?;
        sys::raw::set_slice(Some(SLICE));
        let passed = linux::service_manager::sockets().map_err(Failure::system(
            "cannot take the sockets that were passed on",
        ))?;
        let handover = handover::take().map_err(Failure::system("cannot take over"))?;
        let draining = handover.as_ref().is_some_and(|handover| handover.draining);
        let failed = handover.as_ref().and_then(|it| it.failed.as_ref());
        let binary = failed.map(|failed| failed.binary.clone());
        let mut beginning = match handover {
            Some(handover) => upgrade::take_over(&settings.state_dir, handover)?,
            None => Beginning::first(&settings, passed)?,
        };
        if beginning.state.is_copy() {
            tracing::warn!(
                "state directory {} is a copy: the processes of its jobs are left alone, and those jobs are lost",
                beginning.state.path().display()
            );
        }
        beginning.monitors.prepare();
        // Before the first fork, so that no monitor does it again.
        record::warm_up();
        prctl::set_child_subreaper(true)
            .map_err(io::Error::from)
            .map_err(Failure::system("cannot become a subreaper"))?;
        let Surroundings {
            host,
            no_cgroup,
            idle_notes,
        } = beginning.surroundings()?;
        Ok(Self {
            settings,
            become_server,
            state: beginning.state,
            host,
            no_cgroup,
            listeners: beginning.listeners,
            signals,
            server: None,
            restarts: beginning.restarts,
            backoff: Backoff::default(),
            draining,
            restart_at: None,
            sweep_at: None,
            monitors: beginning.monitors,
            idle_notes,
            shutdown: None,
            invocation: Invocation::read(binary)
                .map_err(Failure::system("cannot find the program's own file"))?,
            upgrade: beginning.upgrade,
            service_manager: ServiceManager::read(clock::now().boot),
            server_limit: linux::service_manager::watchdog(),
        })
    }

    fn serve(&mut self) -> ExitCode {
        // After a handover, children may have ended while there was nobody to see it.
        if let Some(code) = self.on_signals() {
            return code;
        }
        // The supervisor and every monitor live longer than what only a start needs.
        sys::forget_text_pages();
        // Here and not in each monitor, which would write to the pages that it gives back.
        sys::give_back_memory();
        // Nor is a server needed where the end was asked for before there was one.
        if self.shutdown.is_none()
            && let Err(error) = self.start_server()
        {
            tracing::error!(%error, "cannot start: cannot fork the server: {error}");
            return ExitCode::FAILURE;
        }
        if let Some(code) = self.on_time() {
            return code;
        }
        loop {
            let (signal, idle, message) = match self.wait() {
                Ok(ready) => ready,
                Err(error) => {
                    tracing::error!(%error, "the supervisor cannot wait for events: {error}");
                    return ExitCode::FAILURE;
                }
            };
            if signal || idle || message {
                self.service_manager.note_change(clock::now().boot);
            }
            if idle {
                self.on_idle_monitors();
            }
            if message {
                self.on_server_messages();
            }
            if signal && let Some(code) = self.on_signals() {
                return code;
            }
            if let Some(code) = self.on_time() {
                return code;
            }
        }
    }

    /// Waits for a signal, a monitor's note, a message or a due time; says which of the first three came.
    fn wait(&self) -> io::Result<(bool, bool, bool)> {
        let now = clock::now().boot;
        let due = [
            self.restart_at,
            self.sweep_at,
            self.monitors.idle_due(),
            self.upgrade.due(),
            self.shutdown.as_ref().map(|shutdown| shutdown.kill_at),
            self.server.as_ref().and_then(|server| server.stuck_at),
            self.server
                .as_ref()
                .and_then(|server| Some(server.pulse?.due())),
            self.service_manager.due(),
        ];
        let next = due.into_iter().flatten().min().map(|at| at.remaining(now));
        // Past a deadline of the shutdown, look again every 100 ms; it is over soon.
        let timeout =
            next.map(|left| left.max(Duration::from_millis(if left.is_zero() { 100 } else { 1 })));
        let timeout = match timeout {
            Some(left) => PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX),
            None => PollTimeout::NONE,
        };
        let mut polled = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.idle_notes.as_fd(), PollFlags::POLLIN),
        ];
        let socket = self
            .server
            .as_ref()
            .and_then(|server| server.socket.as_ref());
        polled.extend(socket.map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)));
        match poll(&mut polled, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ready = |index: usize| {
            polled
                .get(index)
                .and_then(PollFd::revents)
                .is_some_and(|events| !events.is_empty())
        };
        Ok((ready(0), ready(1), ready(2)))
    }

    /// Takes signals and reaps; an exit code if the service is over.
    fn on_signals(&mut self) -> Option<ExitCode> {
        let Arrived {
            end,
            upgrade,
            ended,
        } = self.signals.read();
        if let Some(asked) = end {
            self.begin_shutdown(asked);
        }
        if upgrade {
            self.begin_upgrade();
        }
        if self.monitors.len() < MANY {
            return self.reap([WaitTarget::Any]);
        }
        self.sweep_at
            .get_or_insert_with(|| clock::now().boot.after(SWEEP_AFTER));
        self.reap(ended.into_iter().map(WaitTarget::Child))
    }

    /// Reaps what has ended of these; an exit code if the service is over.
    fn reap(&mut self, targets: impl IntoIterator<Item = WaitTarget>) -> Option<ExitCode> {
        let mut server_ended = None;
        for target in targets {
            while let Ok(Some(ended)) = sys::wait(target, true) {
                match &self.server {
                    Some(server) if server.pid == ended.pid => server_ended = Some(ended.end),
                    Some(_) | None if self.upgrade.is_checked_by(ended.pid) => {
                        self.on_checked(ended.end);
                    }
                    Some(_) | None => self.monitors.reaped(ended.pid, ended.end),
                }
            }
            while let Some(stopped) = sys::stopped_child(target) {
                self.wake(stopped);
            }
        }
        let server = self.server.as_ref().map(|server| server.pid);
        self.monitors.settle(&self.host, server);
        server_ended.and_then(|end| self.on_server_ended(end))
    }

    /// A job may stop its own monitor, which could do nothing for it then, not even end it. What is a job's own, and
    /// only a child of this process since its monitor is dead, stays as it is.
    fn wake(&self, stopped: Pid) {
        let is_server = self
            .server
            .as_ref()
            .is_some_and(|server| server.pid == stopped);
        if is_server || self.monitors.contains(stopped) {
            tracing::warn!(
                pid = stopped.as_i32(),
                "process {} of the service was stopped, and is woken",
                stopped.as_i32()
            );
            let _ = sys::signal_process(stopped, Signal::CONT);
        }
    }

    /// Takes in which monitors could have another job.
    fn on_idle_monitors(&mut self) {
        while let Some(note) = Note::read(&self.idle_notes) {
            self.monitors.on_idle(note);
        }
        if self.shutdown.is_some() {
            self.monitors.dismiss_idle();
        }
    }

    fn on_time(&mut self) -> Option<ExitCode> {
        let now = clock::now().boot;
        self.monitors.dismiss_overdue(now);
        if self.sweep_at.is_some_and(|at| at <= now) {
            self.sweep_at = None;
            if let Some(code) = self.reap([WaitTarget::Any]) {
                return Some(code);
            }
        }
        if self.restart_at.is_some_and(|at| at <= now)
            && let Err(error) = self.start_server()
        {
            tracing::error!(%error, "cannot fork the server: {error}");
            self.restart_at = Some(now.after(self.backoff.after(false, Duration::ZERO)));
        }
        if let Some(server) = &mut self.server
            && server.stuck_at.is_some_and(|at| at <= now)
        {
            let _ = sys::signal_process(server.pid, Signal::KILL);
            server.stuck_at = None;
        }
        self.on_silent_server(now);
        self.on_upgrade_time(now);
        let monitors = &self.monitors;
        self.service_manager.on_time(now, || monitors.jobs());
        self.on_shutdown_time(now)
    }

    fn begin_shutdown(&mut self, asked: Asked) {
        let now = clock::now().boot;
        let kill_at = match &self.shutdown {
            None => now.after(self.settings.shutdown_grace),
            Some(_) => now, // The second time means at once.
        };
        let jobs = self.monitors.jobs();
        stop::announce(asked, self.shutdown.is_some(), &self.settings, jobs);
        let shutdown = Shutdown::new(kill_at);
        let limit = shutdown.limit(now);
        self.service_manager.enter(Phase::Stopping { limit }, jobs);
        self.shutdown = Some(shutdown);
        self.restart_at = None;
        self.monitors.dismiss_idle();
        self.tell_server(&FromSupervisor::Shutdown {
            stop_jobs: self.settings.stop_jobs,
            kill_at,
        });
    }

    /// After the server's end: have the monitors ended, where they should?
    fn is_over(&mut self, orderly: bool) -> Option<ExitCode> {
        if self.server.is_some() {
            return None;
        }
        if self.settings.stop_jobs && !self.monitors.is_empty() {
            return None;
        }
        let jobs = self.monitors.jobs();
        let left = match jobs {
            0 => String::new(),
            jobs => format!("; {jobs} jobs go on"),
        };
        tracing::info!(jobs, "the service has ended{left}");
        Some(if orderly {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    fn on_shutdown_time(&mut self, now: BootInstant) -> Option<ExitCode> {
        let shutdown = self.shutdown.as_mut()?;
        let is_overdue = shutdown.is_overdue(now);
        if self.server.is_none() {
            // Nobody else can stop the jobs now. A second SIGTERM asks a monitor not to be polite; it is repeated, since
            // one that meets another's in the queue is lost.
            if self.settings.stop_jobs && shutdown.asks_monitors(now) {
                self.monitors.terminate();
            }
            if let Some(code) = self.is_over(true) {
                return Some(code);
            }
        }
        is_overdue.then(|| {
            let jobs = self.monitors.jobs();
            tracing::error!(
                jobs,
                "the shutdown took too long; {jobs} jobs may still have processes"
            );
            if let Some(server) = &self.server {
                // It must not continue without a supervisor.
                let _ = sys::signal_process(server.pid, Signal::KILL);
            }
            ExitCode::FAILURE
        })
    }
}
