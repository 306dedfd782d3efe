//! Which peer is asked for what, now.
//!
//! For each peer, nearest and fastest first, those that failed lately last, while it has room: gaps of pieces that are under way;
//! the top and pages that are needed; what readers wait for, in their order; the rarest piece; and,
//! when nothing unasked is left, what another peer is slow to bring.
//!
//! The rarest piece is looked for among the next [`SCAN_WORDS`] words with candidates from a place
//! that the seed gives, so a choice costs the same in a blob of any size. Holders are counted for
//! 64 pieces at a time: bit `k` of all counts is one word.

use commons_port::blobs::GROUP_PIECES;
use commons_record::PeerId;

use super::bits::Bitmap;
use super::peer::{Holds, Peer};
use super::work::OpenState;
use super::{Ctx, Fetch, LOOK_AGAIN_MS, PEERS_MAX, Target};

/// Words with candidates that are looked through for the rarest piece: 16,384 pieces, 16 GiB.
const SCAN_WORDS: usize = 256;

/// The same where nothing is rarer than anything else.
const SCAN_WORDS_ALIKE: usize = 16;

/// Pages that are asked for at a time.
const PAGES_MAX: usize = 4;

/// Planes of a count of up to [`PEERS_MAX`] holders.
const PLANES: usize = 7;
const _: () = assert!(PEERS_MAX < 1 << PLANES);

/// A local fetcher that had no news for so long is not waited for.
const OWNER_MS: u64 = 5_000;

/// How many peers are asked for the same thing at a time.
const COPIES_MAX: usize = 2;

/// An ask is not doubled before this.
const DOUBLE_MS: u64 = 500;

/// Nor an ask to a local peer by one to an outside peer before this.
const DOUBLE_OUTSIDE_MS: u64 = 3_000;

/// Words of a group.
const GROUP_WORDS: u64 = GROUP_PIECES / 64;

impl Fetch {
    /// Asks what can be asked.
    pub(super) fn pump(&mut self, ctx: &mut Ctx<'_>) {
        if self.is_paused || self.store_failure.is_some() {
            return;
        }
        if self.spec.size == 0 && !self.todo.is_empty() {
            self.open_empty(ctx);
        }
        self.fill_local(ctx);
        // Whoever failed lately comes last: what it holds up of the budget is what others leave.
        let key = |it: &Peer| (it.failures(), it.near, u64::MAX - it.rate_per_s());
        let ready = self.peers.iter().filter(|it| it.has_room(ctx.now));
        let mut order: Vec<_> =
            ready.map(|it| (key(it), mix(self.seed_of(&it.id)), it.id)).collect();
        order.sort_unstable();
        for (.., id) in order {
            while self.pump_peer(id, ctx) {}
        }
        self.drop_orphans(ctx);
    }

    /// Copies pieces that are held here whole in other blobs.
    fn fill_local(&mut self, ctx: &mut Ctx<'_>) {
        if self.local_whole.is_none() || self.doubts_recipe() {
            return;
        }
        loop {
            let local = self.local_whole.as_ref();
            let mut words = (0..self.todo.words()).map(|at| {
                let word = local.map_or(0, |it| it.word(at)) & self.ready(at);
                (at, word)
            });
            let Some((at, word)) = words.find(|(_, word)| *word != 0) else { return };
            let piece = at * 64 + u64::from(word.trailing_zeros());
            if !self.open_local(piece, ctx) {
                return;
            }
        }
    }

