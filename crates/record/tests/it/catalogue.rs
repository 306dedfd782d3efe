//! What is published: paths that stay where they belong, names, licences and bounds.

use commons_record::catalogue::{
    BODY_SIZE_MAX, Derivation, FILE_SIZE_MAX, FILES_MAX, FilePath, LicenceSyntaxError, Release,
    ReleaseFile, RepoName, Version, check_licence,
};
use commons_record::{Epoch, Hash, Record};
use proptest::prelude::*;

use crate::sample::{denylist, hash, release, revocation};

fn files(paths: &[&str]) -> Vec<ReleaseFile> {
    let parse = |path: &&str| path.parse::<FilePath>().unwrap_or_else(|error| panic!("{error}"));
    let file = |path| ReleaseFile { path, blob: hash(1), size: 1, sha256: None, recipe: None };
    paths.iter().map(parse).map(file).collect()
}

fn refused(change: impl FnOnce(&mut Release)) -> String {
    let mut body = release();
    change(&mut body);
    body.check().expect_err("it must be refused").to_string()
}

// Rule C1
#[test]
fn a_path_that_leads_elsewhere_on_any_system_is_no_path() {
    let long = "x".repeat(201);
    let deep = vec!["d"; 17].join("/");
    let bad = [
        "",
        "/",
        "/etc/passwd",
        "..",
        ".",
        "../x",
        "a/../b",
        "a/./b",
        "a//b",
        "a/",
        "a\\b",
        "..\\x",
        "C:/x",
        "c:x",
        "x:stream",
        "a\0b",
        "a\nb",
        "a\u{7f}",
        "caf\u{e9}",
        "\u{202e}x",
        "\u{ff0e}/x",
        "a/ b",
        "a ",
        "a.",
        "a./b",
        "...",
        "-rf",
        "~/x",
        "nul",
        "NUL.txt",
        "a/Com1.gguf",
        "lpt9",
        "aux .txt",
        ".git/config",
        "a/.GIT",
        "a*",
        "a?",
        "a|b",
        "a<b",
        "\"a\"",
        &long,
        &deep,
    ];
    for path in bad {
        assert!(path.parse::<FilePath>().is_err(), "{path:?} is a path");
    }
    let good = [
        "a",
        ".gitattributes",
        "model-00001-of-00002.safetensors",
        "a/b c (1).txt",
        "communism.txt",
    ];
    for path in good {
        assert_eq!(path.parse::<FilePath>().expect("a path").as_str(), path);
    }
}

// Rule C1
#[test]
fn two_files_that_would_become_one_are_refused() {
    for (paths, what) in [
        (&["a", "a"][..], "each once"),
        (&["b", "a"], "each once"),
        (&["README", "readme"], "differ in case"),
        (&["a", "a/b"], "folder of another"),
        (&["A", "a/b"], "folder of another"),
        (&[], "none or more"),
    ] {
        let error = refused(|it| it.files = files(paths));
        assert!(error.contains(what), "{paths:?}: {error}");
    }
    let mut fine = release();
    fine.files = files(&["a", "a.b", "a0", "b/a", "c/A"]);
    fine.check().expect("they differ");
}

#[test]
fn a_name_is_two_plain_parts() {
    let long = format!("a/{}", "x".repeat(95));
    for name in [
        "",
        "a",
        "/a",
        "a/",
        "a/b/c",
        "../b",
        "a/..",
        "a/b..c",
        "a/-b",
        "a/b-",
        ".a/b",
        "a/b.",
        "a/b c",
        "a\\b",
        "a/b--c",
        "\u{430}/b",
        "a/b\n",
        "a@1/b",
        &long,
    ] {
        assert!(name.parse::<RepoName>().is_err(), "{name:?} is a name");
    }
    for name in ["a/b", "meta-llama/Llama-3.2_1B", "0/1"] {
        name.parse::<RepoName>().expect(name);
    }
}

#[test]
fn a_version_is_never_a_commit_or_a_branch() {
    let commit = "0123456789abcdef0123456789abcdef01234567";
    for version in ["", "main", "HEAD", "Main", "a b", "-1", "1..2", "1/2", commit, &"1".repeat(65)]
    {
        assert!(version.parse::<Version>().is_err(), "{version:?} is a version");
    }
    for version in ["1", "v1.0.0-rc.1+build", "2024-06-01", "Q4_K_M"] {
        version.parse::<Version>().expect(version);
    }
}

