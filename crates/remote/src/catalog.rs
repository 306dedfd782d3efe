//! What a foreign server declares of its models, and the identity that this gives each.
//!
//! A model's hash is over the server's kind and address and everything that is declared of the
//! model and does not change from one look to the next. It is no hash of weights, and lives in a
//! domain of its own: it can never be that of a file.

use std::collections::BTreeMap;

use commons_port::engine::{LoadedModel, ModelKind};
use commons_record::Hash;
use commons_record::settlement::{EngineClass, FOREIGN_KERNELS};
use serde::Deserialize;
use serde_json::Value;

use crate::ask::Weighed;
use crate::config::RemoteConfig;
use crate::fault::Fault;
use crate::kind::Kind;

/// Models that are taken from one server: as many as a node announces.
pub(crate) const MODELS_MAX: usize = 64;

/// A model's name: with the longest prefix it still fits a label of 128 bytes.
const NAME_LEN_MAX: usize = 95;

/// A context that nobody declared. Servers refuse what does not fit, so this only has to be large.
const CONTEXT_LEN_UNKNOWN: u32 = 131_072;

/// What is not declared.
pub(crate) const UNDECLARED: &str = "undeclared";

/// A server's list of models: the published fields, and what some add.
#[derive(Debug, Deserialize)]
struct List {
    data: Vec<Value>,
}

/// What a server says of one model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Declared {
    pub(crate) id: String,
    /// vLLM: what lies beneath the name; of an adapter, its path.
    pub(crate) root: Option<String>,
    /// vLLM: the base of an adapter.
    pub(crate) parent: Option<String>,
    /// vLLM and `SGLang`.
    pub(crate) max_model_len: Option<u32>,
    #[serde(default)]
    pub(crate) meta: Option<Meta>,
    /// Ollama: filled in from its own list.
    #[serde(skip)]
    pub(crate) digest: Option<String>,
    #[serde(skip)]
    pub(crate) family: Option<String>,
    #[serde(skip)]
    pub(crate) quantisation: Option<String>,
    /// llama-server: filled in from its adapters.
    #[serde(skip)]
    pub(crate) weighed: Vec<Weighed>,
    /// The name that the server answers to, if it is not `id`.
    #[serde(skip)]
    pub(crate) answers_to: Option<String>,
}

/// llama-server's own account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Meta {
    pub(crate) n_vocab: Option<u64>,
    pub(crate) n_ctx_train: Option<u32>,
    pub(crate) n_embd: Option<u64>,
    pub(crate) n_params: Option<u64>,
    pub(crate) size: Option<u64>,
}

/// What a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) kind: Kind,
    pub(crate) version: String,
    /// The context of all its models, where it has one for all.
    pub(crate) context_len: Option<u32>,
}

/// A model as it can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) facts: LoadedModel,
    /// The name that it is asked by, and must answer as.
    pub(crate) asked_as: String,
    /// The base, by the server's own name, if it is an adapter.
    pub(crate) parent: Option<String>,
    pub(crate) weighed: Vec<Weighed>,
}

/// Reads a server's list. Entries that cannot be used are left out, and counted.
pub(crate) fn read(body: &[u8], allowed: &[String]) -> Result<(Vec<Declared>, usize), Fault> {
    let list = serde_json::from_slice::<List>(body);
    let list = list.map_err(|error| Fault::json(&error))?;
    let count = list.data.len();
    let mut taken: Vec<Declared> = Vec::new();
    for value in list.data {
        if taken.len() >= MODELS_MAX {
            break;
        }
        let Ok(declared) = serde_json::from_value::<Declared>(value) else { continue };
        let is_plain = !declared.id.chars().any(char::is_control);
        let is_named = (1..=NAME_LEN_MAX).contains(&declared.id.len()) && is_plain;
        let is_allowed = allowed.is_empty() || allowed.contains(&declared.id);
        if is_named && is_allowed && taken.iter().all(|it| it.id != declared.id) {
            taken.push(declared);
        }
    }
    let left_out = count - taken.len();
    Ok((taken, left_out))
}

/// The models of a server, by their hash.
pub(crate) fn entries(
    config: &RemoteConfig,
    server: &Server,
    declared: Vec<Declared>,
) -> BTreeMap<Hash, Entry> {
    let entries = declared.into_iter().map(|it| entry(config, server, it));
    entries.map(|it| (it.facts.model, it)).collect()
}

