//! What stands before every handler: who may enter, what is known in the query, conditions, and on a hub the node that answers.

use std::time::{Duration, Instant};

use axum::RequestExt;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::extract::InPath;
use crate::layers::auth;
use crate::problem::ApiError;
use crate::tokens::Access;
use crate::{Api, conditions, forward, query};
use job::NodeName;
use manager::{LookupError, Until};

/// What stands before a handler.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    pub(super) api: Api,
    pub(super) access: Access,
    pub(super) query: &'static [&'static str],
    /// It does something to the job in the path, and looks at no condition by itself.
    pub(super) is_conditional: bool,
    /// The node that has the job answers.
    pub(super) is_forwarded: bool,
    /// It is about this process, whether it leads or not.
    pub(super) is_of_process: bool,
}

/// What an API node answers counts if it led when it had the answer.
pub(super) async fn enter(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let ledger = gate.api.settings.ledger.clone();
    let ledger = ledger.filter(|_| !gate.is_of_process);
    let answer = admit(gate, request, next).await;
    match ledger {
        Some(standing) if !standing.is_sure() && !Box::pin(standing.holds()).await => {
            ApiError::LedgerUnavailable.into_response()
        }
        Some(_) | None => answer,
    }
}

async fn admit(gate: Gate, mut request: Request, next: Next) -> Response {
    let tickets = gate.query.contains(&auth::TICKET);
    let entered = auth::check(&gate.api, &mut request, gate.access, tickets)
        .and_then(|()| query::check_known(request.uri(), gate.query));
    if let Err(error) = entered {
        return error.into_response();
    }
    if gate.is_conditional
        && let Err(error) = if_allowed(&gate.api, &mut request).await
    {
        return error.into_response();
    }
    if gate.is_forwarded && gate.api.manager.hub().is_some() {
        match elsewhere(&gate.api, &mut request).await {
            Ok(None) => {}
            Ok(Some(node)) => {
                let caller = request.extensions().get().cloned();
                let answer = forward::to(&gate.api, node, request);
                return auth::allowed(caller, answer).await;
            }
            Err(error) => return error.into_response(),
        }
    }
    auth::while_allowed(request, next).await
}

/// How long a request waits for the node to take the job that it is about.
const TAKEN: Duration = Duration::from_secs(5);

/// The node that has the job in the path, if it is another one.
async fn elsewhere(api: &Api, request: &mut Request) -> Result<Option<NodeName>, ApiError> {
    // What is wrong with the request is said by its handler.
    let Ok(InPath(id)) = request.extract_parts::<InPath>().await else {
        return Ok(None);
    };
    let until = Instant::now() + TAKEN;
    let mut job = match api.manager.get(id).await {
        Ok(job) => job,
        Err(LookupError::NoSuchJob) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    loop {
        let is_there = api.manager.is_there(&job);
        let Some(claim) = job.claim.as_ref().filter(|_| is_there) else {
            return Ok(None);
        };
        let left = until.saturating_duration_since(Instant::now());
        if claim.confirmed || job.state.is_terminal() || left.is_zero() {
            return Ok(Some(claim.node.clone()));
        }
        // The node is about to take it, and does not know it before.
        let changed = Until::VersionAfter(job.version);
        job = api.manager.wait(id, changed, left).await?;
    }
}

async fn if_allowed(api: &Api, request: &mut Request) -> Result<(), ApiError> {
    let InPath(id) = request.extract_parts().await?;
    conditions::check(api, id, request.headers()).await
}
