//! What the fuzz targets do: `fuzz/` in the repository, and a test that replays the inputs kept there.
//!
//! Each takes any bytes and must not panic. What it asserts holds for every input.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::http::header::RANGE;
use axum::http::{HeaderMap, HeaderName, HeaderValue};

use http::policy::Policy;
use http::request::{self, Body, NewJob, SpecLimits};
use job::selector::Selector;
use job::time::Timestamp;
use job::{Job, JobId};
use protocol::codec;
use protocol::output::{Piece, Reader, Short, Stream};
use protocol::record;
use protocol::wire::link::{FromNode, ToNode};
use protocol::wire::messages::{FromMonitor, FromSupervisor, Launch, ToMonitor, ToSupervisor};

/// What takes an input.
pub type Target = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: [(&str, Target); 13] = [
    ("attach", attach),
    ("cursor", cursor),
    ("headers", headers),
    ("index", index),
    ("link", link),
    ("packet", packet),
    ("patch", patch),
    ("query", query),
    ("range", range),
    ("record", record_slots),
    ("selector", selector),
    ("spec", spec),
    ("template", template),
];

/// Bodies of requests: a job that is accepted is accepted again, and is the same then.
pub fn spec(bytes: &[u8]) {
    let Ok(body) = request::parse_body(bytes) else {
        return;
    };
    let limits = SpecLimits::default();
    if let Ok(new) = request::parse_submission(&body, &limits)
        && new.spec.secret_env.0.is_empty()
    {
        let again = request::parse_rerun(&job(new.clone()), b"", &limits);
        // A rerun has the priority of its job, whether that was written or not, and does not wait for its time.
        let again = NewJob {
            has_priority: new.has_priority,
            run_at: new.run_at,
            hold: new.hold,
            ..again.expect("it was accepted before")
        };
        assert_eq!(again, new);
    }
    drop(request::parse_signal_body(&body));
    drop(request::parse_size(&body));
    drop(request::parse_wait_many(&body, Duration::from_secs(300)));
    drop(request::parse_stop_many(&body, 1024));
    drop(request::parse_signal_many(&body));
    drop(request::parse_chosen(&body));
    drop(request::parse_template_request(&body, &limits));
}

fn job(new: NewJob) -> Job {
    Job {
        name: new.name,
        labels: new.labels,
        ..Job::accepted(
            JobId::from_bytes([1; 16]),
            String::new(),
            Arc::new(new.spec),
            Timestamp::from_micros(0),
        )
    }
}

/// Merge patches on a job that has something in every field.
pub fn patch(bytes: &[u8]) {
    static JOB: LazyLock<Job> = LazyLock::new(|| {
        let body = br#"{"command":["a","b"],"name":"n","labels":{"k":"v"},"env":{"A":"b"},"timeout_seconds":5,
            "stop":{"signal":"INT","grace_seconds":1,"scope":"all"},"rlimits":{"core":0},"limits":{"pids":9},
            "stdin":{"mode":"data","text":"x"},"umask":"0077","supplementary_groups":[1],"cpu_affinity":[0]}"#;
        let body = request::parse_body(body).expect("it is JSON");
        job(request::parse_submission(&body, &SpecLimits::default()).expect("it is valid"))
    });
    let limits = SpecLimits::default();
    drop(request::parse_amendment(&JOB, bytes, &limits));
    drop(request::parse_rerun(&JOB, bytes, &limits));
}

/// Requests for templates: what the policy makes is what it admits.
pub fn template(bytes: &[u8]) {
    static POLICY: LazyLock<Policy> = LazyLock::new(|| {
        Policy::parse(
            r#"
            [template.t]
            command = ["/bin/echo", "{p}", "{i}", "{e}", "--", "{f}"]
            params.p = { type = "pattern", pattern = "[a-z]+|[0-9]{3}" }
            params.i = { type = "integer", min = -5, max = 500 }
            params.e = { type = "enum", values = ["red", "-g", ""] }
            params.f = { type = "path", beneath = "/usr" }
            spec = { timeout_seconds = 5, umask = "0077" }
            "#,
        )
        .expect("it is valid")
    });
    let request = |body: Body| request::parse_template_request(&body, &SpecLimits::default()).ok();
    let Some(request) = request::parse_body(bytes).ok().and_then(request) else {
        return;
    };
    if let Ok(new) = POLICY.job(request) {
        assert!(POLICY.admits(&new.spec), "{:?}", new.spec);
        let argv = new.spec.program.argv();
        assert!(argv.len() == 6 && argv[5].starts_with("/usr/") && !argv[1].starts_with('-'));
    }
}

