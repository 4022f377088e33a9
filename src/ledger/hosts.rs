//! Which of the hosts of an address has the log: after a failover the old primary may run on, and takes whatever is written to it.

use std::cmp::Reverse;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::database::{Database, STATEMENT, stale};
use crate::tls::Tls;
use crate::{Address, LedgerError};

/// How long the other hosts are waited for once one has answered: less than the one that leads may take for a beat.
const OTHERS: Duration = Duration::from_secs(1);

/// Connects to a primary: of those that answer, the one that most failovers have led to, and no older one than was seen.
pub(crate) async fn connect(
    address: &Address,
    tls: &Tls,
    least_timeline: u32,
) -> Result<Database, LedgerError> {
    let mut asking = JoinSet::new();
    for (place, config) in address.configs().into_iter().enumerate() {
        let (address, tls) = (address.clone(), tls.clone());
        asking.spawn(async move {
            let connected = Database::connect_one(&address, &config, &tls).await;
            (place, connected)
        });
    }
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    // Each host takes one connection and one statement.
    let mut until = Instant::now() + 2 * STATEMENT;
    while let Ok(Some(asked)) = timeout_at(until, asking.join_next()).await {
        match asked {
            Ok((place, Ok(database))) if database.timeline < least_timeline => {
                let why = format!(
                    "it is on timeline {}, and {least_timeline} was seen",
                    database.timeline
                );
                failures.push((place, stale(why)));
            }
            Ok((place, Ok(database))) => {
                until = until.min(Instant::now() + OTHERS);
                found.push((place, database));
            }
            Ok((place, Err(error))) => failures.push((place, error)),
            Err(error) => tracing::error!("a host of the database was not asked: {error}"),
        }
    }
    let newest = found
        .into_iter()
        .max_by_key(|(place, it)| (it.timeline, Reverse(*place)));
    if let Some((_, database)) = newest {
        return Ok(database);
    }
    failures.sort_by_key(|(place, _)| *place);
    // What is wrong with one host may be well with another later.
    let is_final = failures.iter().all(|(_, error)| !error.is_passing());
    let words: Vec<String> = failures.iter().map(|(_, it)| it.to_string()).collect();
    Err(match is_final && !words.is_empty() {
        true => LedgerError::Unusable(words.join("; ")),
        false => LedgerError::Unavailable(words.join("; ")),
    })
}
