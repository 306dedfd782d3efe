//! Bytes of a file, in order, as they come: what is held is read, what is missing is pulled first.

use std::sync::Arc;

use bytes::Bytes;
use commons_port::BoxStream;
use commons_port::blobs::{BlobError, PIECE_LEN};
use commons_port::hub::{HubError, RepoFile};
use commons_record::Millis;
use futures::stream;

use super::Stock;
use super::active::{self, Active};
use crate::catalogue::hub::ReadFile;
use crate::start::Inner;
use crate::tasks::within;

/// A piece that does not come within this is not waited for any more.
const PIECE_WAIT: Millis = Millis::from_secs(120);

/// Pieces that are asked for before all others while one reads.
const AHEAD: u64 = 8;

/// Reads for those that ask the node as a hub.
pub(crate) fn reader(inner: Arc<Inner>) -> ReadFile {
    Arc::new(move |file, offset, len| read(&inner, file, offset, len))
}

struct Reading {
    inner: Arc<Inner>,
    stock: Arc<Stock>,
    file: RepoFile,
    offset: u64,
    end: u64,
    active: Option<Arc<Active>>,
}

fn read(
    inner: &Arc<Inner>,
    file: RepoFile,
    offset: u64,
    len: u64,
) -> BoxStream<'static, Result<Bytes, HubError>> {
    let Some(stock) = inner.stock.clone() else {
        let what = file.path;
        let detail = super::no_files().message;
        let error = HubError::Unavailable { what, detail };
        return Box::pin(stream::once(async { Err(error) }));
    };
    let end = offset.saturating_add(len).min(file.size);
    let reading = Reading { inner: inner.clone(), stock, file, offset, end, active: None };
    Box::pin(stream::try_unfold(reading, async |mut reading| {
        if reading.offset >= reading.end {
            return Ok(None);
        }
        let bytes = reading
            .next()
            .await
            .map_err(|detail| HubError::Unavailable { what: reading.file.path.clone(), detail })?;
        reading.offset += bytes.len() as u64;
        Ok(Some((bytes, reading)))
    }))
}

impl Reading {
    /// The rest of the piece that is read, or less.
    async fn next(&mut self) -> Result<Bytes, String> {
        let piece_len = u64::from(PIECE_LEN);
        let piece = self.offset / piece_len;
        let stop = self.end.min((piece + 1) * piece_len);
        let len = u32::try_from(stop - self.offset).unwrap_or(PIECE_LEN);
        let (blob, offset) = (self.file.blob, self.offset);
        let work = async {
            loop {
                match self.stock.ports.blobs.read(blob, offset, len).await {
                    Ok(bytes) => return Ok(bytes),
                    Err(BlobError::NotHeld { .. } | BlobError::NotYet { .. }) => {}
                    Err(error) => return Err(error.to_string()),
                }
                if self.active.is_none() {
                    let size = self.file.size;
                    let active = active::ensure(&self.inner, &self.stock, blob, size).await;
                    self.active = Some(active.map_err(|refusal| refusal.message)?);
                }
                let Some(active) = &self.active else { continue };
                let mut state = active.state.clone();
                active.prefer(piece..piece + AHEAD);
                let end = state.borrow_and_update().end.clone();
                match end {
                    Some(Err(error)) => return Err(error.to_string()),
                    // It may have come in this moment; if not, the next look finds a new pull.
                    Some(Ok(())) => self.active = None,
                    None => {
                        // What changes may be this piece, or the end.
                        let _ = state.changed().await;
                    }
                }
            }
        };
        let clock = self.inner.ports.clock.clone();
        within(&*clock, PIECE_WAIT, work).await.unwrap_or_else(|| {
            Err("no peer that holds it was reached in time; ask again later".to_owned())
        })
    }
}
