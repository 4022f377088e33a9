//! A light HTTP/1.1 client on blocking sockets: keep-alive, one thread, nothing allocated per request.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// A connection with at most one request under way.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer with its whole body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// Where a complete answer in a buffer ends.
struct Frame {
    status: u16,
    head: usize,
    end: usize,
}

fn frame(buffer: &[u8]) -> io::Result<Option<Frame>> {
    let Some(head) = buffer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = head + 4;
    let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
    let status = text
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| io::Error::other("no status line"))?;
    let length: usize = text
        .split("content-length:")
        .nth(1)
        .and_then(|rest| rest.split("\r\n").next())
        .map_or(Ok(0), |value| value.trim().parse())
        .map_err(io::Error::other)?;
    if text.contains("transfer-encoding: chunked") {
        let complete = buffer.ends_with(b"0\r\n\r\n");
        return Ok(complete.then_some(Frame {
            status,
            head,
            end: buffer.len(),
        }));
    }
    let end = head + length;
    Ok((buffer.len() >= end).then_some(Frame { status, head, end }))
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(120)))?;
        Ok(Self {
            stream,
            buffer: Vec::with_capacity(1 << 16),
        })
    }

    fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.write_all(request)
    }

    /// Reads what is there; the answer's frame once it is complete.
    fn receive(&mut self) -> io::Result<Option<Frame>> {
        let mut piece = [0; 1 << 14];
        let count = self.stream.read(&mut piece)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.buffer.extend_from_slice(&piece[..count]);
        frame(&self.buffer)
    }

    /// One request and its answer.
    pub(crate) fn exchange(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.buffer.clear();
        self.send(request)?;
        let frame = loop {
            if let Some(frame) = self.receive()? {
                break frame;
            }
        };
        Ok(Answer {
            status: frame.status,
            body: String::from_utf8_lossy(&self.buffer[frame.head..frame.end]).into_owned(),
        })
    }

    /// One request whose body is only counted; returns the bytes of the body.
    pub(crate) fn download(&mut self, request: &[u8]) -> io::Result<u64> {
        self.buffer.clear();
        self.send(request)?;
        let mut piece = vec![0; 1 << 18];
        let mut total = 0_u64;
        let (mut head, mut length) = (0_u64, None);
        loop {
            let count = self.stream.read(&mut piece)?;
            total += count_of(count);
            if length.is_none() {
                self.buffer.extend_from_slice(&piece[..count]);
                let text = String::from_utf8_lossy(&self.buffer).to_ascii_lowercase();
                if let Some(end) = text.find("\r\n\r\n") {
                    head = count_of(end + 4);
                    let value = text
                        .split("content-length:")
                        .nth(1)
                        .and_then(|rest| rest.split("\r\n").next())
                        .and_then(|value| value.trim().parse::<u64>().ok());
                    length = Some(value.ok_or_else(|| io::Error::other("no length"))?);
                }
            }
            if count == 0 || length.is_some_and(|length| total >= head + length) {
                return Ok(total - head);
            }
        }
    }
}

fn count_of(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// What came of a load.
pub(crate) struct Load {
    /// Answers with a 2xx status.
    pub(crate) done: u64,
    /// All others.
    pub(crate) refused: u64,
}

/// Keeps `connections` busy: each sends what `next` gives as soon as its last answer is complete, until
/// `next` gives nothing.
pub(crate) fn drive(
    address: SocketAddr,
    connections: usize,
    mut next: impl FnMut() -> Option<Vec<u8>>,
) -> io::Result<Load> {
    converse(address, connections, |_| next())
}

/// The same with requests that depend on the body of the connection's last answer; the first has none.
pub(crate) fn converse(
    address: SocketAddr,
    connections: usize,
    mut next: impl FnMut(Option<&[u8]>) -> Option<Vec<u8>>,
) -> io::Result<Load> {
    let mut open = Vec::with_capacity(connections);
    let mut load = Load {
        done: 0,
        refused: 0,
    };
    for _ in 0..connections {
        if let Some(request) = next(None) {
            let mut connection = Connection::open(address)?;
            connection.send(&request)?;
            open.push(connection);
        }
    }
    while !open.is_empty() {
        let mut polled: Vec<PollFd<'_>> = open
            .iter()
            .map(|connection| PollFd::new(connection.stream.as_fd(), PollFlags::POLLIN))
            .collect();
        poll(&mut polled, PollTimeout::NONE)?;
        let ready: Vec<bool> = polled
            .iter()
            .map(|fd| fd.any().unwrap_or_default())
            .collect();
        let mut index = 0;
        let mut failed = None;
        open.retain_mut(|connection| {
            let is_ready = ready[index];
            index += 1;
            if !is_ready {
                return true;
            }
            let step = connection.receive().and_then(|frame| {
                let Some(frame) = frame else {
                    return Ok(true);
                };
                if (200..300).contains(&frame.status) {
                    load.done += 1;
                } else {
                    load.refused += 1;
                }
                let request = next(Some(&connection.buffer[frame.head..frame.end]));
                connection.buffer.clear();
                match request {
                    Some(request) => connection.send(&request).map(|()| true),
                    None => Ok(false),
                }
            });
            step.unwrap_or_else(|error| {
                failed = Some(error);
                false
            })
        });
        if let Some(error) = failed {
            return Err(error);
        }
    }
    Ok(load)
}

/// The same request over and over for `time`.
pub(crate) fn drive_for(
    address: SocketAddr,
    connections: usize,
    time: Duration,
    request: &[u8],
) -> io::Result<Load> {
    let end = Instant::now() + time;
    drive(address, connections, || {
        (Instant::now() < end).then(|| request.to_vec())
    })
}
