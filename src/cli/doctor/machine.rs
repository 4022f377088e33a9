//! What this machine and the state directory tell: everything that is read.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::unistd::geteuid;

use super::health::Health;
use crate::config::Config;
use http::policy::Policy;
use http::tls;
use http::tokens::{self, Access};
use job::sandbox::Features;
use linux::clock;
use linux::sandbox;
use protocol::state_dir::{SYSTEM_STATE_DIR, UNIX_SOCKET};

/// How long a running service may take to answer.
const LIMIT: Duration = Duration::from_secs(5);

/// What this machine and the state directory tell.
#[derive(Debug, Default)]
pub(super) struct Machine {
    pub(super) is_root: bool,
    /// Mode and owner of the state directory, if there is one.
    pub(super) state_dir: Option<(u32, u32)>,
    pub(super) uid: u32,
    /// There is the state of a service that was installed on this machine, as a package does.
    pub(super) has_installed_service: bool,
    pub(super) default_token: Option<u32>,
    pub(super) tokens: Option<Result<Vec<(Access, bool)>, String>>,
    pub(super) policy: Option<Result<(usize, bool), String>>,
    pub(super) tls: Option<Result<(), String>>,
    /// The answer to `GET /info` of a running service.
    pub(super) info: Option<serde_json::Value>,
    pub(super) cgroup_kill: bool,
    pub(super) features: Features,
    pub(super) health: Health,
}

impl Machine {
    pub(super) fn look(config: &Config, backup: Option<Result<Duration, String>>) -> Self {
        let mode = |path: &Path| fs::symlink_metadata(path).ok().map(|found| found.mode());
        let now = clock::wall();
        let tokens = tokens::list(&config.state_dir).map(|tokens| {
            let told = tokens.iter().map(|token| {
                let expired = token.expires_at.is_some_and(|end| end <= now);
                (token.scope(), expired)
            });
            told.collect()
        });
        let info = info(&config.state_dir);
        let service = info
            .as_ref()
            .and_then(|info| i32::try_from(info["supervisor_pid"].as_i64()?).ok());
        Self {
            health: Health::look(config, service, backup),
            is_root: geteuid().is_root(),
            state_dir: fs::symlink_metadata(&config.state_dir)
                .ok()
                .map(|found| (found.mode(), found.uid())),
            uid: geteuid().as_raw(),
            has_installed_service: Path::new(SYSTEM_STATE_DIR).exists(),
            default_token: mode(&config.state_dir.join("token")),
            tokens: Some(tokens.map_err(|error| error.to_string())),
            policy: config
                .policy
                .as_deref()
                .map(|path| Policy::read(path).map(|policy| (policy.len(), policy.is_all()))),
            tls: config.tls.as_ref().map(|tls| tls::acceptor(tls).map(drop)),
            info,
            cgroup_kill: has_cgroup_kill(),
            features: sandbox::features(),
        }
    }
}

/// cgroup v2 with `cgroup.kill` (Linux 5.14) in the group of this process.
fn has_cgroup_kill() -> bool {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    own.lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .is_some_and(|path| {
            let group = Path::new("/sys/fs/cgroup").join(path);
            // The root group has no such file, but those below it do.
            group.join("cgroup.kill").exists()
                || (path.is_empty() && group.join("cgroup.procs").exists())
        })
}

fn info(state_dir: &Path) -> Option<serde_json::Value> {
    let ask = || -> io::Result<Vec<u8>> {
        // An address has room for 108 bytes; this form does not depend on the length of the path.
        let directory = fs::File::open(state_dir)?;
        let mut stream = UnixStream::connect(format!(
            "/proc/self/fd/{}/{UNIX_SOCKET}",
            directory.as_raw_fd()
        ))?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        stream.write_all(b"GET /info HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.take(1 << 20).read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().ok()?;
    let text = String::from_utf8(answer).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200 ")
        .then(|| serde_json::from_str(body).ok())
        .flatten()
}
