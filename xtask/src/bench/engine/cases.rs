//! What is measured, and which figures of it stand in the table.

use anyhow::Result;

use super::report::Report;

/// One process of each contender.
#[derive(Debug)]
pub(super) struct Case {
    /// What progress and `--case` call it.
    pub(super) name: &'static str,
    pub(super) args: &'static [&'static str],
    pub(super) figures: &'static [Figure],
    /// The reference has nothing like it.
    pub(super) is_ours_alone: bool,
    /// Another process takes a processor meanwhile.
    pub(super) is_crowded: bool,
}

/// A number that a report gives, and how to show it.
#[derive(Debug)]
pub(super) struct Figure {
    pub(super) title: &'static str,
    pub(super) unit: Unit,
    pub(super) read: fn(&Report) -> Result<f64>,
}

/// What a figure counts, which also says whether more of it is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    TokensPerS,
    Millis,
    Mebibytes,
    /// A part of another amount, less being better.
    Times,
    /// A part of another amount, more being better.
    Percent,
    /// A part of another amount, less being better.
    Share,
}

impl Unit {
    pub(super) fn is_more_better(self) -> bool {
        matches!(self, Self::TokensPerS | Self::Percent)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::TokensPerS => "tokens/s",
            Self::Millis => "ms",
            Self::Mebibytes => "MiB",
            Self::Times => "times",
            Self::Percent | Self::Share => "%",
        }
    }

    pub(super) fn decimals(self) -> usize {
        match self {
            Self::Times | Self::Share => 2,
            Self::TokensPerS | Self::Percent => 1,
            Self::Millis | Self::Mebibytes => 0,
        }
    }
}

const fn speed(title: &'static str) -> Figure {
    Figure { title, unit: Unit::TokensPerS, read: Report::tokens_per_s }
}

const MEBIBYTE: f64 = 1_048_576.0;

/// What the process did not hold before: an interpreter is no part of an engine.
fn more_than_before(report: &Report, name: &str) -> Result<f64> {
    Ok(report.number(name)? - report.number("before_bytes")?)
}

/// The share of drafted tokens that were right, as a percentage; none drafted is 0.
fn accepted(report: &Report) -> Result<f64> {
    let (drafted, accepted) = (report.number("drafted")?, report.number("accepted")?);
    Ok(if drafted > 0.0 { 100.0 * accepted / drafted } else { 0.0 })
}

/// The share of the time that requests take and the model does not, as a percentage.
fn besides(report: &Report) -> Result<f64> {
    let (all, computed) = (report.sum("seconds")?, report.sum("computed_s")?);
    Ok(100.0 * (all - computed) / all)
}

/// Two figures of ours whose ratio says something, by their titles.
#[derive(Debug)]
pub(super) struct Comparison {
    pub(super) title: &'static str,
    pub(super) of: &'static str,
    pub(super) to: &'static str,
}

/// What the second table shows.
pub(super) const COMPARISONS: [Comparison; 5] = [
    Comparison {
        title: "4 rows together, of 1",
        of: "Decode, 4 rows together",
        to: "Decode, 1 row",
    },
    Comparison {
        title: "16 rows together, of 1",
        of: "Decode, 16 rows together",
        to: "Decode, 1 row",
    },
    Comparison {
        title: "Decode with a processor taken by another process, of decode alone",
        of: "Decode, 1 row, a processor taken by another process",
        to: "Decode, 1 row",
    },
    Comparison {
        title: "Text that repeats itself with speculation, of the same without",
        of: "Text that repeats itself, with speculation",
        to: "Text that repeats itself, no speculation",
    },
    Comparison {
        title: "Time to a first token with no prefix known, of the time with one",
        of: "First token of 528, none known",
        to: "First token of 528, 512 of them known",
    },
];

/// A case with nothing special.
const PLAIN: Case =
    Case { name: "", args: &[], figures: &[], is_ours_alone: false, is_crowded: false };

