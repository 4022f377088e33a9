//! How often the lead of a cluster has been taken, as an API node says.

use std::time::Duration;

use reqwest::Client;
use serde::Deserialize;

/// What an API node says of itself.
#[derive(Deserialize)]
struct Live {
    epoch: Option<u64>,
}

/// Asks the API node at this address; nothing if it does not answer in time, or is none.
pub async fn epoch(client: &Client, url: &str, within: Duration) -> Option<u64> {
    let url = format!("{}/healthz", url.trim_end_matches('/'));
    let answer = client.get(url).timeout(within).send().await.ok()?;
    let live: Live = serde_json::from_slice(&answer.bytes().await.ok()?).ok()?;
    live.epoch
}
