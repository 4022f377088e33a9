//! The messages of the sub-protocols `v5.channel.k8s.io` and `v4.channel.k8s.io`: a byte that names a channel,
//! then data. Clients may send them as text, too; the fourth version knows no channel 255.
//!
//! PURE. What Kubernetes has no channel for, a gap in the output, is a message of text.

use axum::extract::ws::Message;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use job::outcome::{Exit, ExitStatus};
use job::pty::{SIZE_MAX, Size};
use job::{Job, State};
use protocol::output::Stream;

/// The sub-protocols, those first that are liked best.
pub(super) const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];

/// The largest message of a client, its channel byte included.
pub(super) const MESSAGE_BYTES: usize = 64 << 10;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// What a client says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// For the job's standard input.
    Input(Bytes),
    /// Nothing follows on standard input.
    EndOfInput,
    /// The client's terminal has this size.
    Resize(Size),
    /// A sign of life, or a message that says nothing.
    Nothing,
    /// The client goes.
    Goodbye,
}

/// What ends a conversation, as a close frame says it (RFC 6455, section 7.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Close {
    pub(super) code: u16,
    pub(super) reason: &'static str,
}

/// The job has ended, and everything has been said.
pub(super) const DONE: Close = Close {
    code: 1000,
    reason: "",
};
pub(super) const GOING_AWAY: Close = Close {
    code: 1001,
    reason: "the service ends or is replaced: attach again with your offset",
};
pub(super) const PROTOCOL_ERROR: Close = Close {
    code: 1002,
    reason: "not a valid WebSocket message",
};
const BAD_SIZE: Close = Close {
    code: 1007,
    reason: "channel 4 takes {\"Width\":80,\"Height\":24}, both at most 4096",
};
pub(super) const TOKEN_ENDED: Close = Close {
    code: 1008,
    reason: "the token has ended",
};
pub(super) const NOT_THE_WRITER: Close = Close {
    code: 1008,
    reason: "this connection does not write: attach with ?stdin=true",
};
const NO_CHANNEL: Close = Close {
    code: 1008,
    reason: "clients send on the channels 0 (standard input), 4 (resize) and 255 (close of channel 0)",
};
pub(super) const TOO_LARGE: Close = Close {
    code: 1009,
    reason: "a message has at most 65536 bytes",
};
pub(super) const INPUT_UNKNOWN: Close = Close {
    code: 1011,
    reason: "the job's monitor was replaced: the last input may not have reached the job",
};
pub(super) const OUTPUT_FAILED: Close = Close {
    code: 1011,
    reason: "the output could not be read: attach again with your offset",
};

/// The size of a terminal as Kubernetes has it.
#[derive(Deserialize)]
struct TerminalSize {
    #[serde(rename = "Width")]
    width: u16,
    #[serde(rename = "Height")]
    height: u16,
}

/// What a message means; or how the conversation ends because of it.
pub(super) fn read(message: Message) -> Result<Said, Close> {
    let mut bytes = match message {
        Message::Binary(bytes) => bytes,
        Message::Text(text) => Bytes::from(text),
        Message::Ping(_) | Message::Pong(_) => return Ok(Said::Nothing),
        Message::Close(_) => return Ok(Said::Goodbye),
    };
    if bytes.len() > MESSAGE_BYTES {
        return Err(TOO_LARGE);
    }
    if bytes.is_empty() {
        return Ok(Said::Nothing);
    }
    let channel = bytes.split_to(1);
    match (channel.as_ref(), bytes.as_ref()) {
        (&[STDIN], &[]) => Ok(Said::Nothing),
        (&[STDIN], _) => Ok(Said::Input(bytes)),
        (&[RESIZE], size) => read_size(size),
        // In text, U+00FF has two bytes.
        (&[CLOSE], &[STDIN]) | (&[0xc3], &[0xbf, STDIN]) => Ok(Said::EndOfInput),
        _ => Err(NO_CHANNEL),
    }
}

fn read_size(bytes: &[u8]) -> Result<Said, Close> {
    let size: TerminalSize = serde_json::from_slice(bytes).map_err(|_| BAD_SIZE)?;
    let TerminalSize { width, height } = size;
    if width > SIZE_MAX || height > SIZE_MAX {
        return Err(BAD_SIZE);
    }
    // A terminal that does not know its size says so with zeroes.
    if width == 0 || height == 0 {
        return Ok(Said::Nothing);
    }
    Ok(Said::Resize(Size {
        rows: height,
        cols: width,
    }))
}

