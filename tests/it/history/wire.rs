//! What lies between a node and its hub, and can be cut.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Open,
    /// Nothing comes through, and nobody is told.
    Frozen,
    /// Connections break, and there are no new ones.
    Cut,
}

/// A way to the hub.
pub(crate) struct Wire {
    pub(crate) port: u16,
    mode: watch::Sender<Mode>,
    /// It ends with this.
    _carrying: JoinSet<()>,
}

impl Wire {
    pub(crate) async fn lay(port: u16, to: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let mode = watch::Sender::new(Mode::Open);
        let seen = mode.clone();
        let mut carrying = JoinSet::new();
        carrying.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (near, _) = listener.accept().await.unwrap();
                while connections.try_join_next().is_some() {}
                if *seen.borrow() != Mode::Cut {
                    connections.spawn(carry(near, to, seen.subscribe()));
                }
            }
        });
        Self {
            port,
            mode,
            _carrying: carrying,
        }
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

async fn carry(near: TcpStream, to: u16, mode: watch::Receiver<Mode>) {
    let Ok(far) = TcpStream::connect(("127.0.0.1", to)).await else {
        return;
    };
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let mut cut = mode.clone();
    tokio::select! {
        () = pass(near_read, far_write, mode.clone()) => {}
        () = pass(far_read, near_write, mode) => {}
        _ = cut.wait_for(|it| *it == Mode::Cut) => {}
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut mode: watch::Receiver<Mode>) {
    let mut piece = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        if mode.wait_for(|it| *it == Mode::Open).await.is_err() {
            return;
        }
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}
