//! `pgsoak watch` on a terminal: the run as a screen of its own, by ratatui. A thread waits for keys and redraws; the run itself is
//! not touched by leaving.

use crate::show::progress::{is_live, label, share_done, short, stage, summary};
use crate::show::words;
use pgsoak_proto::job::Outcome;
use pgsoak_proto::wire;
use ratatui::{
    DefaultTerminal, Frame,
    crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
    layout::{Constraint, Layout},
    style::{Color, Style, Stylize as _},
    text::{Line, Span},
    widgets::{Block, Cell, Gauge, Paragraph, Row, Table, TableState, Wrap},
};
use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// Between two looks at the keyboard; times left are drawn anew as often as that allows.
const KEYS_EVERY: Duration = Duration::from_millis(250);

/// The terminal while a run is shown on it.
pub struct Screen {
    shared: Arc<Mutex<Shared>>,
    keys: Option<thread::JoinHandle<()>>,
    left: CancellationToken,
}

struct Shared {
    terminal: DefaultTerminal,
    run: Option<wire::RunView>,
    table: TableState,
    is_closed: bool,
}

// === impl Screen ===

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    ///
    /// When there is none that can be drawn on.
    pub fn open() -> io::Result<Self> {
        let terminal = ratatui::try_init()?;
        let shared = Shared { terminal, run: None, table: TableState::default(), is_closed: false };
        let shared = Arc::new(Mutex::new(shared));
        let left = CancellationToken::new();
        let keys = thread::Builder::new().name("keys".to_owned()).spawn({
            let (shared, left) = (Arc::clone(&shared), left.clone());
            move || wait_for_keys(&shared, &left)
        })?;
        Ok(Self { shared, keys: Some(keys), left })
    }

    /// Fires when somebody wants to leave.
    pub fn left(&self) -> CancellationToken {
        self.left.clone()
    }

    /// The run is now so.
    pub fn show(&self, run: &wire::RunView) {
        let mut shared = lock(&self.shared);
        shared.run = Some(run.clone());
        shared.draw();
    }

    /// Gives the terminal back.
    pub fn close(&mut self) {
        {
            let mut shared = lock(&self.shared);
            if shared.is_closed {
                return;
            }
            shared.is_closed = true;
            ratatui::restore();
        }
        if let Some(keys) = self.keys.take() {
            // It ends at its next look.
            let _ = keys.join();
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.close();
    }
}

fn lock(shared: &Mutex<Shared>) -> std::sync::MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait_for_keys(shared: &Mutex<Shared>, left: &CancellationToken) {
    loop {
        let has_event = event::poll(KEYS_EVERY).unwrap_or(false);
        let mut shared = lock(shared);
        if shared.is_closed {
            return;
        }
        // A terminal that is gone gives no events; the stream of the run ends the watch then.
        if has_event && let Ok(Event::Key(key)) = event::read() {
            let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
            match key.code {
                _ if key.kind != KeyEventKind::Press => {}
                KeyCode::Char('c') if is_control => left.cancel(),
                KeyCode::Char('q') | KeyCode::Esc => left.cancel(),
                KeyCode::Down | KeyCode::Char('j') => shared.table.scroll_down_by(1),
                KeyCode::Up | KeyCode::Char('k') => shared.table.scroll_up_by(1),
                KeyCode::PageDown => shared.table.scroll_down_by(10),
                KeyCode::PageUp => shared.table.scroll_up_by(10),
                _ => {}
            }
        }
        shared.draw();
    }
}

// === impl Shared ===

impl Shared {
    fn draw(&mut self) {
        let Self { terminal, run, table, is_closed } = self;
        if let (Some(run), false) = (run, *is_closed) {
            // A frame that cannot be drawn is drawn the next time.
            let _ = terminal.draw(|frame| draw(frame, run, table));
        }
    }
}

fn draw(frame: &mut Frame<'_>, run: &wire::RunView, state: &mut TableState) {
    let areas = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(3),
        Constraint::Length(if run.sentence.is_empty() { 0 } else { 2 }),
        Constraint::Length(1),
    ]);
    let [head, gauge, jobs, notes, foot] = areas.areas(frame.area());
    let title = Line::from(vec![
        Span::from(run.plan.clone()).bold(),
        Span::from(format!(" {}  ", short(&run.run_id))).dim(),
        Span::from(summary(run)),
    ]);
    frame.render_widget(title, head);
    let bar = Gauge::default()
        .ratio(share_done(run).clamp(0.0, 1.0))
        .gauge_style(Style::new().fg(Color::Blue).bg(Color::DarkGray));
    frame.render_widget(bar, gauge);
    let mut ordered: Vec<&wire::JobView> = run.jobs.iter().collect();
    ordered.sort_by_key(|job| match job.place() {
        wire::JobPlace::Over => 2,
        wire::JobPlace::Waiting => 1,
        _ => 0,
    });
    let widths = [
        Constraint::Length(12),
        Constraint::Fill(2),
        Constraint::Length(9),
        Constraint::Fill(2),
        Constraint::Fill(1),
        Constraint::Fill(3),
        Constraint::Length(10),
        Constraint::Length(9),
    ];
    let header = Row::new([
        "State",
        "Workload",
        "Tool",
        "Build",
        "Agent",
        "Where it stands",
        "Left",
        "Memory",
    ])
    .style(Style::new().dim());
    let table = Table::new(ordered.iter().map(|job| row(job)), widths)
        .header(header)
        .row_highlight_style(Style::new().reversed())
        .block(Block::bordered().title(format!(" {} jobs ", run.jobs.len())));
    frame.render_stateful_widget(table, jobs, state);
    frame.render_widget(Paragraph::new(run.sentence.as_str()).wrap(Wrap { trim: true }), notes);
    let help = Line::from("q leaves (the run goes on)   ↑ ↓ PgUp PgDn through the jobs").dim();
    frame.render_widget(help, foot);
}

