//! Sessions of browsers: a session is a short token that another token, or a user of the unix socket, has made.
//!
//! What is kept of them is in one file of the state directory, so that they outlive the server. One-time codes
//! and tickets are in memory only. It knows no HTTP.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::file::{Digest, Scope, hexadecimal};
use super::{Access, Fingerprint, Grant, Tokens};
use job::time::Timestamp;
use linux::clock;
use protocol::state_dir::private_file;

const FILE: &str = "sessions.json";
const FRESH: &str = "sessions.json.new";

/// A session ends after this time, and after that time without use.
const LIFE: Duration = Duration::from_secs(7 * 86_400);
const IDLE: Duration = Duration::from_secs(12 * 3600);

/// The most sessions of one parent; the one that was not used for longest goes.
const MOST: usize = 50;

/// How long a code may be used, and how many there are.
const CODE_LIFE: Duration = Duration::from_secs(600);
const CODES: usize = 20;

/// The same for tickets.
const TICKET_LIFE: Duration = Duration::from_secs(30);
const TICKETS: usize = 1000;

/// So many failures are looked at in a second, over all.
const FAILURES: u32 = 10;

/// How often what was used is written down.
const WRITTEN_WITHIN: Duration = Duration::from_secs(60);

/// The letters of a code: 32 that are not taken for each other; 26 of them are 130 bits.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
const CODE_LETTERS: usize = 26;

/// Where a session came from, which it does not outlive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Parent {
    /// The SHA-256 of a token.
    Token(Digest),
    /// A user of the unix socket.
    Uid(u32),
}

/// Who makes a session, a code or a ticket: what they may give is at most what they may do.
#[derive(Clone, Debug)]
pub struct Maker {
    parent: Parent,
    actor: String,
    scope: Access,
}

impl Maker {
    /// Whoever has this token.
    pub(crate) fn token(grant: &Grant) -> Self {
        Self {
            parent: Parent::Token(Digest(grant.fingerprint.0)),
            actor: grant.actor.to_string(),
            scope: grant.scope,
        }
    }

    /// A user of the unix socket.
    pub(crate) fn uid(uid: u32) -> Self {
        Self {
            parent: Parent::Uid(uid),
            actor: format!("uid:{uid}"),
            scope: Access::Admin,
        }
    }
}

/// What is kept of a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Session {
    /// Names it, and is no secret.
    pub id: String,
    sha256: Digest,
    parent: Parent,
    /// For records: that of its parent.
    pub actor: String,
    scope: Scope,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last used.
    pub used_at: Timestamp,
    /// When it ends in any case.
    pub expires_at: Timestamp,
    /// What the browser calls itself.
    pub browser: String,
    /// The other end of the connection that it was made over.
    pub peer: Option<String>,
}

impl Session {
    /// What it may do.
    #[must_use]
    pub fn scope(&self) -> Access {
        self.scope.0
    }

