//! The one that leads: a thread that appends what the store's writer hands to it, says that it is there, and makes snapshots.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc as blocking;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant as Moment};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout, timeout_at};

use crate::database::{Database, signed, stale, unsigned};
use crate::key::Key;
use crate::status::{Member, Role, Status};
use crate::tls::Tls;
use crate::{Address, LedgerError, hosts, snapshots};
use linux::failpoint;
use store::{Keeper, Kept};

/// How often who leads says so.
const BEAT: Duration = Duration::from_secs(1);

/// How long an append is tried, from when it is asked, before the writer is told that it failed. What is left of ten seconds is
/// for the answer to the client: it may have to be found out who leads.
const PATIENCE: Duration = Duration::from_secs(7);

/// The pause before another connection.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a connection that is only for signs of life may take.
const HASTE: Duration = Duration::from_secs(3);

/// The log is longer than this, and than the store, before there is a snapshot.
const LONG: u64 = 64 << 20;

/// An API node that says nothing for so long is not heard, and after the second is forgotten.
const UNHEARD: Duration = Duration::from_secs(10);
const FORGOTTEN: Duration = Duration::from_secs(3600);

/// What the lead is held with.
#[derive(Clone)]
pub(crate) struct Title {
    pub(crate) address: Address,
    pub(crate) tls: Tls,
    pub(crate) key: Key,
    pub(crate) status: Status,
    pub(crate) store: PathBuf,
    pub(crate) url: String,
    pub(crate) cluster: String,
    pub(crate) claim: String,
    pub(crate) epoch: i64,
    /// So long do the others wait for a word of this one.
    pub(crate) takeover: Duration,
}

enum Wish {
    /// Until then it is tried.
    Append(Kept, Instant, blocking::Sender<Result<(), String>>),
    Release,
}

/// A handle to the thread; dropping it gives the lead up.
#[derive(Debug)]
pub struct Leader {
    wishes: mpsc::UnboundedSender<Wish>,
    lost: watch::Receiver<Option<String>>,
    over: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

/// The writer's end of it.
struct Pen {
    claim: String,
    timeline: Arc<AtomicU32>,
    key: Key,
    wishes: mpsc::UnboundedSender<Wish>,
}

impl std::fmt::Debug for Pen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pen")
    }
}

impl Keeper for Pen {
    fn claim(&self) -> &str {
        &self.claim
    }

    fn timeline(&self) -> u32 {
        self.timeline.load(Ordering::Relaxed)
    }

    fn seal(&self, seq: u64, change: &str) -> Result<Vec<u8>, String> {
        self.key.seal(&change_label(seq), change.as_bytes())
    }

    fn append(&mut self, seq: u64, body: &[u8]) -> Result<(), String> {
        let (answer, answered) = blocking::channel();
        let kept = Kept {
            seq,
            claim: self.claim.clone(),
            body: body.to_vec(),
        };
        let over = || "this API node does not lead any more".to_owned();
        let until = Instant::now() + PATIENCE;
        let sent = self.wishes.send(Wish::Append(kept, until, answer));
        sent.map_err(|_| over())?;
        answered.recv().unwrap_or_else(|_| Err(over()))
    }
}

/// What a change is sealed as.
pub(crate) fn change_label(seq: u64) -> String {
    format!("change {seq}")
}

