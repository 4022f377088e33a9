//! Writer and reader together, over real pipes and files.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirEntryExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use nix::fcntl::{OFlag, SpliceFFlags, splice};
use nix::unistd::pipe2;
use proptest::prelude::*;
use rand::Rng;
use tempfile::TempDir;

use super::segment::{self, Part};
use super::{Piece, Pumped, RawPiece, Reader, SHORT, Short, Stream, Writer};
use job::spec::{OnLimit, OutputPolicy};
use job::time::Timestamp;
use linux::clock;

const MIB: usize = 1 << 20;

fn policy(max_bytes: u64, on_limit: OnLimit) -> OutputPolicy {
    OutputPolicy {
        merge_stderr: false,
        max_bytes,
        on_limit,
    }
}

fn number(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

fn directory(dir: &TempDir) -> OwnedFd {
    File::open(dir.path()).unwrap().into()
}

fn pipe() -> (OwnedFd, File) {
    let (read, write) = pipe2(OFlag::O_CLOEXEC).unwrap();
    let flags = nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK);
    nix::fcntl::fcntl(&read, flags).unwrap();
    (read, File::from(write))
}

fn size_on_disk(dir: &TempDir) -> u64 {
    let entries = std::fs::read_dir(dir.path()).unwrap();
    entries
        .filter_map(|entry| entry.unwrap().metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}

/// A writer over two pipes and a model of what its log must hold.
struct Rig {
    dir: TempDir,
    policy: OutputPolicy,
    writer: Writer,
    pipes: [(OwnedFd, File); 2],
    queued: [VecDeque<u8>; 2],
    log: Vec<(Stream, u8)>,
    now: i64,
}

impl Rig {
    fn new(policy: OutputPolicy) -> Self {
        let dir = TempDir::new().unwrap();
        Self {
            writer: Writer::new(directory(&dir), policy),
            dir,
            policy,
            pipes: [pipe(), pipe()],
            queued: [VecDeque::new(), VecDeque::new()],
            log: Vec::new(),
            now: 0,
        }
    }

    fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let at = number(stream);
        self.pipes[at].1.write_all(bytes).unwrap();
        self.queued[at].extend(bytes);
    }

    fn moved(&mut self, stream: Stream, count: usize) {
        let taken = self.queued[number(stream)].drain(..count);
        self.log.extend(taken.map(|byte| (stream, byte)));
    }

    fn pump(&mut self, stream: Stream) -> Pumped {
        let now = Timestamp::from_micros(self.now);
        let pipe = self.pipes[number(stream)].0.as_fd();
        let pumped = self.writer.pump(stream, pipe, now).unwrap();
        if let Pumped::Moved(count) = pumped {
            self.moved(stream, usize::try_from(count).unwrap());
        }
        let rest = if self.writer.takes_the_rest {
            2 << 20
        } else {
            0
        };
        let bound = self.policy.max_bytes.max(4096) + 128 + rest;
        assert!(size_on_disk(&self.dir) <= bound);
        pumped
    }

    fn pump_all(&mut self) {
        while Stream::ALL
            .map(|stream| matches!(self.pump(stream), Pumped::Moved(_) | Pumped::Blocked))
            .contains(&true)
        {}
    }

    fn resume(&mut self) {
        self.writer = Writer::resume(directory(&self.dir), self.policy).unwrap();
    }

    /// Dies after the intent is written and `count` bytes are in the log.
    fn die_within_a_step(&mut self, stream: Stream, count: usize) {
        let at = number(stream);
        let wanted = u64::try_from(self.queued[at].len()).unwrap();
        if wanted == 0 || self.pump(stream) == Pumped::Blocked {
            return;
        }
        let wanted = u64::try_from(self.queued[at].len()).unwrap();
        if wanted == 0 {
            self.write(stream, b"one\nmore");
        }
        let now = Timestamp::from_micros(self.now);
        let promised = self.writer.promise(stream, wanted.max(8), now).unwrap();
        let totals = self.writer.totals();
        assert_eq!(usize::try_from(totals.next_offset).unwrap(), self.log.len());
        let first = segment::indexes(directory(&self.dir))
            .unwrap()
            .pop()
            .unwrap();
        let log = segment::open(directory(&self.dir), first, Part::Log, OFlag::O_WRONLY);
        let mut offset = i64::try_from(totals.next_offset - first).unwrap();
        let flags = SpliceFFlags::SPLICE_F_NONBLOCK;
        let count = count
            .min(self.queued[at].len())
            .min(usize::try_from(promised).unwrap());
        if count > 0 {
            let log = log.unwrap().unwrap();
            let moved = splice(
                &self.pipes[at].0,
                None,
                log,
                Some(&mut offset),
                count,
                flags,
            );
            self.moved(stream, moved.unwrap());
        }
        self.resume();
    }

    fn reader(&self) -> Reader {
        Reader::open(directory(&self.dir)).unwrap()
    }

    /// Everything a reader can find out agrees with the model, also where it reads what is short from elsewhere.
    fn check(&self) {
        self.check_with(self.reader());
        if let Some(short) = self.writer.short().unwrap() {
            let bytes = short.to_bytes();
            assert!(bytes.len() <= 4 + usize::try_from(SHORT).unwrap());
            assert_eq!(Short::from_bytes(&bytes).unwrap(), short);
            self.check_with(Reader::of_short(short.into()));
        }
    }

    fn check_with(&self, mut reader: Reader) {
        let totals = reader.totals().unwrap();
        assert_eq!(totals, self.writer.totals());
        let count = |wanted| {
            self.log
                .iter()
                .filter(|(stream, _)| *stream == wanted)
                .count()
        };
        let end = self.log.len();
        assert_eq!(
            usize::try_from(totals.stdout_bytes).unwrap(),
            count(Stream::Stdout)
        );
        assert_eq!(
            usize::try_from(totals.stderr_bytes).unwrap(),
            count(Stream::Stderr)
        );
        assert_eq!(usize::try_from(totals.next_offset).unwrap(), end);
        let dropped = usize::try_from(totals.dropped_bytes).unwrap();
        let kept = match self.policy.on_limit {
            OnLimit::DropOldest | OnLimit::Wait => dropped..end,
            OnLimit::DropNewest | OnLimit::StopJob => 0..end - dropped,
        };
        let (mut from, mut at) = (0, 0);
        while let Some(piece) = reader.next_raw(from, 1000).unwrap() {
            from = match piece {
                RawPiece::Data(bytes) => {
                    assert!(kept.contains(&at));
                    for (byte, (_, model)) in bytes.iter().zip(&self.log[at..]) {
                        assert_eq!(byte, model);
                    }
                    from + u64::try_from(bytes.len()).unwrap()
                }
                RawPiece::Gap { to } => to,
            };
            at = usize::try_from(from).unwrap();
        }
        assert_eq!(at, end);
        for filter in [None, Some(Stream::Stdout), Some(Stream::Stderr)] {
            let passes = |stream| filter.is_none_or(|filter| filter == stream);
            let seen = self.read(&mut reader, 0, filter, 700);
            let model: Vec<_> = kept
                .clone()
                .filter(|at| passes(self.log[*at].0))
                .map(|at| (at, self.log[at].0, self.log[at].1))
                .collect();
            assert!(seen == model, "filter {filter:?}");
            for n in [0, 1, 7, 500, 100_000] {
                let start = reader.tail_bytes(n, filter).unwrap();
                let tail = self.read(&mut reader, start, filter, MIB);
                let skip = model.len().saturating_sub(usize::try_from(n).unwrap());
                assert!(tail == model[skip..], "{n} bytes, filter {filter:?}");
                let start = reader.tail_lines(n, filter).unwrap();
                let tail = self.read(&mut reader, start, filter, MIB);
                let skip = lines_before(&model, n);
                assert!(tail == model[skip..], "{n} lines, filter {filter:?}");
            }
        }
        for wanted in Stream::ALL {
            let all = (0..end).filter(|at| self.log[*at].0 == wanted);
            for (position, at) in all.enumerate().step_by(37) {
                let asked = u64::try_from(position).unwrap();
                let located = reader.offset_of_stream_position(wanted, asked).unwrap();
                if kept.contains(&at) {
                    assert_eq!(located.offset, u64::try_from(at).unwrap());
                    assert_eq!(located.position, asked);
                } else if at < kept.start {
                    assert_eq!(located.offset, totals.first_offset);
                }
            }
        }
    }

    fn read(
        &self,
        reader: &mut Reader,
        from: u64,
        filter: Option<Stream>,
        max: usize,
    ) -> Vec<(usize, Stream, u8)> {
        let (mut from, mut seen) = (from, Vec::new());
        while let Some(piece) = reader.next(from, filter, max).unwrap() {
            from = match piece {
                Piece::Data {
                    offset,
                    stream,
                    bytes,
                    next,
                    ..
                } => {
                    assert!(offset >= from && !bytes.is_empty() && bytes.len() <= max);
                    let offset = usize::try_from(offset).unwrap();
                    let places = offset..;
                    seen.extend(places.zip(bytes).map(|(at, byte)| (at, stream, byte)));
                    next
                }
                Piece::Gap { from: start, to } => {
                    assert!(start >= from && to > start);
                    assert!(filter.is_some() || start == from);
                    to
                }
            };
        }
        seen
    }
}

