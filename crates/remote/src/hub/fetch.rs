//! A file's bytes, from an offset on.
//!
//! ```text
//! Range: bytes=N- --> 206 with exactly that range -> begins at N
//!                 \-> 200                         -> begins at 0: the place cannot resume
//! head checked against the listing -> Pulled: chunks, as fast as they are taken, counted
//! ```
//!
//! What is checked of a head, at whoever answers or redirects:
//!
//! * a host that speaks Hugging Face's API: `x-repo-commit` is the commit of the address,
//!   `x-linked-size` the size, `x-linked-etag` (or `etag`, where it answers itself) the digest;
//! * any: `Content-Range` begins where it was asked to and has the size of the listing, and so has
//!   `Content-Length`; no `Content-Encoding`; an `etag` that was seen before is the same.
//!
//! Not here: hashing.

use std::sync::Arc;

use bytes::Bytes;
use commons_port::hub::{Digest, Fetched, OriginError, OriginFile};
use commons_port::time::Clock;
use commons_record::Millis;
use futures::stream;
use hyper::HeaderMap;
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG};

use super::client::{Answer, Ask, header, told};
use super::place::Place;
use super::plain::bad_address;
use super::{HubLimits, Inner, hugging_face};
use crate::http::{Reply, within};
use crate::secret::Key;

/// `Content-Range: bytes FIRST-LAST/SIZE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ContentRange {
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// None where the place says `*`.
    pub(crate) size: Option<u64>,
}

impl ContentRange {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let number = |text: &str| {
            let is_number = !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
            is_number.then(|| text.parse::<u64>().ok()).flatten()
        };
        let (first, last) = (number(first)?, number(last)?);
        let size = if size == "*" { None } else { Some(number(size)?) };
        let fits = first <= last && size.is_none_or(|it| last < it);
        fits.then_some(Self { first, last, size })
    }
}

pub(crate) async fn fetch(
    hubs: &Inner,
    file: OriginFile,
    offset: u64,
) -> Result<Fetched, OriginError> {
    if offset > file.size || file.size > hubs.client.limits().file_bytes {
        let detail = format!("it has {} bytes; from {offset} on were asked for", file.size);
        return Err(OriginError::Refused { what: file.path, detail });
    }
    let place = Place::parse(&file.url)
        .ok()
        // An address that its owner set may be one of the local network.
        .or_else(|| own_place(hubs, &file.url))
        .ok_or_else(|| bad_address(&super::place::PlaceError::PlainHttp))?;
    if offset == file.size {
        return Ok(Fetched { offset, bytes: Box::pin(stream::empty()) });
    }
    let commit = hugging_face::pinned(hubs, &place);
    let etag = hubs.etag_of(&file.url).filter(|_| commit.is_none() && offset > 0);
    let token = hubs.token_for(&place).cloned();
    let ask = Ask {
        range: (offset > 0).then(|| format!("bytes={offset}-")),
        if_range: etag.clone(),
        token: token.as_ref(),
        ..Ask::get(place, &file.path)
    };
    let answer = hubs.client.send(&ask).await?;
    let begins = match answer.reply.status {
        206 if offset > 0 => offset,
        200 => 0,
        416 => return Err(OriginError::Changed { what: file.path }),
        _ => return Err(hubs.client.refusal(answer, &ask).await),
    };
    check(&answer, &file, begins, etag.as_deref())?;
    if let Some(commit) = &commit {
        check_pinned(hubs, &answer, &file, commit)?;
    }
    hubs.remember_etag(&file.url, strong_etag(&answer.reply.headers));
    let pulled = Pulled {
        left: file.size - begins,
        place: answer.place,
        reply: answer.reply,
        token,
        clock: hubs.client.clock(),
        limits: *hubs.client.limits(),
        waited: Millis::default(),
        got: 0,
    };
    let bytes = stream::unfold(Some(pulled), |pulled| async move { pulled?.next().await });
    Ok(Fetched { offset: begins, bytes: Box::pin(bytes) })
}

/// A place below an address that the owner set, whatever its scheme.
fn own_place(hubs: &Inner, url: &str) -> Option<Place> {
    [&hubs.hugging_face, &hubs.ollama].into_iter().find_map(|address| {
        let base = Place::below(address, "").to_string();
        let route = url.strip_prefix(&base)?;
        let is_route = route.starts_with('/') && route.bytes().all(|it| it.is_ascii_graphic());
        is_route.then(|| Place::below(address, route))
    })
}

/// The head fits to what was asked and to what was listed.
fn check(
    answer: &Answer,
    file: &OriginFile,
    begins: u64,
    etag: Option<&str>,
) -> Result<(), OriginError> {
    let headers = &answer.reply.headers;
    let changed = || Err(OriginError::Changed { what: file.path.clone() });
    let broken = |detail: String| Err(OriginError::Broken { host: answer.place.host(), detail });
    let number = |name: &str| header(headers, name).map(|it| it.parse::<u64>().ok());
    if let Some(form) = header(headers, CONTENT_ENCODING.as_str())
        && !form.eq_ignore_ascii_case("identity")
    {
        return broken("it packs the file where it was asked not to".to_owned());
    }
    if begins > 0 {
        let text = header(headers, CONTENT_RANGE.as_str()).unwrap_or_default();
        let Some(range) = ContentRange::parse(&text) else {
            return broken(format!("its Content-Range {text:?} is none"));
        };
        if range.first != begins {
            return broken(format!("bytes from {begins} on were asked for, it sends {text:?}"));
        }
        if range.size.is_some_and(|it| it != file.size) || range.last >= file.size {
            return changed();
        }
        if range.last != file.size - 1 {
            return broken(format!("all bytes from {begins} on were asked for, it sends {text:?}"));
        }
        if etag.is_some_and(|it| strong_etag(headers).is_some_and(|got| got != it)) {
            return changed();
        }
    }
    match number(CONTENT_LENGTH.as_str()) {
        Some(None) => broken("its Content-Length is no number".to_owned()),
        // A range has its own length, which was just found to lead to the end.
        Some(Some(length)) if length != file.size - begins => match begins {
            0 => changed(),
            _ => broken(format!("its Content-Length {length} is not that of its range")),
        },
        Some(Some(_)) | None => Ok(()),
    }
}

