//! What processes report of themselves.

use std::os::fd::AsFd;

use tokio::io::Interest;
use tokio::sync::oneshot;

use super::{Found, Look};
use job::JobId;
use job::ready::Report;
use linux::notify::NotifySocket;
use linux::tree::Tree;
use linux::{clock, failpoint, procfs, sys};

/// Where a process finds the name of the socket.
pub(crate) const VARIABLE: &str = "NOTIFY_SOCKET";

/// How far above a process its monitor is looked for.
const MOST_PARENTS: usize = 256;

/// The name of the socket of a job, in the abstract name space.
pub(crate) fn socket_name(id: JobId) -> String {
    format!("procession-notify-{id}")
}

/// Takes what is reported. Afterwards, too: a program whose socket is gone may take that amiss.
pub(super) async fn listen(
    look: &Look,
    socket: Option<NotifySocket>,
    found: oneshot::Sender<Found>,
) {
    let name = socket_name(look.present().id);
    let socket = match socket {
        Some(socket) => Ok(socket),
        None => {
            tokio::task::block_in_place(|| failpoint::hit("notify.binding"));
            NotifySocket::bind(&name)
        }
    };
    let socket = socket.and_then(|socket| sys::watch(socket.into(), Interest::READABLE));
    let socket = match socket {
        Ok(socket) => socket,
        Err(error) => return look.say(format!("it cannot report, without a socket: {error}")),
    };
    look.say("it has not reported READY=1");
    let (mut found, mut status) = (Some(found), None);
    loop {
        let received = socket.async_io(Interest::READABLE, |socket| {
            NotifySocket::receive(socket.as_fd())
        });
        let Ok((pid, message)) = received.await else {
            continue;
        };
        let report = Report::read(&message);
        if found.is_none() || report == Report::default() {
            continue;
        }
        let Some(tree) = look.tree() else { continue };
        let monitor = look.present().process.as_ref().map(|it| it.monitor_pid);
        let is_its = tokio::task::spawn_blocking(move || is_of(pid, monitor, &tree));
        if !is_its.await.unwrap_or(false) {
            tracing::debug!(
                pid,
                "a process that is none of the job's has reported to {name}"
            );
            continue;
        }
        status = report.status.or(status);
        if report.is_ready {
            let (at, message) = (clock::wall(), status.take());
            if let Some(found) = found.take() {
                let _ = found.send(Found { at, message });
            }
        } else if let Some(status) = &status {
            look.say(format!("it has not reported READY=1, but: {status}"));
        }
    }
}

/// Is this process one of the job's? It may have ended, as long as its parent has not waited for it.
fn is_of(pid: i32, monitor: Option<i32>, tree: &Tree) -> bool {
    let mut above = pid;
    for _ in 0..MOST_PARENTS {
        if Some(above) == monitor {
            return pid != above;
        }
        match procfs::stat(above) {
            Ok(stat) if stat.ppid > 1 => above = stat.ppid,
            Ok(_) | Err(_) => break,
        }
    }
    tree.members().iter().any(|stat| stat.pid == pid)
}
