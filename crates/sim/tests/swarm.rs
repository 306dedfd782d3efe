//! Swarms: one blob, many nodes, and everything that can go wrong. The world itself checks that
//! only liars are banned (Rule S14) and that no node has more in memory than it may (Rule S13).
//!
//! `COMMONS_SIM_NODES=1000` sets how many nodes the great swarm has (`cargo xtask sim --nodes`).

use commons_sim::seeds::for_each_seed;
use commons_sim::swarm::{SwarmReport, SwarmSpec, SwarmWorld};

/// Nodes of the great swarm where nobody says otherwise: a smoke test.
const NODES: u32 = 60;

fn nodes() -> u32 {
    #[expect(clippy::disallowed_methods, reason = "how a person asks for a larger world")]
    let text = std::env::var("COMMONS_SIM_NODES").ok();
    text.map_or(NODES, |text| text.parse().expect("COMMONS_SIM_NODES is a number"))
}

fn play(seed: u64, spec: SwarmSpec) -> SwarmReport {
    let report = SwarmWorld::new(seed, spec).run();
    eprintln!("seed {seed}: {report:?}");
    report
}

#[test]
fn every_honest_node_finishes_whatever_befalls_it() {
    for_each_seed(&[1, 2, 3], |seed| {
        let report = play(seed, SwarmSpec::mixed(nodes()));
        assert_eq!(report.done.0, report.done.1);
        assert!(report.lies > 0, "liars were asked, or nothing is shown");
        assert_eq!(report.bans, report.deceived, "whoever is lied to bans the liar");
        assert!(report.taken_max <= 32 << 20);
    });
}

#[test]
fn one_seed_plays_one_history() {
    for_each_seed(&[4], |seed| {
        let one = play(seed, SwarmSpec::mixed(30));
        assert_eq!(one, play(seed, SwarmSpec::mixed(30)));
        assert_ne!(one.trace, play(seed + 1, SwarmSpec::mixed(30)).trace);
    });
}

/// One network, one seeder outside: the file comes in once.
#[test]
fn nodes_of_one_network_fetch_one_copy_from_outside() {
    for_each_seed(&[1, 2, 3], |seed| {
        let spec = SwarmSpec {
            nodes: 10,
            size: 400 << 20,
            seeders: 1,
            liars: 0,
            partial: 0,
            site_nodes: 10,
            slow_per_mille: 0,
            links: 0,
            has_faults: false,
            budget: 32 << 20,
        };
        let report = SwarmWorld::with_seeders_outside(seed, spec.clone()).run();
        eprintln!("seed {seed}: {report:?}");
        assert_eq!(report.done, (9, 9));
        let most = spec.size * 105 / 100;
        assert!(report.bytes.1 <= most, "{} bytes from outside, {most} allowed", report.bytes.1);
    });
}

/// A small budget makes it slower, never larger.
#[test]
fn a_small_budget_is_kept() {
    for_each_seed(&[1], |seed| {
        let spec = SwarmSpec { budget: 3 << 20, ..SwarmSpec::mixed(30) };
        let report = play(seed, spec);
        assert_eq!(report.done.0, report.done.1);
        assert!(report.taken_max <= 3 << 20);
    });
}
