//! Medians of rounds, their ratio, and the Markdown table of both.

use std::fmt::Write as _;

use anyhow::Result;

use super::{
    Measured,
    cases::{Case, Comparison, Unit},
};

/// One line of the table: the figures of every contender, ours first, over the rounds.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) title: &'static str,
    pub(super) unit: Unit,
    /// For each contender its rounds; none if it was not measured.
    pub(super) rounds: Vec<Vec<f64>>,
}

/// The rows of what was measured, in the order of the cases.
pub(super) fn rows(cases: &[&Case], measured: &Measured, contenders: usize) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (case_index, case) in cases.iter().enumerate() {
        for figure in case.figures {
            let mut rounds = Vec::with_capacity(contenders);
            for contender in 0..contenders {
                let reports = measured.get(&(case_index, contender));
                let figures = reports.into_iter().flatten().map(figure.read);
                rounds.push(figures.collect::<Result<Vec<f64>>>()?);
            }
            rows.push(Row { title: figure.title, unit: figure.unit, rounds });
        }
    }
    Ok(rows)
}

/// The table: a column for each contender, then how ours compares, then the spread.
pub(super) fn table(names: &[&str], rows: &[Row]) -> String {
    let mut text = format!("| Measurement | Unit | {} | Factor | Spread |\n", names.join(" | "));
    let _ = writeln!(text, "|---|---|{}", "---:|".repeat(names.len() + 2));
    for row in rows {
        let _ = write!(text, "| {} | {} |", row.title, row.unit.name());
        for rounds in &row.rounds {
            match median(rounds) {
                Some(it) => _ = write!(text, " {it:.*} |", row.unit.decimals()),
                None => text += " |",
            }
        }
        match factor(row) {
            Some(it) => _ = write!(text, " {it:.2} |"),
            None => text += " |",
        }
        let _ = writeln!(text, " {:.0} % |", 100.0 * spread(row));
    }
    text
}

/// The second table: ratios of our own figures, round by round.
pub(super) fn comparisons(rows: &[Row], wanted: &[Comparison]) -> String {
    let ours =
        |title: &str| rows.iter().find(|it| it.title == title).and_then(|it| it.rounds.first());
    let mut text =
        "| Ours, compared with ours | Factor | Least | Most |\n|---|---:|---:|---:|\n".to_owned();
    for Comparison { title, of, to } in wanted {
        let (Some(of), Some(to)) = (ours(of), ours(to)) else { continue };
        let ratios: Vec<f64> = of.iter().zip(to).map(|(of, to)| of / to).collect();
        let least = ratios.iter().copied().reduce(f64::min);
        let most = ratios.iter().copied().reduce(f64::max);
        if let (Some(middle), Some(least), Some(most)) = (median(&ratios), least, most) {
            let _ = writeln!(text, "| {title} | {middle:.2} | {least:.2} | {most:.2} |");
        }
    }
    text
}

/// How many times as good ours is as the best of the others; above 1 ours is better.
fn factor(row: &Row) -> Option<f64> {
    let (ours, others) = row.rounds.split_first()?;
    let ours = median(ours)?;
    let others = others.iter().filter_map(|it| median(it));
    if row.unit.is_more_better() {
        others.reduce(f64::max).map(|it| ours / it)
    } else {
        others.reduce(f64::min).map(|it| it / ours)
    }
}

/// The largest distance of extremes among the contenders, as a part of the median.
fn spread(row: &Row) -> f64 {
    let spreads = row.rounds.iter().filter_map(|rounds| {
        let most = rounds.iter().copied().reduce(f64::max)?;
        let least = rounds.iter().copied().reduce(f64::min)?;
        let middle = median(rounds).filter(|it| *it > 0.0)?;
        Some((most - least) / middle)
    });
    spreads.fold(0.0, f64::max)
}

/// The middle of the sorted values, or the mean of the two in the middle.
pub(in crate::bench) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = sorted[(sorted.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(unit: Unit, rounds: &[&[f64]]) -> Row {
        Row { title: "it", unit, rounds: rounds.iter().map(|it| it.to_vec()).collect() }
    }

    fn is_near(found: Option<f64>, wanted: f64) -> bool {
        found.is_some_and(|it| (it - wanted).abs() < 1e-9)
    }

    #[test]
    fn a_median_is_the_middle_whatever_the_order() {
        assert!(is_near(median(&[9.0, 1.0, 2.0]), 2.0));
        assert!(is_near(median(&[4.0, 1.0, 2.0, 100.0]), 3.0));
        assert!(is_near(median(&[7.0]), 7.0));
        assert!(median(&[]).is_none());
    }

    #[test]
    fn a_factor_above_one_means_that_ours_is_better_than_the_best() {
        let speed = row(Unit::TokensPerS, &[&[30.0], &[10.0], &[20.0]]);
        assert!(is_near(factor(&speed), 1.5));
        let time = row(Unit::Millis, &[&[30.0], &[10.0], &[20.0]]);
        assert!(is_near(factor(&time), 1.0 / 3.0));
        assert!(factor(&row(Unit::Millis, &[&[30.0], &[]])).is_none());
        assert!(factor(&row(Unit::Millis, &[&[], &[30.0]])).is_none());
    }

    #[test]
    fn the_spread_is_that_of_the_least_steady() {
        let it = row(Unit::TokensPerS, &[&[10.0, 11.0, 9.0], &[10.0, 10.0, 15.0], &[]]);
        assert!(is_near(Some(spread(&it)), 0.5));
        assert!(is_near(Some(spread(&row(Unit::Percent, &[&[0.0, 0.0]]))), 0.0));
    }

    #[test]
    fn comparisons_are_made_within_a_round() {
        let named = |title, ours: &[f64]| Row { title, ..row(Unit::TokensPerS, &[ours, &[9.0]]) };
        let rows = [named("slow", &[10.0, 20.0, 10.0]), named("fast", &[20.0, 40.0, 30.0])];
        let comparison = |title, of, to| Comparison { title, of, to };
        let wanted = [comparison("it", "fast", "slow"), comparison("absent", "fast", "none")];
        let table = comparisons(&rows, &wanted);
        assert_eq!(table.lines().count(), 3, "{table}");
        assert!(table.ends_with("| it | 2.00 | 2.00 | 3.00 |\n"), "{table}");
    }

    #[test]
    fn a_table_leaves_empty_what_was_not_measured() {
        let rows = [
            row(Unit::TokensPerS, &[&[30.0, 31.0, 29.0], &[20.0]]),
            row(Unit::Millis, &[&[1234.4], &[]]),
        ];
        let wanted = "| Measurement | Unit | Ours | Theirs | Factor | Spread |\n\
            |---|---|---:|---:|---:|---:|\n\
            | it | tokens/s | 30.0 | 20.0 | 1.50 | 7 % |\n\
            | it | ms | 1234 | | | 0 % |\n";
        assert_eq!(table(&["Ours", "Theirs"], &rows), wanted);
    }
}