fn lines_before(model: &[(usize, Stream, u8)], n: u64) -> usize {
    let mut found = 0;
    if n == 0 {
        return model.len();
    }
    for at in (0..model.len().saturating_sub(1)).rev() {
        found += u64::from(model[at].2 == b'\n');
        if found == n {
            return at + 1;
        }
    }
    0
}

#[derive(Clone, Debug)]
enum Step {
    Write(bool, Vec<u8>),
    Pump(bool),
    Wait(i64),
    Resume,
    Die(bool, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let length = prop_oneof![4 => 1..4_usize, 2 => 100..2500_usize];
    let bytes = (any::<u8>(), length).prop_map(|(seed, length)| noise(seed, length));
    prop_oneof![
        8 => (any::<bool>(), bytes).prop_map(|(second, bytes)| Step::Write(second, bytes)),
        8 => any::<bool>().prop_map(Step::Pump),
        2 => (0..1500_i64).prop_map(Step::Wait),
        1 => Just(Step::Resume),
        2 => (any::<bool>(), 0..9_usize).prop_map(|(second, count)| Step::Die(second, count)),
    ]
}

/// Bytes of every value, with many line feeds and NULs.
fn noise(seed: u8, length: usize) -> Vec<u8> {
    let mut byte = seed;
    let next = |_| {
        byte = byte.wrapping_mul(141).wrapping_add(91);
        match byte % 8 {
            0 => b'\n',
            1 => 0,
            _ => byte,
        }
    };
    (0..length).map(next).collect()
}

fn stream(second: bool) -> Stream {
    if second {
        Stream::Stderr
    } else {
        Stream::Stdout
    }
}

fn run(policy: OutputPolicy, steps: Vec<Step>) {
    let mut rig = Rig::new(policy);
    for step in steps {
        match step {
            Step::Write(second, bytes) => {
                if rig.queued[number(stream(second))].len() < 30_000 {
                    rig.write(stream(second), &bytes);
                }
            }
            Step::Pump(second) => drop(rig.pump(stream(second))),
            Step::Wait(micros) => rig.now += micros,
            Step::Resume => rig.resume(),
            Step::Die(second, count) => match policy.on_limit {
                OnLimit::DropOldest => rig.die_within_a_step(stream(second), count),
                OnLimit::DropNewest | OnLimit::StopJob | OnLimit::Wait => rig.resume(),
            },
        }
    }
    rig.pump_all();
    assert_eq!(rig.queued.iter().map(VecDeque::len).sum::<usize>(), 0);
    rig.check();
    rig.resume();
    rig.check();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_history_reads_back_as_written(steps in prop::collection::vec(step(), 1..120)) {
        run(policy(MIB.try_into().unwrap(), OnLimit::DropOldest), steps);
    }

    #[test]
    fn any_history_keeps_the_newest(
        max in 0..20_000_u64,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        run(policy(max, OnLimit::DropOldest), steps);
    }

    #[test]
    fn any_history_keeps_the_oldest(
        max in 0..20_000_u64,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        run(policy(max, OnLimit::DropNewest), steps);
    }
}

#[test]
fn a_silent_job_has_no_files() {
    let mut rig = Rig::new(OutputPolicy::default());
    assert_eq!(rig.pump(Stream::Stdout), Pumped::Empty);
    rig.writer.sync().unwrap();
    assert_eq!(std::fs::read_dir(rig.dir.path()).unwrap().count(), 0);
    rig.check();
}

#[test]
fn the_files_of_short_output_are_the_next_jobs() {
    let mut rig = Rig::new(OutputPolicy::default());
    rig.write(Stream::Stdout, b"the first job's");
    rig.pump_all();
    let inodes = |rig: &Rig| {
        let entries = std::fs::read_dir(rig.dir.path()).unwrap();
        let mut found: Vec<u64> = entries.map(|it| it.unwrap().ino()).collect();
        found.sort_unstable();
        found
    };
    let before = inodes(&rig);
    segment::put_by(directory(&rig.dir)).unwrap();
    assert_eq!(size_on_disk(&rig.dir), 0, "its bytes are gone");
    assert_eq!(inodes(&rig), before);
    rig.writer = Writer::new(directory(&rig.dir), rig.policy);
    rig.log.clear();
    // Nothing of it is seen before the next one writes.
    rig.check();
    rig.write(Stream::Stderr, b"other");
    rig.pump_all();
    rig.check();
    assert_eq!(inodes(&rig), before);
    // One that takes none of it leaves them to the one after it, and they go with the directory.
    segment::put_by(directory(&rig.dir)).unwrap();
    segment::put_by(directory(&rig.dir)).unwrap();
    super::remove(directory(&rig.dir)).unwrap();
    assert!(inodes(&rig).is_empty());
}

#[test]
fn what_is_short_is_told_from_what_is_not() {
    let longest = usize::try_from(SHORT).unwrap() - 64;
    for (bytes, is_short) in [(1, true), (longest, true), (longest + 1, false)] {
        let mut rig = Rig::new(OutputPolicy::default());
        rig.write(Stream::Stdout, &vec![b'x'; bytes]);
        rig.pump_all();
        assert_eq!(rig.writer.short().unwrap().is_some(), is_short, "{bytes}");
        rig.check();
    }
    // What lacks its beginning, and what is promised and not there yet.
    let mut rig = Rig::new(policy(4096, OnLimit::DropOldest));
    for _ in 0..300 {
        rig.write(Stream::Stdout, &[b'x'; 100]);
        rig.pump_all();
    }
    assert_eq!(rig.writer.short().unwrap(), None);
    let mut rig = Rig::new(OutputPolicy::default());
    rig.write(Stream::Stdout, b"one");
    let now = Timestamp::from_micros(0);
    assert_eq!(rig.writer.promise(Stream::Stdout, 3, now).unwrap(), 3);
    assert_eq!(rig.writer.short().unwrap(), None);
    assert_eq!(
        Rig::new(OutputPolicy::default()).writer.short().unwrap(),
        None
    );
    for bytes in [&b""[..], b"\x01\x00\x00", b"\x09\x00\x00\x00index"] {
        assert!(Short::from_bytes(bytes).is_err(), "{bytes:?}");
    }
}

#[test]
fn the_last_bytes_come_before_the_end() {
    let mut rig = Rig::new(OutputPolicy::default());
    rig.write(Stream::Stdout, b"bye");
    rig.pipes[0].1 = File::open("/dev/null").unwrap();
    assert_eq!(rig.pump(Stream::Stdout), Pumped::Moved(3));
    assert_eq!(rig.pump(Stream::Stdout), Pumped::Closed);
    assert_eq!(rig.pump(Stream::Stderr), Pumped::Empty);
    rig.writer.sync().unwrap();
    rig.check();
}

#[test]
fn writes_within_a_millisecond_share_a_record() {
    let mut rig = Rig::new(OutputPolicy::default());
    for now in [0, 999, 1000, 1500, 900] {
        rig.now = now;
        rig.write(Stream::Stdout, b"x");
        let _ = rig.pump(Stream::Stdout);
    }
    let mut reader = rig.reader();
    let mut times = Vec::new();
    let mut from = 0;
    while let Some(Piece::Data { at, next, .. }) = reader.next(from, None, MIB).unwrap() {
        times.push(at.as_micros());
        from = next;
    }
    assert_eq!(times, [0, 1000, 900]);
}

#[test]
fn the_limit_is_reported_once_and_the_dropped_bytes_are_counted() {
    let mut rig = Rig::new(policy(1000, OnLimit::StopJob));
    for round in 0..200 {
        rig.now += 2000;
        for stream in Stream::ALL {
            rig.write(stream, &[b'a'; 13]);
        }
        rig.pump_all();
        let full = rig.writer.totals().dropped_bytes > 0;
        assert_eq!(rig.writer.limit_reached(), full && round == full_at(&rig));
    }
    let totals = rig.writer.totals();
    assert_eq!(totals.next_offset, 5200);
    // A header of 32, and as many records of 32 with 13 bytes as fit in 1000.
    assert_eq!(totals.next_offset - totals.dropped_bytes, 273);
    assert!(size_on_disk(&rig.dir) <= 1000 + 96);
    rig.check();
    rig.resume();
    assert!(rig.writer.limit_reached());
}

/// The round in which the first byte was dropped: each has 26 bytes.
fn full_at(rig: &Rig) -> u64 {
    let totals = rig.writer.totals();
    (totals.next_offset - totals.dropped_bytes) / 26
}

#[test]
fn single_bytes_on_alternating_streams_stay_within_the_limit() {
    for on_limit in [OnLimit::DropOldest, OnLimit::DropNewest] {
        let mut rig = Rig::new(policy(8192, on_limit));
        for _ in 0..1500 {
            for stream in Stream::ALL {
                rig.write(stream, b"\n");
                let _ = rig.pump(stream);
            }
        }
        rig.check();
    }
}

#[test]
fn a_small_limit_keeps_most_of_what_fits_in_it() {
    let mut rig = Rig::new(policy(4096, OnLimit::DropOldest));
    rig.now = 5000;
    for _ in 0..40 {
        rig.now += 2000;
        rig.write(Stream::Stdout, &[b'a'; 1000]);
        rig.pump_all();
    }
    let totals = rig.writer.totals();
    let kept = totals.next_offset - totals.dropped_bytes;
    assert!(kept >= 4096 / 2, "{kept} bytes of 4096 are kept");
    rig.check();
}

/// Writes until the log is full; gives how much that was.
fn fill(rig: &mut Rig, line: &[u8]) -> u64 {
    for _ in 0..100_000 {
        rig.now += 2000;
        // The pipe is emptied before more is written: it may hold no more than two lines.
        loop {
            match rig.pump(Stream::Stdout) {
                Pumped::Full => return rig.writer.totals().next_offset,
                Pumped::Empty => break,
                Pumped::Moved(_) | Pumped::Blocked | Pumped::Closed => {}
            }
        }
        rig.write(Stream::Stdout, line);
    }
    panic!("the log is never full");
}

#[test]
fn what_is_not_read_is_never_dropped_and_a_reader_at_the_end_always_makes_room() {
    for (max_bytes, line) in [(4096, 1), (4096, 700), (100_000, 1), (1 << 20, 30_000)] {
        let mut rig = Rig::new(policy(max_bytes, OnLimit::Wait));
        let line = vec![b'a'; line];
        let mut end = fill(&mut rig, &line);
        assert_eq!(rig.writer.totals().dropped_bytes, 0);
        assert_eq!(rig.pump(Stream::Stdout), Pumped::Full, "nothing was read");
        for _ in 0..20 {
            rig.writer.read_up_to(end);
            let next = fill(&mut rig, &line);
            assert!(next > end, "{max_bytes}: a reader at the end makes room");
            // What it has not read is all there, and what it has read may have to be sent once more.
            let first = rig.writer.totals().first_offset;
            assert!(first < end, "{first} {end}");
            end = next;
        }
        rig.writer.take_the_rest();
        rig.pump_all();
        assert_eq!(rig.queued[0].len(), 0);
    }
}

#[test]
fn promised_bytes_that_never_come_are_taken_back() {
    let mut rig = Rig::new(OutputPolicy::default());
    rig.write(Stream::Stderr, b"abc");
    rig.pump_all();
    rig.now = 5000;
    rig.writer
        .promise(Stream::Stdout, 10, Timestamp::from_micros(rig.now))
        .unwrap();
    rig.resume();
    rig.write(Stream::Stderr, b"later");
    assert_eq!(rig.pump(Stream::Stderr), Pumped::Blocked);
    assert_eq!(rig.pump(Stream::Stdout), Pumped::Empty);
    rig.pump_all();
    rig.check();
    rig.writer
        .promise(Stream::Stdout, 10, Timestamp::from_micros(rig.now))
        .unwrap();
    rig.check();
    rig.resume();
    rig.writer.seal().unwrap();
    rig.check();
}

#[test]
fn removal_leaves_other_files_alone() {
    let mut rig = Rig::new(policy(10, OnLimit::DropOldest));
    std::fs::write(rig.dir.path().join("exit"), "0").unwrap();
    rig.write(Stream::Stdout, &[0; 20_000]);
    rig.pump_all();
    super::remove(directory(&rig.dir)).unwrap();
    assert_eq!(std::fs::read_dir(rig.dir.path()).unwrap().count(), 1);
    assert_eq!(rig.reader().next(0, None, MIB).unwrap(), None);
}

/// Runs one test of this file again in its own process.
fn again(test: &str, dir: &TempDir) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", &format!("output::tests::{test}"), "--ignored"])
        .env("OUTPUT_TEST_DIRECTORY", dir.path())
        .stdout(Stdio::null());
    command
}

