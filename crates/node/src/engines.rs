//! Several engines as one: a request goes to the engine that lists its model.
//!
//! Where two list one model, the first of them computes it; a model that only the second has is
//! found there. Nothing falls from one engine to another: a model that is gone is gone.

use std::collections::BTreeSet;
use std::sync::Arc;

use commons_port::BoxFuture;
use commons_port::engine::{
    AddAdapter, EmbedRequest, EmbeddingVector, Engine, EngineLoad, EngineRefusal,
    EngineRefusalCode, EngineRequest, LoadedAdapter, LoadedModel, Origin, ScoreRequest, Scores,
    Sequence,
};
use commons_record::Hash;

/// Engines in order.
pub struct Engines(Vec<Arc<dyn Engine>>);

impl std::fmt::Debug for Engines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Engines({})", self.0.len())
    }
}

impl Engines {
    /// These engines; the first comes first.
    pub fn new(engines: Vec<Arc<dyn Engine>>) -> Self {
        Self(engines)
    }

    fn index(&self, model: &Hash) -> Option<usize> {
        self.0.iter().position(|it| it.load(model).is_some())
    }

    fn find(&self, model: &Hash) -> Option<&Arc<dyn Engine>> {
        self.0.get(self.index(model)?)
    }

    fn of(&self, model: &Hash) -> Result<&Arc<dyn Engine>, EngineRefusal> {
        self.find(model).ok_or_else(|| EngineRefusal {
            code: EngineRefusalCode::UnknownModel,
            message: format!("no engine of this node has model {model} now"),
        })
    }
}

impl Engine for Engines {
    fn models(&self) -> Vec<LoadedModel> {
        let mut seen = BTreeSet::new();
        let all = self.0.iter().flat_map(|it| it.models());
        all.filter(|it| seen.insert(it.model)).collect()
    }

    fn load(&self, model: &Hash) -> Option<EngineLoad> {
        self.find(model)?.load(model)
    }

    fn adapters(&self) -> Vec<LoadedAdapter> {
        let of = |(index, engine): (usize, &Arc<dyn Engine>)| {
            let mut adapters = engine.adapters();
            // Those of a model that another engine computes cannot be asked for.
            adapters.retain(|it| self.index(&it.model) == Some(index));
            adapters
        };
        self.0.iter().enumerate().flat_map(of).collect()
    }

    fn adapter(&self, model: &Hash, adapter: &Hash) -> Option<LoadedAdapter> {
        self.find(model)?.adapter(model, adapter)
    }

    /// Without a model the first engine takes it in: the node's own.
    fn add_adapter(&self, add: AddAdapter) -> BoxFuture<'_, Result<LoadedAdapter, EngineRefusal>> {
        let engine = match &add.model {
            Some(model) => self.of(model),
            None => self.0.first().ok_or_else(|| EngineRefusal {
                code: EngineRefusalCode::Unsupported,
                message: "this node has no engine to take in an adapter".to_owned(),
            }),
        };
        match engine {
            Ok(engine) => engine.add_adapter(add),
            Err(refusal) => Box::pin(std::future::ready(Err(refusal))),
        }
    }

    fn remove_adapter(&self, model: Hash, adapter: Hash) -> Result<(), EngineRefusal> {
        self.of(&model)?.remove_adapter(model, adapter)
    }

    fn origin(&self, model: &Hash) -> Origin {
        self.find(model).map_or(Origin::Node, |it| it.origin(model))
    }

    fn start(&self, request: EngineRequest) -> Result<Box<dyn Sequence>, EngineRefusal> {
        self.of(&request.model)?.start(request)
    }

    fn begin(
        &self,
        request: EngineRequest,
    ) -> BoxFuture<'_, Result<Box<dyn Sequence>, EngineRefusal>> {
        match self.of(&request.model) {
            Ok(engine) => engine.begin(request),
            Err(refusal) => Box::pin(std::future::ready(Err(refusal))),
        }
    }

    fn score(&self, request: ScoreRequest) -> BoxFuture<'_, Result<Scores, EngineRefusal>> {
        match self.of(&request.model) {
            Ok(engine) => engine.score(request),
            Err(refusal) => Box::pin(std::future::ready(Err(refusal))),
        }
    }

    fn embed(
        &self,
        request: EmbedRequest,
    ) -> BoxFuture<'_, Result<EmbeddingVector, EngineRefusal>> {
        match self.of(&request.model) {
            Ok(engine) => engine.embed(request),
            Err(refusal) => Box::pin(std::future::ready(Err(refusal))),
        }
    }
}

