//! Requests and connections of the load tool: as little work per request as a sender can do.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::meta::payload::{self, Number};
use crate::meta::sign;

/// Digits of the number that makes each message id its own.
const ID_DIGITS: usize = 16;

/// Signed requests: text messages of about 1 KB, each with an id of its own, spread over accounts.
#[derive(Debug, Clone)]
pub struct Requests {
    secret: String,
    host: String,
    path: String,
    /// Whose they are.
    pub numbers: Vec<Number>,
    /// Body of each account, and where its id's digits stand.
    templates: Vec<(Vec<u8>, usize)>,
}

impl Requests {
    pub fn new(host: &str, path: &str, secret: &str, accounts: usize) -> Self {
        let numbers: Vec<_> = (0..accounts).map(|_| Number::fresh()).collect();
        let template = |number: &Number| {
            let placeholder = "#".repeat(ID_DIGITS);
            let mut message =
                payload::text("16505551234", &"How much is the green one? ".repeat(20));
            message["id"] = format!("wamid.HBgLMTY1MDU1NTEyMzQVAgASGBQz{placeholder}").into();
            let body = number.message(message).to_vec();
            let at = body
                .windows(ID_DIGITS)
                .position(|part| part == placeholder.as_bytes());
            (body, at.expect("the placeholder"))
        };
        Self {
            secret: secret.to_owned(),
            host: host.to_owned(),
            path: path.to_owned(),
            templates: numbers.iter().map(template).collect(),
            numbers,
        }
    }

    /// Bytes of request number `n`, head and body.
    pub fn request(&self, n: u64) -> Vec<u8> {
        let (template, at) = &self.templates[(n % self.templates.len() as u64) as usize];
        let mut body = template.clone();
        body[*at..at + ID_DIGITS].copy_from_slice(format!("{n:016}").as_bytes());
        let mut request = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             X-Hub-Signature-256: {}\r\n\r\n",
            self.path,
            self.host,
            body.len(),
            sign(&self.secret, &body)
        )
        .into_bytes();
        request.extend_from_slice(&body);
        request
    }
}

/// A kept-alive connection, one request at a time.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Wire {
    /// # Errors
    /// No connection.
    pub async fn open(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::with_capacity(1024),
        })
    }

    /// Sends a request and reads its answer: the status, and whether the connection goes on.
    ///
    /// # Errors
    /// The connection ended, or the answer is none.
    pub async fn exchange(&mut self, request: &[u8]) -> io::Result<(u16, bool)> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let head = loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let text = String::from_utf8_lossy(&self.buffer[..head]).to_ascii_lowercase();
        let header = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(": "));
            lines
                .find(|(found, _)| *found == name)
                .map(|(_, value)| value)
        };
        let length: usize = header("content-length")
            .and_then(|value| value.parse().ok())
            .unwrap_or(0);
        let status = text
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let goes_on = header("connection") != Some("close");
        while self.buffer.len() < head + length {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let status = status.ok_or(io::ErrorKind::InvalidData)?;
        Ok((status, goes_on))
    }
}
