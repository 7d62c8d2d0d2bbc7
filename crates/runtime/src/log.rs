//! The runtime's own log: lines `[SCONE|LEVEL] file:line: message` on standard error.
//!
//! The lines go to a close-on-exec duplicate of descriptor 2 that is taken when the runtime starts, so that nothing that the program does to
//! its own standard error silences us. A line is one `write`, and control characters are escaped: what a hostile path or server says
//! can neither forge a line nor drive a terminal. Secrets are never logged, at any level.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd;
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::OnceLock;

/// How much a line matters; a level includes all levels before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// The runtime can't go on.
    Fatal,
    /// Something failed; the program goes on.
    Error,
    /// Something that the operator should know.
    Warning,
    /// The steps of the start and the end.
    Info,
    /// What is decided and why.
    Debug,
    /// Every single system call that is served.
    Trace,
}

impl Level {
    /// All levels, the gravest first.
    const ALL: [Self; 6] = [
        Self::Fatal,
        Self::Error,
        Self::Warning,
        Self::Info,
        Self::Debug,
        Self::Trace,
    ];

    /// The level's name as `SCONE_LOG` and the lines have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fatal => "FATAL",
            Self::Error => "ERROR",
            Self::Warning => "WARNING",
            Self::Info => "INFO",
            Self::Debug => "DEBUG",
            Self::Trace => "TRACE",
        }
    }
}

/// What `SCONE_LOG` may not be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a log level is one of FATAL, ERROR, WARNING, INFO, DEBUG, TRACE or 0 to 7, got {0:?}")]
pub struct UnknownLevel(String);

impl FromStr for Level {
    type Err = UnknownLevel;

    /// Reads a name, in any case, or a syslog severity, 0 to 7.
    fn from_str(text: &str) -> Result<Self, UnknownLevel> {
        match text {
            "0" | "1" | "2" => Ok(Self::Fatal),
            "3" => Ok(Self::Error),
            "4" => Ok(Self::Warning),
            "5" | "6" => Ok(Self::Info),
            "7" => Ok(Self::Debug),
            _ => Self::ALL
                .into_iter()
                .find(|level| level.name().eq_ignore_ascii_case(text))
                .ok_or_else(|| UnknownLevel(text.to_owned())),
        }
    }
}

static LEVEL: AtomicU8 = AtomicU8::new(Level::Warning as u8);
static SINK: OnceLock<Option<File>> = OnceLock::new();

/// Sets the level and takes the duplicate of standard error. To be called once, before any thread is started.
pub fn start(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
    sink();
}

/// Whether lines of this level are written.
#[inline]
pub fn enabled(level: Level) -> bool {
    level as u8 <= LEVEL.load(Ordering::Relaxed)
}

/// Writes one line. Use the macros: they don't format what is not written.
pub fn line(level: Level, file: &str, number: u32, message: fmt::Arguments) {
    let file = file.rsplit_once("src/").map_or(file, |(_, inside)| inside);
    let mut text = String::with_capacity(128);
    // Writing to a String can't fail.
    let _ = write!(
        Escaped(&mut text),
        "[SCONE|{}] {file}:{number}: {message}",
        level.name()
    );
    text.push('\n');
    put(&text);
}

/// Writes the last words of the runtime: `[SCONE|FATAL] `, then these lines, each after the first indented as given.
pub fn last_words(lines: &[String]) {
    let mut text = String::from("[SCONE|FATAL] ");
    for line in lines {
        let _ = Escaped(&mut text).write_str(line);
        text.push('\n');
    }
    put(&text);
}

fn sink() -> Option<&'static File> {
    // try_clone_to_owned is fcntl(F_DUPFD_CLOEXEC) with a number above 2.
    SINK.get_or_init(|| {
        std::io::stderr()
            .as_fd()
            .try_clone_to_owned()
            .ok()
            .map(File::from)
    })
    .as_ref()
}

fn put(text: &str) {
    if let Some(mut file) = sink() {
        // There is nowhere to complain that standard error is closed or full.
        let _ = file.write_all(text.as_bytes());
    }
}

/// Escapes control characters on their way into a line.
struct Escaped<'a>(&'a mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if character.is_control() {
                self.0.extend(character.escape_default());
            } else {
                self.0.push(character);
            }
        }
        Ok(())
    }
}

/// Writes a line at a level, `log_at!(Level::Info, "…")`; the formatting is done only if the level is enabled.
#[macro_export]
macro_rules! log_at {
    ($level:expr, $($argument:tt)+) => {
        if $crate::log::enabled($level) {
            $crate::log::line($level, file!(), line!(), format_args!($($argument)+));
        }
    };
}

/// The runtime can't go on.
#[macro_export]
macro_rules! fatal { ($($argument:tt)+) => { $crate::log_at!($crate::log::Level::Fatal, $($argument)+) }; }
/// Something failed; the program goes on.
#[macro_export]
macro_rules! error { ($($argument:tt)+) => { $crate::log_at!($crate::log::Level::Error, $($argument)+) }; }
/// Something that the operator should know.
#[macro_export]
macro_rules! warn { ($($argument:tt)+) => { $crate::log_at!($crate::log::Level::Warning, $($argument)+) }; }
/// The steps of the start and the end.
#[macro_export]
macro_rules! info { ($($argument:tt)+) => { $crate::log_at!($crate::log::Level::Info, $($argument)+) }; }
/// What is decided and why.
#[macro_export]
macro_rules! debug { ($($argument:tt)+) => { $crate::log_at!($crate::log::Level::Debug, $($argument)+) }; }
/// Every single system call that is served.
#[macro_export]
macro_rules! trace { ($($argument:tt)+) => { $crate::log_at!($crate::log::Level::Trace, $($argument)+) }; }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_any_case() {
        for level in Level::ALL {
            assert_eq!(level.name().parse(), Ok(level));
            assert_eq!(level.name().to_lowercase().parse(), Ok(level));
        }
    }

    #[test]
    fn numbers_are_syslog_severities() {
        let levels: Vec<Level> = (0..=7)
            .map(|number: u8| number.to_string().parse().unwrap())
            .collect();
        use Level::*;
        assert_eq!(
            levels,
            [Fatal, Fatal, Fatal, Error, Warning, Info, Info, Debug]
        );
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "8", "-1", "warn", " INFO", "07"] {
            assert_eq!(text.parse::<Level>(), Err(UnknownLevel(text.to_owned())));
        }
    }

    #[test]
    fn control_characters_are_escaped() {
        let mut text = String::new();
        Escaped(&mut text)
            .write_str("a\n[SCONE|FATAL] forgedb\x1b[2Jä")
            .unwrap();
        assert_eq!(text, "a\\n[SCONE|FATAL] forgedb\\u{1b}[2Jä");
    }

    #[test]
    fn warnings_are_on_and_information_is_off_by_default() {
        assert!(enabled(Level::Warning));
        assert!(!enabled(Level::Info));
    }
}
