//! Which GGUF file a tag of `llama.cpp -hf ORG/REPO:TAG` means.
//!
//! Newer versions list a repository and choose for themselves; older ones ask for a manifest. This
//! chooses as they do: a tag is a quantisation, found in a file's name before `.` or `-` in any
//! case; without one (`latest`) it is `Q4_K_M`, then `Q8_0`, then the first file. Of a model in
//! parts the first part is named, and the tool finds the others by its name.

use commons_port::hub::RepoFile;

/// What is taken where no tag is named, best first.
const USUAL: [&str; 2] = ["Q4_K_M", "Q8_0"];

/// What llama.cpp asks for where no tag was typed.
const NO_TAG: &str = "latest";

/// Names of files that go beside a model and are none.
const COMPANIONS: [&str; 3] = ["mmproj", "imatrix", "mtp-"];

/// The file that a tag means.
pub(super) fn choose<'a>(files: &'a [RepoFile], tag: &str) -> Option<&'a RepoFile> {
    let models = || files.iter().filter(|file| is_model(&file.path) && is_first_part(&file.path));
    let tagged = |tag: &str| models().find(|file| has_tag(&file.path, tag));
    if tag.eq_ignore_ascii_case(NO_TAG) {
        return USUAL.iter().find_map(|tag| tagged(tag)).or_else(|| models().next());
    }
    tagged(tag)
}

/// The projector that lets a model see or hear, if the repository has one.
pub(super) fn projector(files: &[RepoFile]) -> Option<&RepoFile> {
    files.iter().find(|file| is_gguf(&file.path) && name(&file.path).contains("mmproj"))
}

fn is_gguf(path: &str) -> bool {
    path.len() > 5 && path.get(path.len() - 5..).is_some_and(|it| it.eq_ignore_ascii_case(".gguf"))
}

fn is_model(path: &str) -> bool {
    is_gguf(path) && !COMPANIONS.iter().any(|word| name(path).contains(word))
}

fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Whether `tag` stands in the path before `.` or `-`.
fn has_tag(path: &str, tag: &str) -> bool {
    let (path, tag) = (path.to_ascii_uppercase(), tag.to_ascii_uppercase());
    let ends = |at: usize| path[at + tag.len()..].starts_with(['.', '-']);
    !tag.is_empty() && path.match_indices(&tag).any(|(at, _)| ends(at))
}

/// `NAME-00002-of-00003.gguf` is no first part.
fn is_first_part(path: &str) -> bool {
    let stem = &path[..path.len() - 5];
    let Some((stem, count)) = stem.rsplit_once("-of-") else { return true };
    let Some((_, index)) = stem.rsplit_once('-') else { return true };
    let is_number = |text: &str| text.len() == 5 && text.bytes().all(|it| it.is_ascii_digit());
    !is_number(count) || !is_number(index) || index == "00001"
}

#[cfg(test)]
mod tests {
    use commons_record::Hash;

    use super::*;

    fn files(paths: &[&str]) -> Vec<RepoFile> {
        let file = |path: &&str| RepoFile {
            path: (*path).to_owned(),
            size: 1,
            blob: Hash::of_content(path.as_bytes()),
            sha256: None,
        };
        paths.iter().map(file).collect()
    }

    #[test]
    fn a_tag_finds_its_file() {
        let all = files(&[
            "README.md",
            "m-F16.gguf",
            "m-Q3_K_M.gguf",
            "m-Q4_K_M-00001-of-00002.gguf",
            "m-Q4_K_M-00002-of-00002.gguf",
            "m-q8_0.GGUF",
            "mmproj-m-Q4_K_M.gguf",
            "sub/m.IQ2_XS.gguf",
        ]);
        let cases = [
            ("latest", Some("m-Q4_K_M-00001-of-00002.gguf")),
            ("q4_k_m", Some("m-Q4_K_M-00001-of-00002.gguf")),
            ("Q8_0", Some("m-q8_0.GGUF")),
            ("F16", Some("m-F16.gguf")),
            ("IQ2_XS", Some("sub/m.IQ2_XS.gguf")),
            ("Q4_K", None),
            ("Q6_K", None),
            ("", None),
            ("ü", None),
        ];
        for (tag, expected) in cases {
            assert_eq!(choose(&all, tag).map(|it| it.path.as_str()), expected, "{tag}");
        }
        assert_eq!(projector(&all).map(|it| it.path.as_str()), Some("mmproj-m-Q4_K_M.gguf"));
    }

    #[test]
    fn without_a_usual_one_the_first_model_is_taken() {
        let cases: [(&[&str], Option<&str>); 4] = [
            (&["a-Q2_K.gguf", "b-Q8_0.gguf"], Some("b-Q8_0.gguf")),
            (&["b.gguf", "mmproj.gguf"], Some("b.gguf")),
            (&["mmproj.gguf", "imatrix.gguf", ".gguf"], None),
            (&["model.safetensors", "ü"], None),
        ];
        for (paths, expected) in cases {
            let files = files(paths);
            assert_eq!(choose(&files, NO_TAG).map(|it| it.path.as_str()), expected, "{paths:?}");
        }
    }
}
