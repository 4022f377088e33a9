//! One that follows: it applies the log to its own copy of the store until nothing is heard of who leads, and then takes the lead.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use tokio::task::block_in_place;
use tokio::time::{Instant, sleep_until};

use crate::database::{Database, Leading, signed, stale, unsigned};
use crate::key::Key;
use crate::leading::{Leader, Title, append_all, change_label};
use crate::status::{Role, Status};
use crate::tls::Tls;
use crate::{LedgerError, Setup, hosts, snapshots};
use store::{Keeper, Position, Replica};

/// How often the database is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// How often this API node says that it is there.
const ATTEND: Duration = Duration::from_secs(1);

/// How many changes are read at a time.
const AT_ONCE: i64 = 100;

/// The file with the last claim of this API node: it need not wait for itself.
const CLAIM: &str = "claim";

/// An API node that follows.
pub struct Follower {
    setup: Setup,
    key: Key,
    tls: Tls,
    status: Status,
    database: Option<Database>,
    replica: Option<Replica>,
    /// The last claim of this one.
    claim: String,
    /// What was seen of who leads, and since when that has not changed.
    seen: Option<(Leading, Instant)>,
    /// The copy has changes that a failover of the database has lost.
    is_ahead: bool,
    attended: Option<Instant>,
    version: String,
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Follower")
    }
}

/// The lead, and what its store is opened with.
#[derive(Debug)]
pub struct Lead {
    /// Who has it.
    pub leader: Leader,
    /// What keeps the changes of the store.
    pub keeper: Box<dyn Keeper>,
}

/// What came of one look.
#[derive(Debug)]
pub enum Took {
    /// It goes on.
    Nothing,
    /// This API node has the lead.
    Lead(Box<Lead>),
}

impl Follower {
    /// Reads the key and what is trusted.
    ///
    /// # Errors
    /// One line that says the fix.
    pub fn new(setup: &Setup, version: &str) -> Result<Self, LedgerError> {
        let key = setup.key_file.as_deref().map(Key::read).transpose();
        let key = key.map_err(LedgerError::Unusable)?;
        let claim = fs::read_to_string(setup.state_dir.join(CLAIM)).unwrap_or_default();
        Ok(Self {
            setup: setup.clone(),
            key: key.unwrap_or_else(Key::none),
            tls: Tls::new(&setup.address).map_err(LedgerError::Unusable)?,
            status: Status::default(),
            database: None,
            replica: None,
            claim,
            seen: None,
            is_ahead: false,
            attended: None,
            version: version.to_owned(),
        })
    }

