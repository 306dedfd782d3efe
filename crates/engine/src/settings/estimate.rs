//! What a model will need, known before a weight is read.
//!
//! Not here: how much the machine has (`memory.rs`), and what to do when it is not enough.

use super::Settings;
use crate::gguf::TensorType;

impl Settings {
    /// Bytes of keys and values that one position of one sequence needs in all layers, where each
    /// key head and each value head is one row of `format`, rounded up to whole blocks.
    pub fn kv_size_per_position(&self, format: TensorType) -> u64 {
        let blocks = (self.head_size as u64).div_ceil(format.block_len());
        let rows = 2 * (self.layer_count * self.kv_head_count) as u64;
        rows * blocks * format.block_size()
    }
}
