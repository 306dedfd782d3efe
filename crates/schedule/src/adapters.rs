//! Which adapters are in memory: a pure machine beside the [`crate::Scheduler`].
//!
//! ```text
//! want --> waiting --Load--> loading --loaded--> resident --start--> pinned --end--> resident
//!             ^                 | failed            |                                   |
//!             +-----------------+-------------------+------------- Evict <--------------+
//! ```
//!
//! An adapter is *wanted* when a request that names it arrives, so it is read while the request
//! waits; it is *pinned* while rows use it. The engine does what [`Adapters::step`] says, in order.
//!
//! # Rules
//!
//! 1. *In the order of arrival.* What is absent is loaded in the order in which it was first wanted.
//!    The first that does not fit holds the others up: nobody small slips past a large one for ever.
//! 2. *No load is wasted.* An adapter that was loaded for a request stays until one of its requests
//!    started, or all of them left; and no more than [`AdapterConfig::ahead_max`] such adapters take
//!    the place of others. So there are at most as many loads as starts, and two that want
//!    the same room cannot throw each other out in turn.
//! 3. *Only what is not used goes*, and only when enough of it is there: first what was not used for
//!    long; then adapters of the same size class, then of larger ones, then of smaller ones, in each
//!    the least used first, by a count that halves every 256 starts, and of these the least recently
//!    used. So one of rank 64 does not flush eight of rank 8. The classes are
//!    the tiers of Y. Sheng et al., "`S-LoRA`", 2024, told by bytes.
//! 4. *Nobody starves.* When [`AdapterConfig::patience`] rows started while the first in line found
//!    no room, residents that were used are *closed*, those loaded longest ago first: they start no
//!    more rows, and go when their last row ends. Those of their requests that wait get in line
//!    again, at its end. So an adapter waits for those before it, and for each of them at most for
//!    `patience` starts and the end of rows that run already.
//!
//! # Invariants
//!
//! * What is resident or loading never takes more than [`AdapterConfig::room_bytes`].
//! * What is pinned is never evicted.
//! * If rows end, and the requests of every open resident start or leave, every adapter that waits
//!   is loaded.
//!
//! Not here: bytes and files (the engine); whose turn it is to start (the scheduler).

use std::collections::BTreeMap;
use std::fmt;

/// An adapter, by the hash of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AdapterId(pub [u8; 32]);

