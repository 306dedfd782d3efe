//! What a source is, and what it is not.

use proptest::prelude::*;

use super::*;

const HEX: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn check(text: &str, want: &Source) {
    let read = text.parse::<Source>().unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(&read, want, "{text}");
    assert_eq!(read.to_string(), text);
}

fn hf(kind: RepoKind, repo: &str, revision: Option<&str>, file: Option<&str>) -> Source {
    Source::HuggingFace {
        kind,
        repo: repo.to_owned(),
        revision: revision.map(str::to_owned),
        file: file.map(str::to_owned),
    }
}

/// The error names what is wrong, and shows how it is done.
fn refused(text: &str, part: &str) {
    let error = text.parse::<Source>().expect_err(text).to_string();
    assert!(error.contains(part), "{text}: no {part:?} in {error}");
}

#[test]
fn a_repository_a_revision_and_a_file_are_told_apart() {
    let repo = "Qwen/Qwen3-8B-GGUF";
    check("hf:Qwen/Qwen3-8B-GGUF", &hf(RepoKind::Model, repo, None, None));
    check("hf:Qwen/Qwen3-8B-GGUF@main", &hf(RepoKind::Model, repo, Some("main"), None));
    check(
        "hf:Qwen/Qwen3-8B-GGUF@refs/pr/1:a/b@2:c.gguf",
        &hf(RepoKind::Model, repo, Some("refs/pr/1"), Some("a/b@2:c.gguf")),
    );
    check(
        "hf:datasets/HuggingFaceFW/fineweb:data/0.parquet",
        &hf(RepoKind::Dataset, "HuggingFaceFW/fineweb", None, Some("data/0.parquet")),
    );
}

#[test]
fn a_model_of_a_registry_has_a_tag_and_perhaps_a_user() {
    let ollama = |name: &str, tag: Option<&str>| Source::Ollama {
        name: name.to_owned(),
        tag: tag.map(str::to_owned),
    };
    check("ollama:qwen3", &ollama("qwen3", None));
    check(
        "ollama:qwen2.5-coder:7b-instruct-q4_K_M",
        &ollama("qwen2.5-coder", Some("7b-instruct-q4_K_M")),
    );
    check("ollama:me/mine:latest", &ollama("me/mine", Some("latest")));
    for text in
        ["ollama:", "ollama:a/b/c", "ollama:a:", "ollama:a:b:c", "ollama:../a", "ollama:a:.b"]
    {
        refused(text, "ollama:qwen3:8b");
    }
}

#[test]
fn an_address_names_what_its_file_hashes_to() {
    let hash = HEX.parse::<Hash>().expect("is a hash");
    let url = |url: &str, digest| Source::Url { url: url.to_owned(), digest };
    check(
        &format!("https://example.org/a.gguf?x=1@2#sha256={HEX}"),
        &url("https://example.org/a.gguf?x=1@2", Digest::Sha256(*hash.as_bytes())),
    );
    check(
        &format!("https://[2001:db8::1]:8443/a#blake3={HEX}"),
        &url("https://[2001:db8::1]:8443/a", Digest::Blake3(hash)),
    );
    check(
        &format!("http://127.0.0.1:8000/a#blake3={HEX}"),
        &url("http://127.0.0.1:8000/a", Digest::Blake3(hash)),
    );
    for tail in ["", "#", "#sha256", "#sha256=", "#sha256=00", "#md5=00", "#sha1=00"] {
        refused(&format!("https://example.org/a{tail}"), "64 hexadecimal digits");
    }
    refused(&format!("https://example.org/a#sha256={HEX}00"), "64 hexadecimal digits");
}

#[test]
fn what_is_no_source_is_refused_with_an_example() {
    for text in ["", "qwen3", "ftp://h/a", "HF:a/b", " hf:a/b", "file:///etc/passwd"] {
        refused(text, "hf:Qwen/Qwen3-8B-GGUF");
    }
    for text in
        ["hf:", "hf:gpt2", "hf:a/b/c", "hf:/b", "hf:a/", "hf:a/..", "hf:datasets/x", "hf:a b/c"]
    {
        refused(text, "ORG/REPO");
    }
    for text in ["hf:a/b@", "hf:a/b@../x", "hf:a/b@x y", "hf:a/b@/x", "hf:a/b@x//y", "hf:a/b@x@y"] {
        refused(text, "@main");
    }
    for text in [
        "hf:a/b:",
        "hf:a/b:/etc/passwd",
        "hf:a/b:../x",
        "hf:a/b:x/../y",
        "hf:a/b:C:x",
        "hf:a/b:a\\b",
    ] {
        refused(text, "goes down only");
    }
    refused(&format!("http://example.org/a#sha256={HEX}"), "this machine only");
    refused(&format!("https://#sha256={HEX}"), "a host");
    refused(&format!("https://h:0/a#sha256={HEX}"), "a host");
    refused(&format!("https://h/a b#sha256={HEX}"), "without spaces");
    refused(&format!("https://h/{}", "x".repeat(5000)), "too long");
    let error =
        format!("https://me:hunter2@h/a#sha256={HEX}").parse::<Source>().expect_err("has one");
    assert!(error.to_string().contains("password") && !error.to_string().contains("hunter2"));
}

#[test]
fn a_plain_path_goes_down_only() {
    for path in ["a", "a/b", "model-00001-of-00002.safetensors", ".gitattributes", "a b/ü.txt"] {
        assert!(is_plain_path(path), "{path}");
    }
    let deep = vec!["a"; 33].join("/");
    let long = "x".repeat(256);
    for path in [
        "", "/a", "a/", "a//b", ".", "..", "a/..", "../a", "a\\b", "a\0", "a\n", "C:a", &deep,
        &long,
    ] {
        assert!(!is_plain_path(path), "{path:?}");
    }
}

proptest! {
    /// Whatever is read says itself again, and names nothing outside of its place.
    #[test]
    fn what_is_read_goes_round(text in "(hf:|ollama:|https://)[a-zA-Z0-9/.@:_?#=%~-]{0,60}") {
        if let Ok(source) = text.parse::<Source>() {
            let again = source.to_string();
            prop_assert_eq!(again.parse::<Source>(), Ok(source.clone()));
            if let Source::HuggingFace { repo, revision, file, .. } = source {
                prop_assert!(!repo.contains("..") && !revision.unwrap_or_default().contains(".."));
                prop_assert!(file.is_none_or(|it| is_plain_path(&it)));
            }
        }
    }

    /// No text makes it fail otherwise, and no refusal is a book.
    #[test]
    fn any_text_is_read_or_refused_in_short(text in any::<String>()) {
        if let Err(error) = text.parse::<Source>() {
            prop_assert!(error.to_string().len() < 800);
        }
    }

    /// A plain path joined to a folder stays in the folder, as the standard library sees it.
    #[test]
    fn a_plain_path_stays_below(path in "[a-c./\\\\]{0,12}") {
        if is_plain_path(&path) {
            let parts = std::path::Path::new(&path).components();
            let is_down = |it| matches!(it, std::path::Component::Normal(_));
            prop_assert!(parts.into_iter().all(is_down));
        }
    }
}
