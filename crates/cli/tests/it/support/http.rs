//! A small blocking HTTP client of the tests' own, so that no code is tested by itself.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::PATIENCE;

/// A response whose body has not been read yet.
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    reader: BufReader<TcpStream>,
    /// What is left of the current chunk.
    chunk: Vec<u8>,
    is_over: bool,
}

/// Asks with JSON, or without a body.
pub(crate) fn request(
    addr: SocketAddr,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Response {
    let mut stream = TcpStream::connect(addr).expect("the node listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    let body = body.map(Value::to_string).unwrap_or_default();
    let len = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {len}\r\n\r\n{body}"
    )
    .expect("the node reads");
    let mut reader = BufReader::new(stream);
    let status_line = line(&mut reader).expect("a status line");
    let status = status_line.split(' ').nth(1).and_then(|it| it.parse().ok()).expect("a status");
    let mut headers = BTreeMap::new();
    while let Some(header) = line(&mut reader).filter(|it| !it.is_empty()) {
        let (name, value) = header.split_once(':').expect("a header");
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    Response { status, headers, reader, chunk: Vec::new(), is_over: false }
}

/// Gets bytes `first..=last` of what is at a path.
pub(crate) fn ranged(addr: SocketAddr, path: &str, first: usize, last: usize) -> Response {
    // A header behind the method's line: no other test needs one of its own.
    request(
        addr,
        "GET",
        &format!("{path} HTTP/1.1\r\nrange: bytes={first}-{last}\r\nx-rest:"),
        None,
    )
}

/// Posts JSON.
pub(crate) fn post(addr: SocketAddr, path: &str, body: &Value) -> Response {
    request(addr, "POST", path, Some(body))
}

/// Gets JSON.
pub(crate) fn get(addr: SocketAddr, path: &str) -> Value {
    request(addr, "GET", path, None).json()
}

/// A line without its end; none at the end of the stream or where it broke off.
fn line(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = String::new();
    let size = reader.read_line(&mut line).ok()?;
    (size > 0).then(|| line.trim_end().to_owned())
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.headers))
    }

    /// The whole body.
    pub(crate) fn bytes(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        if self.headers.contains_key("content-length") {
            self.reader.read_to_end(&mut body).expect("the body arrives");
        } else {
            while self.fill() {
                body.append(&mut self.chunk);
            }
        }
        body
    }

    /// The whole body as JSON.
    pub(crate) fn json(mut self) -> Value {
        let body = self.bytes();
        serde_json::from_slice(&body)
            .unwrap_or_else(|error| panic!("{error} in {:?}", String::from_utf8_lossy(&body)))
    }

    /// The data of the next event; none at the end of the stream, however it came.
    pub(crate) fn event(&mut self) -> Option<String> {
        loop {
            while let Some(end) = self.chunk.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.chunk.drain(..=end).collect();
                let line = String::from_utf8(line).expect("events are text");
                if let Some(data) = line.trim_end().strip_prefix("data: ") {
                    return Some(data.to_owned());
                }
            }
            if !self.fill() {
                return None;
            }
        }
    }

    /// Reads one more chunk; false at the end.
    fn fill(&mut self) -> bool {
        if self.is_over {
            return false;
        }
        let size = line(&mut self.reader).and_then(|it| usize::from_str_radix(&it, 16).ok());
        let Some(size) = size.filter(|size| *size > 0) else {
            self.is_over = true;
            return false;
        };
        let mut chunk = vec![0; size + 2]; // The chunk's own line end comes with it.
        if self.reader.read_exact(&mut chunk).is_err() {
            self.is_over = true;
            return false;
        }
        chunk.truncate(size);
        self.chunk.append(&mut chunk);
        true
    }
}

/// An answer as it was streamed.
#[derive(Debug, Default)]
pub(crate) struct Streamed {
    pub(crate) text: String,
    /// Chunks that carry a token.
    pub(crate) token_count: u64,
    /// What each of these says of its token's probability.
    pub(crate) logprobs: Vec<Value>,
    /// `commons` of the last chunk.
    pub(crate) proof: Value,
    /// The error that ended it, if one did.
    pub(crate) error: Value,
    pub(crate) is_done: bool,
}

impl Streamed {
    /// Takes one event in; false if it was the last.
    pub(crate) fn take(&mut self, data: &str) -> bool {
        if data == "[DONE]" {
            self.is_done = true;
            return false;
        }
        let event: Value = serde_json::from_str(data).expect("events are JSON");
        if event.get("error").is_some() {
            self.error = event["error"].clone();
            return false;
        }
        let choice = &event["choices"][0];
        if let Some(text) = choice["text"].as_str().or(choice["delta"]["content"].as_str()) {
            self.text.push_str(text);
        }
        if choice["finish_reason"].is_string() {
            self.proof = event["commons"].clone();
        } else if choice["logprobs"].is_object() {
            self.token_count += 1;
            self.logprobs.push(choice["logprobs"].clone());
        }
        true
    }

    /// Reads the rest of a stream.
    pub(crate) fn read(&mut self, response: &mut Response) {
        while let Some(data) = response.event() {
            if !self.take(&data) {
                return;
            }
        }
    }
}

/// Asks for a text to be continued, and reads the whole stream.
pub(crate) fn complete(addr: SocketAddr, body: &Value) -> (Response, Streamed) {
    let mut response = post(addr, "/v1/completions", body);
    assert_eq!(response.status, 200, "{:?}", response.headers);
    let mut streamed = Streamed::default();
    streamed.read(&mut response);
    (response, streamed)
}

/// A question whose answer has exactly so many tokens: the noise model's end token is 2.
pub(crate) fn question(model: &str, max_tokens: u32) -> Value {
    serde_json::json!({
        "model": model,
        "prompt": "Once upon a time",
        "max_tokens": max_tokens,
        "seed": 11,
        "logprobs": 0,
        "logit_bias": { "2": -100 },
        "stream": true,
    })
}