/// Everything, in the order of the table.
pub(super) const CASES: [Case; 13] = [
    Case {
        name: "prefill 512",
        args: &["--only", "prefill", "--tokens", "512"],
        figures: &[speed("Prefill of 512 tokens")],
        ..PLAIN
    },
    Case {
        name: "prefill 128",
        args: &["--only", "prefill", "--tokens", "128"],
        figures: &[speed("Prefill of 128 tokens")],
        ..PLAIN
    },
    Case {
        name: "decode 1",
        args: &["--only", "decode", "--tokens", "128"],
        figures: &[speed("Decode, 1 row")],
        ..PLAIN
    },
    Case {
        name: "decode 4",
        args: &["--only", "decode", "--tokens", "48", "--rows", "4"],
        figures: &[speed("Decode, 4 rows together")],
        ..PLAIN
    },
    Case {
        name: "decode 16",
        args: &["--only", "decode", "--tokens", "32", "--rows", "16"],
        figures: &[speed("Decode, 16 rows together")],
        ..PLAIN
    },
    Case {
        name: "scheduled 1",
        args: &["--only", "decode", "--tokens", "128", "--through", "scheduler"],
        figures: &[
            speed("Decode, 1 row as a request"),
            Figure { title: "Time besides the model, 1 row", unit: Unit::Share, read: besides },
        ],
        is_ours_alone: true,
        ..PLAIN
    },
    Case {
        name: "scheduled 4",
        args: &["--only", "decode", "--tokens", "48", "--rows", "4", "--through", "scheduler"],
        figures: &[
            speed("Decode, 4 rows as requests"),
            Figure { title: "Time besides the model, 4 rows", unit: Unit::Share, read: besides },
        ],
        is_ours_alone: true,
        ..PLAIN
    },
    Case {
        name: "scheduled 16",
        args: &["--only", "decode", "--tokens", "32", "--rows", "16", "--through", "scheduler"],
        figures: &[
            speed("Decode, 16 rows as requests"),
            Figure { title: "Time besides the model, 16 rows", unit: Unit::Share, read: besides },
        ],
        is_ours_alone: true,
        ..PLAIN
    },
    Case {
        name: "crowded",
        args: &["--only", "decode", "--tokens", "32"],
        figures: &[speed("Decode, 1 row, a processor taken by another process")],
        is_crowded: true,
        ..PLAIN
    },
    Case {
        name: "repeat plain",
        args: &["--only", "repeat", "--tokens", "128", "--speculation", "off"],
        figures: &[speed("Text that repeats itself, no speculation")],
        is_ours_alone: true,
        ..PLAIN
    },
    Case {
        name: "repeat speculated",
        args: &["--only", "repeat", "--tokens", "128", "--speculation", "on"],
        figures: &[
            speed("Text that repeats itself, with speculation"),
            Figure { title: "Drafted tokens that were right", unit: Unit::Percent, read: accepted },
        ],
        is_ours_alone: true,
        ..PLAIN
    },
    Case {
        name: "prefix",
        args: &["--only", "prefix", "--tokens", "512", "--rounds", "3"],
        figures: &[
            Figure {
                title: "First token of 528, 512 of them known",
                unit: Unit::Millis,
                read: |it| Ok(1e3 * it.best_s()),
            },
            Figure {
                title: "First token of 528, none known",
                unit: Unit::Millis,
                read: |it| Ok(1e3 * it.number("cold_s")?),
            },
        ],
        ..PLAIN
    },
    Case {
        name: "load",
        args: &["--only", "load", "--tokens", "512"],
        figures: &[
            Figure { title: "Load", unit: Unit::Millis, read: |it| Ok(1e3 * it.number("load_s")?) },
            Figure {
                title: "Load and first token",
                unit: Unit::Millis,
                read: |it| Ok(1e3 * it.best_s()),
            },
            Figure {
                title: "Resident once loaded",
                unit: Unit::Mebibytes,
                read: |it| Ok(more_than_before(it, "loaded_bytes")? / MEBIBYTE),
            },
            Figure {
                title: "Most resident, prefill of 512",
                unit: Unit::Mebibytes,
                read: |it| Ok(more_than_before(it, "peak_bytes")? / MEBIBYTE),
            },
            Figure {
                title: "The same, of file and keys and values",
                unit: Unit::Times,
                read: |it| {
                    let least = it.number("file_bytes")? + it.number("kv_bytes")?;
                    Ok(more_than_before(it, "peak_bytes")? / least)
                },
            },
        ],
        ..PLAIN
    },
];