    /// What is known, for those who ask.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.clone()
    }

    /// Looks once, and waits before it returns if there was nothing to do.
    ///
    /// # Errors
    /// If this API node can do nothing; if it may later, that is in the status alone.
    pub async fn turn(&mut self) -> Result<Took, LedgerError> {
        match self.look().await {
            Ok(Some(lead)) => return Ok(Took::Lead(Box::new(lead))),
            Ok(None) => self.status.heard(),
            Err(error) if error.is_passing() => {
                self.database = None;
                // While PostgreSQL is not heard, nobody's silence counts.
                self.seen = None;
                if self.status.failed(&error.to_string()) {
                    tracing::error!("the ledger cannot be reached: {error}");
                }
            }
            Err(error) => return Err(error),
        }
        sleep_until(Instant::now() + LOOK).await;
        Ok(Took::Nothing)
    }

    async fn look(&mut self) -> Result<Option<Lead>, LedgerError> {
        if self.database.is_none() {
            if self.replica.is_none() {
                self.replica = Replica::open(&self.setup.store)?;
            }
            let seen = self.position()?.map_or(0, |it| it.timeline);
            let (address, tls) = (&self.setup.address, &self.tls);
            let database = hosts::connect(address, tls, seen).await?;
            database.prepare(&self.key).await?;
            self.database = Some(database);
            self.recognise().await?;
        }
        let leading = self.leading().await?;
        let last = unsigned(leading.seq);
        if self.is_ahead && self.position()?.is_some_and(|it| it.seq <= last) {
            // They were given back, or others have come in their place.
            self.is_ahead = false;
            self.compare(&leading).await?;
        }
        self.catch_up(&leading).await?;
        self.attend().await?;
        let behind = self.behind(&leading)?;
        if behind || !self.may_take(&leading) || self.leaves_it(&leading).await? {
            return Ok(None);
        }
        if self.is_left_behind().await? {
            return Ok(None);
        }
        self.take(&leading).await
    }

    fn database(&self) -> Result<&Database, LedgerError> {
        let none = || LedgerError::Unavailable("there is no connection".to_owned());
        self.database.as_ref().ok_or_else(none)
    }

    fn position(&self) -> Result<Option<Position>, LedgerError> {
        let Some(replica) = &self.replica else {
            return Ok(None);
        };
        Ok(replica.position()?)
    }

    async fn leading(&mut self) -> Result<Leading, LedgerError> {
        let leading = self.database()?.leading().await?;
        let known = Replica::newest_schema();
        if leading.schema > known {
            return Err(LedgerError::Unusable(format!(
                "the ledger has tables of version {}, this procession knows up to {known}: upgrade this API node",
                leading.schema
            )));
        }
        match &self.seen {
            Some((seen, _)) if *seen == leading => {}
            _ => self.seen = Some((leading.clone(), Instant::now())),
        }
        self.status.note(|view| {
            view.role = Role::Follows;
            view.cluster.clone_from(&leading.cluster);
            view.epoch = unsigned(leading.epoch);
            view.head = unsigned(leading.seq);
            view.leader.clone_from(&leading.url);
        });
        Ok(leading)
    }

    /// Holds the copy on this machine against a database that has just been connected to.
    async fn recognise(&mut self) -> Result<(), LedgerError> {
        let Some(replica) = &self.replica else {
            return Ok(());
        };
        let database = self.database()?;
        let leading = database.leading().await?;
        let Some(position) = replica.position()? else {
            if leading.seq == 0 {
                // It is what this cluster begins with, if this one comes first.
                return Ok(());
            }
            return Err(LedgerError::Unusable(format!(
                "{} has jobs of its own, and the cluster in the database has others: give this API node another state directory",
                self.setup.store.display()
            )));
        };
        if position.cluster != leading.cluster {
            return Err(LedgerError::Unusable(format!(
                "this state directory belongs to cluster {}, and the database has cluster {}: give another database, or another state directory",
                position.cluster, leading.cluster
            )));
        }
        if leading.seq == 0 && position.seq <= 1 {
            // Its beginning was interrupted.
            return Ok(());
        }
        let last = unsigned(leading.seq);
        if position.seq > last {
            if database.timeline == position.timeline {
                return Err(stale(format!(
                    "it ends at {last}, and {} was seen",
                    position.seq
                )));
            }
            // A failover has lost what this copy has: who leads appends it again, or this one once it leads.
            self.is_ahead = true;
            return Ok(());
        }
        self.compare(&leading).await
    }

    /// Is the last change of the copy the log's? If it is not, the copy is replaced.
    async fn compare(&mut self, leading: &Leading) -> Result<(), LedgerError> {
        let (Some(replica), Some(position)) = (&self.replica, self.position()?) else {
            return Ok(());
        };
        let database = self.database()?;
        replica.note_timeline(database.timeline)?;
        match database.maker(position.seq).await? {
            Some(claim) if claim == position.claim => Ok(()),
            found => {
                match found {
                    None => tracing::warn!("this API node is far behind, and reads the snapshot"),
                    Some(_) => tracing::error!(
                        "the copy of the store on this machine has a change {} that is not the log's; it is replaced",
                        position.seq
                    ),
                }
                self.replica = None;
                self.load(leading).await
            }
        }
    }

    async fn load(&mut self, leading: &Leading) -> Result<(), LedgerError> {
        let database = self.database()?;
        let store = &self.setup.store;
        let replica = snapshots::load(database, &self.key, store, leading.snapshot).await?;
        replica.note_timeline(database.timeline)?;
        self.put_files(&replica)?;
        self.replica = Some(replica);
        Ok(())
    }

    /// Applies what the log has and the copy has not.
    async fn catch_up(&mut self, leading: &Leading) -> Result<(), LedgerError> {
        if self.replica.is_none() {
            if leading.snapshot == 0 {
                return Ok(());
            }
            self.load(leading).await?;
        }
        let head = unsigned(leading.seq);
        while let Some(position) = self.position()? {
            self.status.note(|view| view.seq = position.seq);
            if position.seq >= head {
                return Ok(());
            }
            let changes = self
                .database()?
                .changes(position.seq, head, AT_ONCE)
                .await?;
            if changes
                .first()
                .is_none_or(|kept| kept.seq != position.seq + 1)
            {
                tracing::warn!("this API node is far behind, and reads the snapshot");
                self.replica = None;
                return self.load(leading).await;
            }
            let mut has_files = false;
            for kept in &changes {
                let text = self.key.open(&change_label(kept.seq), &kept.body)?;
                let text = String::from_utf8_lossy(&text).into_owned();
                if let Some(replica) = &mut self.replica {
                    has_files |= block_in_place(|| replica.apply(kept, &text))?;
                }
            }
            if has_files && let Some(replica) = &self.replica {
                self.put_files(replica)?;
            }
        }
        Ok(())
    }

    /// Writes the files of the state directory that belong to the cluster.
    fn put_files(&self, replica: &Replica) -> Result<(), LedgerError> {
        for (name, content) in replica.files()? {
            if protocol::state_dir::SHARED.contains(&&*name) {
                put_file(&self.setup.state_dir, &name, &content)?;
            }
        }
        Ok(())
    }

    async fn attend(&mut self) -> Result<(), LedgerError> {
        if self.attended.is_some_and(|at| at.elapsed() < ATTEND) {
            return Ok(());
        }
        let seq = self.position()?.map_or(0, |it| it.seq);
        let (url, version) = (&self.setup.advertise, &self.version);
        self.database()?.attend(url, version, seq).await?;
        self.attended = Some(Instant::now());
        Ok(())
    }

    /// Does this one lack a part of the log?
    fn behind(&self, leading: &Leading) -> Result<bool, LedgerError> {
        let position = self.position()?;
        Ok(leading.seq > 0 && position.is_none_or(|it| it.seq < unsigned(leading.seq)))
    }

    fn may_take(&self, leading: &Leading) -> bool {
        let is_own = !self.claim.is_empty() && leading.claim == self.claim;
        let is_silent = |(_, since): &(Leading, Instant)| since.elapsed() >= self.setup.takeover;
        is_own || leading.url.is_empty() || self.seen.as_ref().is_some_and(is_silent)
    }

    /// Another one may have changes that a failover of the database has lost: it comes first, if it is there.
    async fn leaves_it(&self, leading: &Leading) -> Result<bool, LedgerError> {
        let most = signed(self.position()?.map_or(0, |it| it.seq));
        let is_long = |(_, since): &(Leading, Instant)| since.elapsed() >= self.setup.takeover * 2;
        if self.seen.as_ref().is_some_and(is_long) {
            return Ok(false);
        }
        let mut members = self.database()?.members().await?.into_iter();
        Ok(members.any(|it| it.seq > leading.seq.max(most) && it.url != self.setup.advertise))
    }

    /// Is there a newer primary, which did not answer when this one was connected to?
    async fn is_left_behind(&mut self) -> Result<bool, LedgerError> {
        let timeline = self.database()?.timeline;
        let newest = hosts::connect(&self.setup.address, &self.tls, timeline).await;
        // The connection that is there is good; that there may be no second one is nothing against it.
        let is_newer = newest.is_ok_and(|newest| newest.timeline > timeline);
        if is_newer {
            tracing::warn!("a failover has left this PostgreSQL behind, and another is used");
            self.database = None;
            self.seen = None;
        }
        Ok(is_newer)
    }

    async fn take(&mut self, leading: &Leading) -> Result<Option<Lead>, LedgerError> {
        let claim = uuid::Uuid::now_v7().to_string();
        // Noted first: if the answer is lost, the next look finds a claim of its own.
        put_file(&self.setup.state_dir, CLAIM, &claim)?;
        self.claim.clone_from(&claim);
        let url = self.setup.advertise.clone();
        if !self.database()?.take(leading, &claim, &url).await? {
            return Ok(None);
        }
        let epoch = leading.epoch + 1;
        tracing::info!(epoch, "this API node leads, as number {epoch}");
        let taken = self.database()?.leading().await?;
        if taken.seq == 0 {
            self.begin(&claim, &taken).await?;
        }
        self.give_back(&claim, &taken).await?;
        let database = self
            .database
            .take()
            .ok_or_else(|| LedgerError::Unavailable("there is no connection".to_owned()))?;
        let now = database.leading().await?;
        let mut replica = self
            .replica
            .take()
            .ok_or_else(|| LedgerError::Unusable("there is no copy of the store".to_owned()))?;
        replica.note_timeline(database.timeline)?;
        self.put_files(&replica)?;
        let title = Title {
            address: self.setup.address.clone(),
            tls: self.tls.clone(),
            key: self.key.clone(),
            status: self.status.clone(),
            store: self.setup.store.clone(),
            url,
            cluster: now.cluster.clone(),
            claim: claim.clone(),
            epoch,
            takeover: self.setup.takeover,
        };
        let (seq, snapshot) = (unsigned(now.seq), unsigned(now.snapshot));
        let newest = Replica::newest_schema();
        if now.schema < newest {
            // Noted before: a program that does not know these tables must not go on.
            database.note_schema(&claim, newest).await?;
        }
        let (leader, mut keeper) = Leader::start(title, database, seq, snapshot)?;
        block_in_place(|| replica.migrate(&mut *keeper))?;
        Ok(Some(Lead { leader, keeper }))
    }

    /// The first change of a cluster: the store as it is.
    async fn begin(&mut self, claim: &str, leading: &Leading) -> Result<(), LedgerError> {
        drop(self.replica.take());
        let mut replica = Replica::create(&self.setup.store)?;
        let timeline = self.database()?.timeline;
        replica.place(&Position {
            cluster: leading.cluster.clone(),
            seq: 1,
            claim: claim.to_owned(),
            timeline,
        })?;
        let database = self.database()?;
        database.note_schema(claim, replica.schema()?).await?;
        let (copy, position) = snapshots::copy(&self.setup.store).await?;
        snapshots::upload(database, &self.key, &copy, position.seq).await?;
        let body = self.key.seal(&change_label(1), b"-- the store as it was");
        let kept = store::Kept {
            seq: 1,
            claim: claim.to_owned(),
            body: body.map_err(LedgerError::Unusable)?,
        };
        if !database.append(claim, &kept).await? {
            return Err(LedgerError::Unavailable(
                "another API node was first".to_owned(),
            ));
        }
        snapshots::publish(database, claim, 1).await?;
        self.replica = Some(replica);
        Ok(())
    }

    /// Appends what a failover of the database has lost and this copy has.
    async fn give_back(&self, claim: &str, leading: &Leading) -> Result<(), LedgerError> {
        let (Some(replica), Some(position)) = (&self.replica, self.position()?) else {
            return Ok(());
        };
        let last = unsigned(leading.seq);
        if signed(position.seq) <= leading.seq || leading.seq == 0 {
            return Ok(());
        }
        let tail = replica.tail(last)?;
        append_all(self.database()?, claim, last, position.seq, tail).await
    }
}

/// Puts a file in the place of the one that is there, if they differ.
fn put_file(state_dir: &Path, name: &str, content: &str) -> std::io::Result<()> {
    let path = state_dir.join(name);
    if fs::read_to_string(&path).is_ok_and(|present| present == content) {
        return Ok(());
    }
    let fresh = state_dir.join(format!("{name}.shared"));
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, &path)?;
    fs::File::open(state_dir)?.sync_all()
}
