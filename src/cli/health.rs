//! `procession health`: the health check of a container image, without curl in it.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use super::complain;

/// How long the service may take to answer.
const LIMIT: Duration = Duration::from_secs(5);

/// Whom to ask.
#[derive(Debug, clap::Args)]
pub(super) struct HealthArgs {
    /// The address that the service listens on.
    #[arg(
        long,
        env = "PROCESSION_LISTEN",
        value_name = "ADDR",
        default_value = "127.0.0.1:8080"
    )]
    listen: SocketAddr,
}

pub(super) fn run(args: &HealthArgs) -> ExitCode {
    let mut address = args.listen;
    if address.ip().is_unspecified() {
        address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    match status(address) {
        Ok(200) => ExitCode::SUCCESS,
        Ok(status) => {
            complain(&format!("{address} answers {status}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            complain(&format!("{address} does not answer: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn status(address: SocketAddr) -> io::Result<u16> {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    write!(
        stream,
        "GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.take(4096).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer
        .split_ascii_whitespace()
        .nth(1)
        .and_then(|word| word.parse().ok());
    status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))
}
