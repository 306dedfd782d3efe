//! Where templates lie: in keys of a GGUF file, in files of a folder.

use std::path::Path;

use serde::Deserialize;

use super::{DEFAULT, SOURCE_SIZE_MAX, TEMPLATES_MAX, TemplateError};
use crate::gguf::Gguf;
use crate::tokenizer::read_file;

/// Bytes of `tokenizer_config.json`: as for the tokenizer.
const CONFIG_SIZE_MAX: u64 = 8 << 20;

/// The contents of the files that may hold templates.
#[derive(Clone, Copy, Debug, Default)]
pub struct TemplateFiles<'a> {
    /// `tokenizer_config.json`
    pub tokenizer_config: Option<&'a [u8]>,
    /// `chat_template.json`, which goes before `tokenizer_config.json`
    pub chat_template_json: Option<&'a [u8]>,
    /// `chat_template.jinja`, which goes before both
    pub chat_template: Option<&'a [u8]>,
    /// The files of `additional_chat_templates`: name without its ending, and content
    pub additional: &'a [(String, Vec<u8>)],
}

/// The same, read from a folder.
pub(super) struct Owned {
    tokenizer_config: Option<Vec<u8>>,
    chat_template_json: Option<Vec<u8>>,
    chat_template: Option<Vec<u8>>,
    additional: Vec<(String, Vec<u8>)>,
}

impl Owned {
    pub(super) fn read(folder: &Path) -> Result<Self, TemplateError> {
        let read = |name: &str, limit| read_file(&folder.join(name), limit);
        let size_max = SOURCE_SIZE_MAX as u64;
        let mut additional = Vec::new();
        // A folder that is absent or cannot be listed has no templates for us.
        let entries = std::fs::read_dir(folder.join("additional_chat_templates"));
        let paths = entries.into_iter().flatten().flatten().map(|entry| entry.path());
        for path in paths.filter(|it| it.extension().is_some_and(|it| it == "jinja")) {
            let name = path.file_stem().and_then(|it| it.to_str()).unwrap_or_default().to_owned();
            if let Some(bytes) = read_file(&path, size_max)? {
                additional.push((name, bytes));
            }
            if additional.len() > TEMPLATES_MAX {
                return Err(TemplateError::SourceCount { count: additional.len() });
            }
        }
        additional.sort();
        Ok(Self {
            tokenizer_config: read("tokenizer_config.json", CONFIG_SIZE_MAX)?,
            chat_template_json: read("chat_template.json", CONFIG_SIZE_MAX)?,
            chat_template: read("chat_template.jinja", size_max)?,
            additional,
        })
    }

    pub(super) fn borrow(&self) -> TemplateFiles<'_> {
        TemplateFiles {
            tokenizer_config: self.tokenizer_config.as_deref(),
            chat_template_json: self.chat_template_json.as_deref(),
            chat_template: self.chat_template.as_deref(),
            additional: &self.additional,
        }
    }
}

/// A file with a `chat_template` key.
#[derive(Default, Deserialize)]
struct ConfigJson {
    #[serde(default)]
    chat_template: Option<OneOrNamed>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrNamed {
    One(String),
    Named(Vec<Named>),
}

#[derive(Deserialize)]
struct Named {
    name: String,
    template: String,
}

/// The templates of a GGUF file by name.
pub(super) fn of_gguf(gguf: &Gguf) -> Result<Vec<(String, String)>, TemplateError> {
    let key = "tokenizer.chat_template";
    let mut sources = Vec::new();
    if let Some(source) = gguf.text(key)? {
        sources.push((DEFAULT.to_owned(), source.to_owned()));
    }
    for name in gguf.metadata().keys().filter_map(|it| it.strip_prefix("tokenizer.chat_template."))
    {
        if let Some(source) = gguf.text(&format!("{key}.{name}"))? {
            sources.push((name.to_owned(), source.to_owned()));
        }
    }
    Ok(sources)
}

/// The templates of a folder by name. What comes later goes before what came earlier.
pub(super) fn of_files(files: &TemplateFiles<'_>) -> Result<Vec<(String, String)>, TemplateError> {
    let mut sources: Vec<(String, String)> = Vec::new();
    let mut set =
        |name: String, source: String| match sources.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = source,
            None => sources.push((name, source)),
        };
    for (file, bytes) in [
        ("tokenizer_config.json", files.tokenizer_config),
        ("chat_template.json", files.chat_template_json),
    ] {
        let Some(bytes) = bytes else { continue };
        let config: ConfigJson = serde_json::from_slice(bytes).map_err(|source| {
            TemplateError::File { file: file.to_owned(), source: Box::new(source) }
        })?;
        match config.chat_template {
            Some(OneOrNamed::One(source)) => set(DEFAULT.to_owned(), source),
            Some(OneOrNamed::Named(named)) => {
                for Named { name, template } in named {
                    set(name, template);
                }
            }
            None => {}
        }
    }
    let main = files.chat_template.map(|bytes| (DEFAULT.to_owned(), bytes));
    let additional = files.additional.iter().map(|(name, bytes)| (name.clone(), bytes.as_slice()));
    for (name, bytes) in main.into_iter().chain(additional) {
        let source = String::from_utf8(bytes.to_vec())
            .map_err(|_| TemplateError::NotUtf8 { file: format!("chat template {name:?}") })?;
        set(name, source);
    }
    Ok(sources)
}

/// The template with `{% generation %}` and `{% endgeneration %}` as blocks that always run.
/// `transformers` uses them to find what is trained on; the text is the same.
pub(super) fn without_generation(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        let Some(size) = tag.find("%}").map(|end| end + 2) else { break };
        let inner = &tag[2..size - 2];
        let word = inner.trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).trim();
        let statement = match word {
            "generation" => "if true",
            "endgeneration" => "endif",
            _ => {
                // Only the opening is passed: the end that was found may lie in a string.
                out.push_str(&tag[..2]);
                rest = &tag[2..];
                continue;
            }
        };
        out.push_str("{%");
        out.push_str(&inner.replace(word, &format!(" {statement} ")));
        out.push_str("%}");
        rest = &tag[size..];
    }
    out.push_str(rest);
    out
}
