//! A folder as PEFT writes it: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! What the configuration may say that would change the numbers and is not computed here is refused
//! by name. Which modules are adapted the tensors say.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::build::{Listing, Pair, Role, Scale, Stored};
use super::{AdapterError, PICKLE_ENDS};
use crate::settings::{Family, RopeStyle, Settings};
use crate::weights::file::{SourceFile, read_small};
use crate::weights::names::{self, Target};
use crate::weights::safetensors::{self, Entry, Unique};

/// The file that says what the adapter is.
pub const CONFIG_NAME: &str = "adapter_config.json";

/// The file with its numbers.
pub const WEIGHTS_NAME: &str = "adapter_model.safetensors";

/// Bytes of a configuration. Published ones have one or two KiB.
const CONFIG_SIZE_MAX: u64 = 1 << 20;

/// What must not be there, or be null, false or empty, and why.
const REFUSED: [(&str, &str); 13] = [
    ("modules_to_save", "whole modules are not replaced: train without it"),
    ("lora_bias", "pairs have no bias: train without it"),
    ("fan_in_fan_out", "the matrices of supported families are not transposed"),
    ("layer_replication", "layers are not repeated"),
    ("trainable_token_indices", "embeddings are not adapted: train without it"),
    ("target_parameters", "experts are not adapted: train without it"),
    ("alora_invocation_tokens", "an adapter holds from the first token on"),
    ("use_qalora", "inputs are not pooled"),
    ("arrow_config", "adapters are not routed between"),
    ("megatron_config", "parallel matrices are not put together: merge them first"),
    ("loftq_config", "the base would have to be another: convert it to plain LoRA"),
    ("use_bdlora", "pairs of blocks are not supported"),
    ("monteclora_config", "adapters are not drawn at random"),
];

/// Ways to begin a training that leave another base than the one that is served.
const OTHER_BASES: [&str; 5] = ["pissa", "olora", "corda", "loftq", "lora_ga"];

/// What a configuration says.
struct Config {
    path: PathBuf,
    rank: u64,
    alpha: f64,
    is_rank_stabilised: bool,
    rank_pattern: BTreeMap<String, f64>,
    alpha_pattern: BTreeMap<String, f64>,
    claimed_base: Option<String>,
}

/// Reads what a folder holds; `weights` is the name of its file of tensors.
pub(super) fn read(
    folder: &Path,
    weights: &str,
    settings: &Settings,
) -> Result<Listing, AdapterError> {
    let path = folder.join(weights);
    let file = match SourceFile::open(&path) {
        Ok(file) => file,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Err(absent(folder)),
        Err(source) => return Err(AdapterError::Open { path, source }),
    };
    let config = Config::read(&folder.join(CONFIG_NAME), folder)?;
    let entries = safetensors::read(&file).map_err(|it| AdapterError::File(Box::new(it)))?;
    let mut pairs = BTreeMap::new();
    for (name, entry) in &entries {
        let refuse = || AdapterError::Site { path: path.clone(), name: name.clone() };
        let (module, role) = split(name).ok_or_else(refuse)?;
        let ours = canonical(module, settings).ok_or_else(refuse)?;
        let at = super::build::locate(&ours).ok_or_else(refuse)?;
        let stored = stored(&path, name, entry)?;
        let pair: &mut Pair = pairs.entry(at).or_default();
        pair.put(&path, role, stored)?;
    }
    // A folder's path may be `.`, which has no name until it is followed.
    let named = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let name = named.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| AdapterError::Name { path: folder.to_owned() })?.to_owned();
    let claimed_base = config.claimed_base.clone();
    let content = vec![folder.join(CONFIG_NAME), path];
    Ok(Listing {
        file,
        name,
        content,
        is_folder: true,
        claimed_base,
        pairs,
        // What Hugging Face calls `rotate_half`.
        style: RopeStyle::Split,
        is_rank_stabilised: config.is_rank_stabilised,
        scale: Box::new(config),
    })
}

/// A folder without the file of tensors: with a pickle file instead, or with nothing.
pub(super) fn absent(folder: &Path) -> AdapterError {
    let pickles = PICKLE_ENDS.iter().map(|end| folder.join(format!("adapter_model.{end}")));
    match pickles.into_iter().find(|path| path.exists()) {
        Some(path) => AdapterError::Pickle { path },
        None => AdapterError::Incomplete { path: folder.to_owned(), wanted: WEIGHTS_NAME },
    }
}