/// Label selectors: what is shown means the same.
pub fn selector(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(selector) = text.parse::<Selector>() {
        let shown = selector.to_string();
        assert_eq!(shown.parse::<Selector>().as_ref(), Ok(&selector), "{shown}");
    }
}

/// What a client of a job's WebSocket sends; also in frames made for it, so that more of the inputs are messages.
pub fn attach(bytes: &[u8]) {
    http::fuzz::attach(bytes);
    let mut frames = Vec::new();
    for message in bytes.split(|byte| *byte == b'\n') {
        let Some((first, payload)) = message.split_first() else {
            continue;
        };
        // The last frame of a message as often as not; the mask is one that changes nothing.
        let (head, length) = match u16::try_from(payload.len()) {
            Ok(length @ ..=125) => (*first, vec![0x80 | length.to_le_bytes()[0]]),
            Ok(length) => (*first, [&[0xfe][..], &length.to_be_bytes()].concat()),
            Err(_) => continue,
        };
        frames.extend_from_slice(&[head]);
        frames.extend_from_slice(&length);
        frames.extend_from_slice(&[0; 4]);
        frames.extend_from_slice(payload);
    }
    http::fuzz::attach(&frames);
}

/// The query of a list of jobs.
pub fn query(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        http::fuzz::query(text);
    }
}

/// The cursor of a list: it leads back to where it came from, and nowhere with another filter.
pub fn cursor(bytes: &[u8]) {
    let Some((id, query)) = bytes.split_first_chunk::<16>() else {
        return;
    };
    if let Ok(text) = std::str::from_utf8(query) {
        http::fuzz::cursor(text, JobId::from_bytes(*id));
    }
}

/// Headers that have a grammar of their own.
pub fn headers(bytes: &[u8]) {
    const NAMES: [&str; 4] = ["accept", "prefer", "idempotency-key", "last-event-id"];
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let Some((first, value)) = line.split_first() else {
            continue;
        };
        let name = NAMES[usize::from(*first) % NAMES.len()];
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(HeaderName::from_static(name), value);
        }
    }
    http::fuzz::headers(&headers);
}

/// `Range` headers for a stream of which a part was dropped: a part that is granted exists.
pub fn range(bytes: &[u8]) {
    let Some((kept_from, rest)) = bytes.split_first_chunk::<8>() else {
        return;
    };
    let Some((length, text)) = rest.split_first_chunk::<8>() else {
        return;
    };
    let (kept_from, length) = (u64::from_le_bytes(*kept_from), u64::from_le_bytes(*length));
    for value in [text.to_vec(), [b"bytes=", text].concat()] {
        if let Ok(value) = HeaderValue::from_bytes(&value) {
            let headers = HeaderMap::from_iter([(RANGE, value)]);
            http::fuzz::range(&headers, kept_from.min(length), length);
        }
    }
}

/// Packets, as each role would read them.
pub fn packet(bytes: &[u8]) {
    // Once more with the version that is read, so that more of the inputs reach the decoder.
    for bytes in [bytes, &[&[1], bytes].concat()] {
        drop(codec::decode::<ToSupervisor>(bytes));
        drop(codec::decode::<FromSupervisor>(bytes));
        drop(codec::decode::<Launch>(bytes));
        drop(codec::decode::<ToMonitor>(bytes));
        drop(codec::decode::<FromMonitor>(bytes));
        drop(codec::decode::<record::Record>(bytes));
    }
}