#[cfg(test)]
mod tests {
    use commons_port::engine::{ModelKind, Reach};
    use commons_record::settlement::EngineClass;
    use futures::executor::block_on;

    use super::*;

    /// Lists models and refuses all work in its own name.
    struct Named(&'static str, Vec<&'static str>);

    fn id(name: &str) -> Hash {
        Hash::of_content(name.as_bytes())
    }

    impl Engine for Named {
        fn models(&self) -> Vec<LoadedModel> {
            let model = |name: &&str| LoadedModel {
                model: id(name),
                name: format!("{}/{name}", self.0),
                file_name: (*name).to_owned(),
                file_size: 0,
                family: "f".to_owned(),
                quantisation: "q".to_owned(),
                tokenizer: id("t"),
                context_len: 1,
                parameter_count: 0,
                licence: None,
                class: EngineClass {
                    device: "d".to_owned(),
                    kernels: "k".to_owned(),
                    version: "1".to_owned(),
                },
                kind: ModelKind::Decoder,
            };
            self.1.iter().map(model).collect()
        }

        fn load(&self, model: &Hash) -> Option<EngineLoad> {
            self.1.iter().any(|it| id(it) == *model).then(EngineLoad::default)
        }

        /// One for each model.
        fn adapters(&self) -> Vec<LoadedAdapter> {
            let adapter = |name: &&str| LoadedAdapter {
                adapter: id(self.0),
                model: id(name),
                name: format!("{}/{name}", self.0),
                file_size: 0,
                method: "lora".to_owned(),
                rank: 1,
                format: "F16".to_owned(),
            };
            self.1.iter().map(adapter).collect()
        }

        fn add_adapter(
            &self,
            _: AddAdapter,
        ) -> BoxFuture<'_, Result<LoadedAdapter, EngineRefusal>> {
            Box::pin(std::future::ready(Err(self.refusal())))
        }

        fn remove_adapter(&self, _: Hash, _: Hash) -> Result<(), EngineRefusal> {
            Err(self.refusal())
        }

        fn origin(&self, _: &Hash) -> Origin {
            Origin::Foreign { reach: Reach::Lan, engine: self.0.to_owned() }
        }

        fn start(&self, _: EngineRequest) -> Result<Box<dyn Sequence>, EngineRefusal> {
            Err(self.refusal())
        }
    }

    impl Named {
        fn refusal(&self) -> EngineRefusal {
            let code = EngineRefusalCode::Unsupported;
            EngineRefusal { code, message: self.0.to_owned() }
        }
    }

    #[test]
    fn an_adapter_belongs_to_the_engine_that_computes_its_model() {
        let engines = Engines::new(vec![
            Arc::new(Named("first", vec!["a", "b"])),
            Arc::new(Named("second", vec!["b", "c"])),
        ]);
        let names: Vec<_> = engines.adapters().into_iter().map(|it| it.name).collect();
        assert_eq!(names, ["first/a", "first/b", "second/c"]);
        for (model, want) in [(None, "first"), (Some("b"), "first"), (Some("c"), "second")] {
            let model = model.map(id);
            let add = AddAdapter { model, path: "a".into(), name: None, is_rounded: false };
            let refusal = block_on(engines.add_adapter(add)).expect_err("they refuse all work");
            assert_eq!(refusal.message, want);
            if let Some(model) = model {
                let refusal = engines.remove_adapter(model, id("x")).expect_err("they refuse");
                assert_eq!(refusal.message, want);
            }
        }
        let gone = engines.remove_adapter(id("d"), id("x")).expect_err("nobody has the model");
        assert_eq!(gone.code, EngineRefusalCode::UnknownModel);
    }

    #[test]
    fn a_model_is_computed_where_it_is_listed_first() {
        let engines = Engines::new(vec![
            Arc::new(Named("first", vec!["a", "b"])),
            Arc::new(Named("second", vec!["b", "c"])),
        ]);
        let names: Vec<_> = engines.models().into_iter().map(|it| it.name).collect();
        assert_eq!(names, ["first/a", "first/b", "second/c"]);
        let check = |model: &str, want: Option<&str>| {
            let foreign = |it: &str| Origin::Foreign { reach: Reach::Lan, engine: it.to_owned() };
            assert_eq!(engines.origin(&id(model)), want.map_or(Origin::Node, foreign), "{model}");
            assert_eq!(engines.load(&id(model)).is_some(), want.is_some(), "{model}");
        };
        check("a", Some("first"));
        check("b", Some("first"));
        check("c", Some("second"));
        check("d", None);
    }
}
