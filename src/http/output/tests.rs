//! What clients get of a real log on disk.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use axum::http::header::RANGE;
use http_body_util::BodyExt;
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use tempfile::TempDir;

use super::stream::plan_stream;
use super::*;
use job::spec::{OnLimit, OutputPolicy};
use job::time::Timestamp;
use protocol::output::{Pumped, Writer};

fn selection(query: &str) -> Result<Selection, ApiError> {
    let mut params = Params::of(&format!("/?{query}").parse().unwrap());
    let selection = Selection::of(&mut params);
    params.finish().map(|()| selection)
}

#[test]
fn a_part_of_the_log_begins_at_one_place() {
    for (query, begin) in [
        ("", Begin::Oldest),
        ("offset=7", Begin::Offset(7)),
        ("tail_bytes=0", Begin::TailBytes(0)),
        ("tail_lines=3", Begin::TailLines(3)),
    ] {
        assert_eq!(selection(query).unwrap().begin, begin, "{query}");
    }
    for query in [
        "offset=0&tail_bytes=1",
        "tail_lines=1&tail_bytes=1",
        "offset=-1",
        "stream=both",
    ] {
        assert_eq!(
            selection(query).unwrap_err().code(),
            "invalid_query",
            "{query}"
        );
    }
    assert_eq!(selection("stream=all").unwrap().filter, None);
    assert_eq!(
        selection("stream=stderr").unwrap().filter,
        Some(Stream::Stderr)
    );
}

/// A log that is written as a job would write it.
pub(super) struct Log {
    dir: TempDir,
    writer: Writer,
}

impl Log {
    pub(super) fn new(max_bytes: u64, on_limit: OnLimit) -> Self {
        let dir = TempDir::new().unwrap();
        let policy = OutputPolicy {
            merge_stderr: false,
            max_bytes,
            on_limit,
        };
        Self {
            writer: Writer::new(open(&dir), policy),
            dir,
        }
    }

    pub(super) fn write(&mut self, stream: Stream, text: &str) {
        self.write_bytes(stream, text.as_bytes());
    }

    pub(super) fn write_bytes(&mut self, stream: Stream, bytes: &[u8]) {
        let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).unwrap();
        let mut write = File::from(write);
        for part in bytes.chunks(4096) {
            write.write_all(part).unwrap();
            let moment = Timestamp::from_micros(0);
            while let Pumped::Moved(_) | Pumped::Blocked =
                self.writer.pump(stream, read.as_fd(), moment).unwrap()
            {}
        }
    }

    pub(super) fn reader(&self) -> Reader {
        Reader::open(open(&self.dir)).unwrap()
    }

    fn ask(&self, query: &str) -> Result<Download, ApiError> {
        plan_log(self.reader(), &selection(query).unwrap(), true)
    }

    fn range(&self, stream: Stream, range: &str) -> Result<Download, ApiError> {
        let mut headers = HeaderMap::new();
        if !range.is_empty() {
            headers.insert(RANGE, range.parse().unwrap());
        }
        plan_stream(self.reader(), stream, &headers, true)
    }
}

fn open(dir: &TempDir) -> OwnedFd {
    File::open(dir.path()).unwrap().into()
}

async fn text(plan: Download) -> Result<String, axum::Error> {
    let length = plan.length;
    let bytes = plan.stretch.into_body().collect().await?.to_bytes();
    if let Some(length) = length {
        assert_eq!(length, size(&bytes));
    }
    Ok(String::from_utf8(bytes.to_vec()).unwrap())
}

fn size(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap()
}

fn both_streams() -> Log {
    let mut log = Log::new(1 << 20, OnLimit::DropOldest);
    log.write(Stream::Stdout, "one\n");
    log.write(Stream::Stderr, "bad\n");
    log.write(Stream::Stdout, "two\nthree");
    log
}

#[tokio::test]
async fn every_part_of_a_log_says_where_it_begins_and_how_to_go_on() {
    let log = both_streams();
    for (query, expected, first, next, complete) in [
        ("", "one\nbad\ntwo\nthree", 0, 17, true),
        ("offset=6", "d\ntwo\nthree", 6, 17, true),
        ("offset=17", "", 17, 17, true),
        ("offset=2&limit_bytes=4", "e\nba", 2, 6, false),
        ("limit_bytes=0", "", 0, 0, false),
        ("limit_bytes=100", "one\nbad\ntwo\nthree", 0, 17, true),
        ("stream=stdout", "one\ntwo\nthree", 0, 17, true),
        ("stream=stderr&offset=5", "ad\n", 5, 17, true),
        ("stream=stdout&limit_bytes=6", "one\ntw", 0, 10, false),
        ("stream=stdout&limit_bytes=0", "", 0, 0, false),
        ("stream=stderr&limit_bytes=99", "bad\n", 0, 17, true),
        ("tail_bytes=5", "three", 12, 17, true),
        ("tail_bytes=6&limit_bytes=2", "\nt", 11, 13, false),
        ("tail_lines=2", "two\nthree", 8, 17, true),
        ("tail_lines=1&stream=stderr", "bad\n", 4, 17, true),
        ("tail_lines=0", "", 17, 17, true),
    ] {
        let plan = log.ask(query).unwrap();
        let head = (plan.first, plan.next, plan.complete);
        assert_eq!(text(plan).await.unwrap(), expected, "{query}");
        assert_eq!(head, (first, next, complete), "{query}");
    }
    let beyond = log.ask("offset=18").err().unwrap();
    assert_eq!(beyond.code(), "range_not_satisfiable");
}

