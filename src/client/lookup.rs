//! Which job an argument means: an id, a prefix of one, or a name.

use std::collections::HashSet;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::connection::Client;
use super::failure::Failure;
use super::sanitize::escape;
use super::table::{Align, Style, Table};
use super::view::Job;
use job::State;
use job::time::Timestamp;

/// Fewer digits of an id than this are what jobs of one minute have in common.
const LEAST_DIGITS: usize = 8;
/// Digits of an id that are its time.
const TIME_DIGITS: usize = 12;
/// The service may count a job as created a moment after its id was made.
const TOLERANCE: Duration = Duration::from_secs(10);

/// A page of `GET /jobs`.
#[derive(Debug, Deserialize)]
pub(super) struct Page {
    pub(super) jobs: Vec<Value>,
    pub(super) next_page_token: Option<String>,
}

/// The id of the one job that this means.
pub(super) async fn id(client: &Client, text: &str) -> Result<String, Failure> {
    if let Ok(id) = Uuid::try_parse(text) {
        return Ok(id.hyphenated().to_string());
    }
    if text.is_empty() {
        return Err(Failure::Usage("the name of a job is empty".to_owned()));
    }
    if let Some(id) = by_name(client, text).await? {
        return Ok(id);
    }
    match Beginning::of(text) {
        Some(beginning) => by_beginning(client, text, &beginning).await,
        None => Err(no_job(text)),
    }
}

/// The ids that these arguments mean, in their order.
pub(super) async fn ids(client: &Client, texts: &[String]) -> Result<Vec<String>, Failure> {
    let mut ids = Vec::with_capacity(texts.len());
    for text in texts {
        let found = id(client, text).await;
        if let (Err(Failure::NoSuchJob(why)), true) = (&found, texts.len() > 1) {
            let why = format!("{why}\n  nothing was done to the other jobs");
            return Err(Failure::NoSuchJob(why));
        }
        ids.push(found?);
    }
    Ok(ids)
}

/// All jobs of a list, in its order, until this says enough.
pub(super) async fn each(
    client: &Client,
    query: &[(&str, String)],
    mut take: impl FnMut(Value) -> bool,
) -> Result<(), Failure> {
    let mut token: Option<String> = None;
    loop {
        let page: Page = client
            .json(|| {
                let request = client.get("/jobs").query(query);
                match &token {
                    Some(token) => request.query(&[("page_token", token)]),
                    None => request,
                }
            })
            .await?;
        for job in page.jobs {
            if !take(job) {
                return Ok(());
            }
        }
        token = page.next_page_token;
        if token.is_none() {
            return Ok(());
        }
    }
}

/// The states that are not terminal, as a query has them.
pub(super) fn live_states() -> String {
    let live = State::ALL.iter().filter(|state| !state.is_terminal());
    live.map(|state| state.as_str())
        .collect::<Vec<_>>()
        .join(",")
}

/// The live job of this name; if there is none, the newest.
async fn by_name(client: &Client, name: &str) -> Result<Option<String>, Failure> {
    let id = |value: &Value| value["id"].as_str().unwrap_or_default().to_owned();
    let size = |jobs: u32| ("page_size", jobs.to_string());
    let named = ("name", name.to_owned());
    let mut live = Vec::new();
    let brief = ("view", "basic".to_owned());
    let query = [
        named.clone(),
        size(10),
        ("state", live_states()),
        brief.clone(),
    ];
    each(client, &query, |job| {
        live.push(job);
        live.len() < 10
    })
    .await?;
    match live.as_slice() {
        [] => {}
        [only] => return Ok(Some(id(only))),
        several => return Err(ambiguous(name, several)?),
    }
    let mut newest = None;
    each(client, &[named, size(1), brief], |job| {
        newest = Some(id(&job));
        false
    })
    .await?;
    Ok(newest)
}

async fn by_beginning(
    client: &Client,
    text: &str,
    beginning: &Beginning,
) -> Result<String, Failure> {
    let query = [
        ("created_after", beginning.from.to_string()),
        ("created_before", beginning.to.to_string()),
        ("page_size", "200".to_owned()),
        ("view", "basic".to_owned()),
    ];
    let mut found = Vec::new();
    each(client, &query, |job| {
        let id = job["id"].as_str().unwrap_or_default();
        if id.replace('-', "").starts_with(&beginning.digits) {
            found.push(job);
        }
        found.len() < 10
    })
    .await?;
    match found.as_slice() {
        [] => Err(no_job(text)),
        [only] => Ok(Job::read(only)?.id),
        several => Err(ambiguous(text, several)?),
    }
}

fn no_job(text: &str) -> Failure {
    let text = escape(text);
    Failure::NoSuchJob(format!(
        "no job has the ID or name {text} (a prefix needs {LEAST_DIGITS} digits or more)"
    ))
}

