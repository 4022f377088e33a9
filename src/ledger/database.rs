//! The tables in the database and every statement on them. Each statement is a transaction by itself and needs no session, so that
//! a pooler may stand in between.

use std::error::Error;
use std::fmt::Write;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, Row};

use crate::key::Key;
use crate::tls::{self, Tls};
use crate::{Address, LedgerError};
use store::Kept;

/// The version of the tables.
const FORMAT: i32 = 1;

/// How long a statement may take.
pub(crate) const STATEMENT: Duration = Duration::from_secs(10);

/// What a key has to open before anything else.
const PROOF: &str = "the proof of the key";

const TABLES: &str = "
    CREATE SCHEMA IF NOT EXISTS procession;
    CREATE TABLE IF NOT EXISTS procession.leader (
        one boolean PRIMARY KEY DEFAULT true CHECK (one),
        format integer NOT NULL,
        cluster text NOT NULL,
        proof bytea NOT NULL,
        epoch bigint NOT NULL,
        claim text NOT NULL,
        seq bigint NOT NULL,
        beat bigint NOT NULL,
        url text NOT NULL,
        schema bigint NOT NULL,
        snapshot bigint NOT NULL
    ) WITH (fillfactor = 10);
    CREATE TABLE IF NOT EXISTS procession.changes (
        seq bigint PRIMARY KEY,
        claim text NOT NULL,
        body bytea NOT NULL
    );
    ALTER TABLE procession.changes ALTER COLUMN body SET STORAGE EXTERNAL;
    CREATE TABLE IF NOT EXISTS procession.snapshots (
        seq bigint NOT NULL,
        part integer NOT NULL,
        body bytea NOT NULL,
        PRIMARY KEY (seq, part)
    );
    ALTER TABLE procession.snapshots ALTER COLUMN body SET STORAGE EXTERNAL;
    CREATE TABLE IF NOT EXISTS procession.members (
        url text PRIMARY KEY,
        version text NOT NULL,
        seq bigint NOT NULL,
        beat bigint NOT NULL
    );";

/// Who leads, and where the log ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leading {
    pub(crate) cluster: String,
    pub(crate) epoch: i64,
    pub(crate) claim: String,
    pub(crate) seq: i64,
    pub(crate) beat: i64,
    pub(crate) url: String,
    pub(crate) schema: i64,
    pub(crate) snapshot: i64,
}

/// An API node, as it says of itself.
pub(crate) struct MemberRow {
    pub(crate) url: String,
    pub(crate) version: String,
    pub(crate) seq: i64,
    pub(crate) beat: i64,
}

/// A connection to the database.
pub(crate) struct Database {
    client: Client,
    /// Grows with every failover of the database to a copy of it.
    pub(crate) timeline: u32,
    _driver: JoinSet<()>,
}

type Params<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