#[tokio::test]
async fn going_on_from_offset_to_offset_gives_the_whole() {
    let log = both_streams();
    for stream in ["all", "stdout", "stderr"] {
        let whole = text(log.ask(&format!("stream={stream}")).unwrap())
            .await
            .unwrap();
        for limit in 1..6 {
            let (mut got, mut offset, mut complete) = (String::new(), 0, false);
            while !complete {
                let query = format!("stream={stream}&offset={offset}&limit_bytes={limit}");
                let plan = log.ask(&query).unwrap();
                (offset, complete) = (plan.next, plan.complete);
                got += &text(plan).await.unwrap();
            }
            assert_eq!(got, whole, "{stream} {limit}");
        }
    }
}

#[tokio::test]
async fn a_stream_is_a_file_with_ranges() {
    let log = both_streams();
    for (range, expected, content_range) in [
        ("", "one\ntwo\nthree", None),
        ("bytes=0-2", "one", Some("bytes 0-2/13")),
        ("bytes=2-5", "e\ntw", Some("bytes 2-5/13")),
        ("bytes=-5", "three", Some("bytes 8-12/13")),
        ("bytes=4-", "two\nthree", Some("bytes 4-12/13")),
        ("bytes=0-1,3-4", "one\ntwo\nthree", None),
    ] {
        let plan = log.range(Stream::Stdout, range).unwrap();
        assert_eq!(plan.range.as_deref(), content_range, "{range}");
        assert_eq!(text(plan).await.unwrap(), expected, "{range}");
    }
    let beyond = log.range(Stream::Stderr, "bytes=4-").err().unwrap();
    assert_eq!(beyond.code(), "range_not_satisfiable");
}

#[tokio::test]
async fn a_job_without_output_has_an_empty_log() {
    let log = Log::new(1 << 20, OnLimit::DropOldest);
    let plan = log.ask("").unwrap();
    assert_eq!((plan.first, plan.next, plan.complete), (0, 0, true));
    assert_eq!(text(plan).await.unwrap(), "");
    assert_eq!(
        text(log.range(Stream::Stdout, "").unwrap()).await.unwrap(),
        ""
    );
}

#[tokio::test]
async fn the_oldest_output_that_was_dropped_is_told_in_the_head() {
    let mut log = Log::new(16 << 10, OnLimit::DropOldest);
    for _ in 0..40 {
        log.write(Stream::Stdout, &"0123456789abcdef".repeat(64));
    }
    let plan = log.ask("offset=5").unwrap();
    let (first, next) = (plan.first, plan.next);
    assert!(first > 5 && next == 40 << 10, "{first} {next}");
    assert_eq!(size(text(plan).await.unwrap().as_bytes()), next - first);
    let plan = log.range(Stream::Stdout, "bytes=0-").unwrap();
    let expected = format!("bytes {first}-{}/{next}", next - 1);
    assert_eq!(plan.range.as_deref(), Some(&*expected));
    assert_eq!(size(text(plan).await.unwrap().as_bytes()), next - first);
}

#[tokio::test]
async fn a_reader_that_is_overtaken_is_broken_off() {
    let mut log = Log::new(16 << 10, OnLimit::DropOldest);
    log.write(Stream::Stdout, &"0123456789abcdef".repeat(512));
    let mut plan = log.ask("").unwrap();
    plan.length = None;
    for _ in 0..80 {
        log.write(Stream::Stdout, &"0123456789abcdef".repeat(64));
    }
    text(plan).await.unwrap_err();
}

#[tokio::test]
async fn what_is_dropped_at_the_end_is_left_out() {
    let mut log = Log::new(4096, OnLimit::DropNewest);
    for _ in 0..40 {
        log.write(Stream::Stdout, &"0123456789abcdef".repeat(64));
    }
    let plan = log.ask("").unwrap();
    assert_eq!((plan.first, plan.next, plan.complete), (0, 40 << 10, true));
    let got = text(plan).await.unwrap().len();
    assert!((1..=4096).contains(&got), "{got}");
    let plan = log.range(Stream::Stdout, "bytes=1-").unwrap();
    let expected = format!("bytes 1-{}/{got}", got - 1);
    assert_eq!(plan.range.as_deref(), Some(&*expected));
    assert_eq!(text(plan).await.unwrap().len(), got - 1);
    let beyond = log.range(Stream::Stdout, &format!("bytes={got}-"));
    assert_eq!(beyond.err().unwrap().code(), "range_not_satisfiable");
}
