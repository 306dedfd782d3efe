//! Keys and values on a device: for each layer and each head, the slots of all pages in a row.

use candle_core::{DType, Device, Result, Tensor};

use super::kv_type;
use crate::cache::{KvError, KvFormat, PAGE_LEN};
use crate::forward::ForwardError;
use crate::settings::Settings;

/// The pages of all layers.
#[derive(Debug)]
pub(crate) struct DevicePages {
    layers: Vec<LayerPages>,
}

/// One layer: `[kv_heads, pages * PAGE_LEN, head_size]` each.
#[derive(Debug)]
pub(super) struct LayerPages {
    pub(super) keys: Tensor,
    pub(super) values: Tensor,
}

/// What one page takes in all layers, in bytes.
pub(in super::super) fn page_bytes(settings: &Settings, format: KvFormat) -> u64 {
    let numbers = 2 * settings.kv_width() as u64 * (PAGE_LEN * settings.layer_count) as u64;
    numbers.saturating_mul(kv_type(format).size_in_bytes() as u64)
}

impl DevicePages {
    /// All zero: a slot that was never written weighs nothing, and must not be NaN.
    pub(super) fn new(
        device: &Device,
        settings: &Settings,
        format: KvFormat,
        page_count: usize,
    ) -> std::result::Result<Self, KvError> {
        let kind = kv_type(format);
        let shape = (settings.kv_head_count, page_count * PAGE_LEN, settings.head_size);
        let store = |kind: DType| Tensor::zeros(shape, kind, device);
        let layer = |_| Ok(LayerPages { keys: store(kind)?, values: store(kind)? });
        let layers = (0..settings.layer_count).map(layer).collect::<Result<_>>();
        // Another thread will use them, and has a queue of its own on the device.
        let layers = layers.and_then(|layers| device.synchronize().map(|()| layers));
        let bytes = page_bytes(settings, format).saturating_mul(page_count as u64);
        let refused = KvError::Memory { bytes: usize::try_from(bytes).unwrap_or(usize::MAX) };
        Ok(Self { layers: layers.map_err(|_| refused)? })
    }

    /// One layer.
    pub(super) fn layer(&self, index: usize) -> &LayerPages {
        &self.layers[index]
    }

    /// Copies the first `slots` positions of a page to another, in every layer.
    pub(crate) fn copy(
        &mut self,
        from: u32,
        to: u32,
        slots: usize,
    ) -> std::result::Result<(), ForwardError> {
        let (from, to) = (from as usize * PAGE_LEN, to as usize * PAGE_LEN);
        for layer in &self.layers {
            for store in [&layer.keys, &layer.values] {
                let copied = store.narrow(1, from, slots)?.force_contiguous()?;
                store.slice_set(&copied, 1, to)?;
            }
        }
        Ok(())
    }
}
