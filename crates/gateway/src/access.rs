//! Who may use the public routes.
//!
//! With a key: whoever sends it as `authorization: Bearer KEY`, from anywhere.
//!
//! Without a key: programs of this machine, and no web page but its own. The listener is on
//! loopback (see [`crate::check_bind`]), and a page in a browser is kept out twice:
//! * `Host` must name this machine. A page whose own name was re-pointed to 127.0.0.1 (DNS
//!   rebinding) sends its own name.
//! * `Origin`, where there is one, must be a page from loopback. No answer carries CORS headers,
//!   so a page of another origin cannot read one either.
//!
//! `/healthz` needs no key: it says nothing.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, HeaderName, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::error::ApiError;
use crate::hub;
use crate::state::{ApiKey, GatewayConfig};

/// The route that needs no key.
pub(crate) const HEALTH_PATH: &str = "/healthz";

/// Lets a request pass, or refuses it before its body is read.
pub(crate) async fn guard(
    State(config): State<Arc<GatewayConfig>>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    let allowed = match &config.api_key {
        Some(_) if path == HEALTH_PATH => Ok(()),
        Some(key) => check_key(key, request.headers()),
        None => check_local(&request),
    };
    match allowed {
        Ok(()) => next.run(request).await,
        // Tools that speak to a hub read another shape of error.
        Err(error) if hub::is_hub_path(path) => hub::refuse(&error, request.method()),
        Err(error) => error.into_response(),
    }
}

fn check_key(key: &ApiKey, headers: &HeaderMap) -> Result<(), ApiError> {
    let unauthorised =
        |message: &str| Err(ApiError::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message));
    let Some(value) = only(headers, &AUTHORIZATION) else {
        return unauthorised("this node needs its API key, as `authorization: Bearer KEY`");
    };
    match value.split_once(' ') {
        Some((scheme, text)) if scheme.eq_ignore_ascii_case("bearer") && key.is(text.trim()) => {
            Ok(())
        }
        _ => unauthorised("this is not the API key of this node"),
    }
}

fn check_local(request: &Request) -> Result<(), ApiError> {
    let headers = request.headers();
    let forbidden = |code, message: &str| ApiError::new(StatusCode::FORBIDDEN, code, message);
    let host = match request.uri().authority() {
        Some(authority) => Some(authority.as_str()),
        None => only(headers, &HOST),
    };
    if !host.is_some_and(is_loopback_authority) {
        return Err(forbidden(
            "host_not_allowed",
            "the `host` header names no loopback address; use localhost, or set an API key",
        ));
    }
    if headers.contains_key(ORIGIN) && !only(headers, &ORIGIN).is_some_and(is_loopback_origin) {
        return Err(forbidden(
            "origin_not_allowed",
            "pages of other origins may not use this node; set an API key to allow clients by key",
        ));
    }
    Ok(())
}

/// A header's value if it is there once: two of them are two opinions.
pub(crate) fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

fn is_loopback_origin(origin: &str) -> bool {
    let Ok(uri) = origin.parse::<Uri>() else { return false };
    let is_web = matches!(uri.scheme_str(), Some("http" | "https"));
    is_web && uri.authority().is_some_and(|it| is_loopback_authority(it.as_str()))
}

/// Whether `name[:port]` is this machine. Any port: one may be forwarded to ours.
fn is_loopback_authority(text: &str) -> bool {
    let Ok(authority) = text.parse::<Authority>() else { return false };
    let host = authority.host();
    let has_user = text.contains('@');
    let has_odd_port = text != host && authority.port_u16().is_none();
    if has_user || has_odd_port {
        return false;
    }
    let ip = host.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || ip.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}