/// Several jobs, and what tells them apart.
fn ambiguous(text: &str, jobs: &[Value]) -> Result<Failure, Failure> {
    let mut table = Table::new(&[
        ("ID", Align::Left),
        ("STATE", Align::Left),
        ("CREATED", Align::Left),
        ("NAME", Align::Left),
        ("COMMAND", Align::Fill),
    ]);
    for job in jobs {
        let job = Job::read(job)?;
        let name = job.name.as_deref().unwrap_or_default();
        let created = job.created_at.to_string();
        table.row(&[&job.id, &job.state, &created, name, &job.program()], None);
    }
    let table = table.render(Style::default());
    let table = table.trim_end().replace('\n', "\n  ");
    let text = escape(text);
    Ok(Failure::NoSuchJob(format!(
        "{text} could be several jobs:\n  {table}"
    )))
}

/// The first digits of an id, and when a job with such an id was created: the digits begin with the time.
#[derive(Debug, PartialEq, Eq)]
struct Beginning {
    digits: String,
    from: Timestamp,
    to: Timestamp,
}

impl Beginning {
    fn of(text: &str) -> Option<Self> {
        let digits = text.replace('-', "").to_ascii_lowercase();
        let is_one =
            digits.len() >= LEAST_DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_one {
            return None;
        }
        let time: String = digits.chars().take(TIME_DIGITS).collect();
        let moment = |fill: &str| {
            let padded = format!("{time}{}", fill.repeat(TIME_DIGITS - time.len()));
            let millis = i64::from_str_radix(&padded, 16).ok()?;
            millis.checked_mul(1000)
        };
        let tolerance = i64::try_from(TOLERANCE.as_micros()).ok()?;
        Some(Self {
            from: Timestamp::from_micros(moment("0")?.saturating_sub(tolerance)),
            to: Timestamp::from_micros(moment("f")?.saturating_add(tolerance)),
            digits,
        })
    }
}

/// The ids of these jobs for people: as few digits as tell them apart, and no fewer than the time of an id has.
/// A longer beginning is seldom needed, since jobs of one millisecond are few. In files and pipes they stay whole.
pub(super) fn short_ids<'a>(jobs: impl IntoIterator<Item = &'a Job>, short: bool) -> Vec<&'a str> {
    let ids: Vec<&str> = jobs.into_iter().map(|job| job.id.as_str()).collect();
    if !short {
        return ids;
    }
    let longest = ids.iter().map(|id| id.len()).max().unwrap_or(0);
    let cut = |length: usize| ids.iter().map(move |id| id.get(..length).unwrap_or(id));
    // A dash separates the digits of the time.
    let enough = (TIME_DIGITS + 1..longest)
        .find(|length| cut(*length).collect::<HashSet<_>>().len() == ids.len());
    cut(enough.unwrap_or(longest)).collect()
}

/// One job, as it was answered and as it is read.
pub(super) async fn get(client: &Client, id: &str) -> Result<(Value, Job), Failure> {
    let path = format!("/jobs/{id}");
    let value: Value = client.json(|| client.get(&path)).await?;
    let job = Job::read(&value)?;
    Ok((value, job))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_an_id_says_when_it_was_made() {
        let id = "0198c1d2-7b3a-7c4e-9f10-2a6b3c4d5e6f";
        let millis = i64::from_str_radix("0198c1d27b3a", 16).unwrap();
        for digits in 8..id.len() {
            let beginning = Beginning::of(&id[..digits]).unwrap();
            let made = Timestamp::from_micros(millis * 1000);
            assert!(
                beginning.from <= made && made <= beginning.to,
                "{beginning:?}"
            );
            // Few enough jobs to look through.
            assert!(beginning.to.since(beginning.from) < Duration::from_secs(90));
        }
    }

    #[test]
    fn ids_are_cut_to_what_tells_them_apart() {
        let job = |id: &str| {
            let value = serde_json::json!({"id": id, "name": null, "state": "running",
                "created_at": "2026-01-31T12:00:00Z"});
            Job::read(&value).unwrap()
        };
        let jobs = [
            job("0198c1d2-7b3a-7c4e-9f10-2a6b3c4d5e6f"),
            job("0198c1d2-7b3b-7c4e-9f10-2a6b3c4d5e6f"),
        ];
        assert_eq!(short_ids(&jobs, true), ["0198c1d2-7b3a", "0198c1d2-7b3b"]);
        assert_eq!(short_ids(&jobs, false)[0], jobs[0].id);
        // What is shown can be typed.
        assert!(Beginning::of("0198c1d2-7b3a").is_some());
        // Of one millisecond.
        let jobs = [jobs[0].clone(), job("0198c1d2-7b3a-7c5e-9f10-2a6b3c4d5e6f")];
        assert_eq!(
            short_ids(&jobs, true),
            ["0198c1d2-7b3a-7c4", "0198c1d2-7b3a-7c5"]
        );
        assert!(short_ids([], true).is_empty());
    }

    #[test]
    fn what_is_too_short_or_no_id_is_no_beginning() {
        for text in [
            "",
            "0198c1d",
            "0198-c1d",
            "nightly-report",
            "0198c1dg",
            "ffé",
        ] {
            assert_eq!(Beginning::of(text), None, "{text:?}");
        }
    }
}
