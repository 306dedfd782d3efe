//! One Rust file, read just far enough for the rules: code without comments and strings,
//! which lines are test code, and where functions begin and end.
//!
//! This is a lexer and a brace counter, not a parser. It errs on the side of silence:
//! what it cannot follow, it does not report.
//!
//! Not here: what is allowed (see the rules beside this file).

use std::ops::RangeInclusive;

/// A Rust file with its code separated from its prose. Line numbers count from 1.
#[derive(Debug)]
pub(crate) struct Source {
    /// The text with every comment, string and character literal blanked, line breaks kept.
    code: String,
    /// Line ranges below `#[cfg(test)]`; one range over everything in a file of tests.
    tests: Vec<RangeInclusive<usize>>,
}

/// A function with a body, from the line of its `fn` to the line of its closing brace.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) line_count: usize,
}

impl Source {
    /// Reads one file. `is_test_file` marks all of it as test code.
    pub(crate) fn new(text: &str, is_test_file: bool) -> Self {
        let code = blank_prose(text);
        let tests = if is_test_file { vec![1..=usize::MAX] } else { test_regions(&code) };
        Self { code, tests }
    }

    /// The code of the file, byte for byte where it stood in the text.
    pub(crate) fn code(&self) -> &str {
        &self.code
    }

    /// Whether this line belongs to tests.
    pub(crate) fn is_test_line(&self, line: usize) -> bool {
        self.tests.iter().any(|region| region.contains(&line))
    }

    /// Code lines with their numbers, blank ones left out.
    pub(crate) fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        numbered(&self.code).filter(|(_, line)| !line.trim().is_empty())
    }

    /// Every function that has a body, nested ones included.
    pub(crate) fn functions(&self) -> Vec<Function> {
        let code = self.code.as_str();
        let starts = words(code).filter(|&(_, word)| word == "fn");
        starts.filter_map(|(at, _)| function_at(code, at)).collect()
    }

    /// Names of the modules that are declared in another file and only for tests.
    pub(crate) fn test_modules(&self) -> Vec<&str> {
        let marks = cfg_test_ends(&self.code);
        marks.filter_map(|at| module_declaration(self.code[at..].trim_start())).collect()
    }
}

/// Lines with their numbers, counted from 1.
pub(crate) fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

/// The number of the line that holds this byte, counted from 1.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Whether this byte may be part of a word.
pub(crate) fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Identifiers, keywords and numbers with the byte where each begins.
pub(crate) fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let bytes = text.as_bytes();
        at += bytes[at..].iter().position(|&byte| is_word_byte(byte))?;
        let start = at;
        while bytes.get(at).copied().is_some_and(is_word_byte) {
            at += 1;
        }
        Some((start, &text[start..at]))
    })
}

/// The bytes where `needle` stands as a whole: no word goes on before or after it.
pub(crate) fn find_whole<'a>(text: &'a str, needle: &'a str) -> impl Iterator<Item = usize> + 'a {
    let bytes = text.as_bytes();
    text.match_indices(needle).map(|(at, _)| at).filter(move |&at| {
        let before = at.checked_sub(1).map(|at| bytes[at]);
        let after = bytes.get(at + needle.len()).copied();
        !before.is_some_and(is_word_byte) && !after.is_some_and(is_word_byte)
    })
}

/// The byte just after the bracket that closes the one at `open`.
pub(crate) fn after_closing(code: &str, open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// The `{` or `;` that ends the head of the item at `from`, outside round and square brackets.
fn item_head_end(code: &str, from: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(from) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth = depth.checked_sub(1)?,
            b'{' | b';' if depth == 0 => return Some(at),
            _ => {}
        }
    }
    None
}

fn function_at(code: &str, at: usize) -> Option<Function> {
    let (_, name) = words(&code[at..]).nth(1)?;
    let is_named = code[at + 2..].trim_start().starts_with(name); // `fn(u8)` is a type.
    let body = item_head_end(code, at).filter(|&end| code.as_bytes()[end] == b'{')?;
    let (line, last) = (line_of(code, at), line_of(code, after_closing(code, body)? - 1));
    is_named.then(|| Function { name: name.to_owned(), line, line_count: last - line + 1 })
}

/// The bytes just after each `#[cfg(test)]` and `#[cfg(all(test, ..))]`.
fn cfg_test_ends(code: &str) -> impl Iterator<Item = usize> {
    code.match_indices("#[cfg(").filter_map(|(at, _)| {
        let end = after_closing(code, at + 1)?;
        let condition = code[at + "#[cfg(".len()..end].trim_start();
        let first = condition.strip_prefix("all(").unwrap_or(condition);
        (words(first).next()?.1 == "test").then_some(end)
    })
}

fn test_regions(code: &str) -> Vec<RangeInclusive<usize>> {
    let region = |at| {
        let head_end = item_head_end(code, at)?;
        let end = match code.as_bytes()[head_end] {
            b'{' => after_closing(code, head_end)?,
            _ => head_end + 1,
        };
        Some(line_of(code, at)..=line_of(code, end - 1))
    };
    cfg_test_ends(code).filter_map(region).collect()
}

