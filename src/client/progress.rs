//! A sign of life on a terminal while something takes longer than a second.

use std::future::Future;
use std::io::IsTerminal;
use std::pin::pin;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::timeout;

const QUIET: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(120);

/// Does the work. If it takes long, a line on standard error says what is being done and for how long; it is gone
/// when the work is done.
pub(super) async fn shown<T>(what: &str, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    if !std::io::stderr().is_terminal() {
        return work.await;
    }
    if let Ok(done) = timeout(QUIET, &mut work).await {
        return done;
    }
    let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}");
    let bar = ProgressBar::new_spinner()
        .with_style(style.expect("the template is a constant"))
        .with_message(what.to_owned())
        .with_elapsed(QUIET);
    bar.enable_steady_tick(TICK);
    let done = work.await;
    bar.finish_and_clear();
    done
}
