//! The owner's adapters: what there is, taking one in, forgetting one.

use commons_port::engine::{AddAdapter, EngineRefusal, EngineRefusalCode, LoadedAdapter};

use crate::api::{AdapterToAdd, AdapterView, Refusal, RefusalCode};
use crate::start::Inner;
use crate::target;

/// All adapters of this node.
pub(crate) fn list(inner: &Inner) -> Vec<AdapterView> {
    let models = inner.ports.engine.models();
    let view = |it: LoadedAdapter| {
        let model = models.iter().find(|model| model.model == it.model)?;
        Some(view(it, model.name.clone()))
    };
    let mut views: Vec<_> = inner.ports.engine.adapters().into_iter().filter_map(view).collect();
    views.sort_by(|a, b| (&a.model_name, &a.name).cmp(&(&b.model_name, &b.name)));
    views
}

/// Takes one in.
pub(crate) async fn add(inner: &Inner, add: AdapterToAdd) -> Result<AdapterView, Refusal> {
    let models = inner.ports.engine.models();
    let model = add.model.as_ref().map(|asked| {
        let hash = asked.parse().ok();
        let found = models.iter().find(|it| it.name == *asked || Some(it.model) == hash);
        found.map(|it| it.model).ok_or_else(|| target::unknown(asked))
    });
    let AdapterToAdd { path, name, round, .. } = add;
    let add = AddAdapter { model: model.transpose()?, path, name, is_rounded: round };
    let added = inner.ports.engine.add_adapter(add).await.map_err(|it| refusal(&it))?;
    let name = inner.ports.engine.models().into_iter().find(|it| it.model == added.model);
    let name = name.map_or_else(|| added.model.to_string(), |it| it.name);
    tracing::info!(adapter = %added.adapter, name = added.name, model = name, "took in an adapter");
    Ok(view(added, name))
}

/// Forgets one: `id` is `MODEL+ADAPTER`, or the adapter's name or hash alone where that is one.
pub(crate) fn remove(inner: &Inner, id: &str) -> Result<AdapterView, Refusal> {
    let hash = id.parse().ok();
    let is_it = |it: &AdapterView| it.id == id || it.name == id || Some(it.adapter) == hash;
    let mut found = list(inner).into_iter().filter(is_it);
    let view = match (found.next(), found.next()) {
        (Some(view), None) => view,
        (Some(first), Some(second)) => {
            let sentence = format!("{id:?} is {} and {}; name one of them", first.id, second.id);
            return Err(Refusal::new(RefusalCode::InvalidRequest, sentence));
        }
        (None, _) => {
            let sentence = "there is no such adapter here; `commons adapters ls` lists them";
            return Err(Refusal::new(RefusalCode::AdapterNotFound, sentence));
        }
    };
    let removed = inner.ports.engine.remove_adapter(view.model, view.adapter);
    removed.map_err(|it| refusal(&it))?;
    tracing::info!(adapter = %view.adapter, id = view.id, "forgot an adapter");
    Ok(view)
}

fn view(it: LoadedAdapter, model_name: String) -> AdapterView {
    AdapterView {
        id: target::joined(&model_name, &it.name),
        name: it.name,
        adapter: it.adapter,
        model_name,
        model: it.model,
        method: it.method,
        rank: it.rank,
        format: it.format,
        file_size: it.file_size,
    }
}

fn refusal(refusal: &EngineRefusal) -> Refusal {
    let code = match refusal.code {
        EngineRefusalCode::UnknownModel => RefusalCode::ModelNotFound,
        EngineRefusalCode::UnknownAdapter => RefusalCode::AdapterNotFound,
        EngineRefusalCode::Unsupported => RefusalCode::Unsupported,
        EngineRefusalCode::Overloaded => RefusalCode::Overloaded,
        EngineRefusalCode::Unavailable => RefusalCode::Unavailable,
        EngineRefusalCode::Failed => RefusalCode::ProviderFailed,
        _ => RefusalCode::InvalidRequest,
    };
    Refusal::new(code, refusal.message.clone())
}
