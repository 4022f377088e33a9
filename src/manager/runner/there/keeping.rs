//! What a node reports is made durable. A store that fails keeps no request from the node.

use std::pin::pin;

use tokio::time::Instant;

use super::{Away, PATIENCE};
use crate::nodes::NodeLink;
use crate::runner::Runner;
use crate::runner::requests::JobRequest;
use job::event::Event;

/// Makes the job as it is durable; `false` if the service ends first.
pub(super) async fn store(runner: &mut Runner, events: Vec<Event>) -> bool {
    storing(runner, events).await
}

fn storing(runner: &Runner, events: Vec<Event>) -> impl Future<Output = bool> + use<> {
    let (job, shared) = (runner.job.shown(), runner.shared.clone());
    let mut shutdown = runner.shutdown.clone();
    async move {
        let update = || shared.store.update(job.clone(), events.clone());
        let end = shutdown.wait_for(Option::is_some);
        let news = (job.id, "the state on its node");
        shared.until_stored(news, update, end).await.is_some()
    }
}

/// The same, while what is asked of the job goes to its node.
pub(super) async fn store_and_ask(
    away: &mut Away<'_>,
    link: &NodeLink,
    events: Vec<Event>,
) -> bool {
    let mut storing = pin!(storing(away.runner, events));
    loop {
        let asked = tokio::select! {
            biased;
            is_stored = &mut storing => return is_stored,
            Some(asked) = away.runner.requests.recv() => *asked,
        };
        match asked {
            // It would be stored at the same time.
            JobRequest::Amend(..) => {
                away.held.push_back((asked, Instant::now() + PATIENCE));
            }
            JobRequest::Stop(..) | JobRequest::Relay(..) | JobRequest::Follow => {
                away.ask(link, asked).await;
            }
        }
    }
}