impl Leader {
    /// Begins; `seq` is the last change of the log and of the store.
    pub(crate) fn start(
        title: Title,
        database: Database,
        seq: u64,
        snapshot: u64,
    ) -> std::io::Result<(Self, Box<dyn Keeper>)> {
        let (wishes, inbox) = mpsc::unbounded_channel();
        let (lose, lost) = watch::channel(None);
        let (over, mut is_over) = watch::channel(false);
        let timeline = Arc::new(AtomicU32::new(database.timeline));
        let pen = Pen {
            claim: title.claim.clone(),
            timeline: timeline.clone(),
            key: title.key.clone(),
            wishes: wishes.clone(),
        };
        title.status.note(|view| {
            view.role = Role::Leads;
            view.epoch = unsigned(title.epoch);
            view.leader.clone_from(&title.url);
            (view.seq, view.head) = (seq, seq);
        });
        let desk = Desk {
            title,
            database: Some(database),
            seq,
            timeline,
            since: 0,
            snapshot,
            making: JoinSet::new(),
            members: HashMap::new(),
        };
        let thread = thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                let why = match runtime {
                    Ok(runtime) => runtime.block_on(async {
                        tokio::select! {
                            why = desk.run(inbox) => why,
                            _ = is_over.wait_for(|it| *it) => None,
                        }
                    }),
                    Err(error) => Some(error.to_string()),
                };
                lose.send_replace(why);
            })?;
        let leader = Self {
            wishes,
            lost,
            over,
            thread: Some(thread),
        };
        Ok((leader, Box::new(pen)))
    }

    /// Resolves when the lead is lost, and says why: what this process knows is not true any more.
    pub async fn lost(&self) -> String {
        let mut lost = self.lost.clone();
        let Ok(why) = lost.wait_for(Option::is_some).await else {
            return std::future::pending().await;
        };
        why.clone().unwrap_or_default()
    }

    /// Somebody else leads: nothing is appended any more, and nobody waits for what was to be.
    pub fn abandon(&self) {
        self.over.send_replace(true);
    }

    /// Gives the lead up, once all that was appended is done.
    pub fn release(mut self) {
        let _ = self.wishes.send(Wish::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the thread works with.
struct Desk {
    title: Title,
    database: Option<Database>,
    /// The last change that is certainly in the log.
    seq: u64,
    timeline: Arc<AtomicU32>,
    /// The bytes of the log since the snapshot.
    since: u64,
    snapshot: u64,
    making: JoinSet<Result<u64, LedgerError>>,
    members: HashMap<String, (i64, Instant)>,
}

impl Desk {
    /// `Some`: why the lead is lost.
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Wish>) -> Option<String> {
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let snapshot = self.snapshot;
        if let Some(database) = &self.database {
            self.since = database.bytes_after(snapshot).await.unwrap_or_default();
        }
        loop {
            let done = tokio::select! {
                biased;
                wish = inbox.recv() => match wish {
                    Some(Wish::Append(kept, until, answer)) => {
                        let appended = self.append(&kept, until).await;
                        let told = appended.as_ref().copied().map_err(ToString::to_string);
                        let _ = answer.send(told);
                        appended
                    }
                    Some(Wish::Release) | None => {
                        self.release().await;
                        return None;
                    }
                },
                Some(made) = self.making.join_next() => {
                    self.made(made);
                    Ok(())
                }
                _ = beats.tick() => self.beat().await,
            };
            match done {
                Ok(()) => self.title.status.heard(),
                Err(LedgerError::Unavailable(why)) => {
                    if self.title.status.failed(&why) {
                        tracing::error!("the ledger cannot be reached: {why}; what runs goes on");
                    }
                }
                Err(error) => return Some(error.to_string()),
            }
        }
    }

    /// The connection, a new one if there is none. What the database is, is looked at first.
    async fn connected(&mut self) -> Result<&Database, LedgerError> {
        if self.database.is_none() {
            let (title, seen) = (&self.title, self.timeline.load(Ordering::Relaxed));
            let database = hosts::connect(&title.address, &title.tls, seen).await?;
            self.recognise(&database, seen).await?;
            self.timeline.store(database.timeline, Ordering::Relaxed);
            self.database = Some(database);
        }
        let none = || LedgerError::Unavailable("there is no connection".to_owned());
        self.database.as_ref().ok_or_else(none)
    }

    /// Is this the database that has the log, and not an old copy of it? Gives a copy that took over what it lacks.
    async fn recognise(&self, database: &Database, seen: u32) -> Result<(), LedgerError> {
        let title = &self.title;
        let leading = database.leading().await?;
        if leading.cluster != title.cluster {
            return Err(LedgerError::Unavailable(format!(
                "the database has another cluster, {}",
                leading.cluster
            )));
        }
        let is_newer = database.timeline > seen;
        if leading.claim != title.claim && (leading.epoch >= title.epoch || !is_newer) {
            return Err(deposed(&leading.url));
        }
        let last = unsigned(leading.seq);
        if last >= self.seq {
            return Ok(());
        }
        if !is_newer {
            return Err(stale(format!(
                "it ends at {last}, and {} was appended",
                self.seq
            )));
        }
        tracing::warn!(
            "a failover of PostgreSQL has lost the changes after {last}; they are appended again, up to {}",
            self.seq
        );
        if leading.claim != title.claim
            && !database
                .restore(&leading, title.epoch, &title.claim, &title.url)
                .await?
        {
            return Err(deposed("another API node"));
        }
        let tail = store::tail(&title.store, last)?;
        append_all(database, &title.claim, last, self.seq, tail).await
    }

    async fn append(&mut self, kept: &Kept, until: Instant) -> Result<(), LedgerError> {
        loop {
            let tried = timeout_at(until, self.try_append(kept)).await;
            let why = match tried {
                Ok(Ok(())) => {
                    self.seq = kept.seq;
                    let length = u64::try_from(kept.body.len()).unwrap_or_default();
                    self.since += length;
                    self.title.status.note(|view| {
                        (view.seq, view.head) = (kept.seq, kept.seq);
                        view.appended.0 += 1;
                        view.appended.1 += length;
                    });
                    return Ok(());
                }
                Ok(Err(LedgerError::Unavailable(why))) => why,
                Ok(Err(error)) => return Err(error),
                Err(_) => "PostgreSQL does not answer".to_owned(),
            };
            // What came of it is seen over another connection.
            self.database = None;
            if Instant::now() + PAUSE >= until {
                return Err(LedgerError::Unavailable(why));
            }
            sleep_until(Instant::now() + PAUSE).await;
        }
    }

    async fn try_append(&mut self, kept: &Kept) -> Result<(), LedgerError> {
        let claim = self.title.claim.clone();
        let database = self.connected().await?;
        let sent = Moment::now();
        if database.append(&claim, kept).await? {
            self.confirmed(sent);
            return Ok(());
        }
        let leading = database.leading().await?;
        if leading.claim != claim {
            return Err(deposed(&leading.url));
        }
        // Was it this one, whose answer was lost, or an earlier one that counted as failed?
        match database.change(kept.seq).await? {
            Some(found) if found == *kept => Ok(()),
            _ => Err(LedgerError::Deposed(format!(
                "the log has gone on to {}: a change that counted as lost is in it",
                leading.seq
            ))),
        }
    }

    async fn beat(&mut self) -> Result<(), LedgerError> {
        let beaten = timeout(HASTE, self.try_beat()).await;
        let late = || LedgerError::Unavailable("PostgreSQL does not answer".to_owned());
        let beaten = beaten.unwrap_or_else(|_| Err(late()));
        if let Err(LedgerError::Unavailable(_)) = &beaten {
            self.database = None;
        }
        beaten
    }

    /// The others count from when they see what was written, which is not before it was sent.
    fn confirmed(&self, sent: Moment) {
        let until = sent.checked_add(self.title.takeover);
        self.title.status.note(|view| view.sure_until = until);
    }

    async fn try_beat(&mut self) -> Result<(), LedgerError> {
        let claim = self.title.claim.clone();
        let database = self.connected().await?;
        let sent = Moment::now();
        if !database.beat(&claim).await? {
            let leading = database.leading().await?;
            return Err(deposed(&leading.url));
        }
        self.confirmed(sent);
        let database = self.connected().await?;
        let rows = database.members().await?;
        let now = Instant::now();
        let mut members = Vec::new();
        for row in rows {
            let (beat, at) = self
                .members
                .entry(row.url.clone())
                .or_insert((row.beat, now));
            if *beat != row.beat {
                (*beat, *at) = (row.beat, now);
            }
            let silent = at.elapsed();
            if row.url == self.title.url || silent > FORGOTTEN {
                self.members.remove(&row.url);
                if let Some(database) = &self.database {
                    database.dismiss(&row.url).await?;
                }
                continue;
            }
            members.push(Member {
                url: row.url,
                version: row.version,
                seq: unsigned(row.seq),
                is_heard: silent < UNHEARD,
            });
        }
        self.title.status.note(|view| view.members = members);
        self.consider_snapshot();
        Ok(())
    }

    /// Makes a snapshot if the log is long.
    fn consider_snapshot(&mut self) {
        let long = failpoint::number("ledger.long", LONG);
        if self.since < long || !self.making.is_empty() {
            return;
        }
        match store::size(&self.title.store) {
            Ok(size) if self.since < size => return,
            // The snapshot finds out why.
            Ok(_) | Err(_) => {}
        }
        self.since = 0;
        let (title, timeline) = (self.title.clone(), self.timeline.load(Ordering::Relaxed));
        self.making.spawn(async move {
            let (copy, position) = snapshots::copy(&title.store).await?;
            let database = hosts::connect(&title.address, &title.tls, timeline).await?;
            snapshots::upload(&database, &title.key, &copy, position.seq).await?;
            snapshots::publish(&database, &title.claim, position.seq).await?;
            Ok(position.seq)
        });
    }

    fn made(&mut self, made: Result<Result<u64, LedgerError>, tokio::task::JoinError>) {
        match made {
            Ok(Ok(seq)) => {
                self.snapshot = seq;
                tracing::info!("a snapshot of the store as of change {seq} is in the database");
            }
            Ok(Err(error)) => tracing::warn!("a snapshot for the database failed: {error}"),
            Err(error) => tracing::warn!("a snapshot for the database failed: {error}"),
        }
    }

    async fn release(&mut self) {
        let claim = self.title.claim.clone();
        let releasing = async {
            let database = self.connected().await?;
            database.release(&claim).await
        };
        // Who follows waits a little longer then.
        let _ = timeout(HASTE, releasing).await;
    }
}

/// Appends changes that the log lacks; they must be all from its end on.
pub(crate) async fn append_all(
    database: &Database,
    writer: &str,
    last: u64,
    to: u64,
    tail: Vec<Kept>,
) -> Result<(), LedgerError> {
    let is_whole = tail.first().is_some_and(|kept| kept.seq == last + 1)
        && tail.last().is_some_and(|kept| kept.seq >= to);
    if !is_whole {
        return Err(LedgerError::Unusable(format!(
            "a failover of PostgreSQL has lost the changes {} to {to}, which are more than this API node has kept: restore the database, or begin a new cluster",
            last + 1
        )));
    }
    for kept in tail.iter().filter(|kept| kept.seq <= to) {
        if !database.append(writer, kept).await? {
            let leading = database.leading().await?;
            if leading.seq < signed(kept.seq) || leading.claim != writer {
                return Err(deposed(&leading.url));
            }
        }
    }
    Ok(())
}

fn deposed(url: &str) -> LedgerError {
    let who = if url.is_empty() {
        "another API node"
    } else {
        url
    };
    LedgerError::Deposed(format!("{who} leads"))
}