fn row(job: &wire::JobView) -> Row<'static> {
    let Some(spec) = &job.spec else { return Row::default() };
    let (word, colour) = match job.place() {
        wire::JobPlace::Waiting => ("waiting", Color::Gray),
        wire::JobPlace::Assigned => ("starting", Color::Blue),
        wire::JobPlace::Running => ("running", Color::Blue),
        wire::JobPlace::Unreachable => ("unreachable", Color::Yellow),
        wire::JobPlace::Cancelling => ("stopping", Color::Yellow),
        wire::JobPlace::Over => match Outcome::try_from(job.outcome()) {
            Ok(Outcome::Finished) => ("finished", Color::Green),
            Ok(Outcome::Failed) => ("failed", Color::Red),
            Ok(outcome) => (outcome.label(), Color::Yellow),
            Err(_) => ("over", Color::Gray),
        },
        wire::JobPlace::Unspecified => ("?", Color::Gray),
    };
    let progress = job.progress.as_ref().filter(|_| is_live(job));
    let stands = match progress {
        None => job.reason.clone(),
        Some(progress) => format!("{} {}", bar(progress.done), stage(progress)),
    };
    let left = progress.filter(|progress| progress.left_ms > 0);
    let left = left.map_or_else(String::new, |p| words::duration(Duration::from_millis(p.left_ms)));
    let memory = progress.filter(|progress| progress.rss_anon_bytes > 0);
    #[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
    let memory = memory.map_or_else(String::new, |p| words::bytes(p.rss_anon_bytes as f64));
    Row::new([
        Cell::from(word).style(Style::new().fg(colour)),
        Cell::from(spec.workload_name.clone()),
        Cell::from(label(spec.tool())),
        Cell::from(spec.build.clone()),
        Cell::from(job.agent.clone()),
        Cell::from(stands),
        Cell::from(left),
        Cell::from(memory),
    ])
}

/// Ten characters.
fn bar(share: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 10")]
    let full = (share.clamp(0.0, 1.0) * 10.0).round() as usize;
    format!("{}{}", "█".repeat(full), "░".repeat(10 - full))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::{Terminal, backend::TestBackend};

    fn drawn(run: &wire::RunView) -> String {
        let mut terminal = Terminal::new(TestBackend::new(130, 12)).unwrap();
        terminal.draw(|frame| draw(frame, run, &mut TableState::default())).unwrap();
        let buffer = terminal.backend().buffer();
        let line =
            |y: u16| (0..130).map(|x| buffer[(x, y)].symbol().to_owned()).collect::<String>();
        (0..12).map(|y| line(y).trim_end().to_owned() + "\n").collect()
    }

    fn job(
        place: wire::JobPlace,
        workload: &str,
        progress: Option<wire::JobProgress>,
    ) -> wire::JobView {
        wire::JobView {
            spec: Some(wire::JobSpec {
                workload_name: workload.to_owned(),
                build: "e@1".to_owned(),
                ..Default::default()
            }),
            place: place.into(),
            agent: "lab-1".to_owned(),
            reason: "waits for a slot".to_owned(),
            progress,
            ..Default::default()
        }
    }

    #[test]
    fn what_runs_comes_first_with_its_progress() {
        let progress = wire::JobProgress {
            stage: wire::JobStage::Running.into(),
            phase: "steady".to_owned(),
            round: 3,
            rounds: 9,
            done: 0.5,
            left_ms: 65_000,
            rss_anon_bytes: 2_500_000,
            ..Default::default()
        };
        let run = wire::RunView {
            plan: "nightly".to_owned(),
            run_id: "01a200d8-5a25-716b-93ef-c8ba26494b37".to_owned(),
            stage: wire::RunStage::Running.into(),
            jobs_total: 2,
            jobs: vec![
                job(wire::JobPlace::Waiting, "second", None),
                job(wire::JobPlace::Running, "first", Some(progress)),
            ],
            ..Default::default()
        };
        let screen = drawn(&run);
        let lines: Vec<&str> = screen.lines().collect();
        assert!(
            lines[0].starts_with("nightly c8ba26494b37  running, 0 of 2 jobs over, 25 %"),
            "{screen}"
        );
        let first = lines.iter().position(|line| line.contains("first")).unwrap();
        let second = lines.iter().position(|line| line.contains("second")).unwrap();
        assert!(first < second, "{screen}");
        assert!(lines[first].contains("█████░░░░░ steady 3/9"), "{screen}");
        assert!(lines[first].contains("1 m 05 s") && lines[first].contains("2.5 MB"), "{screen}");
        assert!(lines[second].contains("waits for a slot"), "{screen}");
    }

    #[test]
    fn a_small_terminal_is_no_trouble() {
        for (width, height) in [(1, 1), (10, 3), (40, 5)] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            let run = wire::RunView { sentence: "PASS".to_owned(), ..Default::default() };
            terminal.draw(|frame| draw(frame, &run, &mut TableState::default())).unwrap();
        }
    }
}