/// Messages between a hub and its nodes: what is understood comes back as it was.
pub fn link(bytes: &[u8]) {
    if let Ok(message) = serde_json::from_slice::<FromNode>(bytes) {
        let text = serde_json::to_string(&message).expect("it was read from such a text");
        let again = serde_json::from_str::<FromNode>(&text).expect("it was written a moment ago");
        assert_eq!(serde_json::to_string(&again).ok(), Some(text));
    }
    if let Ok(message) = serde_json::from_slice::<ToNode>(bytes) {
        let text = serde_json::to_string(&message).expect("it was read from such a text");
        let again = serde_json::from_str::<ToNode>(&text).expect("it was written a moment ago");
        assert_eq!(serde_json::to_string(&again).ok(), Some(text));
    }
}

/// The halves of record files, as they may be found after a crash; also with the checksum made right, so that what
/// lies behind it is reached.
pub fn record_slots(bytes: &[u8]) {
    drop(record::parse_slot(bytes));
    drop(record::parse_slot(&record::sealed(1, bytes)));
    drop(record::parse_slot(&record::sealed(
        1,
        &[&[1], bytes].concat(),
    )));
}

/// Output with any content, in files and from the store: the reader neither panics nor goes on for ever.
pub fn index(bytes: &[u8]) {
    let Some((numbers, rest)) = bytes.split_first_chunk::<4>() else {
        return;
    };
    let [second, kind, cut, from] = numbers.map(usize::from);
    let (index, log) = rest.split_at(rest.len() * cut / 256);
    // Half of the index makes a segment of its own, so that segments have to fit together as well.
    let (one, two) = index.split_at(index.len() / 2);
    let directory = Scratch::new();
    let header = |kind: &[u8; 8], first: u64| {
        let mut header = kind.to_vec();
        for field in [first, first, 0] {
            header.extend_from_slice(&field.to_le_bytes());
        }
        header
    };
    let write = |first: u64, part: &str, head: &[u8], bytes: &[u8]| {
        let path = directory.0.join(format!("{first:020}.{part}"));
        fs::write(path, [head, bytes].concat()).expect("there is room");
    };
    write(0, "idx", &header(b"PROCIDX1", 0), one);
    write(0, "log", &[], log);
    let second = u64::try_from(second).expect("a byte");
    if second > 0 {
        let kind = if kind % 2 == 0 {
            b"PROCIDX1"
        } else {
            b"PROCGAP1"
        };
        write(second, "idx", &header(kind, second), two);
    }
    let from = u64::try_from(from).expect("a byte");
    let opened = File::open(&directory.0).expect("it is there");
    if let Ok(reader) = Reader::open(opened.into()) {
        read(reader, from);
    }
    let index = [&header(b"PROCIDX1", 0), one].concat();
    let length = u32::try_from(index.len()).expect("it is small");
    let stored = [&length.to_le_bytes(), &*index, log].concat();
    for stored in [&*stored, bytes] {
        if let Ok(short) = Short::from_bytes(stored) {
            read(Reader::of_short(short.into()), from);
        }
    }
}

fn read(mut reader: Reader, from: u64) {
    /// More than there are places in the input.
    const STEPS: usize = 1000;
    drop(reader.totals());
    for filter in [None, Some(Stream::Stdout), Some(Stream::Stderr)] {
        drop(reader.tail_lines(3, filter));
        drop(reader.tail_bytes(3, filter));
        for mut at in [0, from] {
            for _ in 0..STEPS {
                match reader.next(at, filter, 64) {
                    Ok(Some(Piece::Gap { to, .. })) if to > at => at = to,
                    Ok(Some(Piece::Data { next, .. })) if next > at => at = next,
                    // A reader that stands still is an error to whoever reads.
                    Ok(_) | Err(_) => break,
                }
            }
        }
    }
    drop(reader.offset_of_stream_position(Stream::Stdout, from));
}

