//! Who asks, and whether they may.
//!
//! The access word of a route comes from the route table. The check runs before any body byte is read, and
//! an answer lasts no longer than the token that it was given to.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::header::AUTHORIZATION;
use axum::http::{Extensions, HeaderMap, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use crate::api::{Api, AuthMode};
use crate::headers::{ACTOR, SCOPE};
use crate::problem::ApiError;
use crate::query::Params;
use crate::tokens::sessions::{Maker, Sessions};
use crate::tokens::{Access, Grant};
use job::time::Timestamp;

/// The user on the other end of a unix socket connection; the server puts it into the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerUid(pub u32);

/// The other end of a TCP connection; the server puts it into the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddress(pub SocketAddr);

/// The hub of this node is on the other end; the server puts it into the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerHub;

/// Where the name of who asks is left for the audit log, also for requests that are then refused.
#[derive(Clone, Debug, Default)]
pub(crate) struct ActorSlot(Arc<OnceLock<Arc<str>>>);

impl ActorSlot {
    pub(crate) fn actor(&self) -> Option<&str> {
        self.0.get().map(|actor| &**actor)
    }

    /// A second name for the same request changes nothing.
    pub(crate) fn note(&self, actor: &Arc<str>) {
        let _ = self.0.set(actor.clone());
    }
}

/// Who sent a request.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// For records: `token:default`, `uid:1000` or `anonymous`.
    pub(crate) actor: Arc<str>,
    /// What they may do.
    pub(crate) scope: Access,
    /// What the permission hangs on; nothing if it lasts as long as the connection.
    grant: Option<Grant>,
    /// How they came in.
    pub(crate) by: By,
}

/// How a caller came in.
#[derive(Clone, Debug)]
pub(crate) enum By {
    /// Nobody was asked.
    Nothing,
    /// The unix socket, as this user.
    Socket(u32),
    /// The hub of this node, which has asked who it is.
    Hub,
    /// A token.
    Token,
    /// A session of a browser, which ends by itself.
    Session {
        /// Its name.
        id: Arc<str>,
        /// When it ends in any case.
        expires_at: Timestamp,
        /// Who says when it has ended.
        sessions: Sessions,
    },
}

impl Caller {
    fn admin(actor: &str, by: By) -> Self {
        Self {
            actor: actor.into(),
            scope: Access::Admin,
            grant: None,
            by,
        }
    }

    /// The service itself, which looks for somebody who may.
    pub(crate) fn reader(actor: &str) -> Self {
        Self {
            scope: Access::Read,
            ..Self::admin(actor, By::Nothing)
        }
    }

    /// What they may give to a browser. A session gives nothing: it would outlive its own end.
    pub(crate) fn maker(&self) -> Option<Maker> {
        match (&self.by, &self.grant) {
            (By::Socket(uid), _) => Some(Maker::uid(*uid)),
            (By::Token, Some(grant)) => Some(Maker::token(grant)),
            (By::Nothing | By::Hub | By::Session { .. } | By::Token, _) => None,
        }
    }

    /// Does the permission end before the connection does?
    fn may_end(&self) -> bool {
        self.grant.is_some() || matches!(self.by, By::Session { .. })
    }

    /// For records: a session's actor is its parent's, with the beginning of its own name.
    fn recorded(&self) -> Arc<str> {
        match &self.by {
            By::Session { id, .. } => {
                let short = id.get(..8).unwrap_or(id);
                format!("{}/{short}", self.actor).into()
            }
            By::Nothing | By::Socket(_) | By::Hub | By::Token => self.actor.clone(),
        }
    }

    /// Resolves when the caller may no longer do what they were allowed to. Answers with a body need not
    /// ask, [`while_allowed`] does; a connection that was upgraded must select on it.
    pub(crate) async fn ended(&self) {
        let session = async {
            match &self.by {
                By::Session { id, sessions, .. } => sessions.ended(id).await,
                By::Nothing | By::Socket(_) | By::Hub | By::Token => std::future::pending().await,
            }
        };
        match &self.grant {
            Some(grant) => tokio::select! {
                () = grant.ended() => {}
                () = session => {}
            },
            None => session.await,
        }
    }
}

/// The parameter that stands for a header, of routes that a browser cannot send one to.
pub(crate) const TICKET: &str = "ticket";

/// Finds out who asks and whether they may; `needed` is the route's access word. `tickets`: the route takes them.
pub(crate) fn check(
    api: &Api,
    request: &mut Request,
    needed: Access,
    tickets: bool,
) -> Result<(), ApiError> {
    if needed == Access::Public {
        return Ok(());
    }
    let caller = match ticket(api, request, tickets) {
        Some(holder) => holder?,
        None => identify(api, request.headers(), request.extensions())?,
    };
    if let Some(slot) = request.extensions().get::<ActorSlot>() {
        slot.note(&caller.recorded());
    }
    if !caller.scope.reaches(needed) {
        return Err(ApiError::Forbidden {
            needed: needed.as_str(),
        });
    }
    request.extensions_mut().insert(caller);
    Ok(())
}

/// Who gave the ticket that this request has instead of a header.
fn ticket(api: &Api, request: &Request, taken: bool) -> Option<Result<Caller, ApiError>> {
    let plain = taken
        && request.extensions().get::<PeerHub>().is_none()
        && request.method() == Method::GET
        && !request.headers().contains_key(AUTHORIZATION)
        && request.extensions().get::<PeerUid>().is_none();
    let text = plain.then(|| Params::of(request.uri()).text(TICKET))??;
    let holder = api.tickets.redeem(&text, request.uri().path());
    Some(holder.ok_or(ApiError::Unauthenticated))
}

