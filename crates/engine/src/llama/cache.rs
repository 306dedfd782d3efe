//! The keys and values of one sequence, for every layer.

use candle_core::{DType, Device, Result, Tensor};

use super::{ForwardError, Settings};

/// Positions that a new cache has room for. It doubles when it is full.
const CAPACITY_START: usize = 256;

/// The keys and values of one sequence. It grows as the sequence does, up to the context.
#[derive(Debug)]
pub struct KvCache {
    /// Keys and values of each layer, `[kv heads, capacity, head size]`.
    layers: Vec<(Tensor, Tensor)>,
    layer_count: usize,
    kv_head_count: usize,
    head_size: usize,
    context_len: usize,
    capacity: usize,
    len: usize,
}

impl KvCache {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            layers: Vec::new(),
            layer_count: settings.layer_count,
            kv_head_count: settings.kv_head_count,
            head_size: settings.head_size,
            context_len: settings.context_len,
            capacity: 0,
            len: 0,
        }
    }

    /// How many positions are in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Makes room for `count` more positions, or refuses.
    pub(super) fn reserve(&mut self, count: usize) -> std::result::Result<(), ForwardError> {
        let needed = self.len + count;
        if needed > self.context_len {
            return Err(ForwardError::ContextFull { needed, context_len: self.context_len });
        }
        if needed > self.capacity {
            let capacity = needed.max(self.capacity * 2).max(CAPACITY_START).min(self.context_len);
            self.grow(capacity)?;
        }
        Ok(())
    }

    fn grow(&mut self, capacity: usize) -> Result<()> {
        let (old, len) = (&self.layers, self.len);
        let grown = |index: usize, pick: fn(&(Tensor, Tensor)) -> &Tensor| -> Result<Tensor> {
            let shape = (self.kv_head_count, capacity, self.head_size);
            let new = Tensor::zeros(shape, DType::F32, &Device::Cpu)?;
            if let Some(layer) = old.get(index).filter(|_| len > 0) {
                new.slice_set(&pick(layer).narrow(1, 0, len)?.contiguous()?, 1, 0)?;
            }
            Ok(new)
        };
        let layers = (0..self.layer_count)
            .map(|index| Ok((grown(index, |layer| &layer.0)?, grown(index, |layer| &layer.1)?)));
        self.layers = layers.collect::<Result<_>>()?;
        self.capacity = capacity;
        Ok(())
    }

    /// Stores the keys and values of new positions behind the others, and returns those of all.
    /// The caller has reserved room, and advances once every layer has stored its own.
    pub(super) fn store(
        &mut self,
        layer: usize,
        keys: &Tensor,
        values: &Tensor,
    ) -> Result<(Tensor, Tensor)> {
        let Some((all_keys, all_values)) = self.layers.get(layer) else {
            candle_core::bail!("layer {layer} has no cache");
        };
        let count = keys.dim(1)?;
        all_keys.slice_set(keys, 1, self.len)?;
        all_values.slice_set(values, 1, self.len)?;
        let len = self.len + count;
        Ok((all_keys.narrow(1, 0, len)?, all_values.narrow(1, 0, len)?))
    }

    /// Counts positions that every layer has stored.
    pub(super) fn advance(&mut self, count: usize) {
        self.len += count;
    }
}
