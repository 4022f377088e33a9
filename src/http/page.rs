//! The query of a list: filters, order, and cursors that are bound to them.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::problem::ApiError;
use crate::query::Params;
use job::query::{Filter, OnNode, Order, Query};
use job::selector::Selector;
use job::time::Timestamp;
use job::{JobId, State};

/// The parameters of a list of jobs.
pub(super) const PARAMETERS: &[&str] = &[
    "state",
    "label_selector",
    "name",
    "name_prefix",
    "queue",
    "batch",
    "schedule",
    "node",
    "created_by",
    "created_after",
    "created_before",
    "page_size",
    "page_token",
    "idempotency_key",
    "order_by",
    "view",
];

const DEFAULT_SIZE: usize = 50;
const MAX_SIZE: usize = 1000;

/// Bytes of a filter's hash in a cursor: enough to notice a mix-up; a cursor grants nothing.
const TAG: usize = 8;

/// How much of each job is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// Without its spec.
    Basic,
    /// All of it.
    Full,
}

/// Reads how much of each job is told.
pub(super) fn view(params: &mut Params) -> View {
    params
        .parsed("view", "basic or full", |text| match text {
            "basic" => Some(View::Basic),
            "full" => Some(View::Full),
            _ => None,
        })
        .unwrap_or(View::Full)
}

/// Reads which jobs are meant, except for their states.
pub(super) fn filter(params: &mut Params) -> Filter {
    Filter {
        states: Vec::new(),
        selector: selector(params),
        name: params.text("name"),
        name_prefix: params.text("name_prefix"),
        queue: params.text("queue"),
        batch: batch(params),
        schedule: params.text("schedule"),
        node: params.text("node").map(OnNode::Named),
        created_by: params.text("created_by"),
        created_after: moment(params, "created_after"),
        created_before: moment(params, "created_before"),
    }
}

/// Reads what to list.
pub(super) fn parse(mut params: Params) -> Result<Query, ApiError> {
    let states = states(&mut params);
    let filter = Filter {
        states,
        ..filter(&mut params)
    };
    let order = params
        .parsed(
            "order_by",
            "`created_at desc` or `created_at asc`",
            |text| match text {
                "created_at desc" => Some(Order::CreatedDescending),
                "created_at asc" | "created_at" => Some(Order::CreatedAscending),
                _ => None,
            },
        )
        .unwrap_or_default();
    let size = params.integer("page_size");
    if size == Some(0) {
        params.refuse("page_size", "out_of_range", "must be 1 or more");
    }
    let limit = size.map_or(DEFAULT_SIZE, |size| {
        usize::try_from(size).unwrap_or(MAX_SIZE).min(MAX_SIZE)
    });
    let token = params.text("page_token").filter(|token| !token.is_empty());
    params.finish()?;
    let after = token
        .map(|token| decode(&token, &filter, order).ok_or(ApiError::InvalidPageToken))
        .transpose()?;
    Ok(Query {
        filter,
        order,
        after,
        limit,
        is_brief: false,
    })
}

fn states(params: &mut Params) -> Vec<State> {
    let mut states = Vec::new();
    for text in params.all("state") {
        // An empty word is refused as well: who meant to filter must not get every job.
        for word in text.split(',').map(str::trim) {
            match State::ALL.into_iter().find(|state| state.as_str() == word) {
                Some(state) if !states.contains(&state) => states.push(state),
                Some(_) => {}
                None => {
                    let known: Vec<_> = State::ALL.iter().map(|state| state.as_str()).collect();
                    let detail = format!("`{word}` is no state; there are: {}", known.join(", "));
                    params.refuse("state", "invalid_value", detail);
                }
            }
        }
    }
    states.sort_unstable();
    states
}

/// Reads a label selector.
pub(super) fn selector(params: &mut Params) -> Selector {
    match params
        .text("label_selector")
        .map(|text| text.parse::<Selector>())
    {
        None => Selector::default(),
        Some(Ok(selector)) => selector,
        Some(Err(error)) => {
            params.refuse("label_selector", "invalid_value", error.to_string());
            Selector::default()
        }
    }
}

/// Reads the batch that is meant.
pub(super) fn batch(params: &mut Params) -> Option<JobId> {
    params.parsed("batch", "the id of a batch", |text| text.parse().ok())
}

