//! The picture of `procession top`.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row as Cells, Table, TableState};

use super::board::{Board, Row, View};
use crate::text::{size, span};

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Columns of a sparkline.
const WIDTH: usize = 12;

pub(super) fn draw(frame: &mut Frame<'_>, board: &Board) {
    let has_more = board.view != View::Jobs;
    let share = if has_more { 50 } else { 100 };
    let [top, bottom, foot] = Layout::vertical([
        Constraint::Percentage(share),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let jobs = if has_more {
        top
    } else {
        Rect {
            height: frame.area().height.saturating_sub(1),
            ..frame.area()
        }
    };
    draw_jobs(frame, jobs, board);
    if has_more {
        draw_lines(frame, bottom, board);
    }
    frame.render_widget(Paragraph::new(foot_of(board)), foot);
}

fn draw_jobs(frame: &mut Frame<'_>, area: Rect, board: &Board) {
    let shown = board.shown();
    let head = ["ID", "CPU%", "", "CPU", "RSS", "PROCS", "NAME", "COMMAND"];
    let head = Cells::new(head.map(Cell::from)).style(Style::new().add_modifier(Modifier::BOLD));
    let widths = [
        Constraint::Length(13),
        Constraint::Length(6),
        Constraint::Length(12),
        Constraint::Length(8),
        Constraint::Length(9),
        Constraint::Length(5),
        Constraint::Max(20),
        Constraint::Fill(1),
    ];
    let table = Table::new(shown.iter().map(|row| cells(row)), widths)
        .header(head)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::new().with_selected(board.position());
    frame.render_stateful_widget(table, area, &mut state);
}

fn cells(row: &Row) -> Cells<'_> {
    let colour = match row.state.as_str() {
        "paused" => Style::new().fg(Color::Yellow),
        "stopping" => Style::new().fg(Color::Red),
        _ => Style::new(),
    };
    let time = Duration::try_from_secs_f64(row.cpu_seconds).unwrap_or_default();
    Cells::new([
        Cell::from(row.id.get(..13).unwrap_or(&row.id)),
        Cell::from(format!("{:>6.1}", row.cpu_percent)),
        Cell::from(sparkline(row)).style(Style::new().fg(Color::Green)),
        Cell::from(span(time)),
        Cell::from(size(row.rss_bytes)),
        Cell::from(format!("{:>5}", row.processes)),
        Cell::from(row.name.as_str()),
        Cell::from(row.command.as_str()),
    ])
    .style(colour)
}

/// The last looks as bars: the whole height is one processor, or the most that there was.
fn sparkline(row: &Row) -> String {
    let most = row.history.iter().copied().max().unwrap_or(0).max(100);
    let skipped = row.history.len().saturating_sub(WIDTH);
    let bars = row.history.iter().skip(skipped).map(|value| {
        let step = value.saturating_mul(7).div_ceil(most).min(7);
        BARS[usize::try_from(step).unwrap_or(0)]
    });
    bars.collect()
}

fn draw_lines(frame: &mut Frame<'_>, area: Rect, board: &Board) {
    let what = match board.view {
        View::Tree => "processes",
        View::Logs => "output",
        View::Jobs => "",
    };
    let of = board.chosen().map_or(String::new(), |row| {
        let name = if row.name.is_empty() {
            &row.id
        } else {
            &row.name
        };
        format!(" {what} of {name} ")
    });
    let room = usize::from(area.height.saturating_sub(1));
    // The end of the output, the beginning of a tree.
    let skipped = match board.view {
        View::Logs => board.lines.len().saturating_sub(room),
        View::Tree | View::Jobs => 0,
    };
    let lines = board.lines.iter().skip(skipped).take(room);
    let lines: Vec<Line<'_>> = lines.map(|line| Line::from(line.as_str())).collect();
    let block = Block::new().borders(Borders::TOP).title(of);
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn foot_of(board: &Board) -> String {
    if board.is_asking {
        let name = board.chosen().map_or("", |row| row.id.as_str());
        return format!("Stop job {name} and all its processes? y/n");
    }
    if board.is_typing {
        return format!("/{}", board.filter);
    }
    if !board.note.is_empty() {
        return board.note.clone();
    }
    let filter = if board.filter.is_empty() {
        String::new()
    } else {
        format!(" ({})", board.filter)
    };
    format!(
        "q quit  s sort: {}  / filter{filter}  t tree  l logs  x stop",
        board.sort.as_str()
    )
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;

    use super::*;
    use crate::view::Job;

    fn picture(board: &Board) -> String {
        let mut terminal = Terminal::new(TestBackend::new(100, 12)).unwrap();
        terminal.draw(|frame| draw(frame, board)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn jobs_what_is_open_of_one_and_the_keys_are_shown() {
        let value = json!({"id": "0198c1d2-7b3a-7c4e-9f10-2a6b3c4d5e6f", "name": "web\u{1b}[2J", "state": "running",
            "created_at": "2026-01-31T12:00:00Z", "spec": {"command": ["serve", "--port", "80"]}});
        let mut board = Board::default();
        board.jobs(&[Job::read(&value).unwrap()]);
        let text = picture(&board);
        for part in ["0198c1d2-7b3a", "serve --port 80", "q quit", "sort: CPU"] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        // Nothing of a job moves the cursor.
        assert!(text.contains("web") && !text.contains('\u{1b}'), "{text}");
        board.key(b"l");
        board.lines = (1..=40).map(|number| format!("line {number}.")).collect();
        let text = picture(&board);
        assert!(
            text.contains("output of web")
                && text.contains("line 40.")
                && !text.contains("line 1."),
            "{text}"
        );
        board.key(b"x");
        assert!(picture(&board).contains("y/n"));
    }
}
