//! A line in the output.

use std::io;

use tokio::sync::{oneshot, watch};

use super::{Found, Look};
use crate::shared::Shared;
use job::Job;
use job::ready::{Channel, Lines, Pattern, Sign};
use protocol::output::{Piece, Reader, Stream};

/// So much is read at once, and before it is seen whether anybody still wants it.
const PIECE: usize = 256 << 10;
const STEP: u64 = 4 << 20;

/// A search through the output of one attempt.
struct Search {
    reader: Option<Reader>,
    at: u64,
    filter: Option<Stream>,
    stdout: Lines,
    stderr: Lines,
}

/// What a step of a search has come to.
enum Step {
    Found(Found),
    /// There is more to read.
    More,
    /// By now all has been read.
    End,
}

impl Search {
    fn new(job: &Job, pattern: &Pattern, channel: Channel) -> Self {
        Self {
            reader: None,
            at: job.attempt_offset(),
            filter: match channel {
                Channel::All => None,
                Channel::Stdout => Some(Stream::Stdout),
                Channel::Stderr => Some(Stream::Stderr),
            },
            stdout: Lines::new(pattern),
            stderr: Lines::new(pattern),
        }
    }

    /// Reads on. Blocks.
    fn step(&mut self) -> io::Result<Step> {
        let Some(reader) = &mut self.reader else {
            return Ok(Step::End);
        };
        let pause = self.at.saturating_add(STEP);
        while self.at < pause {
            match reader.next(self.at, self.filter, PIECE)? {
                None => return Ok(Step::End),
                Some(Piece::Gap { to, .. }) => {
                    self.stdout.gap();
                    self.stderr.gap();
                    self.at = to.max(self.at + 1);
                }
                Some(Piece::Data {
                    stream,
                    at,
                    bytes,
                    next,
                    ..
                }) => {
                    let lines = match stream {
                        Stream::Stdout => &mut self.stdout,
                        Stream::Stderr => &mut self.stderr,
                    };
                    if let Some(line) = lines.push(&bytes) {
                        let message = Some(line);
                        return Ok(Step::Found(Found { at, message }));
                    }
                    self.at = next.max(self.at + 1);
                }
            }
        }
        Ok(Step::More)
    }

    /// Reads all that there is by now.
    async fn read(mut self, shared: &Shared, job: &Job) -> (Self, Option<Found>) {
        if self.reader.is_none() {
            self.reader = shared.job_dirs.clone().output(job.id).await;
        }
        loop {
            let step = tokio::task::spawn_blocking(move || {
                let step = self.step();
                (self, step)
            });
            let step = step.await.expect("reading does not panic");
            self = step.0;
            match step.1 {
                Ok(Step::Found(found)) => return (self, Some(found)),
                Ok(Step::More) => {}
                Ok(Step::End) => return (self, None),
                Err(error) => {
                    tracing::debug!(job.id = %job.id, %error, "the output of job {} could not be read: {error}", job.id);
                    self.reader = None;
                    return (self, None);
                }
            }
        }
    }
}

/// Looks for a line; the output's end is told by `feed`.
pub(super) async fn look(
    look: &Look,
    mut feed: watch::Receiver<u64>,
    (pattern, channel): (&Pattern, Channel),
    found: oneshot::Sender<Found>,
) {
    let job = look.present();
    let mut search = Search::new(&job, pattern, channel);
    loop {
        feed.borrow_and_update();
        let (on, line) = search.read(&look.shared, &job).await;
        search = on;
        if let Some(line) = line {
            let _ = found.send(line);
            return;
        }
        look.say("no line of its output matches");
        if feed.changed().await.is_err() {
            return;
        }
    }
}

/// The line in all the output of the present attempt of a job, if it is that by which it is ready.
pub(crate) async fn found_in(shared: &Shared, job: &Job) -> Option<Found> {
    let ready = job.spec.ready.as_ref()?;
    let Sign::Log { log, stream } = &ready.sign else {
        return None;
    };
    let search = Search::new(job, log, *stream);
    search.read(shared, job).await.1
}