/// A directory in memory that goes with its owner.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        // Tests share a process.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("procession-fuzz-{}-{number}", std::process::id());
        let path = Path::new("/dev/shm").join(name);
        fs::create_dir_all(&path).expect("shared memory is mounted");
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::panic;

    use rand::rngs::StdRng;
    use rand::seq::IndexedRandom;
    use rand::{Rng, SeedableRng};

    use super::*;

    /// Inputs of each target that [`every_input_like_those_that_are_kept_passes`] makes.
    const MADE: usize = 3000;

    /// As the targets are run: a longer input shows hardly more.
    const LONGEST: usize = 4096;

    fn kept(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        assert!(fuzz.join(format!("fuzz_targets/{name}.rs")).exists());
        let files = fs::read_dir(fuzz.join("seeds").join(name)).expect(name);
        let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        // The order of a directory is not the same everywhere, and choices are made by it.
        paths.sort();
        assert!(!paths.is_empty(), "nothing is kept for {name}");
        paths
            .into_iter()
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect()
    }

    #[test]
    fn every_input_that_is_kept_passes() {
        for (name, target) in TARGETS {
            for (path, input) in kept(name) {
                eprintln!("{}", path.display());
                target(&input);
            }
        }
    }

    /// A run of all targets so short that it can be one of the tests, and the same every time:
    /// `PROCESSION_FUZZ_SEED` makes other inputs, `PROCESSION_FUZZ_INPUTS` more of them.
    #[test]
    fn every_input_like_those_that_are_kept_passes() {
        let set = |name| std::env::var(name).ok().map(|text| text.parse().unwrap());
        let seed: u64 = set("PROCESSION_FUZZ_SEED").unwrap_or(1);
        let made =
            set("PROCESSION_FUZZ_INPUTS").map_or(MADE, |made| usize::try_from(made).unwrap());
        for (name, target) in TARGETS {
            let kept: Vec<_> = kept(name).into_iter().map(|(_, input)| input).collect();
            let mut random = StdRng::seed_from_u64(seed);
            for number in 0..made {
                let mut input = kept[number % kept.len()].clone();
                for _ in 0..random.random_range(1..=4) {
                    change(&mut input, &kept, &mut random);
                }
                input.truncate(LONGEST);
                if let Err(cause) = panic::catch_unwind(|| target(&input)) {
                    eprintln!(
                        "{name} with seed {seed}, input {number}: b\"{}\"",
                        input.escape_ascii()
                    );
                    panic::resume_unwind(cause);
                }
            }
        }
    }

    /// One small change, as fuzzers make them.
    fn change(input: &mut Vec<u8>, kept: &[Vec<u8>], random: &mut StdRng) {
        /// Bytes that mean something in JSON, MessagePack, queries, headers, frames or numbers.
        const TELLING: &[u8] = b"\0\x01\x7f\x80\x81\xc0\xdf\xff\"\\{}[]:,;=&%+-*/!()0189.eE \n\r\t";
        const NUMBERS: [&[u8]; 8] = [
            b"-1",
            b"65535",
            b"65536",
            b"4294967296",
            b"18446744073709551615",
            b"18446744073709551616",
            b"1e308",
            b"-0.0",
        ];
        let start = random.random_range(0..=input.len());
        let end = random.random_range(start..=input.len().min(start + 32));
        match random.random_range(0..8_u8) {
            0 => {
                if let Some(byte) = input.get_mut(start) {
                    *byte ^= 1 << random.random_range(0..8);
                }
            }
            1 => {
                let byte = *TELLING.choose(random).unwrap();
                drop(input.splice(start..end.min(start + 1), [byte]));
            }
            2 => input.insert(start, *TELLING.choose(random).unwrap()),
            3 => input.insert(start, random.random()),
            4 => drop(input.drain(start..end)),
            5 => {
                let twice = input[start..end].to_vec();
                drop(input.splice(start..start, twice));
            }
            6 => {
                let number = *NUMBERS.choose(random).unwrap();
                drop(input.splice(start..end, number.iter().copied()));
            }
            // The end of another input.
            7.. => {
                let other = kept.choose(random).unwrap();
                let from = random.random_range(0..=other.len());
                drop(input.splice(start.., other[from..].iter().copied()));
            }
        }
    }
}
