//! A terminal that shows a run full screen while something else goes on.

use std::fs::File;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TermionBackend;
use ratatui::termion::raw::{IntoRawMode, RawTerminal};
use ratatui::termion::screen::{AlternateScreen, IntoAlternateScreen};
use ratatui::termion::{async_stdin, get_tty};
use spo_train::{Event, Sink, TrainError};

use super::board::Board;
use super::screen::draw;
use crate::interrupt::Interrupt;

/// Between two pictures.
const REFRESH: Duration = Duration::from_millis(200);
const CTRL_C: u8 = 3;

type Tty = Terminal<TermionBackend<AlternateScreen<RawTerminal<File>>>>;

/// Shows a run while it trains. Ctrl-C and q ask it to stop after the step, a second one ends the process.
pub(crate) struct FullScreen {
    board: Arc<Mutex<Board>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl FullScreen {
    /// Takes the terminal over until it is dropped.
    pub fn start(interrupt: Arc<Interrupt>) -> io::Result<Self> {
        let (board, over) = (Arc::new(Mutex::new(Board::default())), Arc::new(AtomicBool::new(false)));
        let mut terminal = open()?;
        let (shared, ended) = (board.clone(), over.clone());
        let thread = thread::spawn(move || {
            let mut keys = async_stdin();
            while !ended.load(Ordering::Relaxed) {
                if asked_to_leave(&mut keys) {
                    interrupt.ask();
                }
                if interrupt.at_once() {
                    drop(terminal);
                    std::process::exit(130);
                }
                let state = if interrupt.stop.load(Ordering::Relaxed) { "stopping after this step" } else { "running" };
                let board = shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
                // A terminal that went away takes the picture with it, not the run.
                let _ = terminal.draw(|frame| draw(frame, &board, state, "q or Ctrl-C: stop after this step"));
                thread::sleep(REFRESH);
            }
        });
        Ok(Self { board, over, thread: Some(thread) })
    }
}

impl Sink for FullScreen {
    fn event(&mut self, seconds: f64, event: &Event) -> Result<(), TrainError> {
        self.board.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).add(seconds, event);
        Ok(())
    }

    fn earlier(&mut self, seconds: f64, event: &Event) -> Result<(), TrainError> {
        self.event(seconds, event)
    }
}

impl Drop for FullScreen {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Shows a run that another process trains until the user leaves. `next` brings the board up to date and says how the
/// run is.
pub(crate) fn watch<E>(mut next: impl FnMut() -> Result<(Board, String), E>) -> io::Result<Result<(), E>> {
    let mut terminal = open()?;
    let mut keys = async_stdin();
    loop {
        let (board, state) = match next() {
            Ok(known) => known,
            Err(error) => return Ok(Err(error)),
        };
        terminal.draw(|frame| draw(frame, &board, &state, "q: leave; the run goes on"))?;
        thread::sleep(REFRESH);
        if asked_to_leave(&mut keys) {
            return Ok(Ok(()));
        }
    }
}

fn open() -> io::Result<Tty> {
    let screen = get_tty()?.into_raw_mode()?.into_alternate_screen()?;
    let mut terminal = Terminal::new(TermionBackend::new(screen))?;
    terminal.hide_cursor()?;
    Ok(terminal)
}

fn asked_to_leave(keys: &mut impl Read) -> bool {
    let mut typed = vec![];
    let _ = keys.read_to_end(&mut typed);
    typed.iter().any(|key| [b'q', CTRL_C].contains(key))
}
