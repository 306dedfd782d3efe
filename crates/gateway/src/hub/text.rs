//! Text of addresses and forms: percent-decoding, percent-encoding, pairs of names and values.
//!
//! Nothing here grows what it reads: a decoded text is never longer than its encoded form. What is
//! not UTF-8 after decoding is none of ours, and `None` says so.

use std::fmt::Write as _;

/// Decodes `%XX`. A `%` that no two hexadecimal digits follow stands for itself, as browsers have
/// it.
pub(super) fn decode(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while let Some(&byte) = bytes.get(index) {
        let digits = bytes.get(index + 1).zip(bytes.get(index + 2)).filter(|_| byte == b'%');
        match digits.and_then(|(high, low)| Some(hex(*high)? << 4 | hex(*low)?)) {
            Some(value) => {
                decoded.push(value);
                index += 3;
            }
            None => {
                decoded.push(byte);
                index += 1;
            }
        }
    }
    String::from_utf8(decoded).ok()
}

/// Encodes everything but letters, digits, `-._~` and `/`: what a path may hold as it is.
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("a string takes all that is written to it");
        }
    }
    encoded
}

/// Names and values of a query or of a form body; the same name may stand there many times, as
/// `name` or as `name[]`. Pairs that are not UTF-8 are left out.
pub(super) fn pairs(text: &str) -> Vec<(String, String)> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decode(&name.replace('+', " "))?;
        let name = name.strip_suffix("[]").unwrap_or(&name).to_owned();
        Some((name, decode(&value.replace('+', " "))?))
    });
    pairs.flatten().collect()
}

/// Whether a value says yes. Clients write `true`, `True` and `1`.
pub(super) fn is_yes(value: &str) -> bool {
    value == "1" || value.eq_ignore_ascii_case("true")
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let cases = [
            ("plain-1.0_x~/y", Some("plain-1.0_x~/y")),
            ("a%20b%2Fc", Some("a b/c")),
            ("%e2%82%ac", Some("€")),
            ("%2e%2E", Some("..")),
            ("100%", Some("100%")),
            ("%zz%4", Some("%zz%4")),
            ("%00", Some("\0")),
            ("%ff", None),
        ];
        for (encoded, decoded) in cases {
            assert_eq!(decode(encoded).as_deref(), decoded, "{encoded}");
        }
        assert_eq!(encode("a b/ü%.json"), "a%20b/%C3%BC%25.json");
    }

    #[test]
    fn a_name_may_stand_many_times() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let expected = [pair("expand", "sha"), pair("expand", "likes"), pair("q", "a b&c")];
        assert_eq!(pairs("expand=sha&expand[]=likes&q=a+b%26c"), expected);
        assert_eq!(pairs("expand%5B%5D=x&bare&&=%ff"), [pair("expand", "x"), pair("bare", "")]);
        assert!(pairs("").is_empty());
    }

    proptest! {
        /// Encoding loses nothing, and no text is read longer than it is.
        #[test]
        fn any_text_survives(text in ".{0,64}") {
            prop_assert_eq!(decode(&encode(&text)), Some(text.clone()));
            prop_assert!(decode(&text).is_none_or(|it| it.len() <= text.len()));
        }
    }
}
