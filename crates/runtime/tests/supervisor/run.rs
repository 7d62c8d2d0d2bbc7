//! What came of a run.

use std::collections::BTreeMap;
use std::process::Output;

/// How a program ended, and what it said.
pub struct Run(Output);

impl Run {
    /// Of a program that was run otherwise.
    pub fn new(output: Output) -> Self {
        Self(output)
    }

    /// Standard output of a program that exited with 0.
    #[track_caller]
    pub fn stdout(&self) -> String {
        assert_eq!(self.code(), 0, "{}{}", self.said(), self.log());
        self.said()
    }

    /// Standard output.
    pub fn said(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).unwrap()
    }

    /// Standard error: the program's, and the runtime's log.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }

    /// The exit code.
    #[track_caller]
    pub fn code(&self) -> i32 {
        self.0.status.code().unwrap()
    }

    /// Lines of two words as a table.
    #[track_caller]
    pub fn table(&self) -> BTreeMap<String, String> {
        let output = self.stdout();
        output
            .lines()
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(key, value)| (key.into(), value.into()))
            .collect()
    }
}
