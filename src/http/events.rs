//! Routes on events: what has happened to jobs, from a cursor on and as it comes.
//!
//! Every reader takes its own pages from the store, as fast as the client takes them, and waits for a word
//! of the manager's when there is nothing more. Where events that a slow reader has not had are removed,
//! the body is broken off: the client comes back with its cursor, and is told.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::api::Api;
use crate::extract::InPath;
use crate::headers::LAST_EVENT_ID;
use crate::problem::{ApiError, Place, Violation};
use crate::query::Params;
use crate::{accept, page, streams};
use job::JobId;
use job::event::{Cursor, Event, Kind};
use job::selector::Selector;
use manager::Manager;
use manager::cloud_event::CloudEvent;
use store::{EventPage, EventQuery};

/// The parameters of [`of_job`].
pub(super) const OF_JOB: &[&str] = &["after", "type", "follow"];

/// The parameters of [`of_all`].
pub(super) const OF_ALL: &[&str] = &["after", "type", "label_selector", "batch", "follow"];

const NDJSON: &str = "application/x-ndjson";
const EVENT_STREAM: &str = "text/event-stream";
const TYPES: &[&str] = &[EVENT_STREAM, NDJSON];

/// How often something is sent to those that would else hear nothing.
const PING: Duration = Duration::from_secs(15);

/// The first field of the first event: when to come back after a broken connection, in milliseconds. Alone it would be
/// an event without a type to clients that count blank lines.
const GREETING: &[u8] = b"retry: 500\n";

/// Events that are read at once.
const PAGE: usize = 256;

/// `GET /jobs/{id}/events`
pub(super) async fn of_job(
    State(api): State<Api>,
    InPath(id): InPath,
    mut params: Params,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let filter = Filter::of(&mut params);
    answer(&api, Some(id), filter, params, &headers).await
}

/// `GET /events`
pub(super) async fn of_all(
    State(api): State<Api>,
    mut params: Params,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let mut filter = Filter::of(&mut params);
    filter.selector = page::selector(&mut params);
    filter.batch = page::batch(&mut params);
    answer(&api, None, filter, params, &headers).await
}

/// Which events a client wants.
struct Filter {
    after: Option<Cursor>,
    /// Empty for all.
    kinds: Vec<Kind>,
    selector: Selector,
    batch: Option<JobId>,
    follow: Option<bool>,
}

impl Filter {
    fn of(params: &mut Params) -> Self {
        Self {
            after: params.integer("after"),
            kinds: kinds(params),
            selector: Selector::default(),
            batch: None,
            follow: params.given_flag("follow"),
        }
    }

    fn has(&self, event: &Event) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(&event.what.kind()))
            && self.selector.matches(&event.labels)
            && (self.batch.is_none() || self.batch == event.batch)
    }
}

fn kinds(params: &mut Params) -> Vec<Kind> {
    let mut kinds = Vec::new();
    for text in params.all("type") {
        // An empty word is refused as well, as in a list of jobs.
        for word in text.split(',').map(str::trim) {
            match Kind::of_word(word) {
                Some(kind) => kinds.push(kind),
                None => {
                    let known: Vec<_> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
                    let detail = format!("there are: {}", known.join(", "));
                    params.refuse("type", "invalid_value", detail);
                }
            }
        }
    }
    kinds
}

pub(super) fn last_event(headers: &HeaderMap) -> Result<Option<Cursor>, ApiError> {
    let Some(value) = headers.get(&LAST_EVENT_ID) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or("?");
    // An event source that has had no id yet may say so with an empty one.
    if text.is_empty() {
        return Ok(None);
    }
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    match is_number.then(|| text.parse().ok()).flatten() {
        Some(cursor) => Ok(Some(cursor)),
        None => Err(ApiError::InvalidHeader(Violation {
            place: Place::Header("Last-Event-ID"),
            code: "invalid_value",
            detail: "must be the id of an event of this stream".to_owned(),
        })),
    }
}

async fn answer(
    api: &Api,
    job: Option<JobId>,
    mut filter: Filter,
    params: Params,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    params.finish()?;
    let kind = accept::choose(headers, TYPES)?;
    let is_stream = kind == EVENT_STREAM;
    if is_stream && let Some(last) = last_event(headers)? {
        filter.after = Some(last);
    }
    let follow = filter.follow.unwrap_or(is_stream);
    let permit = follow.then(|| api.streams().permit()).transpose()?;
    // Before the first reading, so that nothing comes in between.
    let news = follow.then(|| api.manager.news(job));
    let query = EventQuery {
        job,
        after: filter.after,
        limit: PAGE,
    };
    let first = api.manager.events(query).await?;
    if first.expired {
        return Err(ApiError::CursorExpired);
    }
    if is_stream && follow && filter.after.is_some() && first.over && first.events.is_empty() {
        // To an event source that has had everything: do not come back.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let reader = Reader {
        manager: api.manager.clone(),
        source: api.manager.event_source().into(),
        job,
        filter,
        is_stream,
        news,
        at: 0,
        told: 0,
        page: Some(first),
        ping_at: Instant::now() + PING,
        begun: false,
        _permit: permit,
    };
    Ok(([(CONTENT_TYPE, kind)], reader.into_body()).into_response())
}

