//! A model file in memory: mapped, never copied.
//!
//! Weights are multiplied straight from the mapped file, so a loaded model costs the page cache
//! and nothing besides, and two processes that serve one file share its memory. Where candle
//! packs a tensor for its fast kernels the raw pages are not touched again and can be dropped.
//!
//! JUSTIFICATION: mapping has no safe form, and a copy would double the memory of
//! every model (a 4 GB file: 4 GB of private memory more, and seconds of reading before the first
//! token). The second `unsafe` reads the mapped bytes as candle's block types, which is what
//! candle itself does with the copy it would make.
//!
//! Not here: what the bytes mean (`gguf.rs` has checked that), and which tensors are widened
//! (`weights.rs`).
#![allow(unsafe_code, reason = "see JUSTIFICATION above")]

use std::fs::File;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use candle_core::quantized::k_quants::{
    self, BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0, BlockQ5_1, BlockQ5K, BlockQ6K, BlockQ8_0,
};
use candle_core::quantized::{GgmlDType, GgmlType, QStorage, QTensor, QuantizedType};
use candle_core::{CpuStorage, Result};
use memmap2::Mmap;

use crate::gguf::{TensorInfo, TensorType};

/// Products of up to this many multiplications are made by the calling thread alone.
///
/// candle's pool meets at a spinning barrier after every product. That takes microseconds when all
/// cores are idle, and a time slice when one is not: on 2 cores that were also compiling, a model
/// of 64 x 64 matrices decoded a hundred times slower with the pool than without. 2^18
/// multiplications take about 20 microseconds.
const ALONE_MAX: usize = 1 << 18;

/// A file in memory.
#[derive(Clone, Debug)]
pub(crate) struct MappedFile(Arc<Mmap>);

impl MappedFile {
    /// Maps a whole file for reading.
    pub(crate) fn new(file: &File) -> std::io::Result<Self> {
        // SAFETY: the map is private and read-only, and nothing here writes to it. What remains is
        // somebody else who changes or truncates the file meanwhile: then weights change, or the
        // process is stopped by SIGBUS. All parsing is done once, at load; later only numbers are
        // read, of which every bit pattern is valid; and the node's model folder is its owner's.
        unsafe { Mmap::map(file) }.map(|map| Self(Arc::new(map)))
    }

    /// All bytes of the file.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// A tensor whose numbers stay in the file.
    pub(crate) fn tensor(&self, info: &TensorInfo) -> Result<QTensor> {
        let bytes = info.bytes();
        let storage: Box<dyn QuantizedType> = match info.kind() {
            TensorType::F32 => Box::new(MappedBlocks::<f32>::new(self, bytes)?),
            TensorType::F16 => Box::new(MappedBlocks::<half::f16>::new(self, bytes)?),
            TensorType::BF16 => Box::new(MappedBlocks::<half::bf16>::new(self, bytes)?),
            TensorType::Q4_0 => Box::new(MappedBlocks::<BlockQ4_0>::new(self, bytes)?),
            TensorType::Q4_1 => Box::new(MappedBlocks::<BlockQ4_1>::new(self, bytes)?),
            TensorType::Q5_0 => Box::new(MappedBlocks::<BlockQ5_0>::new(self, bytes)?),
            TensorType::Q5_1 => Box::new(MappedBlocks::<BlockQ5_1>::new(self, bytes)?),
            TensorType::Q8_0 => Box::new(MappedBlocks::<BlockQ8_0>::new(self, bytes)?),
            TensorType::Q4K => Box::new(MappedBlocks::<BlockQ4K>::new(self, bytes)?),
            TensorType::Q5K => Box::new(MappedBlocks::<BlockQ5K>::new(self, bytes)?),
            TensorType::Q6K => Box::new(MappedBlocks::<BlockQ6K>::new(self, bytes)?),
        };
        QTensor::new(QStorage::Cpu(storage), info.dims())
    }
}

/// A part of a mapped file, read as blocks of numbers. `T` is one of the types above only: each is
/// made of 8-bit, 16-bit and 32-bit numbers, `repr(C)`, without padding or invalid bit patterns.
struct MappedBlocks<T> {
    file: MappedFile,
    bytes: Range<usize>,
    kind: PhantomData<fn() -> T>,
}

