//! The threads that read. Each owns a connection; what is asked of them is a function, so they know
//! no query and no table.

use std::fmt;
use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::{Fault, StoreError};

type Reading = Box<dyn FnOnce(&Connection) + Send>;

enum Message {
    Read(Reading),
    Stop,
}

/// A handle to the reading threads.
#[derive(Clone)]
pub(super) struct Readers {
    messages: Sender<Message>,
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readers").finish_non_exhaustive()
    }
}

impl Readers {
    /// Gives each connection its own thread.
    pub(super) fn start(
        connections: Vec<Connection>,
    ) -> Result<(Self, Vec<JoinHandle<()>>), io::Error> {
        let (messages, inbox) = mpsc::channel();
        let inbox = Arc::new(Mutex::new(inbox));
        let threads = connections
            .into_iter()
            .map(|connection| {
                let inbox = Arc::clone(&inbox);
                thread::Builder::new()
                    .name("store-reader".to_owned())
                    .spawn(move || run(&connection, &inbox))
            })
            .collect::<Result<_, _>>()?;
        Ok((Self { messages }, threads))
    }

    /// Runs `read` on the next free thread. A reading whose asker is gone by then is skipped.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        doing: &'static str,
        read: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, wait) = oneshot::channel();
        let reading = move |connection: &Connection| {
            if !answer.is_closed() {
                // The asker may hang up during the reading as well.
                let _ = answer.send(read(connection));
            }
        };
        self.messages
            .send(Message::Read(Box::new(reading)))
            .map_err(|_| StoreError::closed(doing))?;
        match wait.await {
            Ok(answer) => answer.map_err(|fault| fault.doing(doing)),
            Err(_) => Err(StoreError::closed(doing)),
        }
    }

    /// Ends `count` threads once what was asked before is answered.
    pub(super) fn stop(&self, count: usize) {
        for _ in 0..count {
            // Fails only if every thread has ended already.
            let _ = self.messages.send(Message::Stop);
        }
    }
}

fn run(connection: &Connection, inbox: &Mutex<Receiver<Message>>) {
    loop {
        // One thread waits in the channel, the others for the lock; it is free while a reading runs.
        let message = inbox.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match message {
            Ok(Message::Read(reading)) => reading(connection),
            Ok(Message::Stop) | Err(_) => return,
        }
    }
}