fn given_directory() -> Option<OwnedFd> {
    let path = std::env::var_os("OUTPUT_TEST_DIRECTORY")?;
    Some(File::open(path).unwrap().into())
}

/// Both ends of a kill test: the limit comes with the environment.
fn kill_policy(max_bytes: &str) -> OutputPolicy {
    policy(max_bytes.parse().unwrap(), OnLimit::DropOldest)
}

#[test]
#[ignore = "the process that a test kills; its pipes are descriptors 0 and 2"]
fn pump_until_killed() {
    let Some(dir) = given_directory() else { return };
    let max_bytes = std::env::var("OUTPUT_TEST_MAX_BYTES").unwrap();
    let mut writer = Writer::resume(dir, kill_policy(&max_bytes)).unwrap();
    let (stdin, stderr) = (io::stdin(), io::stderr());
    loop {
        let now = clock::wall();
        let _ = writer.pump(Stream::Stdout, stdin.as_fd(), now).unwrap();
        let _ = writer.pump(Stream::Stderr, stderr.as_fd(), now).unwrap();
    }
}

#[test]
fn no_byte_is_lost_or_doubled_when_the_writer_is_killed() {
    kill_and_resume("1000000000", 60);
}

#[test]
fn no_byte_is_lost_or_doubled_when_the_writer_is_killed_between_segments() {
    kill_and_resume("40000", 60);
}

