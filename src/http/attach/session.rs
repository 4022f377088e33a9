//! One conversation: what the job writes goes out while what the client types goes in, until one of them, the
//! client's permission or the service ends.
//!
//! Both directions run side by side in one task, so that a job that does not read holds up its input and
//! nothing else. What a message means is not known here.

use std::io;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite;

use super::frames::{self, Close, Said};
use super::heartbeat::{Beat, Heartbeat};
use crate::layers::auth::Caller;
use crate::output::Beginning;
use crate::streams::{InputLock, Permit, Streams};
use job::JobId;
use job::life::Refusal;
use job::pty::Size;
use manager::{Follow, INPUT_BYTES, Manager, RequestError, Until};
use protocol::output::{Piece, Reader};

/// How often a client is asked for a sign of life. Who has given none by the next time is gone.
const PING: Duration = Duration::from_secs(15);

/// How long a client may take for one message.
const SEND: Duration = Duration::from_secs(30);

/// How long the closing handshake may take.
const GOODBYE: Duration = Duration::from_millis(500);

/// The most bytes of a message with output.
const PIECE: usize = 32 << 10;

/// How long a start is waited for at once.
const START: Duration = Duration::from_secs(300);

/// A conversation that is about to begin.
pub(super) struct Session {
    pub(super) streams: Streams,
    pub(super) manager: Manager,
    pub(super) id: JobId,
    pub(super) follow: Follow,
    pub(super) log: Log,
    pub(super) caller: Caller,
    pub(super) writer: Option<InputLock>,
    /// Held for as long as it lasts.
    pub(super) permit: Permit,
}

/// How a conversation ends.
enum Ending {
    Said(Close),
    /// Nobody is there to be told.
    Gone,
}

impl Session {
    pub(super) async fn run(self, socket: WebSocket) {
        let Self {
            streams,
            manager,
            id,
            follow,
            log,
            caller,
            writer,
            permit,
        } = self;
        let (mut sink, mut source) = socket.split();
        let heartbeat = Heartbeat::new();
        let input_closed = Notify::new();
        let listening = Listening {
            manager: &manager,
            id,
            heartbeat: &heartbeat,
            input_closed: &input_closed,
            is_open: writer.is_some(),
            writes: writer.is_some(),
        };
        let telling = Telling {
            sink: &mut sink,
            follow,
            log,
            heartbeat: &heartbeat,
            input_closed: &input_closed,
        };
        let ending = tokio::select! {
            biased;
            () = caller.ended() => Ending::Said(frames::TOKEN_ENDED),
            () = streams.ended() => Ending::Said(frames::GOING_AWAY),
            ending = telling.tell() => ending,
            ending = listening.listen(&mut source) => ending,
        };
        drop((writer, permit));
        goodbye(&mut sink, &mut source, ending).await;
    }
}

/// The closing handshake, so that what was sent last is not lost by a reset connection.
async fn goodbye(
    sink: &mut SplitSink<WebSocket, Message>,
    source: &mut SplitStream<WebSocket>,
    ending: Ending,
) {
    let said = match ending {
        Ending::Said(Close { code, reason }) => {
            let frame = CloseFrame {
                code,
                reason: reason.into(),
            };
            timeout(GOODBYE, sink.send(Message::Close(Some(frame)))).await
        }
        // A close of the client's is answered by this.
        Ending::Gone => timeout(GOODBYE, sink.close()).await,
    };
    if let Ok(Ok(())) = said {
        let _ = timeout(GOODBYE, async {
            while let Some(Ok(_)) = source.next().await {}
        })
        .await;
    }
}

/// The direction from the client to the job.
struct Listening<'a> {
    manager: &'a Manager,
    id: JobId,
    heartbeat: &'a Heartbeat,
    input_closed: &'a Notify,
    /// The job takes input, as far as is known.
    is_open: bool,
    writes: bool,
}