/// A piece of output.
pub(super) fn output(stream: Stream, bytes: &[u8]) -> Message {
    let channel = match stream {
        Stream::Stdout => STDOUT,
        Stream::Stderr => STDERR,
    };
    on(channel, bytes)
}

/// Output that is not kept any more.
pub(super) fn gap(from: u64, to: u64) -> Message {
    let text = json!({"type": "gap", "from": from, "to": to}).to_string();
    Message::Text(text.into())
}

/// The job takes no more input.
pub(super) fn input_closed() -> Message {
    on(CLOSE, &[STDIN])
}

/// How the job ended: a `Status` of Kubernetes' API, whose clients take the exit code from it.
pub(super) fn status(job: &Job) -> Message {
    on(STATUS, status_of(job).to_string().as_bytes())
}

fn status_of(job: &Job) -> serde_json::Value {
    let failure = |reason: &str, message: String, causes: serde_json::Value| {
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "details": {"causes": causes},
        })
    };
    match &job.exit {
        Some(Exit {
            status: ExitStatus::Code(0),
            ..
        }) if job.state != State::Lost => {
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})
        }
        Some(Exit {
            status: ExitStatus::Code(code),
            ..
        }) => failure(
            "NonZeroExitCode",
            format!("the command ended with exit code {code}"),
            json!([{"reason": "ExitCode", "message": code.to_string()}]),
        ),
        Some(Exit {
            status: ExitStatus::Signal { signal, .. },
            ..
        }) => failure(
            "ExitSignal",
            format!("the command was ended by {signal}"),
            json!([{"reason": "ExitSignal", "message": signal.to_string()}]),
        ),
        None => {
            let cause = job
                .termination
                .as_ref()
                .map(|termination| termination.cause);
            let cause = json!(cause);
            let message = job
                .message
                .clone()
                .unwrap_or_else(|| "there is no exit status".to_owned());
            failure(
                "NoExitStatus",
                message,
                json!([{"reason": "Cause", "message": cause}]),
            )
        }
    }
}

/// For the fuzz targets: whether the conversation continues after this message, which has a meaning or a close that
/// fits into a frame.
pub(super) fn fuzz_read(message: Message) -> bool {
    /// RFC 6455, section 5.5, without the code.
    const REASON_BYTES: usize = 123;
    let sent = match &message {
        Message::Binary(bytes) => bytes.clone(),
        Message::Text(text) => Bytes::from(text.clone()),
        Message::Ping(_) | Message::Pong(_) | Message::Close(_) => Bytes::new(),
    };
    match read(message) {
        Ok(Said::Input(input)) => {
            assert!(!input.is_empty() && input.len() < MESSAGE_BYTES);
            assert_eq!(sent, [&[STDIN], input.as_ref()].concat());
        }
        Ok(Said::Resize(Size { rows, cols })) => {
            assert!((1..=SIZE_MAX).contains(&rows) && (1..=SIZE_MAX).contains(&cols));
            assert_eq!(sent.first(), Some(&RESIZE));
        }
        Ok(Said::EndOfInput) => {
            assert!([&[CLOSE, STDIN][..], "\u{ff}\0".as_bytes()].contains(&sent.as_ref()));
        }
        Ok(Said::Nothing) => {}
        Ok(Said::Goodbye) => return false,
        Err(close) => {
            assert!(close.code > DONE.code && close.reason.len() <= REASON_BYTES);
            return false;
        }
    }
    true
}