fn kill_and_resume(max_bytes: &str, rounds: u32) {
    let dir = TempDir::new().unwrap();
    let pipes = [pipe(), pipe()];
    let [(stdout, mut to_stdout), (stderr, mut to_stderr)] = pipes;
    let stop = AtomicBool::new(false);
    let feed = |to: &mut File, name: &str| {
        let mut count: u64 = 0;
        let mut random = rand::rng();
        while !stop.load(Ordering::Relaxed) {
            let mut text = String::new();
            for _ in 0..random.random_range(1..200) {
                text.push_str(&format!("{name} {count}\n"));
                count += 1;
            }
            to.write_all(text.as_bytes()).unwrap();
        }
        count
    };
    let counts = std::thread::scope(|scope| {
        let feeders = [
            scope.spawn(|| feed(&mut to_stdout, "out")),
            scope.spawn(|| feed(&mut to_stderr, "err")),
        ];
        let mut random = rand::rng();
        for _ in 0..rounds {
            let before = size_on_disk(&dir);
            let mut child = again("pump_until_killed", &dir)
                .env("OUTPUT_TEST_MAX_BYTES", max_bytes)
                .stdin(stdout.try_clone().unwrap())
                .stderr(stderr.try_clone().unwrap())
                .spawn()
                .unwrap();
            let started = Instant::now();
            while size_on_disk(&dir) == before {
                assert!(
                    started.elapsed().as_secs() < 20,
                    "the writer does not write"
                );
                std::thread::yield_now();
            }
            let started = Instant::now();
            let life = random.random_range(0..3000);
            while started.elapsed().as_micros() < life {
                std::hint::spin_loop();
            }
            child.kill().unwrap();
            child.wait().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        // The feeders may be blocked, so the last writer works while they end.
        let mut writer = Writer::resume(directory(&dir), kill_policy(max_bytes)).unwrap();
        loop {
            let done = feeders.iter().all(|feeder| feeder.is_finished());
            let now = clock::wall();
            let out = writer.pump(Stream::Stdout, stdout.as_fd(), now).unwrap();
            let err = writer.pump(Stream::Stderr, stderr.as_fd(), now).unwrap();
            if done && out == Pumped::Empty && err == Pumped::Empty {
                break;
            }
        }
        feeders.map(|feeder| feeder.join().unwrap())
    });
    let mut reader = Reader::open(directory(&dir)).unwrap();
    let totals = reader.totals().unwrap();
    for (stream, name, count, bytes) in [
        (Stream::Stdout, "out", counts[0], totals.stdout_bytes),
        (Stream::Stderr, "err", counts[1], totals.stderr_bytes),
    ] {
        let mut seen = Vec::new();
        let mut from = totals.first_offset;
        while let Some(piece) = reader.next(from, Some(stream), MIB).unwrap() {
            let Piece::Data { bytes, next, .. } = piece else {
                panic!("a gap at {from}");
            };
            seen.extend(bytes);
            from = next;
        }
        let all: String = (0..count).map(|at| format!("{name} {at}\n")).collect();
        assert_eq!(usize::try_from(bytes).unwrap(), all.len());
        assert!(all.as_bytes().ends_with(&seen), "{name}");
        assert!(totals.dropped_bytes > 0 || seen.len() == all.len());
    }
    assert!(size_on_disk(&dir) <= kill_policy(max_bytes).max_bytes);
}

#[test]
#[ignore = "the process in which a_full_disk_keeps_bytes_in_the_pipe lowers its file size limit"]
fn write_beyond_the_file_size_limit() {
    let Some(dir) = given_directory() else { return };
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (read, mut write) = pipe();
    let mut writer = Writer::new(dir, OutputPolicy::default());
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, 10_000, hard).unwrap();
    let mut moved = 0;
    let mut failures = 0;
    let mut written = 0;
    for _ in 0..20 {
        if failures == 0 {
            write.write_all(&[b'x'; 999]).unwrap();
            written += 999;
        }
        match writer.pump(Stream::Stdout, read.as_fd(), Timestamp::from_micros(0)) {
            Ok(Pumped::Moved(count)) => moved += count,
            Ok(other) => panic!("{other:?} after {moved}"),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(nix::libc::EFBIG));
                failures += 1;
            }
        }
    }
    assert_eq!((moved, writer.totals().next_offset), (10_000, 10_000));
    assert!(failures > 5);
    setrlimit(Resource::RLIMIT_FSIZE, hard, hard).unwrap();
    while let Pumped::Moved(count) = writer
        .pump(Stream::Stdout, read.as_fd(), Timestamp::from_micros(0))
        .unwrap()
    {
        moved += count;
    }
    assert_eq!(moved, written);
}

