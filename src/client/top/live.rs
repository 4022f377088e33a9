//! `procession top` on a terminal: the loop of keys, ticks and requests.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen};
use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use super::board::{Act, Board, Process, Usage, Wish, tree};
use super::draw::draw;
use super::keys::keys;
use crate::connection::Client;
use crate::failure::Failure;
use crate::lookup::{Page, live_states};
use crate::raw::Raw;
use crate::sanitize::escape;
use crate::signals::Signals;
use crate::stdio::{Input, reader_gone};
use crate::view::Job;

/// As many as one request of their use may name.
const MOST: &str = "200";
/// Lines of output that are asked for.
const LINES: &str = "100";
/// A stop is answered once it has begun.
const AT_ONCE: Duration = Duration::from_millis(200);

#[derive(Debug, Deserialize)]
struct Used {
    usage: Vec<Usage>,
}

#[derive(Debug, Deserialize)]
struct Processes {
    processes: Vec<Process>,
}

/// The screen of the terminal, which comes back however this ends.
struct Screen {
    terminal: Terminal<CrosstermBackend<io::Stdout>>,
    _raw: Option<Raw>,
}

impl Screen {
    fn enter() -> Result<Self, Failure> {
        let raw = Raw::enter()?;
        let shown = || -> io::Result<_> {
            execute!(io::stdout(), EnterAlternateScreen)?;
            Terminal::new(CrosstermBackend::new(io::stdout()))
        };
        let terminal = shown().map_err(|error| Failure::writing(&error))?;
        Ok(Self {
            terminal,
            _raw: raw,
        })
    }

    fn draw(&mut self, board: &Board) -> Result<(), Failure> {
        let drawn = self.terminal.draw(|frame| draw(frame, board));
        drawn.map(|_| ()).map_err(|error| Failure::writing(&error))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = execute!(io::stdout(), LeaveAlternateScreen);
        let _ = self.terminal.show_cursor();
    }
}

/// Until somebody leaves.
pub(super) async fn show(
    client: &Client,
    selector: Option<&str>,
    interval: Duration,
) -> Result<ExitCode, Failure> {
    let mut signals = Signals::catch()?;
    let (mut board, mut input) = (Board::default(), Input::default());
    let mut used_at: Option<Instant> = None;
    // A service that cannot be reached is said on the screen that was there.
    look(client, selector, &mut board, &mut used_at).await?;
    look(client, selector, &mut board, &mut used_at).await?;
    let mut screen = Screen::enter()?;
    let mut next = Instant::now() + AT_ONCE;
    loop {
        screen.draw(&board)?;
        tokio::select! {
            _ = signals.next() => return Ok(ExitCode::SUCCESS),
            () = reader_gone() => return Err(Failure::ReaderGone),
            typed = input.next() => {
                let typed = typed.unwrap_or_default();
                if typed.is_empty() {
                    return Ok(ExitCode::SUCCESS);
                }
                for key in keys(&typed) {
                    match board.key(key) {
                        Act::Quit => return Ok(ExitCode::SUCCESS),
                        Act::Look => next = Instant::now(),
                        Act::Nothing => {}
                    }
                }
            }
            () = tokio::time::sleep_until(next) => {
                look(client, selector, &mut board, &mut used_at).await?;
                next = Instant::now() + interval;
            }
        }
    }
}

/// One request, and what it says on the board.
async fn look(
    client: &Client,
    selector: Option<&str>,
    board: &mut Board,
    used_at: &mut Option<Instant>,
) -> Result<(), Failure> {
    match board.wish() {
        Wish::Jobs => {
            let mut query = vec![("state", live_states()), ("page_size", MOST.to_owned())];
            query.extend(selector.map(|selector| ("label_selector", selector.to_owned())));
            let page: Page = client.json(|| client.get("/jobs").query(&query)).await?;
            let jobs: Result<Vec<Job>, Failure> = page.jobs.iter().map(Job::read).collect();
            let started = jobs?.into_iter().filter(|job| job.process.is_some());
            board.jobs(&started.collect::<Vec<_>>());
        }
        Wish::Usage(ids) => {
            let query = [("job_ids", ids.join(","))];
            let used: Used = client
                .json(|| client.get("/jobs/usage").query(&query))
                .await?;
            let now = Instant::now();
            let elapsed = used_at.map_or(0.0, |then| now.duration_since(then).as_secs_f64());
            *used_at = Some(now);
            board.usage(&used.usage, elapsed);
        }
        Wish::Processes(id) => {
            let path = format!("/jobs/{id}/processes");
            let answer = client.json::<Processes>(|| client.get(&path)).await;
            board.lines = match of_a_job(answer)? {
                Ok(answer) => tree(&answer.processes),
                Err(why) => vec![why],
            };
        }
        Wish::Logs(id) => {
            let path = format!("/jobs/{id}/output");
            let request = || client.get(&path).query(&[("tail_lines", LINES)]);
            let answer = match client.send_repeatedly(request).await {
                Ok(answer) => answer
                    .text()
                    .await
                    .map_err(|error| Failure::Lost(error.to_string())),
                Err(failure) => Err(failure),
            };
            board.lines = match of_a_job(answer)? {
                Ok(text) => text.lines().map(|line| escape(line).into_owned()).collect(),
                Err(why) => vec![why],
            };
        }
        Wish::Stop(id) => {
            let path = format!("/jobs/{id}");
            let request = || {
                client
                    .request(Method::DELETE, &path)
                    .query(&[("reason", "procession top")])
            };
            let answer = client.json::<Value>(request).await;
            board.note = match of_a_job(answer)? {
                Ok(_) => format!("job {id} is being stopped"),
                Err(why) => why,
            };
        }
    }
    Ok(())
}

/// A job may end between two looks: what is said of it then is shown, and nothing else.
fn of_a_job<T>(answer: Result<T, Failure>) -> Result<Result<T, String>, Failure> {
    match answer {
        Ok(answer) => Ok(Ok(answer)),
        Err(Failure::Refused(problem)) => Ok(Err(escape(&problem.to_string()).into_owned())),
        Err(failure) => Err(failure),
    }
}
