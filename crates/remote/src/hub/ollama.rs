//! What a model of an Ollama registry has.
//!
//! ```text
//! GET /v2/{library,USER}/NAME/manifests/TAG       what it is made of
//! GET /v2/{library,USER}/NAME/blobs/sha256:HEX    one part
//! ```
//!
//! Fields that are relied upon, those of an image manifest of container registries:
//! `config.{mediaType,digest,size}` and `layers[].{mediaType,digest,size}`. A layer's media type is
//! `application/vnd.ollama.image.PART`; the part decides what its file is called here, since the
//! registry has no file names.

use std::collections::BTreeMap;

use commons_port::hub::{Digest, Listing, OriginError, OriginFile};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::Inner;
use super::client::Ask;
use super::hugging_face::sha256;
use super::json::Items;
use super::place::{Place, encoded};
use crate::fault::words;

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

const PART: &str = "application/vnd.ollama.image.";

/// A part's name is a word.
const PART_LEN_MAX: usize = 32;

/// What is asked for.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) name: String,
    pub(crate) tag: Option<String>,
    /// All of it, as a person wrote it.
    pub(crate) what: String,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    #[serde(default)]
    config: Option<Layer>,
    layers: Items<Layer>,
}

#[derive(Debug, Deserialize)]
struct Layer {
    #[serde(rename = "mediaType")]
    media_type: String,
    digest: String,
    size: u64,
}

pub(crate) async fn list(hubs: &Inner, wanted: &Wanted) -> Result<Listing, OriginError> {
    let tag = wanted.tag.as_deref().unwrap_or("latest");
    let (user, name) = wanted.name.split_once('/').unwrap_or(("library", &wanted.name));
    let base = format!("/v2/{}/{}", encoded(user), encoded(name));
    let place = Place::below(&hubs.ollama, &format!("{base}/manifests/{}", encoded(tag)));
    let ask = Ask { accept: MANIFEST, ..Ask::get(place, &wanted.what) };
    let (_, body) = hubs.client.whole(&ask).await?;
    let manifest: Manifest = serde_json::from_slice(&body).map_err(|error| {
        let detail = format!("no manifest: {}", words(&error.to_string(), None));
        OriginError::Broken { host: hubs.ollama.authority(), detail }
    })?;
    let layers = manifest.layers.0;
    if layers.len() >= hubs.client.limits().files {
        let detail = format!("it has more than {} files", hubs.client.limits().files);
        return Err(OriginError::Refused { what: wanted.what.clone(), detail });
    }
    let (mut files, mut seen) = (Vec::new(), BTreeMap::<String, u32>::new());
    let config = manifest.config.map(|it| ("config.json".to_owned(), it));
    let parts = layers.into_iter().map(|it| (path_of(&it.media_type, name, tag), it));
    for (path, layer) in config.into_iter().chain(parts) {
        let count = seen.entry(path.clone()).or_default();
        *count += 1;
        let path = if *count == 1 { path } else { numbered(&path, *count) };
        files.push(file(hubs, wanted, &base, (path, layer))?);
    }
    let revision = format!("sha256:{}", hex(&Sha256::digest(&body)));
    Ok(Listing { revision, licence: None, base_models: Vec::new(), files })
}

fn file(
    hubs: &Inner,
    wanted: &Wanted,
    base: &str,
    (path, layer): (String, Layer),
) -> Result<OriginFile, OriginError> {
    let digest = layer.digest.strip_prefix("sha256:").and_then(sha256);
    let digest = digest.ok_or_else(|| {
        let detail = format!("{} is no digest of SHA-256", words(&layer.digest, None));
        OriginError::Broken { host: hubs.ollama.authority(), detail }
    })?;
    let (size, max) = (layer.size, hubs.client.limits().file_bytes);
    if size > max {
        let detail = format!("{path} is said to have {size} bytes, more than {max}");
        return Err(OriginError::Refused { what: wanted.what.clone(), detail });
    }
    let Digest::Sha256(bytes) = digest else {
        return Err(OriginError::Refused { what: path, detail: "it has no SHA-256".to_owned() });
    };
    let route = format!("{base}/blobs/sha256:{}", hex(&bytes));
    let url = Place::below(&hubs.ollama, &route).to_string();
    Ok(OriginFile { path, size, digest: Some(digest), url })
}

/// What a part is called here.
fn path_of(media_type: &str, name: &str, tag: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let part = media_type.strip_prefix(PART).unwrap_or_default();
    match part {
        "model" => format!("{name}-{tag}.gguf"),
        "adapter" | "projector" => format!("{name}-{tag}-{part}.gguf"),
        "params" | "messages" => format!("{part}.json"),
        "" => "layer".to_owned(),
        _ if part.len() <= PART_LEN_MAX && part.bytes().all(is_plain) => part.to_owned(),
        _ => "layer".to_owned(),
    }
}

/// The second of a kind is `NAME-2.EXT`.
fn numbered(path: &str, count: u32) -> String {
    match path.rsplit_once('.') {
        Some((stem, ext)) => format!("{stem}-{count}.{ext}"),
        None => format!("{path}-{count}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;

    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_called_by_what_it_is() {
        let check = |part: &str, want: &str| {
            assert_eq!(path_of(&format!("{PART}{part}"), "qwen3", "8b"), want, "{part}");
        };
        check("model", "qwen3-8b.gguf");
        check("projector", "qwen3-8b-projector.gguf");
        check("adapter", "qwen3-8b-adapter.gguf");
        check("template", "template");
        check("license", "license");
        check("system", "system");
        check("params", "params.json");
        check("../../x", "layer");
        check("", "layer");
        assert_eq!(path_of("text/html", "a", "b"), "layer");
        assert_eq!(numbered("qwen3-8b.gguf", 2), "qwen3-8b-2.gguf");
        assert_eq!(numbered("license", 3), "license-3");
    }
}
