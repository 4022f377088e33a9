//! One conversation: what the job writes goes out while what the client types goes in, until one of them, the
//! client's permission or the service ends.
//!
//! Both directions run side by side in one task, so that a job that does not read holds up its input and
//! nothing else; pings are answered meanwhile. What a message means is not known here.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite;

use super::frames::{self, Close, Said};
use super::heartbeat::{Beat, Heartbeat};
use crate::layers::auth::Caller;
use crate::output::Beginning;
use crate::streams::{InputLock, Permit, Streams};
use job::life::Refusal;
use job::pty::Size;
use job::{JobId, OutputTotals};
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

/// How many bytes of input are heard before the job takes those before them. Without them, a ping behind input
/// that waits would not be heard.
const AHEAD: usize = 512 << 10;

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
    /// The sub-protocol has a message for an input that takes nothing any more.
    pub(super) tells_closed_input: bool,
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
            tells_closed_input,
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
            writes: writer.is_some(),
        };
        let telling = Telling {
            sink: &mut sink,
            follow,
            log,
            heartbeat: &heartbeat,
            input_closed: &input_closed,
            tells_closed_input,
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

/// The direction from the client to the job: one future hears what the client says, and answers its pings at
/// once, while the other writes what was heard.
struct Listening<'a> {
    manager: &'a Manager,
    id: JobId,
    heartbeat: &'a Heartbeat,
    input_closed: &'a Notify,
    writes: bool,
}

/// What the client has said and the job has not taken.
struct Heard {
    said: Said,
    /// Its part of the bytes that may be heard ahead.
    _room: Option<OwnedSemaphorePermit>,
}

impl Listening<'_> {
    async fn listen(self, source: &mut SplitStream<WebSocket>) -> Ending {
        let (heard, hearing) = mpsc::unbounded_channel();
        let input = Input {
            manager: self.manager,
            id: self.id,
            input_closed: self.input_closed,
            is_open: self.writes,
        };
        let writing = input.write_all(hearing);
        let mut writing = std::pin::pin!(writing);
        let ending = tokio::select! {
            ending = self.hear(source, heard) => ending,
            Err(close) = writing.as_mut() => return Ending::Said(close),
        };
        // What was said before the goodbye still goes in.
        match writing.await {
            Ok(()) => ending,
            Err(close) => Ending::Said(close),
        }
    }

    async fn hear(
        &self,
        source: &mut SplitStream<WebSocket>,
        heard: mpsc::UnboundedSender<Heard>,
    ) -> Ending {
        let room = Arc::new(Semaphore::new(AHEAD));
        while let Some(message) = source.next().await {
            self.heartbeat.hear();
            let said = match message {
                Ok(message) => frames::read(message),
                Err(error) => match close_for(error) {
                    Some(close) => Err(close),
                    None => return Ending::Gone,
                },
            };
            let bytes = match &said {
                Ok(Said::Nothing) => continue,
                Ok(Said::Goodbye) => return Ending::Gone,
                Ok(Said::Input(_) | Said::EndOfInput) if !self.writes => {
                    return Ending::Said(frames::NOT_THE_WRITER);
                }
                Ok(Said::Input(bytes)) => bytes.len(),
                Ok(Said::EndOfInput | Said::Resize(_)) => 1,
                Err(close) => return Ending::Said(*close),
            };
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            self.heartbeat.hold_up(true);
            let room = room.clone().acquire_many_owned(bytes).await.ok();
            self.heartbeat.hold_up(false);
            let Ok(said) = said else { continue };
            if heard.send(Heard { said, _room: room }).is_err() {
                return Ending::Gone;
            }
        }
        Ending::Gone
    }
}

/// The job's side of what a client says.
struct Input<'a> {
    manager: &'a Manager,
    id: JobId,
    input_closed: &'a Notify,
    /// The job takes input, as far as is known.
    is_open: bool,
}

impl Input<'_> {
    async fn write_all(mut self, mut hearing: mpsc::UnboundedReceiver<Heard>) -> Result<(), Close> {
        while let Some(heard) = hearing.recv().await {
            match heard.said {
                Said::Input(bytes) => self.write(bytes, false).await?,
                Said::EndOfInput => self.write(Bytes::new(), true).await?,
                Said::Resize(size) => self.resize(size).await,
                Said::Nothing | Said::Goodbye => {}
            }
        }
        Ok(())
    }

    /// If the job has no terminal, or has ended, there is nothing to be resized.
    async fn resize(&self, size: Size) {
        while let Err(RequestError::Refused(Refusal::NotStarted)) =
            self.manager.resize(self.id, size).await
        {
            if !self.is_started().await {
                return;
            }
        }
    }

    async fn write(&mut self, mut rest: Bytes, eof: bool) -> Result<(), Close> {
        while self.is_open && (eof || !rest.is_empty()) {
            let piece = rest.split_to(rest.len().min(INPUT_BYTES));
            while self.is_open {
                match self.manager.write_stdin(self.id, None, &piece, eof).await {
                    Ok(_) => break,
                    Err(RequestError::Refused(Refusal::NotStarted)) => {
                        self.is_open = self.is_started().await;
                    }
                    // The output tells of an end; a job that continues takes no more.
                    Err(
                        RequestError::StdinClosed
                        | RequestError::Refused(Refusal::Stopping | Refusal::Finished)
                        | RequestError::NoSuchJob,
                    ) => self.is_open = false,
                    Err(_) => return Err(frames::INPUT_UNKNOWN),
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

    /// Waits until the job is no longer queued; `false` if it will not start any more.
    async fn is_started(&self) -> bool {
        let waited = self.manager.wait(self.id, Until::Started, START).await;
        waited.is_ok_and(|job| !job.state.is_terminal())
    }
}

/// The close frame that an error of the library asks for; `None` if the connection is gone.
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
    tells_closed_input: bool,
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
        let reading = self.follow.reading(self.log.at);
        loop {
            // Looked at before the output is read: what is over then has all of its output on disk.
            let job = self.follow.state.borrow_and_update().clone();
            if job.state.is_terminal() {
                self.log.recorded = Some(job.output);
            }
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
                if let Some(reading) = &reading {
                    reading.up_to(self.log.at);
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
                Woken::InputClosed if !self.tells_closed_input => continue,
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
        let Follow { state, output, .. } = &mut self.follow;
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
    /// What is known of the output of a job that is over, if the reader has not been told.
    recorded: Option<OutputTotals>,
}

impl Log {
    pub(super) fn new(manager: Manager, id: JobId, beginning: Beginning) -> Self {
        Self {
            manager,
            id,
            reader: beginning.reader,
            at: beginning.first,
            recorded: None,
        }
    }

    /// The files of the job, once it has any.
    async fn open(&mut self) -> io::Result<()> {
        if self.reader.is_none() {
            let started = self.manager.started_output(self.id).await;
            self.reader = started.map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// The next message with output; `None` if there is no more for now.
    async fn next(&mut self) -> io::Result<Option<Message>> {
        self.open().await?;
        if let Some(recorded) = self.recorded.take() {
            self.reader
                .get_or_insert_with(Reader::empty)
                .expect(recorded);
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
