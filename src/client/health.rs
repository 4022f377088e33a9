//! `procession health`: the health check of a container image, without curl in it.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use protocol::state_dir::{Surroundings, UNIX_SOCKET};
use protocol::stderr::complain;

/// How long the service may take to answer.
const LIMIT: Duration = Duration::from_secs(5);

/// Whom to ask.
#[derive(Debug, clap::Args)]
pub struct HealthArgs {
    /// Address the service listens on; without it and --state-dir, 127.0.0.1:8080
    #[arg(long, env = "PROCESSION_LISTEN", value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// With TLS or port 0, the unix socket in the state directory is used instead
    #[arg(
        long,
        env = "PROCESSION_TLS_CERT",
        value_name = "FILE",
        hide_env_values = true
    )]
    tls_cert: Option<PathBuf>,
    /// State directory of the service, if not the default one; without --listen, the unix socket in it is used
    #[arg(long, env = "PROCESSION_STATE_DIR", value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

pub fn run(args: &HealthArgs) -> ExitCode {
    // Any port stands for the unix socket.
    let port = if args.state_dir.is_some() { 0 } else { 8080 };
    let usual = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    let mut address = args.listen.unwrap_or(usual);
    if address.ip().is_unspecified() {
        address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    match ask(args, address) {
        Ok(200) => ExitCode::SUCCESS,
        Ok(status) => {
            complain(&format!("{address} answers with status {status}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            complain(&format!("{address} does not answer: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn ask(args: &HealthArgs, address: SocketAddr) -> io::Result<u16> {
    // Which port 0 has become is known to the service alone.
    if args.tls_cert.is_none() && address.port() != 0 {
        let stream = TcpStream::connect_timeout(&address, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        return status(stream, address);
    }
    let given = args.state_dir.clone();
    let state_dir = given
        .or_else(|| Surroundings::read().state_dir())
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no state directory"))?;
    let stream = UnixStream::connect(state_dir.join(UNIX_SOCKET))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    status(stream, address)
}

fn status(mut stream: impl Read + Write, address: SocketAddr) -> io::Result<u16> {
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