    /// Asks this peer for one thing; whether there was one, and room for it.
    fn pump_peer(&mut self, id: PeerId, ctx: &mut Ctx<'_>) -> bool {
        let Some(peer) = self.peers.iter().find(|it| it.id == id) else { return false };
        if !peer.has_room(ctx.now) {
            return false;
        }
        let version = self.version;
        let is_idle = peer.idle.is_some_and(|(at, until)| at == version && ctx.now < until);
        if is_idle {
            return false;
        }
        if let Some((target, range)) = self.next_gap(peer) {
            return self.ask_gap(target, range, id, ctx);
        }
        if let Some(target) = self.next_hashes(peer, ctx.now) {
            return self.open(target, id, ctx);
        }
        if let Some(piece) = self.preferred(peer, ctx.now).or_else(|| self.rarest(peer, ctx.now)) {
            let is_part = self.local_part.as_ref().is_some_and(|it| it.has(piece));
            if is_part && !self.doubts_recipe() {
                return self.open_local(piece, ctx);
            }
            return self.open(Target::Piece(piece), id, ctx);
        }
        if let Some((target, range)) = self.next_double(peer, ctx.now) {
            return self.ask_gap(target, range, id, ctx);
        }
        let until = ctx.now + LOOK_AGAIN_MS;
        if let Some(peer) = self.peer(id) {
            peer.idle = Some((version, until));
        }
        false
    }

    /// A gap around local bytes that nobody was asked for. One peer brings all of a piece's gaps
    /// if it can, so that it is clear who sent what.
    fn next_gap(&self, peer: &Peer) -> Option<(Target, std::ops::Range<u32>)> {
        let asking = self.opens.iter().filter(|it| it.is_mixed && it.state == OpenState::Asking);
        asking.filter(|it| holds(peer, it.target)).find_map(|open| {
            let mut owed = self.asks.iter().filter(|it| it.target == open.target);
            let is_here = |id| self.peers.iter().any(|it| it.id == id);
            let is_other = |from: PeerId| from != peer.id && is_here(from);
            let is_others = open.gaps.iter().any(|it| it.from.is_some_and(is_other));
            if is_others || owed.any(|it| it.peer != peer.id) {
                return None;
            }
            let is_owed =
                |start| self.asks.iter().any(|it| it.target == open.target && it.start() == start);
            let free = |gap: &&super::work::Gap| gap.from.is_none() && !is_owed(gap.range.start);
            open.gaps.iter().find(free).map(|gap| (open.target, gap.range.clone()))
        })
    }

    /// The top, or the page of a group of which this peer has something that is needed.
    fn next_hashes(&self, peer: &Peer, now: u64) -> Option<Target> {
        let is_free =
            |target| peer.gives(target, now) && !self.opens.iter().any(|it| it.target == target);
        if !self.has_top {
            return Some(Target::Top).filter(|it| is_free(*it));
        }
        let open = self.opens.iter().filter(|it| matches!(it.target, Target::Page(_))).count();
        if self.pages.is_full() || open >= PAGES_MAX {
            return None;
        }
        let is_needed = |group: u64| {
            let words = group * GROUP_WORDS..(group + 1) * GROUP_WORDS;
            let has = |at| self.todo.word(at) & peer.holds.word(at) != 0;
            !self.pages.has(group) && is_free(Target::Page(group)) && words.into_iter().any(has)
        };
        let preferred = self.prefer.iter().map(|it| it.start / GROUP_PIECES);
        let start = mix(self.spec.seed) % self.pages.len();
        let all = (start..self.pages.len()).chain(0..start);
        preferred.chain(all).find(|group| is_needed(*group)).map(Target::Page)
    }

    /// Pieces of word `at` that can be worked on: nobody does, and their page is known.
    fn ready(&self, at: u64) -> u64 {
        if self.pages.has(at / GROUP_WORDS) { self.todo.word(at) } else { 0 }
    }

    /// Of these, those that peers are asked for: not what is copied here, now or soon.
    fn askable(&self, at: u64) -> u64 {
        let word = self.ready(at);
        if word == 0 || self.doubts_recipe() {
            return word;
        }
        let local = |it: &Option<Bitmap>| it.as_ref().map_or(0, |it| it.word(at));
        let part = if self.can_fill() { 0 } else { local(&self.local_part) };
        word & !local(&self.local_whole) & !part
    }

    /// The first piece that a reader waits for.
    fn preferred(&self, peer: &Peer, now: u64) -> Option<u64> {
        self.prefer.iter().find_map(|range| {
            let words = range.start / 64..range.end.min(self.pieces).div_ceil(64);
            words.into_iter().find_map(|at| {
                let word = self.askable(at) & peer.holds.word(at);
                let pieces = ones(word).map(|bit| at * 64 + bit);
                let mut pieces = pieces.filter(|it| range.contains(it));
                pieces.find(|it| peer.gives(Target::Piece(*it), now))
            })
        })
    }

