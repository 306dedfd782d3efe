//! Asking a server what it is and what it has.
//!
//! ```text
//! /get_model_info -> SGLang     /props -> llama-server     /api/version -> Ollama
//! /version -> vLLM              /openapi.json -> llama-cpp-python     else: the published API
//! ```

use serde_json::Value;

use crate::catalog::{self, Declared, Server};
use crate::config::RemoteConfig;
use crate::fault::Fault;
use crate::http::Http;
use crate::kind::Kind;

/// What a server says of itself. `SGLang` tells all its arguments, `FastAPI` its whole schema.
const ABOUT_SIZE_MAX: usize = 4 * 1024 * 1024;

/// A list of models: clouds list hundreds, each with a page about it.
const LIST_SIZE_MAX: usize = 4 * 1024 * 1024;

/// A version is a word in a receipt.
const VERSION_LEN_MAX: usize = 60;

/// What was found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) server: Server,
    pub(crate) declared: Vec<Declared>,
    /// Models in the list that are not used.
    pub(crate) left_out: usize,
}

/// Asks for all of it. The list comes first: a server without it is none.
pub(crate) async fn look(
    http: &Http,
    config: &RemoteConfig,
    known: Option<Server>,
) -> Result<Found, Fault> {
    let list = http.get("/v1/models", LIST_SIZE_MAX).await?;
    let (mut declared, left_out) = catalog::read(&list, &config.models)?;
    let kind = match config.kind.or(known.as_ref().map(|it| it.kind)) {
        Some(kind) => kind,
        None => recognise(http).await?,
    };
    // The schema that holds this one's version is large, and it does not change while it lives.
    let server = match known.filter(|it| it.kind == kind && kind == Kind::LlamaCppPython) {
        Some(server) => server,
        None => describe(http, kind).await?,
    };
    match kind {
        Kind::Ollama => {
            let tags = about(http, "/api/tags").await?.unwrap_or_default();
            catalog::add_tags(&mut declared, &tags);
        }
        Kind::LlamaServer => {
            let adapters = about(http, "/lora-adapters").await?.unwrap_or_default();
            catalog::add_adapters(&mut declared, &adapters);
        }
        Kind::OpenAi | Kind::Vllm | Kind::LlamaCppPython | Kind::Sglang => {}
    }
    Ok(Found { server, declared, left_out })
}

/// Which program it is. Only a clear sign counts; without one it is the published API.
async fn recognise(http: &Http) -> Result<Kind, Fault> {
    let signs = [
        ("/get_model_info", "/model_path", Kind::Sglang),
        ("/props", "/default_generation_settings", Kind::LlamaServer),
        ("/api/version", "/version", Kind::Ollama),
        ("/version", "/version", Kind::Vllm),
    ];
    for (route, sign, kind) in signs {
        if about(http, route).await?.is_some_and(|it| it.pointer(sign).is_some()) {
            return Ok(kind);
        }
    }
    let schema = about(http, "/openapi.json").await?.unwrap_or_default();
    let title = schema.pointer("/info/title").and_then(Value::as_str);
    let is_python = title.is_some_and(|it| it.contains("llama.cpp Python API"));
    Ok(if is_python { Kind::LlamaCppPython } else { Kind::OpenAi })
}

async fn describe(http: &Http, kind: Kind) -> Result<Server, Fault> {
    let (route, version, context) = match kind {
        Kind::OpenAi => {
            return Ok(Server { kind, version: "unknown".to_owned(), context_len: None });
        }
        Kind::Vllm => ("/version", "/version", ""),
        Kind::LlamaServer => ("/props", "/build_info", "/default_generation_settings/n_ctx"),
        Kind::LlamaCppPython => ("/openapi.json", "/info/version", ""),
        Kind::Sglang => ("/get_server_info", "/version", "/context_length"),
        Kind::Ollama => ("/api/version", "/version", ""),
    };
    let about = about(http, route).await?.unwrap_or_default();
    let version = about.pointer(version).and_then(Value::as_str).unwrap_or_default();
    let plain = version.chars().filter(char::is_ascii_graphic).take(VERSION_LEN_MAX);
    let version = plain.collect::<String>();
    let version = if version.is_empty() { "unknown".to_owned() } else { version };
    let context = if context.is_empty() { None } else { about.pointer(context) };
    Ok(Server { kind, version, context_len: crate::wire::count(context) })
}

/// A JSON object or list at a route; none if the server has nothing there. A server that falls
/// silent or goes away while it is asked is a fault: it must not be taken for another.
async fn about(http: &Http, route: &str) -> Result<Option<Value>, Fault> {
    match http.get(route, ABOUT_SIZE_MAX).await {
        Ok(body) => Ok(serde_json::from_slice(&body).ok()),
        Err(fault @ (Fault::Silent { .. } | Fault::BrokeOff { .. } | Fault::Busy { .. })) => {
            Err(fault)
        }
        Err(fault) if fault.is_absence() => Err(fault),
        Err(_) => Ok(None),
    }
}
