//! The socket that processes report to, as sd_notify(3) has it, and who it was that reported.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, UnixCredentials,
    bind, recvmsg, setsockopt, socket, sockopt,
};
use nix::unistd::close;

/// The longest message that is read; of a longer one, its beginning.
const MESSAGE_BYTES: usize = 4096;

/// The most descriptors that a message brings (unix(7)).
const DESCRIPTORS: usize = 253;

/// A socket with a name in the abstract name space: it leaves nothing behind, and every user reaches it.
#[derive(Debug)]
pub struct NotifySocket(OwnedFd);

impl NotifySocket {
    /// Makes the socket, whose name others give as `@name`.
    pub fn bind(name: &str) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
        // Before it has a name: what is sent carries the sender from the first message on.
        setsockopt(&fd, sockopt::PassCred, &true)?;
        bind(fd.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes())?)?;
        Ok(Self(fd))
    }

    /// Takes a message, with the process that sent it; `WouldBlock` if there is none. Descriptors that come with it are
    /// closed: that is how a sender learns that it was read.
    pub fn receive(socket: BorrowedFd<'_>) -> io::Result<(i32, Vec<u8>)> {
        let mut bytes = vec![0; MESSAGE_BYTES];
        let mut parts = [IoSliceMut::new(&mut bytes)];
        // Without room for what comes, there is no word of the sender either.
        let mut control = cmsg_space!(UnixCredentials, [RawFd; DESCRIPTORS]);
        let received = recvmsg::<UnixAddr>(
            socket.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC,
        )?;
        let mut sender = None;
        for message in received.cmsgs()? {
            if let ControlMessageOwned::ScmCredentials(credentials) = message {
                sender = Some(credentials.pid());
            } else if let ControlMessageOwned::ScmRights(descriptors) = message {
                for descriptor in descriptors {
                    let _ = close(descriptor);
                }
            }
        }
        let length = received.bytes;
        bytes.truncate(length);
        // 0 is nobody: a process of another PID namespace.
        Ok((sender.unwrap_or_default(), bytes))
    }
}

impl AsFd for NotifySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<NotifySocket> for OwnedFd {
    fn from(socket: NotifySocket) -> Self {
        socket.0
    }
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    use super::*;

    #[test]
    fn a_message_comes_with_its_sender() {
        let name = format!("procession-notify-test-{}", std::process::id());
        let socket = NotifySocket::bind(&name).unwrap();
        let nothing = NotifySocket::receive(socket.as_fd()).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        sender.send_to_addr(b"READY=1", &address).unwrap();
        let (pid, message) = NotifySocket::receive(socket.as_fd()).unwrap();
        assert_eq!(pid, i32::try_from(std::process::id()).unwrap());
        assert_eq!(message, b"READY=1");
        // Its name is its own, and free when it is gone.
        assert!(NotifySocket::bind(&name).is_err());
        drop(socket);
        NotifySocket::bind(&name).unwrap();
    }
}