/// One client that reads.
struct Reader {
    manager: Manager,
    source: Arc<str>,
    job: Option<JobId>,
    filter: Filter,
    is_stream: bool,
    /// Without it, what there is now is all.
    news: Option<watch::Receiver<Cursor>>,
    /// Everything up to here has been looked at.
    at: Cursor,
    /// What the client knows of that.
    told: Cursor,
    /// A page that has been read and not yet been written.
    page: Option<EventPage>,
    ping_at: Instant,
    begun: bool,
    /// Held for as long as it lasts, where it lasts.
    _permit: Option<streams::Permit>,
}

impl Reader {
    fn into_body(self) -> Body {
        Body::from_stream(stream::try_unfold(
            Some(self),
            async |reader: Option<Self>| {
                let Some(mut reader) = reader else {
                    return Ok(None);
                };
                let next = reader.next().await.inspect_err(|error| {
                    tracing::debug!(%error, "broke off an answer with events: {error}");
                })?;
                Ok::<_, io::Error>(match next {
                    Next::Part(bytes) => Some((bytes, Some(reader))),
                    Next::Last(bytes) if bytes.is_empty() => None,
                    Next::Last(bytes) => Some((bytes, None)),
                })
            },
        ))
    }

    async fn next(&mut self) -> io::Result<Next> {
        let mut out = Vec::new();
        if self.is_stream && !self.begun {
            out.extend_from_slice(GREETING);
        }
        self.begun = true;
        loop {
            let page = match self.page.take() {
                Some(page) => page,
                None => self.read().await?,
            };
            for (cursor, event) in &page.events {
                if self.filter.has(event) {
                    self.write(&mut out, *cursor, event);
                }
            }
            self.at = page.next;
            if !page.more && (page.over || self.news.is_none()) {
                return Ok(Next::Last(out.into()));
            }
            if !out.is_empty() {
                self.ping_at = Instant::now() + PING;
                return Ok(Next::Part(out.into()));
            }
            if page.more {
                continue;
            }
            if Instant::now() >= self.ping_at {
                self.ping_at = Instant::now() + PING;
                if self.is_stream {
                    return Ok(Next::Part(self.ping()));
                }
            }
            self.wait().await?;
        }
    }

    async fn read(&mut self) -> io::Result<EventPage> {
        if let Some(news) = &mut self.news {
            news.mark_unchanged();
        }
        let query = EventQuery {
            job: self.job,
            after: Some(self.at),
            limit: PAGE,
        };
        let page = self.manager.events(query).await;
        let page = page.map_err(|error| io::Error::other(error.to_string()))?;
        if page.expired {
            return Err(io::Error::other(
                "events were removed before they were read",
            ));
        }
        Ok(page)
    }

    /// Waits until there may be something to read, or the client has heard nothing for long.
    async fn wait(&mut self) -> io::Result<()> {
        let Some(news) = &mut self.news else {
            return Ok(());
        };
        tokio::select! {
            changed = news.changed() => changed.map_err(|_| {
                io::Error::other("the job was removed, or the service ends")
            }),
            () = tokio::time::sleep_until(self.ping_at) => Ok(()),
        }
    }

    fn write(&mut self, out: &mut Vec<u8>, cursor: Cursor, event: &Event) {
        let event = CloudEvent::new(&self.source, cursor, event);
        let json = event.to_json();
        if self.is_stream {
            let kind = event.kind();
            out.extend_from_slice(
                format!("id: {cursor}\nevent: {kind}\ndata: {json}\n\n").as_bytes(),
            );
        } else {
            out.extend_from_slice(json.as_bytes());
            out.push(b'\n');
        }
        self.told = cursor;
    }

    /// A comment; and a new place to come back to, where events have passed that the client does not want.
    /// An id without data sets the place and is no event.
    fn ping(&mut self) -> Bytes {
        if self.told == self.at {
            return Bytes::from_static(b":\n\n");
        }
        self.told = self.at;
        format!(":\nid: {}\n\n", self.at).into()
    }
}

enum Next {
    Part(Bytes),
    Last(Bytes),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_repeat_or_take_commas_and_unknown_ones_are_told() {
        let filter = |query: &str| {
            let mut params = Params::of(&format!("/events?{query}").parse().unwrap());
            let filter = Filter::of(&mut params);
            params.finish().map(|()| filter.kinds)
        };
        assert_eq!(filter("").unwrap(), []);
        assert_eq!(
            filter("type=job.started,job.finished&type=job.created").unwrap(),
            [Kind::Started, Kind::Finished, Kind::Created]
        );
        for nothing in ["type=", "type=job.started,"] {
            filter(nothing).unwrap_err();
        }
        let Err(ApiError::InvalidQuery(errors)) = filter("type=started&after=-1&follow=x") else {
            panic!("accepted");
        };
        assert_eq!(errors.len(), 3);
    }

    #[test]
    fn the_last_event_id_is_a_cursor_or_nothing() {
        let last = |value: &'static str| {
            last_event(&HeaderMap::from_iter([(
                LAST_EVENT_ID,
                value.parse().unwrap(),
            )]))
        };
        assert_eq!(last("12").unwrap(), Some(12));
        assert_eq!(last("").unwrap(), None);
        for wrong in ["-1", "+1", "x", "1 ", "99999999999999999999"] {
            last(wrong).unwrap_err();
        }
    }
}