impl Listening<'_> {
    async fn listen(mut self, source: &mut SplitStream<WebSocket>) -> Ending {
        while let Some(message) = source.next().await {
            self.heartbeat.hear();
            let said = match message {
                Ok(message) => frames::read(message),
                Err(error) => match close_for(error) {
                    Some(close) => Err(close),
                    None => return Ending::Gone,
                },
            };
            let taken = match said {
                Ok(Said::Nothing) => Ok(()),
                Ok(Said::Goodbye) => return Ending::Gone,
                Ok(Said::Resize(size)) => {
                    self.resize(size).await;
                    Ok(())
                }
                Ok(Said::Input(_) | Said::EndOfInput) if !self.writes => {
                    Err(frames::NOT_THE_WRITER)
                }
                Ok(Said::Input(bytes)) => self.write(bytes, false).await,
                Ok(Said::EndOfInput) => self.write(Bytes::new(), true).await,
                Err(close) => Err(close),
            };
            if let Err(close) = taken {
                return Ending::Said(close);
            }
        }
        Ending::Gone
    }

    /// Where the job has no terminal, or has ended, there is nothing to be resized.
    async fn resize(&self, size: Size) {
        while let Err(RequestError::Refused(Refusal::NotStarted)) =
            self.manager.resize(self.id, size).await
        {
            if !self.is_started().await {
                return;
            }
        }
    }

    async fn write(&mut self, bytes: Bytes, eof: bool) -> Result<(), Close> {
        self.heartbeat.hold_up(true);
        let written = self.write_pieces(bytes, eof).await;
        self.heartbeat.hold_up(false);
        written
    }

    async fn write_pieces(&mut self, mut rest: Bytes, eof: bool) -> Result<(), Close> {
        while self.is_open && (eof || !rest.is_empty()) {
            let piece = rest.split_to(rest.len().min(INPUT_BYTES));
            while self.is_open {
                match self.manager.write_stdin(self.id, None, &piece, eof).await {
                    Ok(_) => break,
                    Err(RequestError::Refused(Refusal::NotStarted)) => {
                        self.is_open = self.is_started().await;
                    }
                    // The output tells of an end; a job that goes on takes no more.
                    Err(
                        RequestError::StdinClosed
                        | RequestError::Refused(Refusal::Stopping | Refusal::Finished)
                        | RequestError::NoSuchJob,
                    ) => self.is_open = false,
                    Err(
                        RequestError::MonitorGone
                        | RequestError::Errno(_)
                        | RequestError::Changed
                        | RequestError::NotQueued
                        | RequestError::StdinOffset { .. }
                        | RequestError::NoTerminal
                        | RequestError::Store(_),
                    ) => return Err(frames::INPUT_UNKNOWN),
                }
            }
            if eof {
                self.is_open = false;
                return Ok(());
            }
            if !self.is_open {
                self.input_closed.notify_one();
            }
        }
        Ok(())
    }

    /// Waits until the job is no longer queued; `false` where it will not start any more.
    async fn is_started(&self) -> bool {
        let waited = self.manager.wait(self.id, Until::Started, START).await;
        waited.is_ok_and(|job| !job.state.is_terminal())
    }
}

/// The close frame that an error of the library asks for; `None` where the connection is gone.
pub(super) fn close_for(error: axum::Error) -> Option<Close> {
    match error.into_inner().downcast_ref::<tungstenite::Error>()? {
        tungstenite::Error::Capacity(_) => Some(frames::TOO_LARGE),
        tungstenite::Error::Protocol(
            tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
        ) => None,
        tungstenite::Error::Protocol(_)
        | tungstenite::Error::Utf8(_)
        | tungstenite::Error::AttackAttempt => Some(frames::PROTOCOL_ERROR),
        tungstenite::Error::ConnectionClosed
        | tungstenite::Error::AlreadyClosed
        | tungstenite::Error::Io(_)
        | tungstenite::Error::Tls(_)
        | tungstenite::Error::WriteBufferFull(_)
        | tungstenite::Error::Url(_)
        | tungstenite::Error::Http(_)
        | tungstenite::Error::HttpFormat(_) => None,
    }
}

