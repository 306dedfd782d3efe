//! An address outside: a host, and what it is asked for.
//!
//! Not here: how a name is resolved and how far that may lead (`http::dial`).

use std::fmt;

use hyper::Uri;

use crate::address::Address;

/// Signed addresses of storage services have up to 2 KiB, with room.
const PLACE_LEN_MAX: usize = 8192;

/// A host, and the path and query that it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    address: Address,
    target: String,
}

/// Why a place is not gone to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PlaceError {
    #[error("the address cannot be read")]
    Unreadable,

    #[error("plain http reaches this machine only")]
    PlainHttp,
}

impl Place {
    /// Reads a whole address: https, or http on this machine.
    pub(crate) fn parse(text: &str) -> Result<Self, PlaceError> {
        let place = Self::read(text)?;
        let is_near = place.address.reach() == commons_port::engine::Reach::Machine;
        if place.address.is_tls() || is_near { Ok(place) } else { Err(PlaceError::PlainHttp) }
    }

    fn read(text: &str) -> Result<Self, PlaceError> {
        let unreadable = || PlaceError::Unreadable;
        let text = text.split('#').next().unwrap_or_default();
        if text.len() > PLACE_LEN_MAX {
            return Err(unreadable());
        }
        let uri = text.parse::<Uri>().map_err(|_| unreadable())?;
        let scheme = uri.scheme_str().ok_or_else(unreadable)?;
        let authority = uri.authority().ok_or_else(unreadable)?;
        // The address reads no path: a plain place may end in `/v1`, and has a query.
        let address = format!("{scheme}://{authority}").parse::<Address>().map_err(|error| {
            let is_plain = matches!(error, crate::address::AddressError::PlainAndPublic { .. });
            if is_plain { PlaceError::PlainHttp } else { unreadable() }
        })?;
        let target = uri.path_and_query().map_or("/", |it| it.as_str());
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        Ok(Self { address, target })
    }

    /// A route below an address that its owner set; the route is percent-encoded already.
    pub(crate) fn below(address: &Address, route: &str) -> Self {
        Self { address: address.clone(), target: address.path_to(route) }
    }

    pub(crate) const fn address(&self) -> &Address {
        &self.address
    }

    /// Path and query, as a request line has them.
    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    /// Host and port: what a person is told. The rest may hold a secret.
    pub(crate) fn host(&self) -> String {
        self.address.authority()
    }

    /// Whether it is the scheme, host and port of an address.
    pub(crate) fn is_at(&self, address: &Address) -> bool {
        self.address.is_tls() == address.is_tls()
            && self.address.host() == address.host()
            && self.address.port() == address.port()
    }

    /// The path below an address, where it is one.
    pub(crate) fn route_at(&self, address: &Address) -> Option<&str> {
        let route = self.target.strip_prefix(&address.path_to(""))?;
        (self.is_at(address) && route.starts_with('/')).then_some(route)
    }

    /// Where a redirect from here leads, if it may be followed.
    pub(crate) fn redirect(&self, location: &str) -> Result<Self, PlaceError> {
        let scheme = if self.address.is_tls() { "https" } else { "http" };
        let host = self.host();
        let next = if location.starts_with("//") {
            Self::read(&format!("{scheme}:{location}"))?
        } else if location.starts_with('/') {
            Self::read(&format!("{scheme}://{host}{location}"))?
        } else {
            Self::read(location)?
        };
        let stays = next.is_at(&self.address);
        let is_near = |it: &Self| {
            it.address.reach() == commons_port::engine::Reach::Machine && !it.address.is_tls()
        };
        let is_followed = next.address.is_tls() || stays || (is_near(self) && is_near(&next));
        if is_followed { Ok(next) } else { Err(PlaceError::PlainHttp) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.address.is_tls() { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.host(), self.target)
    }
}

/// One name of a path, as an address has it: nothing in it has a meaning there.
pub(crate) fn encoded(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push('%');
            for digit in [byte >> 4, byte & 15] {
                let digit = char::from_digit(u32::from(digit), 16).unwrap_or('0');
                text.push(digit.to_ascii_uppercase());
            }
        }
    }
    text
}

/// A path, name by name.
pub(crate) fn encoded_path(path: &str) -> String {
    path.split('/').map(encoded).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        Place::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn a_redirect_leads_to_https_or_stays() {
        let check = |from: &str, location: &str, want: Result<&str, PlaceError>| {
            let next = place(from).redirect(location).map(|it| it.to_string());
            assert_eq!(next, want.map(str::to_owned), "{from} -> {location}");
        };
        let hub = "https://hub.example/a?b";
        check(hub, "https://cdn.example/x?Signature=1#f", Ok("https://cdn.example/x?Signature=1"));
        check(hub, "/other?c", Ok("https://hub.example/other?c"));
        check(hub, "//cdn.example:444/x", Ok("https://cdn.example:444/x"));
        check(hub, "http://cdn.example/x", Err(PlaceError::PlainHttp));
        check(hub, "http://8.8.8.8/x", Err(PlaceError::PlainHttp));
        check(hub, "http://127.0.0.1/x", Err(PlaceError::PlainHttp));
        check(hub, "http://hub.example/a", Err(PlaceError::PlainHttp));
        check(hub, "ftp://cdn.example/x", Err(PlaceError::Unreadable));
        check(hub, "x", Err(PlaceError::Unreadable));
        check(hub, "", Err(PlaceError::Unreadable));
        check(hub, "https://me:secret@cdn.example/x", Err(PlaceError::Unreadable));
        check("http://127.0.0.1:1/a", "http://localhost:2/b", Ok("http://localhost:2/b"));
        check("http://127.0.0.1:1/a", "http://192.168.1.1/b", Err(PlaceError::PlainHttp));
        check("http://127.0.0.1:1/a", "https://cdn.example/b", Ok("https://cdn.example/b"));
    }

    #[test]
    fn only_this_machine_is_asked_under_plain_http() {
        assert_eq!(Place::parse("http://gpu-box/a"), Err(PlaceError::PlainHttp));
        assert_eq!(Place::parse("http://192.168.1.1/a"), Err(PlaceError::PlainHttp));
        assert_eq!(place("https://h").to_string(), "https://h/");
        assert_eq!(place("https://h/v1?a=1#b").to_string(), "https://h/v1?a=1");
        assert!(Place::parse(&format!("https://h/{}", "x".repeat(9000))).is_err());
    }

    #[test]
    fn a_name_in_a_path_means_nothing_else() {
        assert_eq!(encoded_path("a b/ü?#%.txt"), "a%20b/%C3%BC%3F%23%25.txt");
        assert_eq!(encoded("refs/pr/1"), "refs%2Fpr%2F1");
    }

    #[test]
    fn a_route_is_below_its_own_address_alone() {
        let address = "https://mirror.example/hf".parse::<Address>().expect("is an address");
        let below = Place::below(&address, "/api/x");
        assert_eq!(below.to_string(), "https://mirror.example/hf/api/x");
        assert_eq!(below.route_at(&address), Some("/api/x"));
        assert_eq!(place("https://mirror.example/hfx/api").route_at(&address), None);
        assert_eq!(place("https://mirror.example:1/hf/api").route_at(&address), None);
        assert_eq!(place("https://other.example/hf/api").route_at(&address), None);
    }
}