impl<T: GgmlType> MappedBlocks<T> {
    /// Checks what [`Self::blocks`] relies on.
    fn new(file: &MappedFile, bytes: Range<usize>) -> Result<Self> {
        let is_sound = file.bytes().get(bytes.clone()).is_some_and(|slice| {
            slice.len().is_multiple_of(size_of::<T>()) && slice.as_ptr().cast::<T>().is_aligned()
        });
        if !is_sound {
            candle_core::bail!("bytes {bytes:?} of the file are not whole aligned blocks");
        }
        Ok(Self { file: file.clone(), bytes, kind: PhantomData })
    }

    fn blocks(&self) -> &[T] {
        let slice = &self.file.bytes()[self.bytes.clone()];
        // SAFETY: `new` checked that the slice is aligned for `T` and whole blocks long; `T` is
        // plain numbers (see the type); the map lives as long as `self`, and is never written to.
        unsafe { std::slice::from_raw_parts(slice.as_ptr().cast(), slice.len() / size_of::<T>()) }
    }
}

/// `dst[m, n] = lhs[m, k] * blocks[n, k]`, as candle's own does it but without its pool.
fn multiply_alone<T: GgmlType>(
    (m, k, n): (usize, usize, usize),
    lhs: &[f32],
    blocks: &[T],
    dst: &mut [f32],
) -> Result<()> {
    let row_len = k / T::BLCK_SIZE;
    if k == 0 || n == 0 || lhs.len() != m * k || blocks.len() != n * row_len || dst.len() != m * n {
        candle_core::bail!("[{m}, {k}] and [{n}, {k}] do not multiply");
    }
    let mut row = vec![T::VecDotType::zeros(); row_len];
    for (lhs, dst) in lhs.chunks_exact(k).zip(dst.chunks_exact_mut(n)) {
        T::VecDotType::from_float(lhs, &mut row);
        for (column, dst) in blocks.chunks_exact(row_len).zip(dst) {
            *dst = T::vec_dot(k, column, &row);
        }
    }
    Ok(())
}

impl<T: GgmlType> QuantizedType for MappedBlocks<T> {
    fn dtype(&self) -> GgmlDType {
        T::DTYPE
    }

    fn matmul_t(&self, mkn: (usize, usize, usize), lhs: &[f32], dst: &mut [f32]) -> Result<()> {
        let (m, k, n) = mkn;
        if m * k * n <= ALONE_MAX {
            return multiply_alone(mkn, lhs, self.blocks(), dst);
        }
        k_quants::matmul(mkn, lhs, self.blocks(), dst)
    }

    fn matmul_t_f16(
        &self,
        mkn: (usize, usize, usize),
        lhs: &[half::f16],
        dst: &mut [half::f16],
    ) -> Result<()> {
        k_quants::matmul_f16(mkn, lhs, self.blocks(), dst)
    }

    fn embedding(&self, ids: &[u32], rows: usize, hidden: usize) -> Result<CpuStorage> {
        let row_len = hidden / T::BLCK_SIZE;
        let blocks = self.blocks();
        if !hidden.is_multiple_of(T::BLCK_SIZE) || row_len * rows != blocks.len() || hidden == 0 {
            candle_core::bail!("{} blocks are not {rows} rows of {hidden}", blocks.len());
        }
        let mut numbers = vec![0f32; ids.len() * hidden];
        for (&id, row) in ids.iter().zip(numbers.chunks_exact_mut(hidden)) {
            let start = id as usize * row_len;
            let Some(source) = blocks.get(start..start + row_len) else {
                candle_core::bail!("row {id} of {rows} does not exist");
            };
            T::to_float(source, row);
        }
        Ok(CpuStorage::F32(numbers))
    }

    fn dequantize(&self, elem_count: usize) -> Result<CpuStorage> {
        let mut numbers = vec![0f32; elem_count];
        T::to_float(self.blocks(), &mut numbers);
        Ok(CpuStorage::F32(numbers))
    }

    fn storage_size_in_bytes(&self) -> usize {
        self.bytes.len()
    }

    fn as_ptr(&self) -> *const u8 {
        self.file.bytes()[self.bytes.clone()].as_ptr()
    }

    fn block_size(&self) -> usize {
        T::BLCK_SIZE
    }

    fn from_float(&mut self, _: &[f32]) {
        unreachable!("only candle's own quantisation writes, and it makes its own storage");
    }

    fn from_float_imatrix(&mut self, _: &[f32], _: &[f32], _: usize) {
        unreachable!("only candle's own quantisation writes, and it makes its own storage");
    }

    fn size(&self) -> usize {
        self.bytes.len()
    }
}