fn on(channel: u8, bytes: &[u8]) -> Message {
    let mut message = Vec::with_capacity(1 + bytes.len());
    message.push(channel);
    message.extend_from_slice(bytes);
    Message::Binary(message.into())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use job::time::Timestamp;
    use job::{Cause, JobId, Signal, Spec, Termination};

    fn binary(bytes: &[u8]) -> Message {
        Message::Binary(Bytes::copy_from_slice(bytes))
    }

    #[test]
    fn every_message_has_a_meaning_or_a_close() {
        let resize = |text: &str| binary(&[&[RESIZE], text.as_bytes()].concat());
        let size = |rows, cols| Ok(Said::Resize(Size { rows, cols }));
        let long = |length| binary(&vec![0; length]);
        for (message, meaning) in [
            (binary(b"\0abc"), Ok(Said::Input("abc".into()))),
            (binary(b"\0"), Ok(Said::Nothing)),
            (binary(b""), Ok(Said::Nothing)),
            (binary(&[255, 0]), Ok(Said::EndOfInput)),
            (binary(&[255]), Err(NO_CHANNEL)),
            (binary(&[255, 1]), Err(NO_CHANNEL)),
            (binary(&[255, 0, 0]), Err(NO_CHANNEL)),
            (binary(&[1, 2]), Err(NO_CHANNEL)),
            (binary(&[3]), Err(NO_CHANNEL)),
            (binary(&[5]), Err(NO_CHANNEL)),
            (Message::Text("x".into()), Err(NO_CHANNEL)),
            (Message::Text("".into()), Ok(Said::Nothing)),
            (
                Message::Text("\0gr\u{fc}n\n".into()),
                Ok(Said::Input("gr\u{fc}n\n".into())),
            ),
            (
                Message::Text("\u{4}{\"Width\":80,\"Height\":24}".into()),
                size(24, 80),
            ),
            (Message::Text("\u{ff}\0".into()), Ok(Said::EndOfInput)),
            (Message::Ping(Bytes::new()), Ok(Said::Nothing)),
            (Message::Pong(Bytes::new()), Ok(Said::Nothing)),
            (Message::Close(None), Ok(Said::Goodbye)),
            (resize(r#"{"Width":80,"Height":24}"#), size(24, 80)),
            (resize(r#"{"Width":4096,"Height":1}"#), size(1, 4096)),
            (resize(r#"{"Width":4097,"Height":1}"#), Err(BAD_SIZE)),
            (resize(r#"{"Width":0,"Height":24}"#), Ok(Said::Nothing)),
            (resize(r#"{"Width":-1,"Height":24}"#), Err(BAD_SIZE)),
            (resize(r#"{"Width":80}"#), Err(BAD_SIZE)),
            (resize("80x24"), Err(BAD_SIZE)),
            (resize(""), Err(BAD_SIZE)),
            (long(MESSAGE_BYTES + 1), Err(TOO_LARGE)),
        ] {
            let shown = format!("{message:?}");
            assert_eq!(
                read(message),
                meaning,
                "{}",
                shown.get(..60).unwrap_or(&shown)
            );
        }
        assert!(
            matches!(read(long(MESSAGE_BYTES)), Ok(Said::Input(bytes)) if bytes.len() == MESSAGE_BYTES - 1)
        );
    }

    fn ended(exit: Option<ExitStatus>, cause: Cause) -> serde_json::Value {
        let job = Job {
            state: State::Failed,
            exit: exit.map(|status| Exit {
                status,
                at: Timestamp::default(),
                oom_killed: None,
            }),
            termination: Some(Termination::unasked(cause)),
            ..Job::accepted(
                JobId::generate(),
                String::new(),
                Arc::new(Spec::default()),
                Timestamp::default(),
            )
        };
        status_of(&job)
    }

    #[test]
    fn the_status_says_how_the_leader_ended() {
        let success = ended(Some(ExitStatus::Code(0)), Cause::Exited);
        assert_eq!(success["status"], "Success");
        let code = ended(Some(ExitStatus::Code(3)), Cause::Exited);
        assert_eq!(code["reason"], "NonZeroExitCode");
        let cause = json!({"reason": "ExitCode", "message": "3"});
        assert_eq!(code["details"]["causes"][0], cause);
        let signal = ExitStatus::Signal {
            signal: Signal::KILL,
            core_dumped: false,
        };
        let signal = ended(Some(signal), Cause::Signaled);
        let cause = json!({"reason": "ExitSignal", "message": "SIGKILL"});
        assert_eq!(signal["details"]["causes"][0], cause);
        let lost = ended(None, Cause::MonitorLost);
        let cause = json!({"reason": "Cause", "message": "monitor_lost"});
        assert_eq!(lost["details"]["causes"][0], cause);
    }

    #[test]
    fn what_is_said_is_on_its_channel() {
        assert_eq!(output(Stream::Stdout, b"x"), binary(b"\x01x"));
        assert_eq!(output(Stream::Stderr, b"x"), binary(b"\x02x"));
        assert_eq!(input_closed(), binary(&[255, 0]));
        assert_eq!(
            gap(1, 5),
            Message::Text(r#"{"from":1,"to":5,"type":"gap"}"#.into())
        );
    }
}
