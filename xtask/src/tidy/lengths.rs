//! Files and functions stay short enough to read, and files small enough to clone.

use super::{
    Problem, Tree,
    ratchet::{Measured, Ratchet},
};

const FILES: Ratchet = Ratchet {
    rule: "file-length",
    list: "xtask/tidy-long-files.txt",
    limit: 800,
    advice: "split it; a flat table may be listed there with its reason",
};

const FUNCTIONS: Ratchet = Ratchet {
    rule: "function-length",
    list: "xtask/tidy-long-functions.txt",
    limit: 70,
    advice: "keep the branches, move the straight lines to helpers",
};

/// Git keeps every version of a file for ever.
const SIZE_MAX: usize = 1024 * 1024;

/// No Rust file over 800 lines that is not listed.
pub(super) fn check_files(tree: &Tree) -> Vec<Problem> {
    let measured = tree.texts_with("rs").map(|(file, text)| {
        let (key, path) = (file.path.clone(), file.path.clone());
        Measured { key, path, line: 1, size: text.lines().count() }
    });
    FILES.check(tree, &measured.collect::<Vec<_>>())
}

/// No function over 70 lines, head and braces included, that is not listed as `path::name`.
pub(super) fn check_functions(tree: &Tree) -> Vec<Problem> {
    let measured = tree.sources().flat_map(|(file, source)| {
        let path = &file.path;
        source.functions().into_iter().map(move |function| Measured {
            key: format!("{path}::{}", function.name),
            path: path.clone(),
            line: function.line,
            size: function.line_count,
        })
    });
    FUNCTIONS.check(tree, &measured.collect::<Vec<_>>())
}

/// No file over 1 MiB that git keeps or would keep.
pub(super) fn check_sizes(tree: &Tree) -> Vec<Problem> {
    let large = tree.files().filter(|file| file.size > SIZE_MAX);
    let message =
        |size| format!("{size} bytes, limit {SIZE_MAX}: generate it, or keep it elsewhere");
    large.map(|file| Problem::new(&file.path, 1, "file-size", message(file.size))).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::check, *};

    #[test]
    fn a_long_file_is_named_unless_listed() {
        let long = "//! x\n".repeat(801);
        let short = "//! x\n".repeat(800);
        let files = [("long.rs", long.as_str()), ("short.rs", &short)];
        check(check_files, &files, &["long.rs:1"]);
        let list = (FILES.list, "long.rs 801 a flat table");
        check(check_files, &[files[0], list], &[]);
    }

    #[test]
    fn a_long_function_is_named_unless_listed() {
        let text =
            |line_count: usize| format!("\nfn long() {{\n{}}}\n", "x();\n".repeat(line_count - 2));
        check(check_functions, &[("a.rs", &text(70))], &[]);
        check(check_functions, &[("a.rs", &text(71))], &["a.rs:2"]);
        let list = (FUNCTIONS.list, "a.rs::long 71 straight as an arrow");
        check(check_functions, &[("a.rs", &text(71)), list], &[]);
    }

    #[test]
    fn a_large_file_is_named() {
        let large = "x".repeat(SIZE_MAX + 1);
        check(check_sizes, &[("a.bin", &large), ("b.bin", &large[1..])], &["a.bin:1"]);
    }
}
