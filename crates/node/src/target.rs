//! What a request is for: a model and, behind a plus sign, an adapter of it, by name or hash.

use commons_record::Hash;
use commons_record::mesh::PresentModel;

use crate::api::{Refusal, RefusalCode};
use crate::start::Inner;
use crate::tasks::lock;

/// A name in a sentence is cut to this.
const QUOTE_LEN_MAX: usize = 120;

/// What a request is for.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) model: Hash,
    /// The model's name, with that of the adapter.
    pub(crate) name: String,
    pub(crate) quantisation: String,
    pub(crate) context_len: u32,
    pub(crate) adapter: Option<Hash>,
}

/// The name of a model with an adapter.
pub(crate) fn joined(model: &str, adapter: &str) -> String {
    format!("{model}+{adapter}")
}

/// Finds a model and its adapter, here first and then in the mesh. A model's own name may have a
/// plus sign: the whole is looked for first.
pub(crate) fn resolve(inner: &Inner, asked: &str) -> Result<Target, Refusal> {
    if let Some(target) = model(inner, asked) {
        return Ok(target);
    }
    let Some((base, adapter)) = asked.rsplit_once('+') else { return Err(unknown(asked)) };
    let target = model(inner, base).ok_or_else(|| unknown(base))?;
    let (hash, name) = self::adapter(inner, &target.model, adapter).ok_or_else(|| {
        let sentence = format!(
            "no node in reach holds the adapter {:?} of the model {:?}; `commons models` lists what \
             can be asked for",
            quote(adapter),
            target.name
        );
        Refusal::new(RefusalCode::AdapterNotFound, sentence)
    })?;
    Ok(Target { name: joined(&target.name, &name), adapter: Some(hash), ..target })
}

fn model(inner: &Inner, asked: &str) -> Option<Target> {
    let hash = asked.parse::<Hash>().ok();
    let is_it = |model: &Hash, name: &str| hash == Some(*model) || asked == name;
    for model in inner.ports.engine.models() {
        if is_it(&model.model, &model.name) {
            return Some(Target {
                model: model.model,
                name: model.name,
                quantisation: model.quantisation,
                context_len: model.context_len,
                adapter: None,
            });
        }
    }
    let now = inner.ports.clock.now();
    let roster = lock(&inner.roster);
    let models = roster.members(now).flat_map(|member| &member.presence.models);
    // One name can stand for different files: the same one is taken every time, and the answer
    // says which. The hash as the name leaves no doubt.
    let first = models.filter(|it| is_it(&it.model, &it.name)).min_by_key(|it| it.model)?;
    Some(Target {
        model: first.model,
        name: first.name.clone(),
        quantisation: first.quantisation.clone(),
        context_len: first.context_len,
        adapter: None,
    })
}

/// An adapter of a model: its hash and its name.
fn adapter(inner: &Inner, model: &Hash, asked: &str) -> Option<(Hash, String)> {
    let hash = asked.parse::<Hash>().ok();
    let is_it = |adapter: &Hash, name: &str| hash == Some(*adapter) || asked == name;
    let own = inner.ports.engine.adapters().into_iter();
    let mut own = own.filter(|it| it.model == *model && is_it(&it.adapter, &it.name));
    if let Some(found) = own.next() {
        return Some((found.adapter, found.name));
    }
    let now = inner.ports.clock.now();
    let roster = lock(&inner.roster);
    let models = roster.members(now).flat_map(|member| &member.presence.models);
    let adapters =
        models.filter(|it: &&PresentModel| it.model == *model).flat_map(|it| &it.adapters);
    // As with models: of several, always the same one.
    let first = adapters.filter(|it| is_it(&it.adapter, &it.name)).min_by_key(|it| it.adapter)?;
    Some((first.adapter, first.name.clone()))
}

pub(crate) fn unknown(asked: &str) -> Refusal {
    let sentence = format!(
        "no node in reach holds the model {:?}; `commons models` lists what can be asked for",
        quote(asked)
    );
    Refusal::new(RefusalCode::ModelNotFound, sentence)
}

fn quote(text: &str) -> String {
    text.chars().take(QUOTE_LEN_MAX).collect()
}