#[test]
fn a_licence_has_the_form_of_spdx() {
    for licence in [
        "MIT",
        "NOASSERTION",
        "GPL-2.0+",
        "Apache-2.0 OR MIT",
        "(MIT AND BSD-3-Clause) OR LicenseRef-llama3",
        "GPL-2.0-only WITH Classpath-exception-2.0",
        "DocumentRef-a:LicenseRef-b",
        "((MIT))",
    ] {
        check_licence(licence).unwrap_or_else(|error| panic!("{licence}: {error}"));
    }
    let deep = format!("{}MIT{}", "(".repeat(9), ")".repeat(9));
    let long = vec!["MIT"; 50].join(" OR ");
    for (licence, error) in [
        ("", LicenceSyntaxError::Empty),
        ("  ", LicenceSyntaxError::Empty),
        ("NONE", LicenceSyntaxError::None),
        ("MIT OR NOASSERTION", LicenceSyntaxError::MixedNoassertion),
        ("MIT OR", LicenceSyntaxError::MissingOperand),
        ("AND MIT", LicenceSyntaxError::MissingOperand),
        ("MIT WITH", LicenceSyntaxError::MissingOperand),
        ("(MIT) WITH x", LicenceSyntaxError::MissingOperand),
        ("MIT Apache-2.0", LicenceSyntaxError::MissingOperator),
        ("(MIT", LicenceSyntaxError::Parentheses),
        ("MIT)", LicenceSyntaxError::Parentheses),
        ("()", LicenceSyntaxError::Parentheses),
        (&deep, LicenceSyntaxError::Parentheses),
        ("MIT/Apache", LicenceSyntaxError::BadIdentifier),
        ("M\u{131}T", LicenceSyntaxError::BadIdentifier),
        ("LicenseRef-a:LicenseRef-b", LicenceSyntaxError::BadIdentifier),
        (&long, LicenceSyntaxError::TooLong),
    ] {
        assert_eq!(check_licence(licence), Err(error), "{licence}");
    }
}

#[test]
fn a_release_beyond_its_bounds_says_which() {
    let shard = |at: usize| format!("data/part-{at:05}.parquet");
    let many = |count: usize| {
        let paths: Vec<String> = (0..count).map(shard).collect();
        files(&paths.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let nothing = Derivation { release: None, blob: None, ..release().lineage.remove(0) };
    for (error, what) in [
        (refused(|it| it.files = many(FILES_MAX + 1)), "files are none or more than 4096"),
        (refused(|it| it.files = many(2_000)), "files make a record of more than 56 KiB"),
        (refused(|it| it.files[0].size = FILE_SIZE_MAX + 1), "files are longer than 64 TiB"),
        (refused(|it| it.licence = "no licence".into()), "licence"),
        (refused(|it| it.lineage = vec![nothing]), "lineage names neither"),
        (refused(|it| it.lineage = vec![release().lineage.remove(0); 65]), "lineage is longer"),
        (refused(|it| it.author = String::new()), "author"),
        (refused(|it| it.description = "a\nb".into()), "description"),
        (refused(|it| it.tags = vec!["b".into(), "a".into()]), "tags"),
        (refused(|it| it.tags = vec!["a".into(), "a".into()]), "tags"),
        (refused(|it| it.tags = vec!["x".repeat(65)]), "tags"),
    ] {
        assert!(error.starts_with(what), "{error} is not about {what}");
    }
    let mut fits = release();
    fits.files = many(350);
    fits.check().expect("three hundred and fifty files fit");
    let size = commons_record::codec::encode(&fits).len();
    assert!(size <= BODY_SIZE_MAX, "{size}");
}

// Rule C4
#[test]
fn a_revocation_spares_what_it_names_and_what_came_before() {
    let mut body = revocation();
    assert!(body.spares(&hash(0x55), Epoch(9)), "it is named");
    assert!(body.spares(&hash(0x01), Epoch(3)), "it came before");
    assert!(!body.spares(&hash(0x01), Epoch(4)));
    body.from = None;
    assert!(!body.spares(&hash(0x01), Epoch(0)), "nothing came before always");
    body.kept.reverse();
    assert_eq!(body.check().expect_err("out of order").field, "kept");
}

#[test]
fn a_denylist_gives_reasons() {
    let mut list = denylist();
    list.entries[0].reason = String::new();
    assert_eq!(list.check().expect_err("no reason").field, "entries");
    list.entries = vec![denylist().entries.remove(0); 1_025];
    assert_eq!(list.check().expect_err("too many").field, "entries");
}

proptest! {
    /// Rule C1: what is accepted as a path stays below the folder that it is joined to.
    #[test]
    fn no_text_becomes_a_path_that_leaves_its_folder(text in r"[a.~/\\ :\x00-\x7fäß-]{0,12}") {
        if let Ok(path) = text.parse::<FilePath>() {
            let joined = std::path::Path::new("/base").join(path.as_str());
            let names = joined.components().skip(2).map(|it| it.as_os_str().to_owned());
            prop_assert!(joined.starts_with("/base"));
            prop_assert_eq!(
                names.collect::<Vec<_>>(),
                path.as_str().split('/').map(std::ffi::OsString::from).collect::<Vec<_>>()
            );
        }
    }

    /// Whatever is written between licences, the reader ends with an answer; and what it accepts
    /// it accepts in parentheses too.
    #[test]
    fn what_is_a_licence_is_one_in_parentheses_too(words in prop::collection::vec(
        prop::sample::select(vec!["MIT", "AND", "OR", "WITH", "(", ")", "GPL-2.0+", "x:y"]), 0..9)
    ) {
        let text = words.join(" ");
        // Not the other way round: `MIT) AND (MIT` is none.
        if check_licence(&text).is_ok() {
            prop_assert_eq!(check_licence(&format!("({text})")), Ok(()));
        }
    }

    #[test]
    fn a_commit_is_the_beginning_of_a_record_id(bytes: [u8; 32]) {
        let id = Hash::from_bytes(bytes);
        prop_assert!(id.to_string().starts_with(&Release::commit_of(&id)));
        prop_assert_eq!(Release::commit_of(&id).len(), 40);
    }
}