/// The module of a tensor, and what the tensor is of its pair.
fn split(name: &str) -> Option<(&str, Role)> {
    let rest = name.strip_prefix("base_model.model.")?;
    let ends = [
        (".lora_A.weight", Role::Down),
        (".lora_B.weight", Role::Up),
        (".lora_magnitude_vector", Role::Magnitude),
        (".lora_magnitude_vector.weight", Role::Magnitude),
    ];
    ends.into_iter().find_map(|(end, role)| Some((rest.strip_suffix(end)?, role)))
}

/// The canonical name of a module's matrix.
fn canonical(module: &str, settings: &Settings) -> Option<String> {
    let family = Family::named(&settings.architecture)?;
    match names::target(&format!("{module}.weight"), family, settings) {
        Target::Tensor(ours) => Some(ours),
        Target::Expert(..) | Target::Skip | Target::Unknown => None,
    }
}

fn stored(path: &Path, name: &str, entry: &Entry) -> Result<Stored, AdapterError> {
    let Some(kind) = entry.kind() else {
        let (path, name) = (path.to_owned(), name.to_owned());
        return Err(AdapterError::Dtype { path, name, found: entry.dtype.clone() });
    };
    Ok(Stored { name: name.to_owned(), kind, dims: entry.shape.clone(), start: entry.start })
}

impl Config {
    fn read(path: &Path, folder: &Path) -> Result<Self, AdapterError> {
        let json = match read_small(path, CONFIG_SIZE_MAX) {
            Ok(json) => json,
            Err(source) if source.kind() == io::ErrorKind::NotFound => {
                let path = folder.to_owned();
                return Err(AdapterError::Incomplete { path, wanted: CONFIG_NAME });
            }
            Err(source) => return Err(AdapterError::Open { path: path.to_owned(), source }),
        };
        Self::parse(path, &json)
    }

    fn parse(path: &Path, json: &[u8]) -> Result<Self, AdapterError> {
        let wrong = |what: String| AdapterError::Config { path: path.to_owned(), what };
        let object: Unique<Value> =
            serde_json::from_slice(json).map_err(|error| wrong(error.to_string()))?;
        let object = Object { path, values: object.0 };
        object.refuse_unsupported()?;
        let rank = object.get("r").and_then(Value::as_u64);
        let alpha = object.get("lora_alpha").and_then(Value::as_f64);
        let missing = |key: &str| wrong(format!("`{key}` is missing or not a number"));
        Ok(Self {
            path: path.to_owned(),
            rank: rank.ok_or_else(|| missing("r"))?,
            alpha: alpha.ok_or_else(|| missing("lora_alpha"))?,
            is_rank_stabilised: object.flag("use_rslora")?,
            rank_pattern: object.pattern("rank_pattern")?,
            alpha_pattern: object.pattern("alpha_pattern")?,
            claimed_base: object
                .get("base_model_name_or_path")
                .and_then(Value::as_str)
                .map(str::to_owned),
        })
    }
}

/// The configuration's object, whose keys differ.
struct Object<'a> {
    path: &'a Path,
    values: BTreeMap<String, Value>,
}