#[test]
fn a_full_disk_keeps_bytes_in_the_pipe() {
    let dir = TempDir::new().unwrap();
    // An ignored signal stays ignored over execve(2).
    let mut command = again("write_beyond_the_file_size_limit", &dir);
    let program = command.get_program().to_owned();
    let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    command = Command::new("/bin/sh");
    let output = command
        .args(["-c", r#"trap "" XFSZ; exec "$0" "$@""#])
        .arg(program)
        .args(arguments)
        .env("OUTPUT_TEST_DIRECTORY", dir.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}

#[test]
fn a_reader_sees_only_true_bytes_while_segments_come_and_go() {
    // The byte at an offset and its stream follow from the offset: 64 of one, then 64 of the other.
    let byte = |offset: u64| u8::try_from(offset % 251).unwrap();
    let of = |offset: u64| stream(offset / 64 % 2 == 1);
    let total: u64 = 1 << 20;
    let dir = TempDir::new().unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = Writer::new(directory(&dir), policy(40_000, OnLimit::DropOldest));
            let mut pipes = [pipe(), pipe()];
            for start in (0..total).step_by(64) {
                let bytes: Vec<u8> = (start..start + 64).map(byte).collect();
                let (read, write) = &mut pipes[number(of(start))];
                write.write_all(&bytes).unwrap();
                let now = clock::wall();
                let mut left = 64;
                while left > 0 {
                    match writer.pump(of(start), read.as_fd(), now).unwrap() {
                        Pumped::Moved(count) => left -= count,
                        Pumped::Empty | Pumped::Closed | Pumped::Blocked | Pumped::Full => {
                            panic!("{left} bytes cannot be moved");
                        }
                    }
                }
            }
            done.store(true, Ordering::Release);
        });
        for filter in [None, Some(Stream::Stdout), Some(Stream::Stderr)] {
            let (dir, done) = (&dir, &done);
            scope.spawn(move || {
                let mut reader = Reader::open(directory(dir)).unwrap();
                let (mut from, mut seen) = (0, 0);
                loop {
                    let last = done.load(Ordering::Acquire);
                    let totals = reader.totals().unwrap();
                    assert_eq!(
                        totals.stdout_bytes + totals.stderr_bytes,
                        totals.next_offset
                    );
                    assert!(totals.next_offset >= from.min(total - 64));
                    while let Some(piece) = reader.next(from, filter, 50).unwrap() {
                        match piece {
                            Piece::Data {
                                offset,
                                stream,
                                bytes,
                                next,
                                ..
                            } => {
                                for (at, found) in (offset..).zip(&bytes) {
                                    assert_eq!((*found, stream), (byte(at), of(at)), "at {at}");
                                }
                                assert!(filter.is_some() || offset == from);
                                seen += bytes.len();
                                from = next;
                            }
                            Piece::Gap { to, .. } => from = to,
                        }
                    }
                    if last {
                        break;
                    }
                    let _ = reader.tail_lines(3, filter).unwrap();
                    let _ = reader.tail_bytes(100, filter).unwrap();
                }
                assert!(seen > 0 && from + 64 >= total);
            });
        }
    });
}
