//! Which chunks the blobs here are made of: recipes are read, and the index asked.

use std::sync::Arc;

use commons_port::blobs::{BlobError, Place};
use commons_record::Hash;
use commons_swarm::chunk::Chunk;
use commons_swarm::recipe::{ENTRY_LEN, HEADER_LEN, Header, Reader, RecipeError};

use super::shared::Shared;

/// Entries in one transaction: 640 KiB of a recipe, and a gibibyte of a blob.
const BATCH: u64 = 16 * 1024;

/// Chunks in one question.
const QUESTION_MAX: usize = 64 * 1024;

impl Shared {
    pub(super) fn find_chunks(&self, chunks: &[Hash]) -> Result<Vec<Option<Place>>, BlobError> {
        if chunks.len() > QUESTION_MAX {
            let detail = format!("{QUESTION_MAX} chunks can be asked for at once");
            return Err(BlobError::Disk { detail });
        }
        self.index.find_chunks(chunks).map_err(|error| self.index_error(error))
    }

    /// Enters the chunks of a blob that is held whole.
    pub(super) fn index_chunks(
        self: &Arc<Self>,
        blob: Hash,
        recipe: Hash,
    ) -> Result<(), BlobError> {
        let info = self.info(blob)?.ok_or(BlobError::NotHeld { blob })?;
        let recipe_info = self.info(recipe)?.ok_or(BlobError::NotHeld { blob: recipe })?;
        if !info.is_whole() {
            return Err(BlobError::NotHeld { blob });
        }
        let number = self.meta(blob)?.ok_or(BlobError::NotHeld { blob })?.number;
        let wrong = |error: RecipeError| BlobError::BadFile {
            path: recipe.to_string(),
            detail: error.to_string(),
        };
        let head = u32::try_from(HEADER_LEN).unwrap_or(u32::MAX);
        let header = Header::decode(&self.read(recipe, 0, head)?).map_err(wrong)?;
        header.expect(blob, info.size, recipe_info.size).map_err(wrong)?;
        let mut reader = Reader::new(header);
        while reader.index() < header.chunks() {
            let range = header.entries(reader.index()..reader.index() + BATCH);
            let len = u32::try_from(range.end - range.start).unwrap_or(u32::MAX);
            let bytes = self.read(recipe, range.start, len)?;
            let mut chunks = Vec::with_capacity(bytes.len() / ENTRY_LEN);
            let found = |chunk: Chunk| chunks.push((chunk.hash, chunk.start(), chunk.len));
            reader.read_all(&bytes, found).map_err(wrong)?;
            let put = self.index.put_chunks(number, &chunks);
            put.map_err(|error| self.index_error(error))?;
        }
        reader.finish().map_err(wrong)
    }
}
