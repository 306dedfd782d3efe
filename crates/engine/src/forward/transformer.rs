//! A model's weights where they are computed: on the processor, or on a device.
//!
//! Everything else sees a [`Transformer`] and a [`Cache`] that it made, and not where they lie.

use std::sync::Arc;

use commons_kernels::Isa;

#[cfg(feature = "candle")]
use super::candle::Candle;
use super::machine::Cpu;
use super::{ForwardError, LoadOptions, Network, Segment};
use crate::cache::{self, Cache, KvError, KvFormat, PAGE_LEN, Pages};
use crate::memory::available_memory;
use crate::place::Place;
use crate::settings::Settings;
use crate::team::Team;
use crate::weights::{WeightError, Weights};

/// A model's weights, ready to compute.
#[derive(Debug)]
pub struct Transformer {
    network: Placed,
    settings: Arc<Settings>,
}

#[derive(Debug)]
enum Placed {
    Cpu(Network<Cpu>),
    #[cfg(feature = "candle")]
    Candle(Network<Candle>),
}

/// Computes with the network, wherever it is.
macro_rules! on {
    ($placed:expr, $network:ident => $made:expr) => {
        match $placed {
            Placed::Cpu($network) => $made,
            #[cfg(feature = "candle")]
            Placed::Candle($network) => $made,
        }
    };
}

impl Transformer {
    /// Takes the weights that `settings` asks for out of the file, and packs them on the processor.
    pub fn load(
        weights: &Weights,
        settings: Settings,
        options: &LoadOptions<'_>,
    ) -> Result<Self, WeightError> {
        Self::load_at(&Place::Cpu, weights, settings, options)
    }

    /// Takes them to a place.
    pub fn load_at(
        place: &Place,
        weights: &Weights,
        settings: Settings,
        options: &LoadOptions<'_>,
    ) -> Result<Self, WeightError> {
        let network = match place {
            Place::Cpu => Placed::Cpu(Network::load(Cpu, weights, settings, options)?),
            #[cfg(feature = "candle")]
            Place::Candle(device) => {
                let machine = Candle::new(device.clone());
                let network = Network::load(machine, weights, settings, options)?;
                network.machine.settle()?;
                Placed::Candle(network)
            }
        };
        let settings = on!(&network, it => Arc::clone(&it.settings));
        Ok(Self { network, settings })
    }

    /// What the file says about the model.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How many bytes its weights take in memory.
    pub fn size_bytes(&self) -> usize {
        on!(&self.network, it => it.size_bytes())
    }

    /// Whether rows may have adapters where the weights are.
    pub fn adapts(&self) -> bool {
        on!(&self.network, it => it.adapts())
    }

    /// What one page of keys and values takes in all layers, in bytes.
    pub fn page_bytes(&self, format: KvFormat) -> Result<u64, KvError> {
        match &self.network {
            Placed::Cpu(_) => cache::page_bytes(&self.settings, format),
            #[cfg(feature = "candle")]
            Placed::Candle(_) => Ok(super::candle::page_bytes(&self.settings, format)),
        }
    }

    /// Bytes that are free where keys and values lie; none where nobody tells.
    pub fn memory_available(&self) -> Option<u64> {
        match &self.network {
            Placed::Cpu(_) => available_memory(),
            #[cfg(feature = "candle")]
            Placed::Candle(it) => it.machine.memory_available(),
        }
    }

    /// Room for `page_count` pages of keys and values, where the weights are.
    pub fn cache(&self, format: KvFormat, page_count: usize) -> Result<Cache, KvError> {
        match &self.network {
            Placed::Cpu(_) => Cache::new(&self.settings, format, page_count),
            #[cfg(feature = "candle")]
            Placed::Candle(it) => {
                let pages = it.machine.pages(&self.settings, format, page_count)?;
                Ok(Cache::on_device(pages, page_count))
            }
        }
    }

    /// Puts a batch through: stores the keys and values of its tokens, and returns the wanted rows
    /// behind the last layer, in the order of the batch: what [`Self::norm`] takes.
    pub fn forward(
        &self,
        team: &mut Team,
        cache: &mut Cache,
        segments: &[Segment<'_>],
    ) -> Result<Vec<f32>, ForwardError> {
        self.check(cache, segments)?;
        match (&self.network, cache.pages_mut()) {
            (Placed::Cpu(it), Pages::Host(pages)) => {
                team.lead(|team| it.forward(team, pages, segments))
            }
            #[cfg(feature = "candle")]
            (Placed::Candle(it), Pages::Device(pages)) => it.forward(team, pages, segments),
            #[cfg(feature = "candle")]
            _ => Err(ForwardError::Elsewhere),
        }
    }

    /// Rows behind the last layer, normed: hidden states, and what [`Self::logits`] takes.
    pub fn norm(&self, isa: Isa, rows: &[f32]) -> Vec<f32> {
        on!(&self.network, it => it.norm(isa, rows))
    }

    /// The logits behind each of some normed rows. An encoder has none.
    pub fn logits(&self, team: &mut Team, rows: &[f32]) -> Result<Vec<f32>, ForwardError> {
        on!(&self.network, it => it.logits(team, rows))
    }

    fn check(&self, cache: &Cache, segments: &[Segment<'_>]) -> Result<(), ForwardError> {
        let count = self.settings.token_count;
        let context_len = self.settings.context_len;
        for segment in segments {
            let Some(last) = segment.tokens.len().checked_sub(1) else {
                return Err(ForwardError::Empty);
            };
            if let Some(&id) = segment.tokens.iter().find(|&&id| id as usize >= count) {
                return Err(ForwardError::UnknownToken { id, count });
            }
            let position = segment.start + last;
            if position >= context_len {
                return Err(ForwardError::ContextFull { position, context_len });
            }
            let known = segment.pages.iter().take_while(|&&page| cache.has(page)).count();
            let held = known * PAGE_LEN;
            if position >= held {
                return Err(ForwardError::NoPage { position, held });
            }
        }
        if segments.is_empty() { Err(ForwardError::Empty) } else { Ok(()) }
    }
}
