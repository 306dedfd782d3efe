//! What befalls the nodes: they leave and come back, sites are cut off, seeders vanish at 99 %.

use commons_port::blobs::pieces_of;

use super::{Event, Role, SwarmWorld};

/// One stroke.
#[derive(Debug, Clone)]
pub(super) enum Fate {
    Leave(Vec<u32>),
    Return(Vec<u32>),
    Cut(Vec<u32>),
    Heal,
    /// A node looks for peers again.
    Look(u32),
}

/// Fate strikes within this; afterwards there is peace.
const STRIKES_MS: u64 = 120_000;

/// A node looks for more peers this often.
const LOOK_MS: u64 = 15_000;

impl SwarmWorld {
    /// Draws who leaves when, and when sites are cut off.
    pub(super) fn plan_fate(&mut self) {
        for node in self.spec.seeders..self.spec.nodes {
            // One in five leaves once, some of them twice.
            while self.rng.chance(200) {
                let at = self.rng.within(200, STRIKES_MS);
                let back = at + self.rng.within(1_000, 40_000);
                self.later(at, Event::Fate(Fate::Leave(vec![node])));
                self.later(back, Event::Fate(Fate::Return(vec![node])));
            }
            let look = self.rng.within(1_000, LOOK_MS);
            self.later(look, Event::Fate(Fate::Look(node)));
        }
        let sites = self.spec.nodes.div_ceil(self.spec.site_nodes);
        for _ in 0..2 {
            let at = self.rng.within(1_000, STRIKES_MS / 2);
            let cut = (0..sites).filter(|_| self.rng.chance(300)).collect();
            self.later(at, Event::Fate(Fate::Cut(cut)));
            let heal = at + self.rng.within(5_000, STRIKES_MS / 2);
            self.later(heal, Event::Fate(Fate::Heal));
        }
    }

    /// Once the first fetcher holds 99 %, every seeder leaves, for a minute.
    pub(super) fn nearly_done(&mut self, held: u64) {
        let all = pieces_of(self.spec.size);
        if !self.spec.has_faults || self.has_lost_seeders || held * 100 < all * 97 {
            return;
        }
        self.has_lost_seeders = true;
        let seeders: Vec<u32> = (0..self.spec.seeders).collect();
        let (now, back) = (self.now, self.now + 60_000);
        self.later(now, Event::Fate(Fate::Leave(seeders.clone())));
        self.later(back, Event::Fate(Fate::Return(seeders)));
    }

    pub(super) fn befall(&mut self, fate: Fate) {
        match fate {
            Fate::Leave(nodes) => nodes.into_iter().for_each(|it| self.leave(it)),
            Fate::Return(nodes) => nodes.into_iter().for_each(|it| self.come_back(it)),
            Fate::Cut(sites) => {
                self.cut = sites.into_iter().collect();
                self.cut_links();
            }
            Fate::Heal => {
                self.cut.clear();
                for node in 0..self.spec.nodes {
                    if self.nodes[node as usize].is_up {
                        self.link_up(node);
                    }
                }
            }
            Fate::Look(node) => {
                let it = &self.nodes[node as usize];
                if it.is_up && it.role == Role::Fetcher && !it.is_done {
                    self.link_up(node);
                }
                if !it_is_over(self) {
                    let at = self.now + LOOK_MS;
                    self.later(at, Event::Fate(Fate::Look(node)));
                }
            }
        }
    }

    fn leave(&mut self, node: u32) {
        if !self.nodes[node as usize].is_up {
            return;
        }
        self.note(5, node, 0);
        let others: Vec<u32> = self.neighbours[node as usize].iter().copied().collect();
        for other in others {
            self.disconnect(node, other);
        }
        let it = self.node(node);
        it.is_up = false;
        it.fetch = None;
    }

    /// It starts again from what it holds.
    fn come_back(&mut self, node: u32) {
        if self.nodes[node as usize].is_up {
            return;
        }
        self.note(6, node, 0);
        self.node(node).is_up = true;
        self.start_fetch(node);
        self.link_up(node);
    }

    fn cut_links(&mut self) {
        let links: Vec<(u32, u32)> = self.links.keys().copied().collect();
        for (one, other) in links {
            let sites = [one, other].map(|it| self.nodes[it as usize].site);
            let is_cut = sites.map(|it| self.cut.contains(&it));
            if sites[0] != sites[1] && is_cut[0] != is_cut[1] {
                self.disconnect(one, other);
            }
        }
    }
}

fn it_is_over(world: &SwarmWorld) -> bool {
    world.is_over()
}