impl Object<'_> {
    /// A value; null is the same as nothing.
    fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key).filter(|value| !value.is_null())
    }

    fn flag(&self, key: &str) -> Result<bool, AdapterError> {
        match self.get(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => {
                let what = format!("`{key}` is {}, not true or false", shown(other));
                Err(AdapterError::Config { path: self.path.to_owned(), what })
            }
        }
    }

    /// Numbers by plain module names.
    fn pattern(&self, key: &'static str) -> Result<BTreeMap<String, f64>, AdapterError> {
        let wrong = |what: String| AdapterError::Config { path: self.path.to_owned(), what };
        let object = match self.get(key) {
            None => return Ok(BTreeMap::new()),
            Some(value) => {
                value.as_object().ok_or_else(|| wrong(format!("`{key}` is not an object")))?
            }
        };
        let entries = object.iter().map(|(name, value)| {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_');
            if name.is_empty() || !name.chars().all(is_plain) {
                let (path, pattern) = (self.path.to_owned(), shorten(name));
                return Err(AdapterError::Pattern { path, key, pattern });
            }
            let number = value.as_f64();
            let number = number.ok_or_else(|| wrong(format!("`{key}` has what is no number")))?;
            Ok((name.clone(), number))
        });
        entries.collect()
    }

    /// What would change the numbers and is not computed is refused by name.
    fn refuse_unsupported(&self) -> Result<(), AdapterError> {
        let refuse = |key, found: &Value, wanted| {
            let (path, found) = (self.path.to_owned(), shown(found));
            Err(AdapterError::Unsupported { path, key, found, wanted })
        };
        let kind = self.get("peft_type").unwrap_or(&Value::Null);
        if kind != "LORA" {
            return refuse("peft_type", kind, "supported is LORA, with or without DoRA and rsLoRA");
        }
        if let Some(bias) = self.get("bias").filter(|bias| *bias != "none") {
            return refuse("bias", bias, "biases are not adapted: train with \"none\"");
        }
        if let Some(init) = self.get("init_lora_weights")
            && let Some(text) = init.as_str()
            && OTHER_BASES.iter().any(|other| text.to_ascii_lowercase().starts_with(other))
        {
            let wanted = "it needs another base than the one served: convert it to plain LoRA";
            return refuse("init_lora_weights", init, wanted);
        }
        for (key, wanted) in REFUSED {
            if let Some(found) = self.get(key).filter(|found| !is_nothing(found)) {
                return refuse(key, found, wanted);
            }
        }
        Ok(())
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
        Value::Number(_) | Value::String(_) => false,
    }
}

/// A stranger's value for a sentence: not more of it than a reader needs.
fn shown(value: &Value) -> String {
    shorten(&value.to_string())
}

fn shorten(text: &str) -> String {
    const LEN: usize = 60;
    let short: String = text.chars().take(LEN).collect();
    if short.len() == text.len() { short } else { format!("{short}...") }
}

impl Scale for Config {
    fn of(&self, name: &str, rank: usize) -> Result<f64, AdapterError> {
        let module = split(name).map_or(name, |(module, _)| module);
        let said = self.value(module, ("rank_pattern", &self.rank_pattern))?;
        let rank_f = rank_number(rank);
        if said.is_some_and(|said| said.to_bits() != rank_f.to_bits())
            || (said.is_none() && self.rank != rank as u64)
        {
            let wanted = said.map_or(self.rank, whole);
            let (path, name) = (self.path.clone(), name.to_owned());
            return Err(AdapterError::RankSaid { path, name, found: rank, wanted });
        }
        let alpha = self.value(module, ("alpha_pattern", &self.alpha_pattern))?;
        let divisor = if self.is_rank_stabilised { rank_f.sqrt() } else { rank_f };
        Ok(alpha.unwrap_or(self.alpha) / divisor)
    }
}

impl Config {
    /// What a pattern says of a module: PEFT takes a key that is the end of its name.
    fn value(
        &self,
        module: &str,
        (key, patterns): (&'static str, &BTreeMap<String, f64>),
    ) -> Result<Option<f64>, AdapterError> {
        let agrees = |pattern: &str| {
            module.strip_suffix(pattern).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        let mut found: Option<f64> = None;
        for (pattern, &value) in patterns.iter().filter(|(pattern, _)| agrees(pattern)) {
            // PEFT takes the first of those that agree, in an order that is not a meaning.
            if found.is_some_and(|found| found.to_bits() != value.to_bits()) {
                let (path, pattern) = (self.path.clone(), pattern.clone());
                return Err(AdapterError::Pattern { path, key, pattern });
            }
            found = Some(value);
        }
        Ok(found)
    }
}

/// A rank as a number to divide by: exact, ranks are small.
#[expect(clippy::cast_precision_loss, reason = "ranks are far below 2^52")]
fn rank_number(rank: usize) -> f64 {
    rank as f64
}

/// A rank that a pattern gave, for a sentence.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "only shown; what is no rank is shown as the nearest"
)]
fn whole(number: f64) -> u64 {
    number as u64
}

#[cfg(test)]
pub(super) fn parse_config(json: &str) -> Result<(), AdapterError> {
    Config::parse(Path::new(CONFIG_NAME), json.as_bytes()).map(drop)
}