fn identify(api: &Api, headers: &HeaderMap, extensions: &Extensions) -> Result<Caller, ApiError> {
    let settings = &api.settings;
    if let Some(PeerUid(uid)) = extensions.get() {
        return if *uid == 0 || *uid == settings.uid {
            Ok(Caller::admin(&format!("uid:{uid}"), By::Socket(*uid)))
        } else {
            Err(ApiError::PeerNotAllowed)
        };
    }
    if extensions.get::<PeerHub>().is_some() {
        return sent_by_hub(headers);
    }
    let tokens = match &settings.auth {
        AuthMode::None => return Ok(Caller::admin("anonymous", By::Nothing)),
        AuthMode::Token { tokens } => tokens,
    };
    let token = bearer(headers).ok_or(ApiError::Unauthenticated)?;
    if let Some(grant) = tokens.recognise(token) {
        return Ok(Caller {
            actor: grant.actor.clone(),
            scope: grant.scope,
            grant: Some(grant),
            by: By::Token,
        });
    }
    let found = settings.sessions.recognise(token, tokens);
    let (session, parent) = found.ok_or(ApiError::Unauthenticated)?;
    Ok(Caller {
        actor: session.actor.as_str().into(),
        scope: session.scope(),
        grant: parent,
        by: By::Session {
            id: session.id.as_str().into(),
            expires_at: session.expires_at,
            sessions: settings.sessions.clone(),
        },
    })
}

/// Whom the hub sends a request for.
fn sent_by_hub(headers: &HeaderMap) -> Result<Caller, ApiError> {
    let text = |name| headers.get(name).and_then(|it| it.to_str().ok());
    let scope = text(SCOPE).and_then(|word| {
        let mut ladder = [Access::Read, Access::Operate, Access::Admin].into_iter();
        ladder.find(|scope| scope.as_str() == word)
    });
    let (actor, scope) = text(ACTOR).zip(scope).ok_or(ApiError::Unauthenticated)?;
    Ok(Caller {
        actor: actor.into(),
        scope,
        grant: None,
        by: By::Hub,
    })
}

/// The token of the only `Authorization` header; two headers are none.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(only), None) = (values.next(), values.next()) else {
        return None;
    };
    let (scheme, token) = only.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Answers the request, but no longer than its caller is allowed to: a wait ends with 401, a body that
/// comes bit by bit is broken off.
pub(crate) async fn while_allowed(request: Request, next: Next) -> Response {
    let caller = request.extensions().get::<Caller>().cloned();
    allowed(caller, next.run(request)).await
}

/// The same with the answer of somebody else.
pub(crate) async fn allowed(
    caller: Option<Caller>,
    answer: impl Future<Output = Response>,
) -> Response {
    let Some(caller) = caller.filter(Caller::may_end) else {
        return answer.await;
    };
    let response = tokio::select! {
        biased;
        response = answer => response,
        () = caller.ended() => return ApiError::Unauthenticated.into_response(),
    };
    if response.body().size_hint().exact().is_some() {
        // It is whole, and as good as sent.
        return response;
    }
    response.map(|body| {
        Body::new(Bounded {
            body,
            end: Box::pin(async move { caller.ended().await }),
        })
    })
}

/// A body that breaks off when its caller's permission ends.
pub(crate) struct Bounded {
    pub(crate) body: Body,
    pub(crate) end: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl HttpBody for Bounded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        if this.end.as_mut().poll(context).is_ready() {
            // An orderly end would let what is missing pass for what there is.
            this.end = Box::pin(std::future::ready(()));
            return Poll::Ready(Some(Err(axum::Error::new("the token has ended"))));
        }
        Pin::new(&mut this.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::tokens::{self, Tokens};

    #[test]
    fn a_bearer_token_comes_from_exactly_one_header() {
        let with = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, value.parse().unwrap());
            }
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(with(&["Bearer abc"]).as_deref(), Some("abc"));
        assert_eq!(with(&["bearer  abc"]).as_deref(), Some("abc"));
        for wrong in [
            &[][..],
            &["abc"],
            &["Basic abc"],
            &["Bearer "],
            &["Bearer a", "Bearer a"],
        ] {
            assert_eq!(with(wrong), None, "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn a_body_breaks_off_where_its_permission_ends() {
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let mut body = Bounded {
            body: Body::from_stream(futures_util::stream::iter([
                Ok::<_, axum::Error>("a"),
                Ok("b"),
            ])),
            end: Box::pin(async move { ended.await.unwrap() }),
        };
        assert_eq!(
            body.frame().await.unwrap().unwrap().into_data().unwrap(),
            "a"
        );
        end.send(()).unwrap();
        assert!(body.frame().await.unwrap().is_err());
        assert!(body.frame().await.unwrap().is_err());
    }

    #[tokio::test]
    async fn a_wait_ends_with_its_token() {
        use tower::ServiceExt;
        let dir = tempfile::tempdir().unwrap();
        let name = "ci".parse().unwrap();
        let text = tokens::create(dir.path(), &name, Access::Read, None).unwrap();
        let tokens = Tokens::open(dir.path()).unwrap();
        let grant = tokens.recognise(&text).unwrap();
        let caller = Caller {
            actor: grant.actor.clone(),
            scope: grant.scope,
            grant: Some(grant),
            by: By::Token,
        };
        let app = axum::Router::new()
            .route(
                "/",
                axum::routing::get(async || std::future::pending::<()>().await),
            )
            .layer(axum::middleware::from_fn(while_allowed));
        let mut request = Request::new(Body::empty());
        request.extensions_mut().insert(caller);
        let response = tokio::select! {
            response = app.oneshot(request) => response.unwrap(),
            () = async {
                tokens::revoke(dir.path(), &name).unwrap();
                tokens.follow(dir.path()).await;
            } => unreachable!(),
        };
        assert_eq!(response.status(), 401);
    }
}