fn entry(config: &RemoteConfig, server: &Server, declared: Declared) -> Entry {
    let meta = declared.meta.clone().unwrap_or_default();
    let context = declared.max_model_len.or(server.context_len).or(config.context_len);
    let context = context.or(meta.n_ctx_train).filter(|it| *it > 0);
    let model = identity(config, server, &declared, context);
    let prefix = config.prefix.as_deref().unwrap_or(server.kind.name());
    let family = match (&declared.parent, &declared.family) {
        (Some(_), _) => "adapter".to_owned(),
        (None, family) => family.clone().unwrap_or_else(|| UNDECLARED.to_owned()),
    };
    let facts = LoadedModel {
        model,
        name: format!("{prefix}/{}", declared.id),
        file_name: declared.id.clone(),
        file_size: meta.size.unwrap_or(0),
        family,
        quantisation: declared.quantisation.clone().unwrap_or_else(|| UNDECLARED.to_owned()),
        tokenizer: Hash::of_fields("commons/declared-tokenizer/1", &[model.as_bytes()]),
        context_len: context.unwrap_or(CONTEXT_LEN_UNKNOWN),
        parameter_count: meta.n_params.unwrap_or(0),
        licence: None,
        class: EngineClass {
            device: UNDECLARED.to_owned(),
            kernels: format!("{FOREIGN_KERNELS}{}", server.kind),
            version: server.version.clone(),
        },
        kind: ModelKind::Decoder,
    };
    Entry {
        facts,
        asked_as: declared.answers_to.unwrap_or(declared.id),
        parent: declared.parent,
        weighed: declared.weighed,
    }
}

/// What makes a model this model. Not in it: when it was loaded and which release serves it.
fn identity(
    config: &RemoteConfig,
    server: &Server,
    declared: &Declared,
    context: Option<u32>,
) -> Hash {
    let text = |it: &Option<String>| it.clone().unwrap_or_default();
    let number = |it: Option<u64>| it.map(|it| it.to_string()).unwrap_or_default();
    let meta = declared.meta.clone().unwrap_or_default();
    let fields = [
        server.kind.name().to_owned(),
        config.address.to_string(),
        declared.id.clone(),
        text(&declared.root),
        text(&declared.parent),
        text(&declared.digest),
        text(&declared.family),
        text(&declared.quantisation),
        number(context.map(u64::from)),
        number(meta.n_vocab),
        number(meta.n_embd),
        number(meta.n_params),
        number(meta.size),
    ];
    let fields: Vec<_> = fields.iter().map(String::as_bytes).collect();
    Hash::of_fields("commons/declared-model/1", &fields)
}

/// Ollama's own list: the digest of each model, and what it is made of.
pub(crate) fn add_tags(declared: &mut [Declared], tags: &Value) {
    let found = tags.get("models").and_then(Value::as_array);
    for tag in found.into_iter().flatten() {
        let text = |pointer: &str| {
            let text = tag.pointer(pointer)?.as_str()?;
            Some(text.chars().filter(|it| !it.is_control()).take(100).collect::<String>())
        };
        let Some(name) = text("/name") else { continue };
        for it in declared.iter_mut().filter(|it| it.id == name) {
            it.digest = text("/digest");
            it.family = text("/details/family").filter(|it| !it.is_empty());
            it.quantisation = text("/details/quantization_level").filter(|it| !it.is_empty());
        }
    }
}