    /// The piece that the fewest peers hold, among those that are this peer's to bring.
    fn rarest(&self, peer: &Peer, now: u64) -> Option<u64> {
        if self.todo.is_empty() {
            return None;
        }
        let away = Away::new(self, peer, now)?;
        let maps: Vec<_> = self
            .peers
            .iter()
            .filter_map(|it| match &it.holds {
                Holds::Some(bits) => Some(bits),
                _ => None,
            })
            .collect();
        let limit = if maps.is_empty() { SCAN_WORDS_ALIKE } else { SCAN_WORDS };
        let words = self.todo.words();
        let start = mix(self.spec.seed) % words;
        let candidates = (start..words).chain(0..start).filter_map(|at| {
            let word = self.askable(at) & peer.holds.word(at);
            let word = if word == 0 { 0 } else { away.keep(self, at, word) };
            (word != 0).then_some((at, word))
        });
        let best = candidates.take(limit).filter_map(|(at, word)| {
            let (count, word) = fewest(word, maps.iter().map(|it| it.word(at)));
            let pieces = ones(word).map(|bit| at * 64 + bit);
            let pieces = pieces.filter(|it| peer.gives(Target::Piece(*it), now));
            pieces.map(|it| (count, mix(self.spec.seed ^ it), it)).min()
        });
        best.min().map(|(.., piece)| piece)
    }

    /// What another peer is slow to bring.
    fn next_double(&self, peer: &Peer, now: u64) -> Option<(Target, std::ops::Range<u32>)> {
        let found = self.asks.iter().filter(|ask| {
            let Target::Piece(piece) = ask.target else { return false };
            let is_urgent = self.prefer.iter().any(|it| it.contains(&piece));
            let is_end = self.todo.is_empty() || is_urgent;
            let copies = self.asks.iter().filter(|it| it.is_same(ask)).collect::<Vec<_>>();
            let is_open = copies.len() < COPIES_MAX && ask.peer != peer.id;
            let age = now.saturating_sub(ask.asked_at);
            let near = self.peers.iter().find(|it| it.id == ask.peer).map(|it| it.near);
            let is_outward = !peer.near.is_local() && near.is_some_and(super::Nearness::is_local);
            let mut patience =
                peer.time_for(ask.len()).map_or(DOUBLE_MS, |it| DOUBLE_MS.max(2 * it));
            if is_outward {
                patience = patience.max(DOUBLE_OUTSIDE_MS);
            }
            is_end
                && is_open
                && peer.holds.has(piece)
                && age >= patience
                && peer.gives(ask.target, now)
                && !self.is_mixed(ask.target)
        });
        let oldest = found.min_by_key(|it| (it.asked_at, it.id));
        oldest.map(|ask| (ask.target, ask.range()))
    }

    fn is_mixed(&self, target: Target) -> bool {
        self.opens.iter().any(|it| it.target == target && it.is_mixed)
    }

    /// Pieces that wait for a peer, when none can bring them, hold no memory.
    fn drop_orphans(&mut self, ctx: &mut Ctx<'_>) {
        let is_orphan = |fetch: &Self, target: Target| {
            let is_owed = fetch.asks.iter().any(|it| it.target == target);
            let mut peers = fetch.peers.iter();
            !is_owed && !peers.any(|it| holds(it, target) && !it.rests(ctx.now))
        };
        let asking = self.opens.iter().filter(|it| it.state == OpenState::Asking);
        let orphans: Vec<_> =
            asking.map(|it| it.target).filter(|it| is_orphan(self, *it)).collect();
        for target in orphans {
            self.reopen(target, ctx);
        }
    }

    fn seed_of(&self, peer: &PeerId) -> u64 {
        self.spec.seed ^ number(peer)
    }
}

