//! Foreign engines: what was typed of each, and those that run.
//!
//! ```text
//! --engine http://127.0.0.1:8000
//! --engine https://api.example.com,kind=openai,prefix=cloud,key-env=CLOUD_KEY,models=a+b
//! ```

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, bail, ensure};
use commons_port::engine::Engine;
use commons_record::Millis;
use commons_remote::{
    Adapters, Address, Key, RemoteConfig, RemoteEngine, RemotePorts, RemoteView, Trust,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

use super::config::read_secret;
use super::tell::Event;
use crate::runtime::{OsEntropy, RealClock, TokioSpawn};

/// Engines of one node: each is a task and a list of models.
const ENGINES_MAX: usize = 16;

/// The node is ready without an engine that does not answer; its models come when it does.
const FIRST_LOOK_MAX: Millis = Millis::from_secs(3);

/// What was typed of all of them.
pub(super) fn configs(typed: &[String]) -> anyhow::Result<Vec<RemoteConfig>> {
    ensure!(typed.len() <= ENGINES_MAX, "over {ENGINES_MAX} foreign engines; name fewer");
    let mut configs: Vec<RemoteConfig> = Vec::new();
    for spec in typed {
        let config = config(spec).context("see `--engine URL[,...]`")?;
        // Two engines under one prefix would share names: a request could go to either.
        let is_other = |it: &RemoteConfig| {
            it.address() != config.address()
                && (it.prefix().is_none() || it.prefix() != config.prefix())
        };
        ensure!(
            configs.iter().all(is_other),
            "two foreign engines at {} have one address or one prefix; give each its own with \
             `prefix=NAME`",
            config.address()
        );
        configs.push(config);
    }
    let prefixes = configs.iter().map(RemoteConfig::prefix).collect::<BTreeSet<_>>();
    ensure!(
        configs.len() <= 1 || !prefixes.contains(&None),
        "several foreign engines need a name each; say `prefix=NAME` with every one"
    );
    Ok(configs)
}

/// Everything that can be said of one.
#[derive(Default)]
struct Typed<'a> {
    kind: Option<&'a str>,
    prefix: Option<&'a str>,
    key_file: Option<&'a str>,
    key_env: Option<&'a str>,
    models: Option<&'a str>,
    context: Option<&'a str>,
    adapters: Option<&'a str>,
    ca: Option<&'a str>,
    insecure: Option<&'a str>,
}

impl<'a> Typed<'a> {
    fn parse(parts: impl Iterator<Item = &'a str>) -> anyhow::Result<Self> {
        let mut typed = Self::default();
        for part in parts {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let place = match name {
                "kind" => &mut typed.kind,
                "prefix" => &mut typed.prefix,
                "key-file" => &mut typed.key_file,
                "key-env" => &mut typed.key_env,
                "models" => &mut typed.models,
                "context" => &mut typed.context,
                "adapters" => &mut typed.adapters,
                "ca" => &mut typed.ca,
                "insecure" => &mut typed.insecure,
                // What was typed may be a key in a wrong place: it is not repeated.
                _ => bail!(
                    "after the address follow kind=, prefix=, key-file=, key-env=, models=, \
                     context=, adapters=, ca= or insecure=, and nothing else"
                ),
            };
            ensure!(place.is_none(), "`{name}=` stands there twice");
            ensure!(!value.is_empty(), "`{name}=` needs a value");
            *place = Some(value);
        }
        Ok(typed)
    }

    fn key(&self) -> anyhow::Result<Option<Key>> {
        let text = match (self.key_file, self.key_env) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => bail!("`key-file=` and `key-env=` both name the key: choose one"),
            (Some(path), None) => read_secret(Path::new(path))?,
            (None, Some(name)) => from_environment(name)?,
        };
        Ok(Some(Key::new(&text).context("what was named as the key is none")?))
    }
}

#[expect(clippy::disallowed_methods, reason = "this is where settings are read, once")]
fn from_environment(name: &str) -> anyhow::Result<Zeroizing<String>> {
    let value = std::env::var(name).map(Zeroizing::new).ok();
    value.with_context(|| format!("the environment has no {name} that is text"))
}

fn is_on(name: &str, value: Option<&str>) -> anyhow::Result<bool> {
    match value {
        None | Some("off") => Ok(false),
        Some("on") => Ok(true),
        Some(_) => bail!("`{name}=` is `on` or `off`"),
    }
}