/// llama-server's adapters: each makes another model of every base, `base+adapter`. The base
/// itself is then asked for with none of them, whatever the server was started with.
pub(crate) fn add_adapters(declared: &mut Vec<Declared>, adapters: &Value) {
    let found = adapters.as_array().into_iter().flatten().filter_map(|it| {
        let id = u32::try_from(it.get("id")?.as_u64()?).ok()?;
        let path = it.get("path")?.as_str()?;
        let file = path.rsplit(['/', '\\']).next().unwrap_or(path);
        let stem = file.strip_suffix(".gguf").unwrap_or(file);
        let is_plain = !stem.is_empty() && !stem.chars().any(char::is_control);
        is_plain.then(|| (id, stem.to_owned(), path.to_owned()))
    });
    let found: Vec<_> = found.take(MODELS_MAX).collect();
    if found.is_empty() {
        return;
    }
    let weigh = |on: Option<u32>| {
        let weigh =
            |(id, _, _): &(u32, String, String)| Weighed { id: *id, is_on: on == Some(*id) };
        found.iter().map(weigh).collect::<Vec<_>>()
    };
    let bases = declared.clone();
    for base in declared.iter_mut() {
        base.weighed = weigh(None);
    }
    for base in &bases {
        for (id, stem, path) in &found {
            let name = format!("{}+{stem}", base.id);
            let is_free = declared.iter().all(|it| it.id != name);
            if declared.len() >= MODELS_MAX || name.len() > NAME_LEN_MAX || !is_free {
                continue;
            }
            declared.push(Declared {
                id: name,
                parent: Some(base.id.clone()),
                root: Some(path.clone()),
                answers_to: Some(base.id.clone()),
                weighed: weigh(Some(*id)),
                ..base.clone()
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(address: &str) -> RemoteConfig {
        RemoteConfig::new(address.parse().expect("is an address"))
    }

    fn server(version: &str) -> Server {
        Server { kind: Kind::Vllm, version: version.to_owned(), context_len: None }
    }

    fn list(data: &Value) -> Vec<Declared> {
        let body = json!({ "data": data }).to_string();
        read(body.as_bytes(), &[]).expect("is a list").0
    }

    fn id(config: &RemoteConfig, server: &Server, data: &Value) -> Hash {
        let entries = entries(config, server, list(data));
        *entries.keys().next().expect("one model")
    }

    #[test]
    fn a_model_is_what_is_declared_of_it_and_where() {
        let here = config("http://127.0.0.1:8000");
        let base = json!([{ "id": "m", "root": "r", "max_model_len": 9, "created": 1 }]);
        let own = id(&here, &server("1"), &base);
        let same = json!([{ "id": "m", "root": "r", "max_model_len": 9, "created": 2 }]);
        assert_eq!(own, id(&here, &server("2"), &same), "a restart and a release change nothing");
        for other in [
            json!([{ "id": "n", "root": "r", "max_model_len": 9 }]),
            json!([{ "id": "m", "root": "s", "max_model_len": 9 }]),
            json!([{ "id": "m", "root": "r", "max_model_len": 8 }]),
            json!([{ "id": "m", "root": "r", "max_model_len": 9, "parent": "b" }]),
            json!([{ "id": "m", "root": "r", "max_model_len": 9, "meta": { "n_params": 5 } }]),
        ] {
            assert_ne!(own, id(&here, &server("1"), &other), "{other}");
        }
        assert_ne!(own, id(&config("http://127.0.0.1:8001"), &server("1"), &base));
    }

    #[test]
    fn a_declared_model_says_that_it_is_foreign() {
        let found =
            entries(&config("http://localhost"), &server("0.9"), list(&json!([{ "id": "m" }])));
        let facts = &found.values().next().expect("one model").facts;
        assert!(facts.class.is_foreign());
        assert_eq!((facts.name.as_str(), facts.quantisation.as_str()), ("vllm/m", "undeclared"));
        assert_eq!(facts.class.kernels, "foreign/vllm");
    }

    #[test]
    fn a_list_is_bounded_and_what_cannot_be_named_is_left_out() {
        let many: Vec<_> = (0..1000).map(|it| json!({ "id": format!("m{it}") })).collect();
        assert_eq!(list(&json!(many)).len(), MODELS_MAX);
        let odd = json!([{ "id": "" }, { "id": "a\nb" }, { "id": "x".repeat(96) }, 7, {}, { "id": "m" }, { "id": "m" }]);
        let body = json!({ "data": odd }).to_string();
        let (kept, left_out) = read(body.as_bytes(), &[]).expect("is a list");
        assert_eq!((kept.len(), kept[0].id.as_str(), left_out), (1, "m", 6));
        let allowed = ["m999".to_owned()];
        let body = json!({ "data": many }).to_string();
        assert_eq!(read(body.as_bytes(), &allowed).expect("is a list").0[0].id, "m999");
        assert!(read(b"<html>", &[]).is_err() && read(b"{}", &[]).is_err());
    }

    #[test]
    fn an_adapter_of_llama_server_is_a_model_and_the_base_is_without_it() {
        let mut declared = list(&json!([{ "id": "m" }]));
        add_adapters(&mut declared, &json!([{ "id": 3, "path": "/a/poet.gguf", "scale": 1.0 }]));
        let [base, adapter] = declared.as_slice() else { panic!("two: {declared:?}") };
        assert_eq!(base.weighed, [Weighed { id: 3, is_on: false }]);
        assert_eq!(adapter.weighed, [Weighed { id: 3, is_on: true }]);
        assert_eq!((adapter.id.as_str(), adapter.answers_to.as_deref()), ("m+poet", Some("m")));
        let mut plain = list(&json!([{ "id": "m" }]));
        add_adapters(&mut plain, &json!({ "error": "no" }));
        assert_eq!(plain[0].weighed, []);
    }

    #[test]
    fn ollamas_digest_is_part_of_the_identity() {
        let mut declared = list(&json!([{ "id": "llama3:latest" }]));
        let before = declared.clone();
        let details = json!({ "family": "llama", "quantization_level": "Q4_0" });
        add_tags(
            &mut declared,
            &json!({ "models": [{ "name": "llama3:latest", "digest": "ab12", "details": details }] }),
        );
        assert_eq!(declared[0].quantisation.as_deref(), Some("Q4_0"));
        let config = config("http://localhost");
        let hash = |it: &Declared| identity(&config, &server("1"), it, None);
        assert_ne!(hash(&declared[0]), hash(&before[0]));
    }
}