/// The host that the address is pinned at still says the same of the file.
fn check_pinned(
    hubs: &Inner,
    answer: &Answer,
    file: &OriginFile,
    commit: &str,
) -> Result<(), OriginError> {
    let last = (&answer.place, &answer.reply.headers, true);
    let trail = answer.trail.iter().map(|(place, headers)| (place, headers, false));
    for (place, headers, is_last) in trail.chain([last]) {
        if !place.is_at(&hubs.hugging_face) {
            continue;
        }
        let differs = |name: &str, want: &str| header(headers, name).is_some_and(|it| it != want);
        let linked = header(headers, "x-linked-etag");
        let own = || header(headers, ETAG.as_str()).filter(|_| is_last);
        let etag = linked.or_else(own);
        if differs("x-repo-commit", commit)
            || differs("x-linked-size", &file.size.to_string())
            || etag.is_some_and(|it| contradicts(&it, file.digest))
        {
            return Err(OriginError::Changed { what: file.path.clone() });
        }
    }
    Ok(())
}

/// Whether an etag is a hash of the kind that was listed, and another one.
fn contradicts(etag: &str, digest: Option<Digest>) -> bool {
    let etag = etag.trim_start_matches("W/").trim_matches('"');
    match digest {
        Some(Digest::Sha256(_)) => hugging_face::sha256(etag).is_some_and(|it| Some(it) != digest),
        Some(Digest::GitSha1(_)) => {
            hugging_face::git_sha1(etag).is_some_and(|it| Some(it) != digest)
        }
        Some(Digest::Blake3(_)) | None => false,
    }
}

/// An etag that stands for the same bytes.
fn strong_etag(headers: &HeaderMap) -> Option<String> {
    header(headers, ETAG.as_str()).filter(|it| it.len() > 2 && it.starts_with('"'))
}

/// A body that is read as fast as it is taken.
struct Pulled {
    reply: Reply,
    place: Place,
    token: Option<Key>,
    /// Bytes that are still to come.
    left: u64,
    clock: Arc<dyn Clock>,
    limits: HubLimits,
    /// How long was waited for `got` bytes: the time between two calls is the taker's.
    waited: Millis,
    got: u64,
}

impl Pulled {
    /// The next bytes, and the rest; nothing follows an error or the end.
    async fn next(mut self) -> Option<(Result<Bytes, OriginError>, Option<Self>)> {
        match self.chunk().await {
            Ok(Some(bytes)) => Some((Ok(bytes), Some(self))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, OriginError> {
        let broken =
            |place: &Place, detail: String| Err(OriginError::Broken { host: place.host(), detail });
        loop {
            let rest = Millis(self.limits.idle.since(self.waited).0.max(1));
            let from = self.clock.now();
            let (place, token) = (&self.place, self.token.as_ref());
            let detail = format!(
                "less than {} bytes came within {} ms",
                self.limits.idle_bytes, self.limits.idle.0
            );
            let late = OriginError::Broken { host: place.host(), detail };
            let reading =
                async { self.reply.chunk().await.map_err(|fault| told(place, &fault, token)) };
            let bytes = within(self.clock.as_ref(), rest, late, reading).await?;
            let Some(bytes) = bytes else {
                if self.left > 0 {
                    return broken(place, format!("it ended {} bytes too early", self.left));
                }
                return Ok(None);
            };
            let len = bytes.len() as u64;
            let Some(left) = self.left.checked_sub(len) else {
                return broken(place, "it sends more bytes than the file has".to_owned());
            };
            self.left = left;
            self.got += len;
            self.waited = self.waited.saturating_add(self.clock.now().since(from));
            if self.got >= self.limits.idle_bytes {
                (self.got, self.waited) = (0, Millis::default());
            }
            if len > 0 {
                return Ok(Some(bytes));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_range_is_read_strictly() {
        let range = |first, last, size| Some(ContentRange { first, last, size });
        let check = |text: &str, want| assert_eq!(ContentRange::parse(text), want, "{text}");
        check("bytes 5-9/10", range(5, 9, Some(10)));
        check("bytes 0-0/*", range(0, 0, None));
        for text in [
            "",
            "bytes",
            "bytes 5-9",
            "bytes 9-5/10",
            "bytes 5-10/10",
            "bytes */10",
            "items 5-9/10",
            "bytes +5-9/10",
            "bytes 5-9/10 ",
            "bytes -9/10",
            "bytes 5-9/99999999999999999999999",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn an_etag_contradicts_only_a_hash_of_its_own_kind() {
        let sha = Some(Digest::Sha256([0xab; 32]));
        let git = Some(Digest::GitSha1([0xab; 20]));
        let check =
            |etag: &str, digest, want| assert_eq!(contradicts(etag, digest), want, "{etag}");
        check(&format!("\"{}\"", "ab".repeat(32)), sha, false);
        check(&format!("\"{}\"", "cd".repeat(32)), sha, true);
        check(&format!("W/\"{}\"", "cd".repeat(20)), git, true);
        check(&format!("\"{}\"", "ab".repeat(20)), git, false);
        check("\"0123456789abcdef-12\"", sha, false);
        check(&format!("\"{}\"", "cd".repeat(32)), git, false);
        check(&format!("\"{}\"", "cd".repeat(32)), None, false);
    }
}
