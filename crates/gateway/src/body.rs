//! Reading a request's body: bounded in size and in time, and only what is called JSON.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use serde::de::DeserializeOwned;

use crate::error::ApiError;
use crate::state::{GatewayConfig, GatewayState};

/// How much of a body that is too large is read and thrown away, in units of the limit. Many
/// clients read no answer before they have sent everything; beyond this they see a reset.
const DISCARD_FACTOR: u64 = 8;

/// The text of a JSON body: UTF-8, not empty, within the limits.
pub(crate) struct JsonText(Bytes);

impl JsonText {
    pub(crate) fn as_str(&self) -> Result<&str, ApiError> {
        std::str::from_utf8(&self.0).map_err(|error| {
            let at = error.valid_up_to();
            ApiError::invalid("invalid_json", format!("the body is not utf-8 at byte {at}"))
        })
    }

    /// Reads a body whose shape is ours alone: the owner's commands.
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        serde_json::from_str(self.as_str()?).map_err(|error| invalid_json(&error))
    }
}

pub(crate) fn invalid_json(error: &serde_json::Error) -> ApiError {
    ApiError::invalid("invalid_json", format!("the body cannot be read: {error}"))
}

impl FromRequest<GatewayState> for JsonText {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &GatewayState) -> Result<Self, ApiError> {
        check_content_type(&request)?;
        let bytes = read_bounded(request, &state.config).await?;
        if bytes.is_empty() {
            return Err(ApiError::invalid("invalid_json", "the body is empty, and JSON is needed"));
        }
        Ok(Self(bytes))
    }
}

/// A body of any kind, within the limits of size and time.
pub(crate) async fn read_bounded(
    request: Request,
    config: &GatewayConfig,
) -> Result<Bytes, ApiError> {
    let limit = config.body_size_max;
    check_announced_size(&request, limit)?;
    let timeout = Duration::from_millis(config.body_timeout_ms.0);
    let reading = tokio::time::timeout(timeout, read(request.into_body(), limit));
    reading.await.map_err(|_elapsed| too_slow(timeout))?
}

/// A page of another site can send plain text across origins without asking first, but not JSON.
fn check_content_type(request: &Request) -> Result<(), ApiError> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let message = "the body must be sent with `content-type: application/json`";
    Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message))
}

/// Refuses without reading where the caller waits to be told, or announces far too much.
fn check_announced_size(request: &Request, limit: usize) -> Result<(), ApiError> {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let Some(size) = header(CONTENT_LENGTH).and_then(|text| text.parse::<u64>().ok()) else {
        return Ok(());
    };
    let limit_u64 = u64::try_from(limit).unwrap_or(u64::MAX);
    let is_far_over = size > limit_u64.saturating_mul(DISCARD_FACTOR);
    if size > limit_u64 && (header(EXPECT).is_some() || is_far_over) {
        return Err(too_large(limit));
    }
    Ok(())
}

async fn read(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let mut chunks = body.into_data_stream();
    let mut bytes = BytesMut::new();
    let mut size = 0_u64;
    let limit_u64 = u64::try_from(limit).unwrap_or(u64::MAX);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| {
            ApiError::invalid("invalid_json", format!("the body broke off: {error}"))
        })?;
        size = size.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
        if size > limit_u64.saturating_mul(DISCARD_FACTOR) {
            break;
        }
        if size <= limit_u64 {
            bytes.extend_from_slice(&chunk);
        }
    }
    if size > limit_u64 { Err(too_large(limit)) } else { Ok(bytes.freeze()) }
}

fn too_large(limit: usize) -> ApiError {
    let message = format!("the body is larger than {limit} bytes");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", message)
}

fn too_slow(timeout: Duration) -> ApiError {
    let message = format!("the body did not arrive within {} ms", timeout.as_millis());
    ApiError::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", message)
}