/// The name in `mod name;`, `pub(crate) mod name;` and the like.
fn module_declaration(item: &str) -> Option<&str> {
    let (head, _) = item.split_once(';')?;
    let (before, name) = head.rsplit_once("mod ")?;
    let is_declaration = !before.contains(['{', '=']) && name.trim().bytes().all(is_word_byte);
    is_declaration.then(|| name.trim())
}

/// Blanks comments, strings and character literals; every byte keeps its place.
fn blank_prose(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' => comment_end(bytes, at),
            b'"' => Some(string_end(bytes, at)),
            b'\'' => char_end(text, at),
            b'r' | b'b' | b'c' if at == 0 || !is_word_byte(bytes[at - 1]) => {
                prefixed_string_end(bytes, at)
            }
            _ => None,
        };
        let Some(end) = end else {
            at += 1;
            continue;
        };
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8(out).unwrap_or_default() // Whole runs were blanked: it is still UTF-8.
}

fn comment_end(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at + 1)? {
        b'/' => {
            let line_end = bytes[at..].iter().position(|&byte| byte == b'\n');
            Some(line_end.map_or(bytes.len(), |length| at + length))
        }
        b'*' => {
            let (mut depth, mut at) = (0_usize, at);
            while at < bytes.len() {
                match &bytes[at..bytes.len().min(at + 2)] {
                    b"/*" => (depth, at) = (depth + 1, at + 2),
                    b"*/" => (depth, at) = (depth - 1, at + 2),
                    _ => at += 1,
                }
                if depth == 0 {
                    break;
                }
            }
            Some(at)
        }
        _ => None,
    }
}

/// The end of the string whose opening quote is at `at`.
fn string_end(bytes: &[u8], mut at: usize) -> usize {
    at += 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The end of `r".."`, `r#".."#`, `b".."`, `br".."`, `b'.'`, `c".."` or `cr".."`.
fn prefixed_string_end(bytes: &[u8], at: usize) -> Option<usize> {
    let letters = bytes[at..].iter().take(2).take_while(|byte| b"rbc".contains(byte)).count();
    let open = at + letters;
    let is_raw = bytes[at..open].contains(&b'r');
    let hashes = bytes[open..].iter().take_while(|&&byte| byte == b'#').count();
    match bytes.get(open + hashes)? {
        b'"' if is_raw => {
            let close = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
            let body = open + hashes + 1;
            let length = bytes[body..].windows(close.len()).position(|window| window == close);
            Some(length.map_or(bytes.len(), |length| body + length + close.len()))
        }
        b'"' if hashes == 0 => Some(string_end(bytes, open)),
        _ => None, // `b'x'` too: its quote is met next.
    }
}

/// The end of a character literal; `None` for a lifetime.
fn char_end(text: &str, at: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    if *bytes.get(at + 1)? == b'\\' {
        let close = bytes[at + 3..].iter().position(|&byte| byte == b'\'')?;
        return Some(at + 3 + close + 1);
    }
    let close = at + 1 + text[at + 1..].chars().next()?.len_utf8();
    (bytes.get(close) == Some(&b'\'')).then_some(close + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_is_blanked_and_code_keeps_its_place() {
        let check = |text: &str, want: &str| assert_eq!(Source::new(text, false).code(), want);
        check("a // b\nc", "a     \nc");
        check("a /* b /* c */ d */ e", "a                   e");
        check(r#"f("x\"}", 'y', '\'', b'z')"#, "f(      ,    ,     , b   )");
        check(r##"f(r#"a"b"#) g"##, "f(        ) g");
        check("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}");
        check("let for_b = b\"{\"; é", "let for_b =     ; é");
        check("let r#type = '\u{e9}';", "let r#type =     ;");
    }

    #[test]
    fn test_code_is_told_from_the_rest() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() {}\n}\nfn c() {}\n";
        let source = Source::new(text, false);
        let is_test: Vec<bool> = (1..=6).map(|line| source.is_test_line(line)).collect();
        assert_eq!(is_test, [false, true, true, true, true, false]);
        assert!(Source::new(text, true).is_test_line(6));
    }

    #[test]
    fn modules_of_tests_in_another_file_are_named() {
        let text =
            "#[cfg(test)]\nmod tests;\n#[cfg(all(test, unix))] pub(crate) mod cases;\nmod x;";
        assert_eq!(Source::new(text, false).test_modules(), ["tests", "cases"]);
        let text = "#[cfg(not(test))] mod a; #[cfg(test)] use b; #[cfg(test)] mod c { fn d(); }";
        assert_eq!(Source::new(text, false).test_modules(), Vec::<&str>::new());
    }

    #[test]
    fn functions_are_measured_from_head_to_closing_brace() {
        let text = "fn a(\n x: [u8; 2],\n) {\n  let f: fn(u8) = g; // }\n  s(\"}\");\n}\n\
            trait T { fn none(&self); }\nfn b() { fn c() {\n} }\n";
        let found = Source::new(text, false).functions();
        let found: Vec<_> = found.iter().map(|it| (it.name.as_str(), it.line_count)).collect();
        assert_eq!(found, [("a", 6), ("b", 2), ("c", 2)]);
    }
}