/// The direction from the job to the client.
struct Telling<'a> {
    sink: &'a mut SplitSink<WebSocket, Message>,
    follow: Follow,
    log: Log,
    heartbeat: &'a Heartbeat,
    input_closed: &'a Notify,
}

/// What is waited for between two looks at the log.
enum Woken {
    News,
    InputClosed,
    Beat,
    /// Nobody tells of the job any more.
    Untold,
}

impl Telling<'_> {
    async fn tell(mut self) -> Ending {
        let mut beat_at = Instant::now() + PING;
        loop {
            // Looked at before the output is read: what is over then has all of its output on disk.
            let job = self.follow.state.borrow_and_update().clone();
            if let Some(output) = &mut self.follow.output {
                output.borrow_and_update();
            }
            loop {
                let message = match self.log.next().await {
                    Ok(Some(message)) => message,
                    Ok(None) => break,
                    Err(error) => {
                        tracing::warn!(job.id = %job.id, %error, "the output of job {} could not be read: {error}", job.id);
                        return Ending::Said(frames::OUTPUT_FAILED);
                    }
                };
                if !self.send(message).await {
                    return Ending::Gone;
                }
            }
            if job.state.is_terminal() {
                return if self.send(frames::status(&job)).await {
                    Ending::Said(frames::DONE)
                } else {
                    Ending::Gone
                };
            }
            let message = match self.wait(beat_at).await {
                Woken::News => continue,
                Woken::Untold => return Ending::Said(frames::GOING_AWAY),
                Woken::InputClosed => frames::input_closed(),
                Woken::Beat => {
                    beat_at = Instant::now() + PING;
                    match self.heartbeat.beat() {
                        Beat::Ping => Message::Ping(Bytes::new()),
                        Beat::Dead => return Ending::Gone,
                    }
                }
            };
            if !self.send(message).await {
                return Ending::Gone;
            }
        }
    }

    /// Has it gone out?
    async fn send(&mut self, message: Message) -> bool {
        matches!(timeout(SEND, self.sink.send(message)).await, Ok(Ok(())))
    }

    async fn wait(&mut self, beat_at: Instant) -> Woken {
        let Follow { state, output } = &mut self.follow;
        loop {
            let told = async {
                match output.as_mut() {
                    Some(output) => output.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                told = told => match told {
                    Ok(()) => return Woken::News,
                    // The job's task is over: its last word is the state.
                    Err(_) => *output = None,
                },
                changed = state.changed() => return match changed {
                    Ok(()) => Woken::News,
                    Err(_) => Woken::Untold,
                },
                () = self.input_closed.notified() => return Woken::InputClosed,
                () = sleep_until(beat_at) => return Woken::Beat,
            }
        }
    }
}

/// The job's log, read from where the client wants it.
pub(super) struct Log {
    manager: Manager,
    id: JobId,
    /// `None` while there is no output, and while it is read from elsewhere.
    reader: Option<Reader>,
    at: u64,
}

impl Log {
    pub(super) fn new(manager: Manager, id: JobId, beginning: Beginning) -> Self {
        Self {
            manager,
            id,
            reader: beginning.reader,
            at: beginning.first,
        }
    }

    /// The next message with output; `None` where there is no more for now.
    async fn next(&mut self) -> io::Result<Option<Message>> {
        if self.reader.is_none() {
            self.reader = self.manager.started_output(self.id).await;
        }
        let Some(mut reader) = self.reader.take() else {
            return Ok(None);
        };
        let at = self.at;
        let read = tokio::task::spawn_blocking(move || {
            let piece = reader.next(at, None, PIECE);
            (reader, piece)
        });
        let (reader, piece) = read.await.map_err(io::Error::other)?;
        self.reader = Some(reader);
        let (message, next) = match piece? {
            None => return Ok(None),
            Some(Piece::Gap { from, to }) => (frames::gap(from, to), to),
            Some(Piece::Data {
                stream,
                bytes,
                next,
                ..
            }) => (frames::output(stream, &bytes), next),
        };
        if next <= at {
            return Err(io::Error::other("the output index does not go forward"));
        }
        self.at = next;
        Ok(Some(message))
    }
}
