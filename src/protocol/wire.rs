//! Messages between the roles: one value per packet of a SOCK_SEQPACKET socket, descriptors beside it.
//!
//! A packet is one version byte and a MessagePack value with named fields, so that a monitor that has
//! run for weeks and a server that was upgraded today read each other: unknown fields are skipped,
//! missing ones take their default.

pub mod link;
pub mod messages;

use std::cell::RefCell;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{decode, encode};
use linux::sys;

/// The largest packet. Everything bigger goes beside it in a file.
pub const MAX_PACKET: usize = 16 * 1024;

/// The most descriptors beside a packet.
const MAX_FDS: usize = 8;

thread_local! {
    /// Where packets arrive. Most of them are small: the pages of a buffer for each one would be written to for
    /// nothing, and every page that the supervisor writes to between two forks is a copy that a monitor keeps.
    static RECEIVED: RefCell<Vec<u8>> = RefCell::new(vec![0; MAX_PACKET]);
}

/// What came out of a socket.
#[derive(Debug)]
pub enum Received<T> {
    /// A message and the descriptors that came with it.
    Message(T, Vec<OwnedFd>),
    /// The other side is gone.
    Closed,
}

/// A connected pair, both ends close-on-exec and blocking.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?)
}

/// Sends one message without blocking; `WouldBlock` if the other side's buffer is full.
pub fn send<T: Serialize>(
    socket: BorrowedFd<'_>,
    message: &T,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    send_bytes(socket, &encode(message)?, fds)
}

/// Sends an encoded message without blocking.
pub fn send_bytes(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if bytes.len() > MAX_PACKET {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "message too large for a packet",
        ));
    }
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let beside: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(bytes)],
        beside,
        flags,
        None,
    )?;
    Ok(())
}

/// Takes one message without blocking; `WouldBlock` if there is none.
pub fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> io::Result<Received<T>> {
    RECEIVED.with_borrow_mut(|buffer| receive_into(buffer, socket))
}

fn receive_into<T: DeserializeOwned>(
    buffer: &mut [u8],
    socket: BorrowedFd<'_>,
) -> io::Result<Received<T>> {
    let mut beside = cmsg_space!([RawFd; MAX_FDS]);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut beside), flags) {
        Ok(message) => message,
        Err(nix::errno::Errno::ECONNRESET) => return Ok(Received::Closed),
        Err(errno) => return Err(errno.into()),
    };
    let mut fds = Vec::new();
    for item in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = item {
            fds.extend(raw.into_iter().filter_map(sys::adopt_fd));
        }
    }
    let (length, truncated) = (message.bytes, message.flags.contains(MsgFlags::MSG_TRUNC));
    if length == 0 {
        return Ok(Received::Closed);
    }
    if truncated {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "message larger than a packet",
        ));
    }
    let bytes = buffer.get(..length).unwrap_or_default();
    Ok(Received::Message(decode(bytes)?, fds))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_message_arrives_whole_with_its_descriptors() {
        let (a, b) = pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        send(a.as_fd(), &("hello", 7), &[file.as_fd(), file.as_fd()]).unwrap();
        match receive::<(String, i32)>(b.as_fd()).unwrap() {
            Received::Message(message, fds) => {
                assert_eq!(message, ("hello".to_owned(), 7));
                assert_eq!(fds.len(), 2);
            }
            Received::Closed => panic!("closed"),
        }
        assert_eq!(
            receive::<()>(b.as_fd()).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        drop(a);
        assert!(matches!(
            receive::<()>(b.as_fd()).unwrap(),
            Received::Closed
        ));
    }
}