/// What is not an outside peer's to bring: what local peers hold, or are about to.
enum Away {
    /// The peer is local.
    None,
    /// Of the other local fetchers, each brings its own stripes from outside.
    Outside { now: u64, owners: Vec<u64>, me: u64 },
}

impl Away {
    /// `None` if nothing at all is this peer's to bring.
    fn new(fetch: &Fetch, peer: &Peer, now: u64) -> Option<Self> {
        if peer.near.is_local() {
            return Some(Self::None);
        }
        let mut local = fetch.peers.iter().filter(|it| it.near.is_local() && it.is_reliable(now));
        if local.clone().any(|it| matches!(it.holds, Holds::Whole)) {
            return None;
        }
        let is_owner = |it: &&Peer| it.is_fetching && now < it.news_at + OWNER_MS;
        let owners = local.by_ref().filter(is_owner).map(|it| number(&it.id)).collect();
        Some(Self::Outside { now, owners, me: number(&fetch.spec.me) })
    }

    /// Of the candidates of a word, those that are the peer's to bring.
    fn keep(&self, fetch: &Fetch, at: u64, word: u64) -> u64 {
        let Self::Outside { now, owners, me } = self else { return word };
        let local = fetch.peers.iter().filter(|it| it.near.is_local() && it.is_reliable(*now));
        let mut word = local.fold(word, |word, it| word & !it.holds.word(at));
        if owners.is_empty() {
            return word;
        }
        // A stripe is eight pieces. All local fetchers agree on whose it is: each hashes the stripe
        // with each owner, and the highest wins (rendezvous hashing).
        for stripe in 0..8 {
            let key = mix(fetch.stripe_key() ^ (at * 8 + stripe));
            let mine = mix(key ^ me);
            if owners.iter().any(|it| mix(key ^ it) > mine) {
                word &= !(0xff << (8 * stripe));
            }
        }
        word
    }
}

impl Fetch {
    /// The same for all who fetch this blob.
    fn stripe_key(&self) -> u64 {
        leading(self.spec.blob.as_bytes())
    }
}

fn holds(peer: &Peer, target: Target) -> bool {
    match target {
        Target::Piece(piece) => peer.holds.has(piece),
        Target::Top | Target::Page(_) => !peer.holds.is_nothing(),
    }
}

/// Of the candidates, those that the fewest of the maps hold; and how many that are.
fn fewest(word: u64, maps: impl Iterator<Item = u64>) -> (u32, u64) {
    let mut planes = [0_u64; PLANES];
    for mut carry in maps {
        for plane in &mut planes {
            (*plane, carry) = (*plane ^ carry, *plane & carry);
        }
    }
    let (mut count, mut word) = (0, word);
    for (bit, plane) in planes.iter().enumerate().rev() {
        match word & !plane {
            0 => count |= 1 << bit,
            fewer => word = fewer,
        }
    }
    (count, word)
}

/// The positions of the bits that are set.
fn ones(mut word: u64) -> impl Iterator<Item = u64> {
    std::iter::from_fn(move || {
        (word != 0).then(|| {
            let bit = word.trailing_zeros();
            word &= word - 1;
            u64::from(bit)
        })
    })
}

/// A number for a peer: its key is as good as random.
fn number(peer: &PeerId) -> u64 {
    leading(peer.as_bytes())
}

fn leading(bytes: &[u8; 32]) -> u64 {
    bytes.iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// The finaliser of splitmix64 (S. Vigna, 2015): every bit of the input moves every bit of the
/// output.
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rarest_of_a_word_are_found_by_counting_in_planes() {
        let maps = [0b1110_u64, 0b1100, 0b1000, 0b1010];
        assert_eq!(fewest(0b1111, maps.into_iter()), (0, 0b0001));
        assert_eq!(fewest(0b1110, maps.into_iter()), (2, 0b0110));
        assert_eq!(fewest(0b1000, maps.into_iter()), (4, 0b1000));
        let many = std::iter::repeat_n(u64::MAX, PEERS_MAX);
        assert_eq!(fewest(u64::MAX, many), (64, u64::MAX));
    }
}