fn moment(params: &mut Params, name: &str) -> Option<Timestamp> {
    params.parsed(
        name,
        "a time in RFC 3339, such as 2026-01-31T12:00:00Z; a + in it is written %2B",
        |text| text.parse().ok(),
    )
}

/// For the fuzz targets: see [`super::fuzz_cursor`].
pub(super) fn fuzz_cursor(params: Params, last: JobId) {
    let Ok(Query { filter, order, .. }) = parse(params) else {
        return;
    };
    let token = encode(last, &filter, order);
    assert_eq!(decode(&token, &filter, order), Some(last));
    let other = Filter {
        queue: Some(format!("{:?}x", filter.queue)),
        ..filter
    };
    assert_eq!(decode(&token, &other, order), None);
}

/// The cursor that continues after `last`.
pub(super) fn encode(last: JobId, filter: &Filter, order: Order) -> String {
    let mut bytes = Vec::from(tag(filter, order));
    bytes.extend_from_slice(last.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decode(token: &str, filter: &Filter, order: Order) -> Option<JobId> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (tag_of_token, id) = bytes.split_first_chunk::<TAG>()?;
    let id = <[u8; 16]>::try_from(id).ok()?;
    (*tag_of_token == tag(filter, order)).then(|| JobId::from_bytes(id))
}

fn tag(filter: &Filter, order: Order) -> [u8; TAG] {
    // Debug shows every field, and a cursor need not outlive the version of the program.
    let hash = Sha256::digest(format!("{order:?} {filter:?}"));
    let (tag, _) = hash
        .split_first_chunk::<TAG>()
        .expect("a SHA-256 has 32 bytes");
    *tag
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(query: &str) -> Result<Query, ApiError> {
        parse(Params::of(&format!("/jobs?{query}").parse().unwrap()))
    }

    #[test]
    fn the_default_lists_fifty_of_everything_newest_first() {
        let query = list("").unwrap();
        assert_eq!(query.filter, Filter::default());
        assert_eq!(
            (query.order, query.limit, query.after),
            (Order::CreatedDescending, 50, None)
        );
    }

    #[test]
    fn states_repeat_or_take_commas() {
        let states = list("state=running,queued&state=lost&state=running")
            .unwrap()
            .filter
            .states;
        assert_eq!(states, [State::Queued, State::Running, State::Lost]);
        for nothing in ["state=", "state=running,", "state=running&state="] {
            assert!(list(nothing).is_err(), "{nothing}");
        }
    }

    #[test]
    fn a_page_is_lowered_to_the_maximum_and_never_empty() {
        assert_eq!(list("page_size=1000").unwrap().limit, 1000);
        assert_eq!(list("page_size=99999999999").unwrap().limit, 1000);
        assert_eq!(list("page_size=1").unwrap().limit, 1);
        list("page_size=0").unwrap_err();
        list("page_size=-1").unwrap_err();
    }

    #[test]
    fn every_bad_value_is_told() {
        let query =
            "state=done&created_after=yesterday&order_by=name&page_size=x&label_selector=((";
        let Err(ApiError::InvalidQuery(errors)) = list(query) else {
            panic!("accepted");
        };
        assert_eq!(errors.len(), 5, "{errors:?}");
    }

    #[test]
    fn a_cursor_of_another_filter_or_order_is_refused() {
        let id = JobId::generate();
        let query = list("state=running&queue=a").unwrap();
        let token = encode(id, &query.filter, query.order);
        let with =
            |filter: &str| list(&format!("{filter}&page_token={token}")).map(|query| query.after);
        assert_eq!(with("state=running&queue=a&page_size=3").unwrap(), Some(id));
        for other in [
            "",
            "state=running",
            "state=running&queue=b",
            "state=running&queue=a&order_by=created_at%20asc",
        ] {
            assert!(
                matches!(with(other), Err(ApiError::InvalidPageToken)),
                "{other}"
            );
        }
    }

    proptest! {
        #[test]
        fn garbage_is_no_cursor(token in "[A-Za-z0-9_-]{1,48}") {
            let result = list(&format!("page_token={token}"));
            prop_assert!(matches!(result, Err(ApiError::InvalidPageToken)));
        }
    }
}