fn config(spec: &str) -> anyhow::Result<RemoteConfig> {
    let mut parts = spec.split(',');
    let url = parts.next().unwrap_or_default();
    let typed = Typed::parse(parts)?;
    let mut config = RemoteConfig::new(Address::parse(url, is_on("insecure", typed.insecure)?)?);
    if let Some(key) = typed.key()? {
        config = config.with_key(key)?;
    }
    if let Some(kind) = typed.kind.filter(|it| *it != "auto") {
        config = config.with_kind(kind.parse()?);
    }
    if let Some(prefix) = typed.prefix {
        config = config.with_prefix(prefix)?;
    }
    if let Some(models) = typed.models {
        config = config.with_models(models.split('+').map(str::to_owned).collect())?;
    }
    if let Some(context) = typed.context {
        let context = context.parse().ok().filter(|it| (64..=16_777_216).contains(it));
        config = config.with_context_len(context.context("`context=` is 64 to 16777216 tokens")?);
    }
    if is_on("adapters", typed.adapters)? {
        config = config.with_adapters(Adapters::Loaded);
    }
    if let Some(path) = typed.ca {
        let certificates = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
        let certificates: Vec<CertificateDer<'_>> = certificates
            .with_context(|| format!("failed to read certificates from the file {path}"))?;
        ensure!(!certificates.is_empty(), "the file {path} holds no certificate");
        config =
            config.with_trust(Trust::Only(certificates.iter().map(|it| it.to_vec()).collect()));
    }
    Ok(config)
}

/// Those that run, and what was told of each last.
#[derive(Debug)]
pub(super) struct Foreign {
    engines: Vec<Arc<RemoteEngine>>,
    told: Mutex<Vec<Option<RemoteView>>>,
}

impl Foreign {
    /// Begins to look after each.
    pub(super) fn start(configs: &[RemoteConfig], clock: &Arc<RealClock>) -> anyhow::Result<Self> {
        let mut engines = Vec::new();
        for config in configs {
            let ports = RemotePorts {
                clock: clock.clone(),
                entropy: Arc::new(OsEntropy),
                spawn: Arc::new(TokioSpawn),
            };
            let name = || format!("failed to use the foreign engine at {}", config.address());
            engines.push(Arc::new(RemoteEngine::start(config.clone(), ports).with_context(name)?));
        }
        let told = Mutex::new(vec![None; engines.len()]);
        Ok(Self { engines, told })
    }

    /// All of them, as the node takes them.
    pub(super) fn engines(&self) -> impl Iterator<Item = Arc<dyn Engine>> {
        self.engines.iter().map(|it| Arc::clone(it) as Arc<dyn Engine>)
    }

    /// Waits until each was looked at, or would be waited for too long.
    pub(super) async fn looked_at(&self) {
        futures::future::join_all(self.engines.iter().map(|it| it.looked_at(FIRST_LOOK_MAX))).await;
    }

    /// What changed since it was told last.
    pub(super) fn news(&self) -> Option<Event> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        for (engine, told) in self.engines.iter().zip(told.iter_mut()) {
            let view = engine.view();
            if told.as_ref() != Some(&view) {
                *told = Some(view.clone());
                return Some(Event::Engine(view));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(typed: &[&str], part: &str) {
        let typed: Vec<_> = typed.iter().map(|&it| it.to_owned()).collect();
        let error = format!("{:#}", configs(&typed).expect_err(part));
        assert!(error.contains(part), "{typed:?}: no {part:?} in {error}");
        assert!(!error.contains("sk-secret"), "{error}");
    }

    #[test]
    fn what_was_typed_is_what_the_engine_is_told() {
        let typed =
            "http://localhost:8000/v1,kind=vllm,prefix=lab,models=a+b,context=4096,adapters=on";
        let got = configs(&[typed.to_owned()]).expect("is a config");
        let want = RemoteConfig::new("http://localhost:8000".parse().expect("is an address"))
            .with_kind(commons_remote::Kind::Vllm)
            .with_prefix("lab")
            .expect("is a prefix")
            .with_models(vec!["a".to_owned(), "b".to_owned()])
            .expect("are few")
            .with_context_len(4096)
            .with_adapters(Adapters::Loaded);
        assert_eq!(got, [want]);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name_and_a_key_is_not_repeated() {
        refused(&["http://8.8.8.8"], "insecure=on");
        refused(&["http://localhost,kind=vlm"], "llama-server");
        refused(&["http://localhost,key=sk-secret"], "key-file");
        refused(&["http://localhost,sk-secret"], "key-file");
        refused(&["http://localhost,key-env=NO_SUCH_NAME_HERE"], "NO_SUCH_NAME_HERE");
        refused(&["http://localhost,key-file=/nonexistent/key"], "/nonexistent/key");
        refused(&["http://localhost,context=1"], "context");
        refused(&["http://localhost,adapters=maybe"], "adapters");
        refused(&["http://localhost,prefix=a,prefix=b"], "twice");
        refused(&["http://localhost,ca=/nonexistent/ca"], "/nonexistent/ca");
        refused(&["http://localhost:1", "http://localhost:2"], "prefix=NAME");
        refused(&["http://localhost:1,prefix=a", "http://localhost:2,prefix=a"], "prefix");
        refused(&["http://localhost:1,prefix=a", "http://localhost:1,prefix=b"], "one address");
    }
}
