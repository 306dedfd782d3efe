//! The keys and values of all sequences: pages of every layer, and which machine memory they take.
//!
//! A page holds [`PAGE_LEN`] positions of one sequence, in every layer under the same number. Who
//! owns which page is decided elsewhere (`commons-schedule`); here are only the numbers.
//!
//! # Invariants
//!
//! * Memory is taken once, for all pages; a page that was never used costs none.
//! * A layer is written by the thread that drives the model alone, and while it is, nobody reads it.

use std::sync::Arc;

pub use commons_kernels::kv::{KvError, KvFormat, PAGE_LEN};
use commons_kernels::kv::{KvShape, KvStore};

#[cfg(feature = "candle")]
use crate::forward::DevicePages;
use crate::forward::ForwardError;
use crate::settings::Settings;

/// The keys and values of all sequences of one model.
#[derive(Debug)]
pub struct Cache {
    pages: Pages,
    page_count: usize,
}

/// Where pages lie: where the weights do.
#[derive(Debug)]
pub(crate) enum Pages {
    Host(HostPages),
    #[cfg(feature = "candle")]
    Device(DevicePages),
}

/// Pages in the memory of the processor.
#[derive(Debug)]
pub(crate) struct HostPages {
    layers: Vec<Arc<KvStore>>,
}

/// What one page takes in all layers, in bytes.
pub fn page_bytes(settings: &Settings, format: KvFormat) -> Result<u64, KvError> {
    let layer = shape(settings, format).page_bytes()? as u64;
    Ok(layer.saturating_mul(settings.layer_count as u64))
}

fn shape(settings: &Settings, format: KvFormat) -> KvShape {
    let size = settings.head_size;
    KvShape { kv_heads: settings.kv_head_count, key_size: size, value_size: size, format }
}

impl Cache {
    /// Room for `page_count` pages, for a model on the processor.
    pub fn new(settings: &Settings, format: KvFormat, page_count: usize) -> Result<Self, KvError> {
        let shape = shape(settings, format);
        let layer = |_| KvStore::new(shape, page_count).map(Arc::new);
        let layers = (0..settings.layer_count).map(layer).collect::<Result<_, _>>()?;
        Ok(Self { pages: Pages::Host(HostPages { layers }), page_count })
    }

    /// Pages on a device.
    #[cfg(feature = "candle")]
    pub(crate) fn on_device(pages: DevicePages, page_count: usize) -> Self {
        Self { pages: Pages::Device(pages), page_count }
    }

    /// How many pages there are.
    pub fn page_count(&self) -> usize {
        self.page_count
    }

    /// Whether there is a page of this number.
    pub fn has(&self, page: u32) -> bool {
        (page as usize) < self.page_count
    }

    /// Copies the first `slots` positions of a page to another, in every layer.
    pub fn copy(&mut self, from: u32, to: u32, slots: usize) -> Result<(), ForwardError> {
        match &mut self.pages {
            Pages::Host(pages) => {
                for index in 0..pages.layers.len() {
                    pages.layer_mut(index).copy_slots(from, to, slots);
                }
                Ok(())
            }
            #[cfg(feature = "candle")]
            Pages::Device(pages) => pages.copy(from, to, slots),
        }
    }

    /// All pages, to read and to write.
    pub(crate) fn pages_mut(&mut self) -> &mut Pages {
        &mut self.pages
    }
}

impl HostPages {
    /// One layer, to read.
    pub(crate) fn layer(&self, index: usize) -> &Arc<KvStore> {
        &self.layers[index]
    }

    /// One layer, to write. Waits for a thread that was taken away while it read: its work is not
    /// wanted any more, but it must have stopped reading.
    pub(crate) fn layer_mut(&mut self, index: usize) -> &mut KvStore {
        let layer = &mut self.layers[index];
        while Arc::get_mut(layer).is_none() {
            std::thread::yield_now();
        }
        Arc::get_mut(layer).expect("nobody else has it: new readers come from this thread")
    }
}
