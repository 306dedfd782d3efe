//! A file at an address, whose digest was said by whoever asks for it.
//!
//! `HEAD` tells its size. Servers that refuse it, as storage behind signed addresses does, are
//! asked for its first byte: `Content-Range` has the size then.

use commons_port::hub::{Digest, Listing, OriginError, OriginFile, source};
use hyper::Method;
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE};

use super::Inner;
use super::client::{Answer, Ask, header};
use super::fetch::ContentRange;
use super::place::{Place, PlaceError};

pub(crate) async fn list(hubs: &Inner, url: &str, digest: Digest) -> Result<Listing, OriginError> {
    let place = Place::parse(url).map_err(|error| bad_address(&error))?;
    let what = format!("the file at {}", place.host());
    let head = Ask { method: Method::HEAD, ..Ask::get(place.clone(), &what) };
    let answer = hubs.client.send(&head).await?;
    let size = match size_of_head(&answer) {
        Some(size) => size,
        // These mean that HEAD is refused, or that its answer is no use: the file may be there.
        None if matches!(answer.reply.status, 200 | 400 | 403 | 405 | 501) => {
            size_by_range(hubs, &place, &what).await?
        }
        None => return Err(hubs.client.refusal(answer, &head).await),
    };
    let max = hubs.client.limits().file_bytes;
    if size > max {
        let detail = format!("it is said to have {size} bytes, more than {max}");
        return Err(OriginError::Refused { what, detail });
    }
    let file =
        OriginFile { path: name_of(&place), size, digest: Some(digest), url: url.to_owned() };
    let revision = digest.to_string();
    Ok(Listing { revision, licence: None, base_models: Vec::new(), files: vec![file] })
}

pub(crate) fn bad_address(error: &PlaceError) -> OriginError {
    OriginError::Refused { what: "an address outside".to_owned(), detail: error.to_string() }
}

fn size_of_head(answer: &Answer) -> Option<u64> {
    let length = header(&answer.reply.headers, CONTENT_LENGTH.as_str())?.parse().ok()?;
    (answer.reply.status == 200).then_some(length)
}

async fn size_by_range(hubs: &Inner, place: &Place, what: &str) -> Result<u64, OriginError> {
    let ask = Ask { range: Some("bytes=0-0".to_owned()), ..Ask::get(place.clone(), what) };
    let answer = hubs.client.send(&ask).await?;
    let headers = &answer.reply.headers;
    let size = match answer.reply.status {
        206 => header(headers, CONTENT_RANGE.as_str())
            .and_then(|it| ContentRange::parse(&it))
            .and_then(|it| it.size),
        200 => header(headers, CONTENT_LENGTH.as_str()).and_then(|it| it.parse().ok()),
        // An empty file has no first byte.
        416 if header(headers, CONTENT_RANGE.as_str()).as_deref() == Some("bytes */0") => Some(0),
        _ => return Err(hubs.client.refusal(answer, &ask).await),
    };
    let host = answer.place.host();
    let detail = "it does not say how large the file is".to_owned();
    size.ok_or(OriginError::Refused { what: host, detail })
}

/// The last name of the path, if it is a plain one.
fn name_of(place: &Place) -> String {
    let path = place.target().split('?').next().unwrap_or_default();
    let name = decoded(path.rsplit('/').next().unwrap_or_default());
    match name {
        Some(name) if source::is_plain_path(&name) && !name.contains('/') => name,
        _ => "file".to_owned(),
    }
}

/// A name without its percent signs.
fn decoded(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::new(), text.bytes());
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_called_as_its_address_ends() {
        let check = |url: &str, want: &str| {
            assert_eq!(name_of(&Place::parse(url).expect(url)), want, "{url}");
        };
        check("https://h/a/b.gguf?x=/c", "b.gguf");
        check("https://h/a%20b.gguf", "a b.gguf");
        check("https://h/", "file");
        check("https://h/..", "file");
        check("https://h/%2e%2e%2fx", "file");
        check("https://h/%2e%2e", "file");
        check("https://h/%00", "file");
        check("https://h/%zz", "file");
        check("https://h/%f", "file");
    }
}