impl fmt::Display for AdapterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Limits of one [`Adapters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdapterConfig {
    /// Bytes that adapters may take in memory, together.
    pub room_bytes: u64,

    /// Adapters in memory, however small.
    pub resident_max: u32,

    /// Adapters that are read at once. More than a disk can do at a time makes each later.
    pub loads_max: u32,

    /// Adapters that are read ahead, into the place of others: in memory or being read, and none of
    /// their requests has started. Each holds room that one in use could have. What is free is
    /// always filled.
    pub ahead_max: u32,

    /// Adapters that wait, however many requests for each.
    pub waiting_max: u32,

    /// Rows that start before those in memory make way for the first that waits. Small is fair,
    /// large reads less.
    pub patience: u32,
}

/// Why limits make no machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is 0; it must be at least 1")]
pub struct AdapterConfigError {
    /// Which limit.
    pub name: &'static str,
}

/// Why an adapter cannot be had. Nothing of the request is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum AdapterRefusal {
    #[error("adapter {id} takes {size} bytes, and adapters have {room}: give them more room")]
    TooLarge { id: AdapterId, size: u64, room: u64 },

    #[error("{waiting} adapters wait to be loaded and {max} may: try again later")]
    Busy { waiting: usize, max: u32 },
}

/// What the engine does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdapterCommand {
    /// Drop it from memory. No row uses it.
    Evict(AdapterId),
    /// Read it, then say [`Adapters::loaded`] or [`Adapters::failed`]. Its room is reserved.
    Load(AdapterId),
}

/// How busy the machine is, and what it did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdapterStats {
    /// Adapters in memory.
    pub resident: usize,
    /// Adapters that are being read.
    pub loading: usize,
    /// Adapters that are absent and wanted.
    pub waiting: usize,
    /// Bytes of those in memory or being read.
    pub used_bytes: u64,
    /// Loads asked for.
    pub loads_total: u64,
    /// Bytes asked for.
    pub loaded_bytes_total: u64,
    /// Adapters dropped.
    pub evicted_total: u64,
}

/// Starts after which a use counts half. What counts nothing was not used for long.
const HALF_LIFE: u64 = 256;

/// Decides which adapters are in memory. One for each model; one thread steps it.
#[derive(Clone, Debug)]
pub struct Adapters {
    config: AdapterConfig,
    known: BTreeMap<AdapterId, Entry>,
    /// Those that are absent and wanted, in the order of arrival.
    line: BTreeMap<u64, AdapterId>,
    next_ticket: u64,
    /// Rows that started since the beginning: the clock of this machine.
    starts: u64,
    /// The first in line that found no room, and when it began to look.
    blocked: Option<(AdapterId, u64)>,
    stats: AdapterStats,
}

/// One adapter that is here or waited for.
#[derive(Clone, Debug)]
struct Entry {
    size: u64,
    place: Place,
    /// Requests that have not started.
    wanted: u32,
    /// Rows that use it.
    pins: u32,
    /// Uses, halved every [`HALF_LIFE`] starts, as of `used_at`.
    heat: u32,
    used_at: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In line, at this ticket.
    Absent(u64),
    Loading,
    Resident {
        /// The number of its load.
        loaded_at: u64,
        /// Whether a request started since.
        is_used: bool,
        /// Whether it makes way for another: it starts no more rows.
        is_closed: bool,
    },
}

impl Entry {
    /// Whether it may go now.
    fn is_spare(&self) -> bool {
        match self.place {
            Place::Resident { is_used, is_closed, .. } => {
                self.pins == 0 && (self.wanted == 0 || (is_used && is_closed))
            }
            Place::Absent(_) | Place::Loading => false,
        }
    }

    /// How often it was used lately.
    fn heat(&self, now: u64) -> u32 {
        let halvings = (now - self.used_at) / HALF_LIFE;
        u32::try_from(halvings).ok().and_then(|it| self.heat.checked_shr(it)).unwrap_or(0)
    }

    /// The tier: sizes between two powers of two.
    fn class(&self) -> u32 {
        self.size.max(1).ilog2()
    }
}

impl Adapters {
    /// A machine with nothing in memory.
    pub fn new(config: AdapterConfig) -> Result<Self, AdapterConfigError> {
        let limits = [
            ("resident_max", config.resident_max),
            ("loads_max", config.loads_max),
            ("ahead_max", config.ahead_max),
            ("waiting_max", config.waiting_max),
            ("patience", config.patience),
        ];
        if let Some(&(name, _)) = limits.iter().find(|(_, limit)| *limit == 0) {
            return Err(AdapterConfigError { name });
        }
        Ok(Self {
            config,
            known: BTreeMap::new(),
            line: BTreeMap::new(),
            next_ticket: 0,
            starts: 0,
            blocked: None,
            stats: AdapterStats::default(),
        })
    }

    /// A request that names an adapter of `size` bytes arrived, or one that ran was parked.
    pub fn want(&mut self, id: AdapterId, size: u64) -> Result<(), AdapterRefusal> {
        let room = self.config.room_bytes;
        if size > room {
            return Err(AdapterRefusal::TooLarge { id, size, room });
        }
        if let Some(entry) = self.known.get_mut(&id) {
            entry.wanted = entry.wanted.saturating_add(1);
            return Ok(());
        }
        let (waiting, max) = (self.line.len(), self.config.waiting_max);
        if waiting >= max as usize {
            return Err(AdapterRefusal::Busy { waiting, max });
        }
        let place = self.get_in_line(id);
        let used_at = self.starts;
        self.known.insert(id, Entry { size, place, wanted: 1, pins: 0, heat: 0, used_at });
        Ok(())
    }

    /// A request left before it started.
    pub fn leave(&mut self, id: AdapterId) {
        let Some(entry) = self.known.get_mut(&id) else { return };
        entry.wanted = entry.wanted.saturating_sub(1);
        if let (Place::Absent(ticket), 0) = (entry.place, entry.wanted) {
            self.line.remove(&ticket);
            self.known.remove(&id);
        }
    }

    /// Whether a request that waits may start now.
    pub fn is_ready(&self, id: AdapterId) -> bool {
        self.known.get(&id).is_some_and(|entry| {
            entry.wanted > 0 && matches!(entry.place, Place::Resident { is_closed: false, .. })
        })
    }

    /// A request starts, if it may: its adapter is pinned until [`Self::end`]. Otherwise nothing
    /// changes, and it waits.
    pub fn start(&mut self, id: AdapterId) -> bool {
        if !self.is_ready(id) {
            return false;
        }
        self.starts += 1;
        let now = self.starts;
        let Some(entry) = self.known.get_mut(&id) else { return false };
        entry.wanted -= 1;
        entry.pins += 1;
        entry.heat = entry.heat(now).saturating_add(1);
        entry.used_at = now;
        if let Place::Resident { is_used, .. } = &mut entry.place {
            *is_used = true;
        }
        true
    }

    /// A row that started is over, or parked.
    pub fn end(&mut self, id: AdapterId) {
        if let Some(entry) = self.known.get_mut(&id) {
            entry.pins = entry.pins.saturating_sub(1);
        }
    }

    /// A [`AdapterCommand::Load`] is done.
    pub fn loaded(&mut self, id: AdapterId) {
        let loaded_at = self.stats.loads_total;
        if let Some(entry) = self.known.get_mut(&id)
            && entry.place == Place::Loading
        {
            entry.place = Place::Resident { loaded_at, is_used: false, is_closed: false };
            self.stats.loading -= 1;
            self.stats.resident += 1;
        }
    }

    /// A [`AdapterCommand::Load`] cannot be done. It is forgotten: the requests that wait for it,
    /// as many as are returned, are to be refused.
    pub fn failed(&mut self, id: AdapterId) -> u32 {
        let is_loading = self.known.get(&id).is_some_and(|entry| entry.place == Place::Loading);
        let Some(entry) = self.known.remove(&id).filter(|_| is_loading) else { return 0 };
        self.stats.loading -= 1;
        self.stats.used_bytes -= entry.size;
        entry.wanted
    }

    /// What to do now, in this order. To be asked after every batch of the calls above.
    pub fn step(&mut self) -> Vec<AdapterCommand> {
        let mut commands = Vec::new();
        self.reopen();
        while let Some((&ticket, &id)) = self.line.first_key_value() {
            if self.stats.loading >= self.config.loads_max as usize {
                break;
            }
            let Some(victims) = self.make_room(id) else {
                self.close_some(id);
                break;
            };
            for victim in victims {
                self.evict(victim);
                commands.push(AdapterCommand::Evict(victim));
            }
            self.line.remove(&ticket);
            if let Some(entry) = self.known.get_mut(&id) {
                entry.place = Place::Loading;
                self.stats.loading += 1;
                self.stats.used_bytes += entry.size;
                self.stats.loads_total += 1;
                self.stats.loaded_bytes_total += entry.size;
            }
            self.open_all();
            commands.push(AdapterCommand::Load(id));
        }
        commands
    }

    /// How busy the machine is, and what it did.
    pub fn stats(&self) -> AdapterStats {
        AdapterStats { waiting: self.line.len(), ..self.stats }
    }

    /// The residents that go so that this one fits: none if it fits as it is; `None` if it does not,
    /// whoever may go now.
    fn make_room(&self, id: AdapterId) -> Option<Vec<AdapterId>> {
        let wanted = self.known.get(&id)?;
        let (mut bytes, mut places) = self.free();
        let mut victims = Vec::new();
        let fits = |bytes: u64, places: usize| bytes >= wanted.size && places > 0;
        if fits(bytes, places) {
            return Some(victims);
        }
        if self.ahead() >= self.config.ahead_max as usize {
            return None;
        }
        let mut spare: Vec<_> = self.known.iter().filter(|(_, it)| it.is_spare()).collect();
        spare.sort_by_key(|(_, it)| self.order(wanted.class(), it));
        for (&victim, entry) in spare {
            bytes += entry.size;
            places += 1;
            victims.push(victim);
            if fits(bytes, places) {
                return Some(victims);
            }
        }
        None
    }

    /// Adapters that came for requests of which none has started.
    fn ahead(&self) -> usize {
        let is_ahead = |entry: &&Entry| match entry.place {
            Place::Loading => true,
            Place::Resident { is_used, .. } => !is_used && entry.wanted > 0,
            Place::Absent(_) => false,
        };
        self.known.values().filter(is_ahead).count()
    }

    /// Bytes and places that nothing takes.
    fn free(&self) -> (u64, usize) {
        let held = self.stats.resident + self.stats.loading;
        let places = (self.config.resident_max as usize).saturating_sub(held);
        (self.config.room_bytes - self.stats.used_bytes, places)
    }

    /// Rule 3: who goes first for one of this class.
    fn order(&self, class: u32, entry: &Entry) -> (u8, u32, u64) {
        let heat = entry.heat(self.starts);
        let rank = match entry.class().cmp(&class) {
            _ if heat == 0 => 0,
            std::cmp::Ordering::Equal => 1,
            std::cmp::Ordering::Greater => 2,
            std::cmp::Ordering::Less => 3,
        };
        (rank, heat, entry.used_at)
    }

    /// Rule 4: when the first in line waited long enough, enough of those that were used are closed.
    fn close_some(&mut self, id: AdapterId) {
        let since = match self.blocked {
            Some((blocked, since)) if blocked == id => since,
            _ => {
                self.blocked = Some((id, self.starts));
                return;
            }
        };
        let Some(size) = self.known.get(&id).map(|entry| entry.size) else { return };
        if self.starts - since < u64::from(self.config.patience) {
            return;
        }
        let (mut bytes, mut places) = self.free();
        for entry in self.known.values().filter(|entry| entry.is_spare()) {
            bytes += entry.size;
            places += 1;
        }
        let mut used: Vec<_> = self
            .known
            .values_mut()
            .filter(|entry| !entry.is_spare())
            .filter_map(|entry| match &mut entry.place {
                Place::Resident { loaded_at, is_used: true, is_closed } => {
                    Some((*loaded_at, entry.size, is_closed))
                }
                _ => None,
            })
            .collect();
        used.sort_unstable_by_key(|&(loaded_at, ..)| loaded_at);
        for (_, of_it, is_closed) in used {
            if bytes >= size && places > 0 {
                break;
            }
            *is_closed = true;
            bytes += of_it;
            places += 1;
        }
    }

    /// Opens what was closed for somebody who is no longer first in line.
    fn reopen(&mut self) {
        let first = self.line.first_key_value().map(|(_, &id)| id);
        if self.blocked.is_some_and(|(id, _)| Some(id) != first) {
            self.open_all();
        }
    }

    fn open_all(&mut self) {
        self.blocked = None;
        for entry in self.known.values_mut() {
            if let Place::Resident { is_closed, .. } = &mut entry.place {
                *is_closed = false;
            }
        }
    }

    fn evict(&mut self, id: AdapterId) {
        self.stats.resident -= 1;
        self.stats.evicted_total += 1;
        let is_wanted = self.known.get(&id).is_some_and(|entry| entry.wanted > 0);
        let place = if is_wanted { Some(self.get_in_line(id)) } else { None };
        if let Some(entry) = self.known.get_mut(&id) {
            self.stats.used_bytes -= entry.size;
            match place {
                Some(place) => entry.place = place,
                None => {
                    self.known.remove(&id);
                }
            }
        }
    }

    fn get_in_line(&mut self, id: AdapterId) -> Place {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.line.insert(ticket, id);
        Place::Absent(ticket)
    }

    /// Checks every invariant: for tests and simulations.
    ///
    /// # Errors
    ///
    /// The first disagreement, in words.
    pub fn audit(&self) -> Result<(), String> {
        let (mut used, mut resident, mut loading) = (0, 0, 0);
        for (id, entry) in &self.known {
            match entry.place {
                Place::Absent(ticket) => {
                    if self.line.get(&ticket) != Some(id) || entry.wanted == 0 {
                        return Err(format!("adapter {id} is in line wrongly"));
                    }
                }
                Place::Loading => (used, loading) = (used + entry.size, loading + 1),
                Place::Resident { .. } => (used, resident) = (used + entry.size, resident + 1),
            }
            if entry.pins > 0 && !matches!(entry.place, Place::Resident { .. }) {
                return Err(format!("adapter {id} is pinned and not resident"));
            }
        }
        let stats = self.stats;
        if (used, resident, loading) != (stats.used_bytes, stats.resident, stats.loading) {
            return Err(format!("{used} bytes, {resident} and {loading}, not {stats:?}"));
        }
        if used > self.config.room_bytes
            || resident + loading > self.config.resident_max as usize
            || loading > self.config.loads_max as usize
        {
            return Err(format!("{stats:?} is over {:?}", self.config));
        }
        let absent = self.known.values().filter(|it| matches!(it.place, Place::Absent(_))).count();
        if absent == self.line.len() { Ok(()) } else { Err("the line is wrong".to_owned()) }
    }
}
