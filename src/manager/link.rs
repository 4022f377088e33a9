//! The manager's ends of the sockets to the supervisor and to the monitors.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use job::JobId;
use linux::sys;
use protocol::codec;
use protocol::record;
use protocol::wire::messages::{
    Begin, FromMonitor, FromSupervisor, Launch, ToMonitor, ToSupervisor,
};
use protocol::wire::{self, Received};

#[derive(Debug)]
struct Socket(AsyncFd<OwnedFd>);

impl Socket {
    fn new(fd: OwnedFd) -> io::Result<Self> {
        // Every read and write asks not to block by itself; the flag on the socket is not needed.
        sys::watch(fd, Interest::READABLE).map(Self)
    }

    /// Dropping the future loses no message.
    async fn receive<T: DeserializeOwned>(&self) -> io::Result<Received<T>> {
        self.0
            .async_io(Interest::READABLE, |fd| wire::receive(fd.as_fd()))
            .await
    }

    async fn send<T: Serialize>(&self, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = codec::encode(message)?;
        match wire::send_bytes(self.0.get_ref().as_fd(), &bytes, fds) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            sent => return sent,
        }
        // There is nearly always room. Whoever watches for it is woken by each message that the other side
        // takes, so it is watched for only now.
        let watched = sys::watch(self.0.get_ref().try_clone()?, Interest::WRITABLE)?;
        watched
            .async_io(Interest::WRITABLE, |fd| {
                wire::send_bytes(fd.as_fd(), &bytes, fds)
            })
            .await
    }
}

/// The socket to the supervisor.
#[derive(Debug)]
pub(super) struct SupervisorLink(Socket);

impl SupervisorLink {
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        Socket::new(fd).map(Self)
    }

    /// The next thing the supervisor says; `None` when it is gone.
    pub(super) async fn receive(&self) -> io::Result<Option<FromSupervisor>> {
        match self.0.receive().await? {
            Received::Message(message, _) => Ok(Some(message)),
            Received::Closed => Ok(None),
        }
    }

    pub(super) async fn ready(&self) -> io::Result<()> {
        self.0.send(&ToSupervisor::Ready, &[]).await
    }

    pub(super) async fn alive(&self) -> io::Result<()> {
        self.0.send(&ToSupervisor::Alive, &[]).await
    }

    /// Has the supervisor keep whether new jobs are refused.
    pub(super) async fn drain(&self, draining: bool) -> io::Result<()> {
        self.0.send(&ToSupervisor::Drain(draining), &[]).await
    }

    /// Has the supervisor let go of a job's standard input.
    pub(super) async fn close_stdin(&self, job: JobId) -> io::Result<()> {
        self.0.send(&ToSupervisor::CloseStdin { job }, &[]).await
    }

    /// Has a monitor forked for this launch, and returns the socket to it.
    pub(super) async fn launch(&self, launch: &Launch) -> io::Result<MonitorLink> {
        let (ours, theirs) = wire::pair()?;
        give_launch(ours.as_fd(), launch)?;
        let message = ToSupervisor::Launch {
            job: launch.job,
            merge_stderr: launch.plan.output.merge_stderr || launch.pty.is_some(),
            open_stdin: launch.open_stdin,
            pty: launch.pty.is_some(),
        };
        self.0.send(&message, &[theirs.as_fd()]).await?;
        MonitorLink::new(ours)
    }
}

/// Puts a launch into a socket that nobody reads yet, as its first packet; in a file if it is too large for one.
fn give_launch(socket: BorrowedFd<'_>, launch: &Launch) -> io::Result<()> {
    let bytes = codec::encode(&Some(launch))?;
    if bytes.len() <= wire::MAX_PACKET {
        return wire::send_bytes(socket, &bytes, &[]);
    }
    let mut file = File::from(memfd_create(c"launch", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(&bytes)?;
    wire::send(socket, &None::<&Launch>, &[file.as_fd()])
}

/// The socket to a job's monitor.
#[derive(Debug)]
pub(super) struct MonitorLink(Socket);

impl MonitorLink {
    fn new(fd: OwnedFd) -> io::Result<Self> {
        Socket::new(fd).map(Self)
    }

    /// Connects to a monitor that has lost its server. `NotFound` or `ConnectionRefused` if it does
    /// not listen (yet).
    pub(super) fn connect(directory: BorrowedFd<'_>) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket::socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
        let path = format!(
            "/proc/self/fd/{}/{}",
            directory.as_raw_fd(),
            record::CONTROL_SOCKET
        );
        socket::connect(fd.as_raw_fd(), &UnixAddr::new(path.as_str())?)?;
        Self::new(fd)
    }

    /// The next thing the monitor says; `None` when it is gone.
    pub(super) async fn receive(&self) -> io::Result<Option<FromMonitor>> {
        match self.0.receive().await? {
            Received::Message(message, _) => Ok(Some(message)),
            Received::Closed => Ok(None),
        }
    }

    /// Lets a launch go on that is held.
    pub(super) async fn begin(&self) -> io::Result<()> {
        self.0.send(&Begin, &[]).await
    }

    pub(super) async fn send(&self, message: &ToMonitor) -> io::Result<()> {
        self.0.send(message, &[]).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_waits_for_room() {
        let (ours, theirs) = wire::pair().unwrap();
        let ours = Socket::new(ours).unwrap();
        let text = "x".repeat(10_000);
        let mut sent = 0;
        let fd = ours.0.get_ref().as_fd();
        while wire::send(fd, &(sent, &text), &[]).is_ok() {
            sent += 1;
        }
        let last = (sent, &text);
        let taken = async {
            let theirs = Socket::new(theirs).unwrap();
            let mut taken = Vec::new();
            while taken.last() != Some(&sent) {
                match theirs.receive::<(i32, String)>().await.unwrap() {
                    Received::Message((number, _), _) => taken.push(number),
                    Received::Closed => break,
                }
            }
            taken
        };
        let (done, taken) = tokio::join!(ours.send(&last, &[]), taken);
        done.unwrap();
        assert_eq!(taken, (0..=sent).collect::<Vec<i32>>());
    }
}
