//! Which bytes of a file are asked for, and whether any have to be sent: RFC 9110, sections 13
//! and 14.
//!
//! One range of bytes is answered as such. What is several ranges, another unit or no range at all
//! by the grammar is answered with the whole file, as the RFC allows (14.2).

use axum::http::header::{HeaderMap, IF_NONE_MATCH, IF_RANGE, RANGE};

use crate::access::only;

/// What to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// All of it.
    Whole,
    /// Bytes `offset..offset + len`, at least one.
    Part { offset: u64, len: u64 },
    /// Bytes beyond the end.
    Beyond,
    /// Nothing: whoever asks has this version.
    Unchanged,
}

/// Reads the headers of a question for a file of `size` bytes with this entity tag, quoted.
pub(super) fn asked(headers: &HeaderMap, etag: &str, size: u64) -> Asked {
    if has_version(headers, etag) {
        return Asked::Unchanged;
    }
    match only(headers, &RANGE) {
        Some(range) if may_be_partial(headers, etag) => parse(range, size),
        _ => Asked::Whole,
    }
}

/// `if-none-match` compares weakly: 13.1.2.
fn has_version(headers: &HeaderMap, etag: &str) -> bool {
    let values = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = values.flat_map(|value| value.split(',')).map(str::trim);
    tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

/// `if-range` compares strongly, and a date says nothing about a file that has none: 13.1.5.
fn may_be_partial(headers: &HeaderMap, etag: &str) -> bool {
    !headers.contains_key(IF_RANGE) || only(headers, &IF_RANGE).is_some_and(|tag| tag == etag)
}

/// `bytes=FIRST-[LAST]` or `bytes=-COUNT`.
fn parse(range: &str, size: u64) -> Asked {
    let Some((unit, set)) = range.split_once('=') else { return Asked::Whole };
    let Some((first, last)) = set.trim().split_once('-') else { return Asked::Whole };
    if !unit.eq_ignore_ascii_case("bytes") {
        return Asked::Whole;
    }
    match (number(first), number(last)) {
        (Some(first), _) if !last.is_empty() && number(last).is_none_or(|it| it < first) => {
            Asked::Whole
        }
        (Some(first), _) if first >= size => Asked::Beyond,
        (Some(first), last) => {
            let last = last.unwrap_or(u64::MAX).min(size - 1);
            Asked::Part { offset: first, len: last - first + 1 }
        }
        (None, Some(count)) if first.is_empty() => match count.min(size) {
            0 => Asked::Beyond,
            len => Asked::Part { offset: size - len, len },
        },
        (None, _) => Asked::Whole,
    }
}

/// Digits as a number; one that no file is long enough for is the largest.
fn number(digits: &str) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    const ETAG: &str = "\"abc\"";

    fn ask(headers: &[(HeaderName, &str)], size: u64) -> Asked {
        let headers = headers.iter().map(|(name, value)| {
            (name.clone(), HeaderValue::from_bytes(value.as_bytes()).expect("a header's value"))
        });
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, value);
        }
        asked(&map, ETAG, size)
    }

    #[test]
    fn a_range_is_read_as_the_rfc_has_it() {
        let part = |offset, len| Asked::Part { offset, len };
        let cases = [
            ("bytes=0-0", part(0, 1)),
            ("bytes=0-9", part(0, 10)),
            ("bytes=0-10", part(0, 10)),
            ("bytes=3-", part(3, 7)),
            ("bytes=9-", part(9, 1)),
            ("bytes=2-4", part(2, 3)),
            ("Bytes=2-4", part(2, 3)),
            ("bytes=-3", part(7, 3)),
            ("bytes=-10", part(0, 10)),
            ("bytes=-11", part(0, 10)),
            ("bytes=5-99999999999999999999999999", part(5, 5)),
            ("bytes=10-", Asked::Beyond),
            ("bytes=10-12", Asked::Beyond),
            ("bytes=99999999999999999999999999-", Asked::Beyond),
            ("bytes=-0", Asked::Beyond),
            ("bytes=4-2", Asked::Whole),
            ("bytes=0-1,4-5", Asked::Whole),
            ("bytes=0-1,-1", Asked::Whole),
            ("bytes=", Asked::Whole),
            ("bytes=-", Asked::Whole),
            ("bytes=a-b", Asked::Whole),
            ("bytes=+1-2", Asked::Whole),
            ("bytes=1-2-3", Asked::Whole),
            ("bytes=--1", Asked::Whole),
            ("bytes=0x1-", Asked::Whole),
            ("bytes 0-1", Asked::Whole),
            ("items=0-1", Asked::Whole),
            ("", Asked::Whole),
            ("bytes=\u{661}-", Asked::Whole),
        ];
        for (range, expected) in cases {
            assert_eq!(ask(&[(RANGE, range)], 10), expected, "{range}");
        }
        assert_eq!(ask(&[], 10), Asked::Whole);
        assert_eq!(ask(&[(RANGE, "bytes=0-")], 0), Asked::Beyond);
        assert_eq!(ask(&[(RANGE, "bytes=-1")], 0), Asked::Beyond);
        assert_eq!(ask(&[(RANGE, "bytes=0-1"), (RANGE, "bytes=2-3")], 10), Asked::Whole);
    }

    #[test]
    fn conditions_are_weighed_before_ranges() {
        let part = Asked::Part { offset: 1, len: 2 };
        let range = (RANGE, "bytes=1-2");
        let cases: &[(&[(HeaderName, &str)], Asked)] = &[
            (&[(IF_NONE_MATCH, ETAG)], Asked::Unchanged),
            (&[(IF_NONE_MATCH, "\"x\", W/\"abc\"")], Asked::Unchanged),
            (&[(IF_NONE_MATCH, "*")], Asked::Unchanged),
            (&[(IF_NONE_MATCH, "abc")], Asked::Whole),
            (&[(IF_NONE_MATCH, "\"x\""), (IF_NONE_MATCH, ETAG)], Asked::Unchanged),
            (&[(IF_NONE_MATCH, ETAG), range.clone()], Asked::Unchanged),
            (&[(IF_NONE_MATCH, "\"x\""), range.clone()], part),
            (&[(IF_RANGE, ETAG), range.clone()], part),
            (&[(IF_RANGE, "\"x\""), range.clone()], Asked::Whole),
            (&[(IF_RANGE, "W/\"abc\""), range.clone()], Asked::Whole),
            (&[(IF_RANGE, "Sat, 29 Oct 1994 19:43:31 GMT"), range.clone()], Asked::Whole),
            (&[(IF_RANGE, ETAG), (RANGE, "bytes=99-")], Asked::Beyond),
            (&[(IF_RANGE, "\"x\""), (RANGE, "bytes=99-")], Asked::Whole),
            (&[(IF_RANGE, ETAG), (IF_RANGE, ETAG), range], Asked::Whole),
        ];
        for (headers, expected) in cases {
            assert_eq!(ask(headers, 10), *expected, "{headers:?}");
        }
    }

    proptest! {
        /// Whatever is asked, what is sent lies in the file.
        #[test]
        fn a_part_lies_in_the_file(range in "bytes=[0-9]{0,21}-[0-9]{0,21}", size in any::<u64>()) {
            if let Asked::Part { offset, len } = ask(&[(RANGE, &range)], size) {
                prop_assert!(len > 0 && offset.checked_add(len).is_some_and(|end| end <= size));
            }
        }
    }
}
