//! The flags of `procession run` for readiness: what shows that a server serves.

use serde_json::{Map, Value, json};

use super::spec::put;
use crate::values::seconds;

/// When the job is ready.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Readiness")]
pub(crate) struct ReadyArgs {
    /// The job is ready when a line of its output matches this regular expression
    #[arg(long, value_name = "REGEX", group = "sign")]
    ready_log: Option<String>,
    /// Which output --ready-log looks at [default: all]
    #[arg(long, value_enum, value_name = "WHICH", requires = "ready_log")]
    ready_stream: Option<Channel>,
    /// The job is ready when it listens on this TCP port
    #[arg(long, value_name = "PORT", group = "sign")]
    ready_port: Option<u16>,
    /// Which addresses count for --ready-port [default: any]
    #[arg(long, value_enum, value_name = "WHICH", requires = "ready_port")]
    ready_address: Option<Address>,
    /// The job is ready when this file of its workspace exists
    #[arg(long, value_name = "PATH", group = "sign")]
    ready_file: Option<String>,
    /// The job is ready when it reports READY=1, as for systemd
    #[arg(long, group = "sign")]
    ready_notify: bool,
    /// How long the job may take to become ready [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = seconds, requires = "sign")]
    ready_timeout: Option<f64>,
    /// Stop the job if it is not ready in time
    #[arg(long, requires = "sign")]
    stop_unless_ready: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Channel {
    All,
    Stdout,
    Stderr,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Address {
    Any,
    Loopback,
    Routable,
}

impl ReadyArgs {
    /// Puts its fields into the body of the request.
    pub(super) fn put_into(&self, body: &mut Map<String, Value>) {
        let stream = self.ready_stream.map(|stream| match stream {
            Channel::All => "all",
            Channel::Stdout => "stdout",
            Channel::Stderr => "stderr",
        });
        let address = self.ready_address.map(|address| match address {
            Address::Any => "any",
            Address::Loopback => "loopback",
            Address::Routable => "routable",
        });
        let is_sign = self.ready_log.is_some()
            || self.ready_port.is_some()
            || self.ready_file.is_some()
            || self.ready_notify;
        if is_sign {
            // One sign: it replaces that of a file.
            body.remove("ready");
        }
        let fields = [
            ("log", self.ready_log.as_ref().map(|log| json!(log))),
            ("stream", stream.map(Value::from)),
            ("port", self.ready_port.map(Value::from)),
            ("address", address.map(Value::from)),
            ("file", self.ready_file.as_ref().map(|file| json!(file))),
            ("notify", self.ready_notify.then_some(json!(true))),
            ("timeout_seconds", self.ready_timeout.map(Value::from)),
            (
                "on_timeout",
                self.stop_unless_ready.then_some(json!("stop")),
            ),
        ];
        for (name, value) in fields {
            if let Some(value) = value {
                put(body, &["ready", name], value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Run {
        #[command(flatten)]
        ready: ReadyArgs,
    }

    fn body(line: &str) -> Option<Value> {
        let words = ["run"].into_iter().chain(line.split_whitespace());
        let args = Run::try_parse_from(words).ok()?;
        let mut body = json!({"ready": {"file": "a"}}).as_object().cloned()?;
        args.ready.put_into(&mut body);
        body.remove("ready")
    }

    #[test]
    fn every_flag_becomes_its_field_and_one_sign_replaces_another() {
        let port = json!({"port": 80, "address": "routable", "timeout_seconds": 90.0, "on_timeout": "stop"});
        let line =
            "--ready-port 80 --ready-address routable --ready-timeout 90s --stop-unless-ready";
        assert_eq!(body(line), Some(port));
        let log = json!({"log": "x", "stream": "stderr"});
        assert_eq!(body("--ready-log x --ready-stream stderr"), Some(log));
        assert_eq!(body("--ready-notify"), Some(json!({"notify": true})));
        assert_eq!(body("--ready-file b"), Some(json!({"file": "b"})));
        assert_eq!(body(""), Some(json!({"file": "a"})));
        for bad in [
            "--ready-log x --ready-port 80",
            "--ready-stream stderr",
            "--ready-timeout 1s",
            "--ready-port 0x",
        ] {
            assert_eq!(body(bad), None, "{bad}");
        }
    }
}
