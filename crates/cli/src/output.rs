//! How results are told: text for people, one JSON value a line for programs.

use std::fmt;
use std::io::{self, Write};

use commons_record::Millis;
use serde::Serialize;

/// Who reads the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// People.
    Text,
    /// Programs: one JSON value a line.
    Json,
}

/// Standard output, or what stands for it in a test.
pub(crate) struct Output<'a> {
    format: Format,
    writer: &'a mut dyn Write,
}

impl fmt::Debug for Output<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("format", &self.format).finish_non_exhaustive()
    }
}

impl<'a> Output<'a> {
    pub(crate) fn new(format: Format, writer: &'a mut dyn Write) -> Self {
        Self { format, writer }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// A line for people. It is out when this returns: others wait for it.
    pub(crate) fn line(&mut self, line: impl fmt::Display) -> io::Result<()> {
        writeln!(self.writer, "{line}")?;
        self.writer.flush()
    }

    /// A piece of a line, as an answer comes in.
    pub(crate) fn piece(&mut self, text: &str) -> io::Result<()> {
        self.writer.write_all(text.as_bytes())?;
        self.writer.flush()
    }

    /// A value for programs, on a line of its own.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut *self.writer, value)?;
        self.writer.write_all(b"\n")?;
        self.writer.flush()
    }

    /// A value for programs, or the lines that `text` makes of it for people.
    pub(crate) fn value<T: Serialize>(
        &mut self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> io::Result<()> {
        if self.is_json() { self.json(value) } else { self.line(text(value).trim_end()) }
    }
}

/// Whether the reader went away, as `head` does: nothing is wrong then.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let is_pipe = |it: &io::Error| it.kind() == io::ErrorKind::BrokenPipe;
    let from_json = |it: &serde_json::Error| it.io_error_kind() == Some(io::ErrorKind::BrokenPipe);
    error.downcast_ref::<io::Error>().is_some_and(is_pipe)
        || error.downcast_ref::<serde_json::Error>().is_some_and(from_json)
}

/// Tells an error with its whole chain of causes. Nobody is left to hear that this failed too.
pub(crate) fn report(format: Format, error: &anyhow::Error, writer: &mut dyn Write) {
    let text = format!("{error:#}");
    let line = match format {
        Format::Text => format!("error: {text}"),
        Format::Json => serde_json::json!({ "error": text }).to_string(),
    };
    if writeln!(writer, "{line}").is_err() {
        tracing::debug!("standard error is closed");
    }
}

/// Rows under headings, each column as wide as its widest cell.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = head.map(|cell| cell.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let body = rows.iter().map(|row| line(row.iter().map(String::as_str).collect()));
    [line(head.to_vec())].into_iter().chain(body).collect::<Vec<_>>().join("\n")
}

/// A long id, cut to what tells two of them apart in a table.
pub(crate) fn short(id: impl fmt::Display) -> String {
    let text = id.to_string();
    // All `did:key` names of our kind begin alike: the end tells them apart.
    match text.strip_prefix("did:key:") {
        Some(key) => format!("..{}", key.get(key.len().saturating_sub(8)..).unwrap_or(key)),
        None => text.chars().take(12).collect(),
    }
}

/// A span of time in the unit that reads best.
pub(crate) fn span(millis: Millis) -> String {
    let tenths = |count: u64, unit: u64| format!("{}.{}", count / unit, count % unit * 10 / unit);
    match millis.0 {
        ms @ ..1_000 => format!("{ms} ms"),
        ms @ ..120_000 => format!("{} s", tenths(ms, 1_000)),
        ms @ ..7_200_000 => format!("{} min", tenths(ms, 60_000)),
        ms => format!("{} h", tenths(ms, 3_600_000)),
    }
}

/// A moment of Unix time as `2026-01-31 23:59:59`, in UTC.
pub(crate) fn moment(unix: Millis) -> String {
    let (days, secs) = (unix.0 / 86_400_000, unix.0 / 1_000 % 86_400);
    // Days since 1 March of year 0: leap days then end a year, and months repeat every 153 days.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (secs / 3_600, secs / 60 % 60, secs % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// A count of bytes in the unit that reads best.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.into_iter().find(|(_, unit)| count >= *unit) {
        Some((name, unit)) => format!("{}.{} {name}", count / unit, count % unit * 10 / unit),
        None => format!("{count} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_reads_as_a_date() {
        let check = |unix, want: &str| assert_eq!(moment(Millis::from_secs(unix)), want);
        check(0, "1970-01-01 00:00:00");
        check(951_782_399, "2000-02-28 23:59:59");
        check(951_782_400, "2000-02-29 00:00:00");
        check(1_767_225_599, "2025-12-31 23:59:59");
        check(4_107_542_400, "2100-03-01 00:00:00");
    }

    #[test]
    fn amounts_read_in_the_unit_that_fits() {
        assert_eq!(span(Millis(999)), "999 ms");
        assert_eq!(span(Millis(1_950)), "1.9 s");
        assert_eq!(span(Millis(7_200_000)), "2.0 h");
        assert_eq!(bytes(1_023), "1023 bytes");
        assert_eq!(bytes(3 << 29), "1.5 GiB");
    }

    #[test]
    fn a_table_is_as_wide_as_its_widest_cells() {
        let rows = [["a".to_owned(), "b".to_owned()], ["long".to_owned(), String::new()]];
        assert_eq!(table(["x", "y"], &rows), "x     y\na     b\nlong");
    }

    #[test]
    fn a_reader_that_went_away_is_no_error() {
        let pipe = io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(is_broken_pipe(&anyhow::Error::from(pipe).context("while printing")));
        assert!(!is_broken_pipe(&anyhow::Error::from(io::Error::other("disk"))));
    }
}
