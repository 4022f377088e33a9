//! Hostile requests as tables: `cases/*.txt`, a request a line, each with a command that would leave a file behind.
//!
//! A line is `name | request line | headers | body | answer`. Headers are apart by ` & ` and change those of an
//! ordinary request: `Name: value` replaces, `+Name: value` comes beside, `-Name` leaves out. No body is the command;
//! `-` is no body. A line of `raw.txt` is `name | bytes | answers until the connection ends`.
//!
//! `⏎` ends a line, `⟨00ff⟩` is these bytes, `«text*9»` is the text nine times, `✂` says that nothing more will come.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use reqwest::Method;

use crate::contract;
use crate::server::{Answer, LONG, Server};

/// At most so many requests at the same time.
const AT_ONCE: usize = 16;

/// The headers of a handshake that is right but for its sub-protocol.
const WEBSOCKET: &str = "Connection: close, Upgrade & Upgrade: websocket & Sec-WebSocket-Version: 13 & Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==";

/// What the words that begin with `$` stand for.
#[derive(Default)]
struct Words(Vec<(&'static str, String)>);

impl Words {
    fn of(server: &Server, more: &[(&'static str, String)]) -> Self {
        let labels: Vec<String> = (0..65).map(|n| format!("\"l{n}\":\"x\"")).collect();
        let mut words = vec![
            ("$TOKEN", server.token.clone()),
            ("$LABELS", labels.join(",")),
        ];
        words.extend_from_slice(more);
        Self(words)
    }

    /// Those of one case, whose command touches this file.
    fn with(&self, canary: &Path) -> Self {
        let run = format!(r#""command":["/usr/bin/touch","{}"]"#, canary.display());
        let body = format!("{{{run}}}");
        let length = body.len();
        let token = &self.0[0].1;
        let auth = format!(
            "Authorization: Bearer {token}\r\nContent-Type: application/json\r\nConnection: close\r\n"
        );
        let all = format!(
            "POST /jobs HTTP/1.1\r\nHost: localhost\r\n{auth}Content-Length: {length}\r\n\r\n{body}"
        );
        // A frame of a WebSocket: its channel, and a line for a shell.
        let line = format!("touch {}\n", canary.display());
        let frame = line.len() + 1;
        assert!(frame < 126, "a frame with a short length");
        let socket = format!(
            " HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n"
        );
        // A longer word before the one that it begins with.
        let mut words = vec![
            (
                "$WRITE",
                format!("GET /jobs/$SHELL/attach?stdin=true{socket}"),
            ),
            ("$ATTACH", format!("GET /jobs/$SHELL/attach{socket}")),
            (
                "$INPUT",
                format!("⟨82{:02x}0000000000⟩{line}", frame | 0x80),
            ),
            ("$FRAMELEN", format!("{frame:02x}")),
            ("$MASKLEN", format!("{:02x}", frame | 0x80)),
            ("$ALLLEN", all.len().to_string()),
            ("$ALL", all),
            ("$AUTH", auth),
            ("$HEXLEN", format!("{length:x}")),
            ("$LEN", length.to_string()),
            ("$BODY", body),
            ("$RUN", run),
            ("$TOUCH", canary.display().to_string()),
        ];
        words.extend_from_slice(&self.0);
        Self(words)
    }

    fn bytes(&self, text: &str) -> Vec<u8> {
        let mut text = text.to_owned();
        for (word, meaning) in &self.0 {
            text = text.replace(word, meaning);
        }
        expand(&text)
    }

    fn text(&self, text: &str) -> String {
        String::from_utf8(self.bytes(text)).unwrap()
    }
}

/// The bytes behind the signs of a table.
fn expand(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(sign) = rest.chars().next() {
        let after = &rest[sign.len_utf8()..];
        rest = match sign {
            '⏎' => {
                bytes.extend_from_slice(b"\r\n");
                after
            }
            '✂' => after,
            '⟨' => {
                let (digits, after) = after.split_once('⟩').unwrap();
                for at in (0..digits.len()).step_by(2) {
                    bytes.push(u8::from_str_radix(&digits[at..at + 2], 16).unwrap());
                }
                after
            }
            '«' => {
                let (repeated, after) = after.split_once('»').unwrap();
                let (unit, times) = repeated.rsplit_once('*').unwrap();
                bytes.extend(expand(unit).repeat(times.parse().unwrap()));
                after
            }
            other => {
                bytes.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes());
                after
            }
        };
    }
    bytes
}

/// A case, ready to be sent.
struct Case {
    name: String,
    bytes: Vec<u8>,
    /// Nothing more will come, and the server is told so.
    is_cut: bool,
    /// Where the request is whole: the operation, for a look at what `openapi.yaml` says of it.
    operation: Option<(String, String)>,
    answers: String,
}

impl Case {
    fn request(fields: &[&str], words: &Words) -> Self {
        let [name, line, changes, body, answers] = fields else {
            panic!("not five fields: {fields:?}");
        };
        let body = match *body {
            "" => words.bytes("{$RUN}"),
            "-" => Vec::new(),
            other => words.bytes(other),
        };
        let mut headers: Vec<(String, Vec<u8>)> = [
            ("Host", "localhost".to_owned()),
            ("Authorization", words.text("Bearer $TOKEN")),
            ("Content-Type", "application/json".to_owned()),
            ("Content-Length", body.len().to_string()),
            ("Connection", "close".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value.into_bytes()))
        .into();
        let changes = changes.replace("$WS", WEBSOCKET);
        for change in changes.split(" & ").filter(|change| !change.is_empty()) {
            if let Some(name) = change.strip_prefix('-') {
                headers.retain(|(given, _)| given != name);
                continue;
            }
            let (name, value) = change.split_once(':').unwrap();
            let beside = name.strip_prefix('+');
            if beside.is_none() {
                headers.retain(|(given, _)| given != name);
            }
            let value = words.bytes(value.trim_start());
            headers.push((beside.unwrap_or(name).to_owned(), value));
        }
        let mut bytes = words.bytes(&format!("{line} HTTP/1.1⏎"));
        for (name, value) in headers {
            bytes.extend_from_slice(format!("{name}: ").as_bytes());
            bytes.extend_from_slice(&value);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&body);
        let (method, target) = line.split_once(' ').unwrap();
        let target = String::from_utf8_lossy(&words.bytes(target)).into_owned();
        let path = target.split(['?', '#']).next().unwrap_or_default();
        Self {
            name: (*name).to_owned(),
            bytes,
            is_cut: false,
            operation: Some((method.to_owned(), path.to_owned())),
            answers: words.text(answers),
        }
    }

    fn raw(fields: &[&str], words: &Words) -> Self {
        let [name, bytes, answers] = fields else {
            panic!("not three fields: {fields:?}");
        };
        Self {
            name: (*name).to_owned(),
            bytes: words.bytes(bytes),
            is_cut: bytes.ends_with('✂'),
            operation: None,
            answers: words.text(answers),
        }
    }

    /// What was wrong with the answer.
    fn try_on(&self, server: &Server) -> Result<(), String> {
        let begin = Instant::now();
        let mut answers = server.exchange(&self.bytes, self.is_cut);
        // The place of the one before may still be about to become free.
        while answers
            .first()
            .is_some_and(|one| one.problem().1 == "stdin_taken")
        {
            assert!(begin.elapsed() < LONG, "{}", self.name);
            answers = server.exchange(&self.bytes, self.is_cut);
        }
        let told = |answer: &Answer| {
            let (status, code) = answer.problem();
            format!("{status} {code}").trim_end().to_owned()
        };
        let found: Vec<String> = answers.iter().map(told).collect();
        let found = if found.is_empty() {
            "closed".to_owned()
        } else {
            found.join(", ")
        };
        let fits = |wanted: &str| match wanted.strip_suffix(" …") {
            Some(beginning) => found.starts_with(beginning),
            None => found == wanted,
        };
        if !self.answers.split(" or ").any(fits) {
            return Err(format!(
                "{}: {found} instead of {}\n{answers:?}",
                self.name, self.answers
            ));
        }
        let (Some((method, path)), Some(answer)) = (&self.operation, answers.first()) else {
            return Ok(());
        };
        if answer.reply.header("request-id").is_empty() {
            // Refused by the connection, before there was a request.
            return Ok(());
        }
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        contract::check(&method, path, &answer.reply)
            .map_err(|why| format!("{}: {found}: {why}", self.name))
    }
}

/// Sends every request of a table, and afterwards nothing may have happened.
pub(crate) fn run(server: &Server, table: &str, more: &[(&'static str, String)]) {
    run_at_once(server, table, more, AT_ONCE);
}

/// The same, one after another.
pub(crate) fn run_in_turn(server: &Server, table: &str, more: &[(&'static str, String)]) {
    run_at_once(server, table, more, 1);
}

fn run_at_once(server: &Server, table: &str, more: &[(&'static str, String)], at_once: usize) {
    let words = Words::of(server, more);
    let canaries = server.canaries();
    let jobs = server.jobs();
    let lines = table
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    let cases: Vec<Case> = lines
        .enumerate()
        .map(|(number, line)| {
            let words = words.with(&canaries.join(number.to_string()));
            // Nothing between two separators is a field as well.
            let fields: Vec<&str> = line.split('|').map(str::trim).collect();
            match fields.len() {
                3 => Case::raw(&fields, &words),
                _ => Case::request(&fields, &words),
            }
        })
        .collect();
    let next = AtomicUsize::new(0);
    let wrong = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..at_once.min(cases.len()) {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(why) = case.try_on(server) {
                        wrong.lock().unwrap().push(why);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(server.jobs(), jobs, "a job came into being, or has ended");
    server.assert_unharmed();
    eprintln!("{} cases", cases.len());
}
