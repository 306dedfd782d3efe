//! What a model is: its files by hash, and where it comes from.

use serde::{Deserialize, Serialize};

use crate::envelope::{InvalidBody, Record, Signer};
use crate::hash::Hash;
use crate::mesh::is_label;

/// A model in more files than this would be sharded beyond any that exists.
const FILES_MAX: usize = 256;

/// A model as it is served, by the node that vouches for the description.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelManifest {
    /// The name that people use.
    pub name: String,
    /// The files, the one that names the model first.
    pub files: Vec<FileEntry>,
    /// The architecture: `llama`.
    pub family: String,
    /// `Q4_K_M`, `F16`.
    pub quantisation: String,
    /// Hash of the vocabulary and its rules.
    pub tokenizer: Hash,
    /// Tokens of context that the model was made for.
    pub context_len: u32,
    /// How many parameters it has.
    pub parameter_count: u64,
    /// An SPDX expression, or `NOASSERTION`.
    pub licence: String,
    /// Where it comes from, axis by axis.
    pub provenance: Provenance,
}

/// One file of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// The file's own name, without a folder.
    pub name: String,
    /// Its plain BLAKE3.
    pub hash: Hash,
    /// Its length in bytes.
    pub size: u64,
}

/// The axes along which a model's origin is told apart. `None` says that nobody claims to know.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// The model that it was made from.
    pub base: Option<Hash>,
    /// Who trained it.
    pub author: Option<String>,
    /// The data that it was trained on.
    pub data: Option<Hash>,
    /// The method: `pretrained`, `fine-tuned`, `quantised`.
    pub method: Option<String>,
}

impl ModelManifest {
    /// The model's id: the hash of its first file.
    pub fn model(&self) -> Option<Hash> {
        self.files.first().map(|file| file.hash)
    }
}

/// Whether `name` names a file in a folder and nothing outside of it.
fn is_file_name(name: &str) -> bool {
    is_label(name) && !name.contains(['/', '\\']) && !matches!(name, "." | "..")
}

impl Record for ModelManifest {
    const TYPE: &'static str = "commons/model-manifest/1";
    const SIGNER: Signer = Signer::Node;

    fn check(&self) -> Result<(), InvalidBody> {
        let count = self.files.len();
        InvalidBody::unless((1..=FILES_MAX).contains(&count), "files", "are none or too many")?;
        let are_names = self.files.iter().all(|it| is_file_name(&it.name));
        InvalidBody::unless(are_names, "files", "have names that are not plain file names")?;
        let labels = [&self.name, &self.family, &self.quantisation, &self.licence];
        let provenance = [&self.provenance.author, &self.provenance.method];
        let mut labels = labels.into_iter().chain(provenance.into_iter().flatten());
        InvalidBody::unless(labels.all(|it| is_label(it)), "labels", "are empty or unprintable")
    }
}
