//! What the audience sees: one line for each thing that was tried, and whether it came out as it should.

use super::Error;
use std::fmt::Display;
use std::future::Future;
use std::io::Write as _;
use std::time::Duration;
use tokio::time::timeout;

/// The lines so far, counted.
#[derive(Debug, Default)]
pub(super) struct Stage {
    good: usize,
    bad: usize,
}

impl Stage {
    /// A line of its own.
    pub(super) fn say(&self, line: impl Display) {
        // A reader who has gone away changes nothing.
        let _ = writeln!(std::io::stdout().lock(), "{line}");
    }

    /// The beginning of a scene.
    pub(super) fn title(&self, title: impl Display) {
        self.say(format_args!("\n{title}"));
    }

    /// Plays one step: what it saw, or why it failed, behind what was tried. `None` if it failed.
    pub(super) async fn play<T, S: Display>(
        &mut self,
        tried: impl Display,
        step: impl Future<Output = Result<(T, S), Error>>,
    ) -> Option<T> {
        let played = timeout(LONGEST, step).await.unwrap_or_else(|_| Err(Error::timeout("the whole step")));
        match played {
            Ok((value, seen)) => {
                self.good += 1;
                self.say(format_args!("  ok      {tried}: {seen}"));
                Some(value)
            }
            Err(error) => {
                self.bad += 1;
                self.say(format_args!("  FAILED  {tried}: {error}"));
                None
            }
        }
    }

    /// A step without a wait.
    pub(super) fn check(&mut self, tried: impl Display, good: bool, seen: impl Display) {
        let word = if good { "ok    " } else { "FAILED" };
        *(if good { &mut self.good } else { &mut self.bad }) += 1;
        self.say(format_args!("  {word}  {tried}: {seen}"));
    }

    /// Whether everything went as it should.
    pub(super) const fn good(&self) -> bool {
        self.bad == 0
    }

    /// How many steps were played, and how many of them failed.
    pub(super) const fn counts(&self) -> (usize, usize) {
        (self.good + self.bad, self.bad)
    }
}

/// No step takes this long unless something hangs.
const LONGEST: Duration = Duration::from_secs(30);