    fn is_over(&self, now: Timestamp) -> bool {
        now >= self.expires_at || now.since(self.used_at) >= IDLE
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Contents {
    sessions: Vec<Session>,
}

/// A code that was not used yet.
#[derive(Debug)]
struct Code {
    fingerprint: Fingerprint,
    maker: Maker,
    until: Instant,
}

/// The right to one request without a header.
#[derive(Debug)]
struct Ticket<T> {
    path: String,
    holder: T,
    until: Instant,
}

/// Tickets that were not used yet; `T` is what a holder may do.
#[derive(Debug)]
pub struct Tickets<T>(Mutex<HashMap<[u8; 32], Ticket<T>>>);

impl<T> Default for Tickets<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Tickets<T> {
    /// A ticket for one `GET` of this path, for a moment; `None` if there are too many.
    pub fn issue(&self, path: &str, holder: T) -> Option<String> {
        let text = random_letters()?;
        let now = Instant::now();
        let mut tickets = locked(&self.0);
        tickets.retain(|_, ticket| ticket.until > now);
        if tickets.len() >= TICKETS {
            return None;
        }
        let ticket = Ticket {
            path: path.to_owned(),
            holder,
            until: now + TICKET_LIFE,
        };
        tickets.insert(Fingerprint::of(&text).0, ticket);
        Some(text)
    }

    /// Who gave it, where it is good for this path. It is used up in any case.
    pub fn redeem(&self, text: &str, path: &str) -> Option<T> {
        self.redeem_at(text, path, Instant::now())
    }

    fn redeem_at(&self, text: &str, path: &str, now: Instant) -> Option<T> {
        let ticket = locked(&self.0).remove(&Fingerprint::of(text).0)?;
        (ticket.path == path && ticket.until > now).then_some(ticket.holder)
    }
}

/// Every session; clones share what they know.
#[derive(Clone, Debug)]
pub struct Sessions(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// `None`: they are kept in memory alone.
    dir: Option<PathBuf>,
    known: watch::Sender<Vec<Session>>,
    unwritten: AtomicBool,
    /// One change of the file at a time.
    writing: Mutex<()>,
    codes: Mutex<Vec<Code>>,
    failures: Mutex<(Option<Instant>, u32)>,
}

/// What a proof of who one is leads to.
#[derive(Debug)]
pub enum Proof<'a> {
    /// A one-time code.
    Code(&'a str),
    /// A token.
    Token(&'a str),
}

impl Sessions {
    /// Those that outlived the last server. What cannot be read is no session: people sign in again.
    #[must_use]
    pub fn open(state_dir: &Path) -> Self {
        let known = read(state_dir).unwrap_or_else(|error| {
            tracing::warn!(%error, "sessions of browsers are forgotten: {error}");
            Vec::new()
        });
        Self::of(Some(state_dir.to_owned()), known)
    }

    /// None, and none that is kept.
    #[must_use]
    pub fn forgetful() -> Self {
        Self::of(None, Vec::new())
    }

    fn of(dir: Option<PathBuf>, known: Vec<Session>) -> Self {
        Self(Arc::new(Inner {
            dir,
            known: watch::Sender::new(known),
            unwritten: AtomicBool::new(false),
            writing: Mutex::default(),
            codes: Mutex::default(),
            failures: Mutex::default(),
        }))
    }

    /// A one-time code for a session with this scope, or less where its maker may do less.
    pub fn code(&self, maker: Maker, scope: Access) -> Option<String> {
        let text = random_letters()?;
        let scope = if maker.scope.reaches(scope) {
            scope
        } else {
            maker.scope
        };
        let now = Instant::now();
        let mut codes = locked(&self.0.codes);
        codes.retain(|code| code.until > now);
        if codes.len() >= CODES {
            codes.remove(0);
        }
        codes.push(Code {
            fingerprint: Fingerprint::of(&text),
            maker: Maker { scope, ..maker },
            until: now + CODE_LIFE,
        });
        Some(text)
    }

    /// Makes a session of a code or a token; `None` if it proves nothing, or if too much was tried.
    pub fn enter(
        &self,
        proof: &Proof<'_>,
        tokens: &Tokens,
        browser: &str,
        peer: Option<String>,
    ) -> Option<(String, Session)> {
        if !self.may_try() {
            return None;
        }
        let maker = match proof {
            Proof::Code(text) => self.redeem(text, Instant::now()),
            // Not of a session: it would outlive its own end.
            Proof::Token(text) => tokens.recognise(text).map(|grant| Maker::token(&grant)),
        };
        let Some(maker) = maker else {
            let mut failures = locked(&self.0.failures);
            failures.1 += 1;
            return None;
        };
        let text = format!("procession_session_{}", random_letters()?);
        let now = clock::wall();
        let session = Session {
            id: hexadecimal(&random::<8>()?),
            sha256: Digest(Fingerprint::of(&text).0),
            parent: maker.parent,
            actor: maker.actor,
            scope: Scope(maker.scope),
            created_at: now,
            used_at: now,
            expires_at: later(now, LIFE),
            browser: browser.to_owned(),
            peer,
        };
        self.0.known.send_modify(|known| {
            known.retain(|one| !one.is_over(now));
            let mut of_parent: Vec<_> = known
                .iter()
                .filter(|one| one.parent == session.parent)
                .map(|one| (one.used_at, one.id.clone()))
                .collect();
            of_parent.sort();
            let surplus = (of_parent.len() + 1).saturating_sub(MOST);
            for (_, id) in of_parent.into_iter().take(surplus) {
                known.retain(|one| one.id != id);
            }
            known.push(session.clone());
        });
        self.write();
        Some((text, session))
    }

    fn may_try(&self) -> bool {
        let now = Instant::now();
        let mut failures = locked(&self.0.failures);
        if failures
            .0
            .is_none_or(|begun| now.duration_since(begun) >= Duration::from_secs(1))
        {
            *failures = (Some(now), 0);
        }
        failures.1 < FAILURES
    }

    fn redeem(&self, text: &str, now: Instant) -> Option<Maker> {
        let fingerprint = Fingerprint::of(text);
        let mut codes = locked(&self.0.codes);
        let at = codes
            .iter()
            .position(|code| code.fingerprint.is(&fingerprint))?;
        let code = codes.remove(at);
        (code.until > now).then_some(code.maker)
    }

    /// Whose session it is, unless it is unknown or over, or what it came from is.
    #[must_use]
    pub(crate) fn recognise(
        &self,
        text: &str,
        tokens: &Tokens,
    ) -> Option<(Session, Option<Grant>)> {
        let fingerprint = Fingerprint::of(text);
        let now = clock::wall();
        let mut found = None;
        for session in self.0.known.borrow().iter() {
            if Fingerprint(session.sha256.0).is(&fingerprint) && !session.is_over(now) {
                found = Some(session.clone());
            }
        }
        let session = found?;
        let parent = match &session.parent {
            Parent::Token(Digest(sha256)) => {
                Some(tokens.still(&Fingerprint(*sha256), session.scope.0)?)
            }
            Parent::Uid(_) => None,
        };
        self.used(&session.id, now);
        Some((session, parent))
    }

    /// Notes the use; nobody is woken for it.
    fn used(&self, id: &str, now: Timestamp) {
        self.0.known.send_if_modified(|known| {
            let session = known.iter_mut().find(|one| one.id == id);
            if let Some(session) = session
                && now.since(session.used_at) >= Duration::from_secs(1)
            {
                session.used_at = now;
                self.0.unwritten.store(true, Ordering::Relaxed);
            }
            false
        });
    }

    /// Every session that lasts.
    #[must_use]
    pub fn list(&self) -> Vec<Session> {
        let now = clock::wall();
        let known = self.0.known.borrow();
        known
            .iter()
            .filter(|one| !one.is_over(now))
            .cloned()
            .collect()
    }

    /// Does this one still last?
    fn lasts(&self, id: &str) -> bool {
        let now = clock::wall();
        let known = self.0.known.borrow();
        known.iter().any(|one| one.id == id && !one.is_over(now))
    }

    /// Takes a session out of the file: the first half of its end, and the one that takes time.
    pub fn strike(&self, id: &str) {
        self.write_but(Some(id));
    }

    /// Takes a session out of the memory: whoever waits for its end is woken. `false` if there is none.
    pub fn forget(&self, id: &str) -> bool {
        // Another writing may have come between the two halves.
        self.0.unwritten.store(true, Ordering::Relaxed);
        self.0.known.send_if_modified(|known| {
            let before = known.len();
            known.retain(|one| one.id != id);
            known.len() != before
        })
    }

    /// Resolves when the session has ended. Its idle end is noticed within a minute.
    pub(crate) async fn ended(&self, id: &str) {
        let mut changes = self.0.known.subscribe();
        loop {
            changes.borrow_and_update();
            if !self.lasts(id) {
                return;
            }
            let _ = tokio::time::timeout(WRITTEN_WITHIN, changes.changed()).await;
        }
    }

    /// Writes down what was used, for as long as it is polled.
    pub(crate) async fn keep(self) {
        let mut ticks = tokio::time::interval(WRITTEN_WITHIN);
        loop {
            ticks.tick().await;
            if self.0.unwritten.swap(false, Ordering::Relaxed) {
                self.write();
            }
        }
    }

    fn write(&self) {
        self.write_but(None);
    }

    fn write_but(&self, but: Option<&str>) {
        let Some(dir) = &self.0.dir else {
            return;
        };
        let _one_at_a_time = locked(&self.0.writing);
        let mut sessions = self.list();
        sessions.retain(|one| Some(&*one.id) != but);
        let contents = Contents { sessions };
        if let Err(error) = replace(dir, &contents) {
            tracing::error!(%error, "sessions of browsers will be forgotten at the next start: {error}");
        }
    }
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_micros(at.as_micros().saturating_add(micros))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).ok()?;
    Some(bytes)
}

/// 130 random bits as letters and digits.
fn random_letters() -> Option<String> {
    let bytes = random::<CODE_LETTERS>()?;
    let letters = bytes
        .iter()
        .map(|byte| char::from(LETTERS[usize::from(byte % 32)]));
    Some(letters.collect())
}

fn read(state_dir: &Path) -> io::Result<Vec<Session>> {
    let text = match fs::read(state_dir.join(FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text?,
    };
    let contents: Contents = serde_json::from_slice(&text)?;
    Ok(contents.sessions)
}

fn replace(state_dir: &Path, contents: &Contents) -> io::Result<()> {
    let (path, fresh) = (state_dir.join(FILE), state_dir.join(FRESH));
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file: File = private_file(&fresh, true)?;
    file.write_all(&serde_json::to_vec(contents)?)?;
    file.sync_all()?;
    fs::rename(&fresh, &path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maker() -> Maker {
        Maker::uid(7)
    }

    fn enter(sessions: &Sessions, tokens: &Tokens) -> (String, Session) {
        let code = sessions.code(maker(), Access::Operate).unwrap();
        sessions
            .enter(&Proof::Code(&code), tokens, "a browser", None)
            .unwrap()
    }

    #[test]
    fn a_code_is_good_once_and_for_what_its_maker_may_do() {
        let (sessions, tokens) = (Sessions::forgetful(), Tokens::of("secret"));
        let code = sessions.code(maker(), Access::Operate).unwrap();
        assert_eq!(code.len(), 26);
        let proof = Proof::Code(&code);
        let (text, session) = sessions.enter(&proof, &tokens, "b", None).unwrap();
        assert_eq!(
            (session.scope(), &*session.actor),
            (Access::Operate, "uid:7")
        );
        assert!(sessions.enter(&proof, &tokens, "b", None).is_none());
        assert!(sessions.recognise(&text, &tokens).is_some());
        assert!(sessions.recognise(&code, &tokens).is_none());
        let reader = Maker {
            scope: Access::Read,
            ..maker()
        };
        let code = sessions.code(reader, Access::Admin).unwrap();
        let (_, session) = sessions
            .enter(&Proof::Code(&code), &tokens, "b", None)
            .unwrap();
        assert_eq!(session.scope(), Access::Read);
    }

    #[test]
    fn the_twenty_first_code_takes_the_place_of_the_oldest() {
        let (sessions, tokens) = (Sessions::forgetful(), Tokens::of("secret"));
        let codes: Vec<String> = (0..=CODES)
            .map(|_| sessions.code(maker(), Access::Read).unwrap())
            .collect();
        let good = |code: &str| {
            sessions
                .enter(&Proof::Code(code), &tokens, "b", None)
                .is_some()
        };
        assert!(!good(&codes[0]));
        assert!(good(&codes[1]) && good(&codes[CODES]));
    }

    #[test]
    fn what_fails_too_often_is_not_looked_at() {
        let (sessions, tokens) = (Sessions::forgetful(), Tokens::of("secret"));
        for _ in 0..FAILURES {
            assert!(
                sessions
                    .enter(&Proof::Token("wrong"), &tokens, "b", None)
                    .is_none()
            );
        }
        let right = Proof::Token("secret");
        assert!(sessions.enter(&right, &tokens, "b", None).is_none());
    }

    #[test]
    fn a_session_has_an_end_and_one_parent_has_fifty() {
        let (sessions, tokens) = (Sessions::forgetful(), Tokens::of("secret"));
        let (first, session) = enter(&sessions, &tokens);
        assert!(sessions.forget(&session.id) && !sessions.forget(&session.id));
        assert!(sessions.recognise(&first, &tokens).is_none());
        let (oldest, _) = enter(&sessions, &tokens);
        for _ in 0..MOST {
            enter(&sessions, &tokens);
        }
        assert_eq!(sessions.list().len(), MOST);
        assert!(sessions.recognise(&oldest, &tokens).is_none());
    }

    #[test]
    fn it_ends_by_age_and_by_idleness() {
        let sessions = Sessions::forgetful();
        let (_, session) = enter(&sessions, &Tokens::of("secret"));
        assert!(!session.is_over(later(session.created_at, IDLE - Duration::from_secs(1))));
        assert!(session.is_over(later(session.created_at, IDLE)));
        let busy = Session {
            used_at: later(session.created_at, LIFE),
            ..session.clone()
        };
        assert!(busy.is_over(later(session.created_at, LIFE)));
    }

    #[test]
    fn it_outlives_the_server_and_its_text_is_kept_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = Tokens::of("secret");
        let (text, session) = enter(&Sessions::open(dir.path()), &tokens);
        let kept = fs::read_to_string(dir.path().join(FILE)).unwrap();
        assert!(!kept.contains(&text));
        let later = Sessions::open(dir.path());
        let (again, _) = later.recognise(&text, &tokens).unwrap();
        assert_eq!(again.id, session.id);
        fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(Sessions::open(dir.path()).list().is_empty());
    }

    #[test]
    fn it_ends_with_the_token_that_it_came_from() {
        let (sessions, tokens) = (Sessions::forgetful(), Tokens::of("secret"));
        let (text, _) = sessions
            .enter(&Proof::Token("secret"), &tokens, "b", None)
            .unwrap();
        assert!(sessions.recognise(&text, &tokens).is_some());
        assert!(sessions.recognise(&text, &Tokens::of("other")).is_none());
    }

    #[test]
    fn a_ticket_is_good_once_and_for_its_path() {
        let tickets = Tickets::default();
        let one = tickets.issue("/live", 1).unwrap();
        assert_eq!(tickets.redeem(&one, "/live"), Some(1));
        assert_eq!(tickets.redeem(&one, "/live"), None);
        let other = tickets.issue("/live", 2).unwrap();
        assert_eq!(tickets.redeem(&other, "/jobs"), None);
        assert_eq!(tickets.redeem(&other, "/live"), None);
        assert_eq!(tickets.redeem("guess", "/live"), None);
    }

    #[test]
    fn codes_and_tickets_do_not_last() {
        let sessions = Sessions::forgetful();
        let tickets = Tickets::default();
        let code = sessions.code(maker(), Access::Read).unwrap();
        let ticket = tickets.issue("/live", ()).unwrap();
        let now = Instant::now();
        assert_eq!(tickets.redeem_at(&ticket, "/live", now + TICKET_LIFE), None);
        assert!(sessions.redeem(&code, now + CODE_LIFE).is_none());
    }
}