impl Database {
    /// Connects to one of the hosts, if it is a primary.
    pub(crate) async fn connect_one(
        address: &Address,
        config: &Config,
        tls: &Tls,
    ) -> Result<Self, LedgerError> {
        let connected = timeout(STATEMENT, config.connect(tls.clone())).await;
        let connected = connected
            .map_err(|_| LedgerError::Unavailable(format!("{address} does not answer")))?;
        let (client, connection) = connected.map_err(|error| explain(address, &error))?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // Whoever waits for an answer hears of its end.
            let _ = connection.await;
        });
        let mut database = Self {
            client,
            timeline: 0,
            _driver: driver,
        };
        let rows = database
            .ask("SELECT pg_walfile_name(pg_current_wal_lsn())", &[])
            .await?;
        let name: &str = rows.first().map(|row| row.get(0)).unwrap_or_default();
        let timeline = name
            .get(..8)
            .and_then(|it| u32::from_str_radix(it, 16).ok());
        database.timeline = timeline.unwrap_or_default();
        Ok(database)
    }

    async fn ask(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, LedgerError> {
        let answer = timeout(STATEMENT, self.client.query_typed(sql, params)).await;
        answer.map_err(|_| late())?.map_err(|error| failed(&error))
    }

    async fn tell(&self, sql: &str, params: Params<'_>) -> Result<u64, LedgerError> {
        let done = timeout(STATEMENT, self.client.execute_typed(sql, params)).await;
        done.map_err(|_| late())?.map_err(|error| failed(&error))
    }

    /// Makes the tables if they are not there, and holds the key against them.
    pub(crate) async fn prepare(&self, key: &Key) -> Result<(), LedgerError> {
        let there = "SELECT to_regclass('procession.members')::text";
        let is_there = |rows: Vec<Row>| {
            rows.first()
                .is_some_and(|it| it.get::<_, Option<&str>>(0).is_some())
        };
        if !is_there(self.ask(there, &[]).await?) {
            let made = timeout(STATEMENT, self.client.batch_execute(TABLES)).await;
            let made = made.map_err(|_| late())?;
            // Another API node may make them at this moment.
            if let Err(error) = made
                && !is_there(self.ask(there, &[]).await?)
            {
                return Err(failed(&error));
            }
        }
        let proof = key
            .seal(PROOF, b"procession")
            .map_err(LedgerError::Unusable)?;
        let cluster = uuid::Uuid::now_v7().to_string();
        self.tell(
            "INSERT INTO procession.leader
             (format, cluster, proof, epoch, claim, seq, beat, url, schema, snapshot)
             VALUES ($1, $2, $3, 0, '', 0, 0, '', 0, 0) ON CONFLICT DO NOTHING",
            &[
                (&FORMAT, Type::INT4),
                (&cluster, Type::TEXT),
                (&proof, Type::BYTEA),
            ],
        )
        .await?;
        let rows = self
            .ask("SELECT format, proof FROM procession.leader", &[])
            .await?;
        let row = rows.first().ok_or_else(late)?;
        let format: i32 = row.get(0);
        if format > FORMAT {
            return Err(LedgerError::Unusable(format!(
                "the ledger in the database has format {format}, this procession knows up to {FORMAT}: upgrade this API node"
            )));
        }
        key.open(PROOF, row.get(1)).map(drop)
    }

    /// Who leads.
    pub(crate) async fn leading(&self) -> Result<Leading, LedgerError> {
        let rows = self
            .ask(
                "SELECT cluster, epoch, claim, seq, beat, url, schema, snapshot FROM procession.leader",
                &[],
            )
            .await?;
        let row = rows.first().ok_or_else(|| {
            LedgerError::Unusable("the table procession.leader in the database is empty".to_owned())
        })?;
        Ok(Leading {
            cluster: row.get(0),
            epoch: row.get(1),
            claim: row.get(2),
            seq: row.get(3),
            beat: row.get(4),
            url: row.get(5),
            schema: row.get(6),
            snapshot: row.get(7),
        })
    }

    /// Takes the lead, unless anything has changed since `seen`. `false`: it has.
    pub(crate) async fn take(
        &self,
        seen: &Leading,
        claim: &str,
        url: &str,
    ) -> Result<bool, LedgerError> {
        let taken = self
            .tell(
                "UPDATE procession.leader SET epoch = epoch + 1, claim = $1, url = $2, beat = beat + 1
                 WHERE epoch = $3 AND claim = $4 AND seq = $5 AND beat = $6",
                &[
                    (&claim, Type::TEXT),
                    (&url, Type::TEXT),
                    (&seen.epoch, Type::INT8),
                    (&seen.claim, Type::TEXT),
                    (&seen.seq, Type::INT8),
                    (&seen.beat, Type::INT8),
                ],
            )
            .await?;
        Ok(taken == 1)
    }

    /// Says that the one with this claim leads on. `false`: it does not.
    pub(crate) async fn beat(&self, claim: &str) -> Result<bool, LedgerError> {
        let sql = "UPDATE procession.leader SET beat = beat + 1 WHERE claim = $1";
        Ok(self.tell(sql, &[(&claim, Type::TEXT)]).await? == 1)
    }

    /// Gives the lead up: who follows need not wait.
    pub(crate) async fn release(&self, claim: &str) -> Result<(), LedgerError> {
        let sql = "UPDATE procession.leader SET beat = beat + 1, url = '' WHERE claim = $1";
        self.tell(sql, &[(&claim, Type::TEXT)]).await.map(drop)
    }

    /// Puts a leader back that a failover of the database has forgotten.
    pub(crate) async fn restore(
        &self,
        seen: &Leading,
        epoch: i64,
        claim: &str,
        url: &str,
    ) -> Result<bool, LedgerError> {
        let restored = self
            .tell(
                "UPDATE procession.leader SET epoch = $1, claim = $2, url = $3, beat = beat + 1
                 WHERE epoch = $4 AND claim = $5",
                &[
                    (&epoch, Type::INT8),
                    (&claim, Type::TEXT),
                    (&url, Type::TEXT),
                    (&seen.epoch, Type::INT8),
                    (&seen.claim, Type::TEXT),
                ],
            )
            .await?;
        Ok(restored == 1)
    }

    /// Notes the version of the store's tables.
    pub(crate) async fn note_schema(&self, claim: &str, schema: i64) -> Result<(), LedgerError> {
        let sql = "UPDATE procession.leader SET schema = $2 WHERE claim = $1";
        let params: Params<'_> = &[(&claim, Type::TEXT), (&schema, Type::INT8)];
        self.tell(sql, params).await.map(drop)
    }

    /// Appends a change, if it follows the last one and its claim leads. `false`: one of both is not so.
    pub(crate) async fn append(&self, writer: &str, kept: &Kept) -> Result<bool, LedgerError> {
        let seq = signed(kept.seq);
        let appended = self
            .tell(
                "WITH led AS (
                    UPDATE procession.leader SET seq = $1 WHERE claim = $2 AND seq = $1 - 1 RETURNING 1
                 )
                 INSERT INTO procession.changes (seq, claim, body) SELECT $1, $3, $4 FROM led",
                &[
                    (&seq, Type::INT8),
                    (&writer, Type::TEXT),
                    (&kept.claim, Type::TEXT),
                    (&kept.body, Type::BYTEA),
                ],
            )
            .await?;
        Ok(appended == 1)
    }

    /// The change with this number.
    pub(crate) async fn change(&self, seq: u64) -> Result<Option<Kept>, LedgerError> {
        let after = seq.saturating_sub(1);
        let mut changes = self.changes(after, seq, 1).await?;
        Ok(changes.pop())
    }

    /// Who made the change with this number; nothing if it is not there any more.
    pub(crate) async fn maker(&self, seq: u64) -> Result<Option<String>, LedgerError> {
        let sql = "SELECT claim FROM procession.changes WHERE seq = $1";
        let rows = self.ask(sql, &[(&signed(seq), Type::INT8)]).await?;
        Ok(rows.first().map(|row| row.get(0)))
    }

    /// Changes after one and up to another, oldest first.
    pub(crate) async fn changes(
        &self,
        after: u64,
        to: u64,
        most: i64,
    ) -> Result<Vec<Kept>, LedgerError> {
        let rows = self
            .ask(
                "SELECT seq, claim, body FROM procession.changes
                 WHERE seq > $1 AND seq <= $2 ORDER BY seq LIMIT $3",
                &[
                    (&signed(after), Type::INT8),
                    (&signed(to), Type::INT8),
                    (&most, Type::INT8),
                ],
            )
            .await?;
        let kept = |row: &Row| Kept {
            seq: unsigned(row.get(0)),
            claim: row.get(1),
            body: row.get(2),
        };
        Ok(rows.iter().map(kept).collect())
    }

    /// The bytes of the changes after one.
    pub(crate) async fn bytes_after(&self, seq: u64) -> Result<u64, LedgerError> {
        let sql =
            "SELECT coalesce(sum(length(body)), 0)::bigint FROM procession.changes WHERE seq > $1";
        let rows = self.ask(sql, &[(&signed(seq), Type::INT8)]).await?;
        Ok(rows.first().map_or(0, |row| unsigned(row.get(0))))
    }

    /// Writes a part of a snapshot.
    pub(crate) async fn put_part(
        &self,
        seq: u64,
        part: i32,
        body: &[u8],
    ) -> Result<(), LedgerError> {
        let sql = "INSERT INTO procession.snapshots (seq, part, body) VALUES ($1, $2, $3)
                   ON CONFLICT (seq, part) DO UPDATE SET body = excluded.body";
        let params: Params<'_> = &[
            (&signed(seq), Type::INT8),
            (&part, Type::INT4),
            (&body, Type::BYTEA),
        ];
        self.tell(sql, params).await.map(drop)
    }

    /// Reads a part of a snapshot; nothing after the last one.
    pub(crate) async fn part(&self, seq: u64, part: i32) -> Result<Option<Vec<u8>>, LedgerError> {
        let sql = "SELECT body FROM procession.snapshots WHERE seq = $1 AND part = $2";
        let params: Params<'_> = &[(&signed(seq), Type::INT8), (&part, Type::INT4)];
        let rows = self.ask(sql, params).await?;
        Ok(rows.first().map(|row| row.get(0)))
    }

    /// A snapshot is whole: it is the one from now on. `false`: this claim does not lead any more.
    pub(crate) async fn publish(&self, claim: &str, seq: u64) -> Result<bool, LedgerError> {
        let sql = "UPDATE procession.leader SET snapshot = $2 WHERE claim = $1 AND snapshot <= $2";
        let params: Params<'_> = &[(&claim, Type::TEXT), (&signed(seq), Type::INT8)];
        Ok(self.tell(sql, params).await? == 1)
    }

    /// Removes snapshots before this one, and changes up to `changes`.
    pub(crate) async fn trim(&self, snapshot: u64, changes: u64) -> Result<(), LedgerError> {
        let sql = "DELETE FROM procession.snapshots WHERE seq < $1";
        self.tell(sql, &[(&signed(snapshot), Type::INT8)]).await?;
        loop {
            // Few at a time, so that each is done in time.
            let sql = "DELETE FROM procession.changes WHERE seq IN
                       (SELECT seq FROM procession.changes WHERE seq <= $1 ORDER BY seq LIMIT 5000)";
            if self.tell(sql, &[(&signed(changes), Type::INT8)]).await? == 0 {
                return Ok(());
            }
        }
    }

    /// Says that an API node follows, and how far it is.
    pub(crate) async fn attend(
        &self,
        url: &str,
        version: &str,
        seq: u64,
    ) -> Result<(), LedgerError> {
        let sql = "INSERT INTO procession.members (url, version, seq, beat) VALUES ($1, $2, $3, 0)
                   ON CONFLICT (url) DO UPDATE SET version = $2, seq = $3, beat = members.beat + 1";
        let params: Params<'_> = &[
            (&url, Type::TEXT),
            (&version, Type::TEXT),
            (&signed(seq), Type::INT8),
        ];
        self.tell(sql, params).await.map(drop)
    }

    /// Every API node that has followed.
    pub(crate) async fn members(&self) -> Result<Vec<MemberRow>, LedgerError> {
        let sql = "SELECT url, version, seq, beat FROM procession.members ORDER BY url LIMIT 100";
        let rows = self.ask(sql, &[]).await?;
        let member = |row: &Row| MemberRow {
            url: row.get(0),
            version: row.get(1),
            seq: row.get(2),
            beat: row.get(3),
        };
        Ok(rows.iter().map(member).collect())
    }

    /// Forgets an API node that has not been heard for long, or leads.
    pub(crate) async fn dismiss(&self, url: &str) -> Result<(), LedgerError> {
        let sql = "DELETE FROM procession.members WHERE url = $1";
        self.tell(sql, &[(&url, Type::TEXT)]).await.map(drop)
    }
}

pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(crate) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

fn late() -> LedgerError {
    let seconds = STATEMENT.as_secs();
    LedgerError::Unavailable(format!("PostgreSQL does not answer within {seconds} s"))
}

/// An old copy of the database is not used.
pub(crate) fn stale(why: String) -> LedgerError {
    LedgerError::Unavailable(format!(
        "this PostgreSQL is a copy that has been left behind, and is not used: {why}"
    ))
}

/// Why there is no connection.
fn explain(address: &Address, error: &tokio_postgres::Error) -> LedgerError {
    match failed(error) {
        LedgerError::Unusable(why) => LedgerError::Unusable(format!("{address}: {why}")),
        LedgerError::Unavailable(why) | LedgerError::Deposed(why) => {
            LedgerError::Unavailable(format!("{address}: {why}"))
        }
        error @ (LedgerError::Store(_) | LedgerError::Io(_)) => error,
    }
}

fn failed(error: &tokio_postgres::Error) -> LedgerError {
    let mut words = error.to_string();
    let mut inner = error.source();
    while let Some(error) = inner {
        let _ = write!(words, ": {}", tls::said(error));
        inner = error.source();
    }
    const FINAL: [&SqlState; 5] = [
        &SqlState::INVALID_PASSWORD,
        &SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        &SqlState::INVALID_CATALOG_NAME,
        &SqlState::INSUFFICIENT_PRIVILEGE,
        &SqlState::UNDEFINED_FUNCTION,
    ];
    match error.code() {
        Some(code) if FINAL.contains(&code) => LedgerError::Unusable(words),
        _ => LedgerError::Unavailable(words),
    }
}
