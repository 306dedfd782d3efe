//! Which seeds a test runs, and how a failing one is told.
//!
//! `COMMONS_SIM_SEEDS=1,2,3` replaces the seeds that a test was committed with: fresh ones in a
//! search (`cargo xtask sim`), or a single one in a replay.

use std::panic::Location;

/// The one setting of this crate.
const VARIABLE: &str = "COMMONS_SIM_SEEDS";

/// Runs a scenario once for each seed, and prints the seed if the scenario fails.
#[track_caller]
pub fn for_each_seed(committed: &[u64], scenario: impl Fn(u64)) {
    for seed in chosen().unwrap_or_else(|| committed.to_vec()) {
        let teller = Teller { seed, place: Location::caller() };
        scenario(seed);
        drop(teller);
    }
}

/// The seeds from the environment, if any are set.
///
/// # Panics
///
/// If the variable holds something else than numbers: a search must not silently be none.
fn chosen() -> Option<Vec<u64>> {
    #[expect(clippy::disallowed_methods, reason = "the only setting that a test run takes")]
    let text = std::env::var(VARIABLE).ok()?;
    Some(parse(&text).unwrap_or_else(|| panic!("{VARIABLE} is {text:?}, not numbers and commas")))
}

fn parse(text: &str) -> Option<Vec<u64>> {
    text.split(',').map(|part| part.trim().parse().ok()).collect()
}

/// Speaks up when it is dropped by a panic.
struct Teller {
    seed: u64,
    place: &'static Location<'static>,
}

impl Drop for Teller {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (seed, place) = (self.seed, self.place);
            eprintln!("seed {seed} failed at {place}; replay with:");
            eprintln!("  {VARIABLE}={seed} cargo test --package commons-sim");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_numbers_joined_by_commas_and_nothing_else() {
        assert_eq!(parse("7"), Some(vec![7]));
        assert_eq!(parse("1, 2,3"), Some(vec![1, 2, 3]));
        assert_eq!(parse(""), None);
        assert_eq!(parse("1,x"), None);
    }
}
