//! Requests and connections of the load tool: as little work per request as a sender can do.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::meta::payload::{self, Number};
use crate::meta::sign;

/// Digits of the number that makes each message id its own.
const ID_DIGITS: usize = 16;
/// Digits of a customer's number.
const CUSTOMER_DIGITS: usize = 7;

/// What the bodies look like.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Business accounts, in turn.
    pub accounts: usize,
    /// Of each account, in turn.
    pub customers: u64,
    /// Messages of a body.
    pub items: usize,
    /// Bytes of each message's text.
    pub text_bytes: usize,
}

impl Default for Shape {
    /// One message, about 1 KB with everything around it.
    fn default() -> Self {
        Self {
            accounts: 64,
            customers: 100,
            items: 1,
            text_bytes: 540,
        }
    }
}

/// Signed requests with text messages, each with an id of its own.
#[derive(Debug, Clone)]
pub struct Requests {
    secret: String,
    host: String,
    path: String,
    shape: Shape,
    /// Whose they are.
    pub numbers: Vec<Number>,
    templates: Vec<Template>,
}

/// An account's body, and where its placeholders stand.
#[derive(Debug, Clone)]
struct Template {
    body: Vec<u8>,
    ids: Vec<usize>,
    customers: Vec<usize>,
}

impl Template {
    fn new(number: &Number, shape: &Shape) -> Self {
        let (id, customer) = ("#".repeat(ID_DIGITS), "@".repeat(CUSTOMER_DIGITS));
        let text = "How much is the green one? ".chars().cycle();
        let text: String = text.take(shape.text_bytes).collect();
        let message = |_| {
            let mut message = payload::text(&format!("1650{customer}"), &text);
            message["id"] = format!("wamid.HBgLMTY1MDU1NTEyMzQVAgASGBQz{id}").into();
            message
        };
        let body = number.webhook([number.messages((0..shape.items).map(message))]);
        Self {
            ids: places(&body, id.as_bytes()),
            customers: places(&body, customer.as_bytes()),
            body: body.to_vec(),
        }
    }
}

fn places(body: &[u8], placeholder: &[u8]) -> Vec<usize> {
    let mut places = Vec::new();
    let mut at = 0;
    while at + placeholder.len() <= body.len() {
        if body[at..].starts_with(placeholder) {
            places.push(at);
            at += placeholder.len();
        } else {
            at += 1;
        }
    }
    places
}

impl Requests {
    pub fn new(host: &str, path: &str, secret: &str, shape: Shape) -> Self {
        let numbers: Vec<_> = (0..shape.accounts).map(|_| Number::fresh()).collect();
        Self {
            secret: secret.to_owned(),
            host: host.to_owned(),
            path: path.to_owned(),
            templates: numbers
                .iter()
                .map(|number| Template::new(number, &shape))
                .collect(),
            numbers,
            shape,
        }
    }

    /// Ends of the message ids of request number `n`, in their order.
    pub fn ids(&self, n: u64) -> impl Iterator<Item = String> {
        let items = self.shape.items as u64;
        (n * items..(n + 1) * items).map(|id| format!("{id:016}"))
    }

    /// The body of request number `n`.
    pub fn body(&self, n: u64) -> Vec<u8> {
        let template = &self.templates[(n % self.templates.len() as u64) as usize];
        let mut body = template.body.clone();
        for (at, id) in template.ids.iter().zip(self.ids(n)) {
            body[*at..at + ID_DIGITS].copy_from_slice(id.as_bytes());
        }
        let customer = n / self.templates.len() as u64 % self.shape.customers;
        let customer = format!("{customer:07}");
        for at in &template.customers {
            body[*at..at + CUSTOMER_DIGITS].copy_from_slice(customer.as_bytes());
        }
        body
    }

    /// Bytes of request number `n`, head and body.
    pub fn request(&self, n: u64) -> Vec<u8> {
        let body = self.body(n);
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
