//! Where a foreign server is, and how far away that may be.
//!
//! ```text
//! http://127.0.0.1:8000      this machine
//! http://192.168.1.5:8000    the local network; so is any other name under http, and each of its
//!                            addresses is checked when it is connected to
//! https://api.example.com    the internet
//! ```
//!
//! Not here: the connection (see `http.rs`).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use commons_port::engine::Reach;
use hyper::Uri;

/// An address in a browser has about this many bytes at most; none of ours needs more.
const ADDRESS_LEN_MAX: usize = 2048;

/// A name of the domain name system has at most this many bytes.
const HOST_LEN_MAX: usize = 253;

/// Why a text is no address of a server. The text may hold a secret, so it is not repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum AddressError {
    #[error("the address of a foreign engine cannot be read; write it like http://127.0.0.1:8000")]
    Unreadable,

    #[error(
        "an address must not hold a user name or a password; put the key into a file and name it \
         with `key-file=`"
    )]
    HasUser,

    #[error("the address has a query, which is not sent; leave out what follows the `?`")]
    HasQuery,

    #[error("the address begins with neither http:// nor https://")]
    Scheme,

    #[error(
        "{host} is neither this machine nor a private address, and http would show prompts and \
         answers to everyone on the way; use https, or say `insecure=on`"
    )]
    PlainAndPublic { host: String },
}

/// The address of a server, and how far away it is at most.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    is_tls: bool,
    host: String,
    port: u16,
    path: String,
    reach: Reach,
    is_insecure: bool,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text, false)
    }
}

impl Address {
    /// Reads an address; `allows_plain` lets http go to the internet. A path is kept, but for a
    /// final `/v1`, which people copy along.
    pub fn parse(text: &str, allows_plain: bool) -> Result<Self, AddressError> {
        let unreadable = || AddressError::Unreadable;
        if text.len() > ADDRESS_LEN_MAX {
            return Err(unreadable());
        }
        let uri = text.parse::<Uri>().map_err(|_| unreadable())?;
        let authority = uri.authority().ok_or_else(unreadable)?;
        if authority.as_str().contains('@') {
            return Err(AddressError::HasUser);
        }
        if uri.query().is_some() {
            return Err(AddressError::HasQuery);
        }
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(AddressError::Scheme),
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let host = host.to_ascii_lowercase();
        if host.is_empty() || host.len() > HOST_LEN_MAX {
            return Err(unreadable());
        }
        let port = match authority.port_u16() {
            Some(0) => return Err(unreadable()),
            Some(port) => port,
            None if authority.as_str().ends_with(':') => return Err(unreadable()),
            None => {
                if is_tls {
                    443
                } else {
                    80
                }
            }
        };
        let reach = declared_reach(&host, is_tls, allows_plain);
        if !is_tls && reach == Reach::Internet && !allows_plain {
            return Err(AddressError::PlainAndPublic { host });
        }
        let path = uri.path().trim_end_matches('/');
        let path = path.strip_suffix("/v1").unwrap_or(path).trim_end_matches('/').to_owned();
        Ok(Self { is_tls, host, port, path, reach, is_insecure: allows_plain })
    }

    /// Whether the connection is encrypted.
    pub const fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// The name or address of the host, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// How far away it is at most.
    pub const fn reach(&self) -> Reach {
        self.reach
    }

    /// Whether a key may be sent there: nobody else reads along.
    pub fn keeps_secrets(&self) -> bool {
        self.is_tls || self.reach == Reach::Machine || self.is_insecure
    }

    /// Host and port, as a `Host` header has them.
    pub fn authority(&self) -> String {
        let is_v6 = self.host.contains(':');
        let host = if is_v6 { format!("[{}]", self.host) } else { self.host.clone() };
        let usual = if self.is_tls { 443 } else { 80 };
        if self.port == usual { host } else { format!("{host}:{}", self.port) }
    }

    /// The path of a route below this address.
    pub(crate) fn path_to(&self, route: &str) -> String {
        format!("{}{route}", self.path)
    }

    /// Whether an address that the host's name stands for is as near as was declared.
    pub fn admits(&self, ip: IpAddr) -> bool {
        reach_of(ip) <= self.reach
    }
}

/// What an address is believed to reach before anything was resolved: the nearest that makes it
/// usable, since everything farther is refused when it is connected to.
fn declared_reach(host: &str, is_tls: bool, allows_plain: bool) -> Reach {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return reach_of(ip);
    }
    if host == "localhost" || host.ends_with(".localhost") {
        return Reach::Machine;
    }
    if is_tls || allows_plain { Reach::Internet } else { Reach::Lan }
}

/// How far away an address is.
pub(crate) fn reach_of(ip: IpAddr) -> Reach {
    let is_private = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
    };
    match ip.to_canonical() {
        ip if ip.is_loopback() => Reach::Machine,
        ip if is_private(ip) => Reach::Lan,
        _ => Reach::Internet, // `0.0.0.0` too: it is no address of a server.
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, want: &str, reach: Reach) {
        let address = text.parse::<Address>().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!((address.to_string().as_str(), address.reach()), (want, reach), "{text}");
    }

    fn refused(text: &str, part: &str) {
        let error = text.parse::<Address>().expect_err(text).to_string();
        assert!(error.contains(part), "{text}: no {part:?} in {error}");
    }

    #[test]
    fn an_address_says_how_far_it_reaches() {
        check("http://127.0.0.1:8000", "http://127.0.0.1:8000", Reach::Machine);
        check("http://[::1]:8000/", "http://[::1]:8000", Reach::Machine);
        check("http://localhost:11434/v1", "http://localhost:11434", Reach::Machine);
        check("http://LOCALHOST/v1/", "http://localhost", Reach::Machine);
        check("http://192.168.0.9:1", "http://192.168.0.9:1", Reach::Lan);
        check("http://[fd00::1]", "http://[fd00::1]", Reach::Lan);
        check("http://gpu-box:8000", "http://gpu-box:8000", Reach::Lan);
        check("https://gpu-box:8000", "https://gpu-box:8000", Reach::Internet);
        check("https://10.1.2.3", "https://10.1.2.3", Reach::Lan);
        check(
            "https://api.example.com/openai/v1",
            "https://api.example.com/openai",
            Reach::Internet,
        );
    }

    #[test]
    fn plain_http_to_the_internet_is_refused_unless_told() {
        for text in ["http://8.8.8.8", "http://[2001:db8::1]:80", "http://0.0.0.0:8000"] {
            refused(text, "insecure=on");
            let told = Address::parse(text, true).map(|it| it.reach());
            assert_eq!(told, Ok(Reach::Internet), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_and_a_password_is_not_repeated() {
        refused("127.0.0.1:8000", "http://");
        refused("ftp://host", "neither");
        refused("http://", "http://127");
        refused("http://h:0", "cannot be read");
        refused("http://h?key=1", "query");
        refused(&format!("http://{}", "x".repeat(3000)), "cannot be read");
        let error = "https://me:hunter2@host".parse::<Address>().expect_err("is refused");
        assert!(error.to_string().contains("key-file") && !error.to_string().contains("hunter2"));
    }

    #[test]
    fn a_name_that_resolves_farther_than_declared_is_not_connected_to() {
        let check = |text: &str, ip: &str, want: bool| {
            let address = text.parse::<Address>().expect("is an address");
            let ip = ip.parse().expect("is an address");
            assert_eq!(address.admits(ip), want, "{text} {ip}");
        };
        check("http://localhost", "127.0.0.1", true);
        check("http://localhost", "192.168.1.1", false);
        check("http://gpu-box", "192.168.1.1", true);
        check("http://gpu-box", "::ffff:8.8.8.8", false);
        check("http://gpu-box", "8.8.8.8", false);
        check("https://gpu-box", "8.8.8.8", true);
    }
}
