//! A proxy that understands as much of HTTP as it takes to answer something else.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use rand::Rng;
use rand::rngs::StdRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Draw, Odds, values};

/// Of a hundred answers so many are odd: no breaker stays closed above fifty that are an error.
const PERCENT: u32 = 45;
/// A body without an end is ended here; nobody should have read so much.
const ENDLESS_BYTES: usize = 1 << 30;
/// What hangs, or comes slowly, does so for this long.
const LONGEST: Duration = Duration::from_secs(3);

/// What is known of a request.
#[derive(Debug, Clone)]
pub struct Head {
    pub method: String,
    /// Path and query
    pub target: String,
    pub copies: bool,
}

/// A server with a proxy in front of it.
pub(super) struct Server {
    /// `host:port` of the server, and of the proxy
    pub(super) upstream: String,
    pub(super) own: String,
    pub(super) answers: Answers,
}

/// Where answers other than the server's come from.
pub(super) enum Answers {
    /// The route of a request; `None`: it is always answered right.
    Drawn(Arc<Odds>, fn(&Head) -> Option<String>),
    /// The body of a right answer becomes another.
    Changed(Box<Change>),
}

type Change = dyn Fn(&Head, Vec<u8>) -> Vec<u8> + Send + Sync;

impl Server {
    /// One connection, from accept to close.
    pub(super) async fn serve(&self, mut client: TcpStream) {
        let mut rest = Vec::new();
        // Ends when either side has had enough.
        while let Ok(true) = self.answer(&mut client, &mut rest).await {}
    }

    /// Answers one request; whether the connection may be used again.
    async fn answer(&self, client: &mut TcpStream, rest: &mut Vec<u8>) -> anyhow::Result<bool> {
        let (head, request) = read_request(client, rest).await?;
        let draw = match &self.answers {
            Answers::Drawn(odds, route) => {
                route(&head).and_then(|route| odds.draw(&route, PERCENT))
            }
            Answers::Changed(_) => None,
        };
        let Some(mut draw) = draw else {
            let mut right = self.right(&head, &request).await?;
            if let Answers::Changed(change) = &self.answers {
                right.body = change(&head, right.body);
            }
            client.write_all(&right.bytes(&head)).await?;
            return Ok(true);
        };
        let is_write = head.method != "GET" && head.method != "HEAD";
        let forwarded = !is_write || draw.random.random();
        let mut answer = match forwarded {
            true => self.right(&head, &request).await?,
            false => Answer::refusal(&mut draw.random),
        };
        // What was not done must not be said to be.
        answer.may_succeed = forwarded;
        let what = answer.distort(&mut draw.random);
        draw.told(&format!("{} {} {what}", head.method, head.target));
        self.send(client, &head, answer, &draw).await?;
        Ok(draw.random.random())
    }

    /// What the server itself answers.
    async fn right(&self, head: &Head, request: &[u8]) -> anyhow::Result<Answer> {
        let mut upstream = TcpStream::connect(&self.upstream).await?;
        upstream.set_nodelay(true)?;
        let end = request.windows(2).position(|two| two == b"\r\n");
        let (line, others) = request.split_at(end.context("a request line")?);
        upstream.write_all(line).await?;
        upstream.write_all(b"\r\nConnection: close").await?;
        upstream.write_all(others).await?;
        let mut answer = Vec::new();
        upstream.read_to_end(&mut answer).await?;
        let mut answer = Answer::parse(&answer, head)?;
        answer.body = replaced(&answer.body, self.upstream.as_bytes(), self.own.as_bytes());
        Ok(answer)
    }

    async fn send(
        &self,
        client: &mut TcpStream,
        head: &Head,
        answer: Answer,
        draw: &Draw,
    ) -> anyhow::Result<()> {
        let bytes = answer.bytes(head);
        let mut random = draw.random.clone();
        match answer.end {
            End::Whole => client.write_all(&bytes).await?,
            End::Cut | End::Reset => {
                let most = random.random_range(0..=bytes.len());
                client.write_all(&bytes[..most]).await?;
                if answer.end == End::Reset {
                    client.set_zero_linger()?;
                }
                bail!("cut");
            }
            End::Hang => {
                let most = random.random_range(0..=bytes.len());
                client.write_all(&bytes[..most]).await?;
                self.wait(client).await;
                bail!("hung up");
            }
            End::Drip => {
                for byte in bytes.iter().take(LONGEST.as_millis() as usize / 20) {
                    client.write_all(&[*byte]).await?;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                bail!("it took too long");
            }
            End::Endless => {
                client.write_all(&bytes).await?;
                let piece = values::endless(&mut random);
                for _ in 0..ENDLESS_BYTES / piece.len().max(1) {
                    client.write_all(&piece).await?;
                }
                bail!("nobody left");
            }
        }
        Ok(())
    }

    /// Until the client leaves, or it has been long.
    async fn wait(&self, client: &mut TcpStream) {
        // Whichever it was.
        drop(timeout(LONGEST, client.read_u8()).await);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Whole,
    Cut,
    Reset,
    Hang,
    Drip,
    Endless,
}

/// An answer on its way to become odd.
#[derive(Debug)]
struct Answer {
    status: u16,
    /// Instead of the line with the status
    line: Option<Vec<u8>>,
    headers: Vec<(String, Vec<u8>)>,
    /// Instead of the right `Content-Length`
    framing: Option<String>,
    body: Vec<u8>,
    end: End,
    may_succeed: bool,
}

impl Answer {
    fn refusal(random: &mut StdRng) -> Self {
        let json = r#"{"error":{"message":"odd","code":1,"is_transient":true}}"#;
        let xml = "<?xml version=\"1.0\"?><Error><Code>SlowDown</Code></Error>";
        Self {
            status: random.random_range(400..600),
            line: None,
            headers: Vec::new(),
            framing: None,
            body: [json, xml][random.random_range(0..2)].as_bytes().to_vec(),
            end: End::Whole,
            may_succeed: false,
        }
    }

    fn parse(bytes: &[u8], request: &Head) -> anyhow::Result<Self> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.context("a whole head")?;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        let (mut headers, mut chunked) = (Vec::new(), false);
        for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
            match name.to_ascii_lowercase().as_str() {
                "transfer-encoding" => chunked = true,
                "connection" | "keep-alive" => {}
                "content-length" if request.method != "HEAD" => {}
                _ => headers.push((name.to_owned(), value.as_bytes().to_vec())),
            }
        }
        let body = &bytes[end + 4..];
        Ok(Self {
            status: status.context("a status")?.parse()?,
            line: None,
            headers,
            framing: None,
            body: if chunked { whole(body)? } else { body.to_vec() },
            end: End::Whole,
            may_succeed: true,
        })
    }

    fn bytes(&self, request: &Head) -> Vec<u8> {
        let status = match self.status {
            status @ 200..300 if !self.may_succeed => status + 300,
            status => status,
        };
        let line = format!("HTTP/1.1 {status} Odd\r\n").into_bytes();
        let mut bytes = self.line.clone().unwrap_or(line);
        for (name, value) in &self.headers {
            bytes.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        let no_body = request.method == "HEAD" || matches!(self.status, 204 | 304);
        let length = match no_body {
            true => String::new(),
            false => format!("Content-Length: {}\r\n", self.body.len()),
        };
        bytes.extend(self.framing.as_ref().unwrap_or(&length).as_bytes());
        bytes.extend(b"\r\n");
        if !no_body || self.framing.is_some() {
            bytes.extend(&self.body);
        }
        bytes
    }

    /// Makes it odd in one to three ways; which.
    fn distort(&mut self, random: &mut StdRng) -> String {
        let mut ways = vec![self.distort_once(random)];
        while ways.len() < 3 && random.random_ratio(1, 3) {
            ways.push(self.distort_once(random));
        }
        format!("{} {}", self.status, ways.join(", "))
    }

    fn distort_once(&mut self, random: &mut StdRng) -> &'static str {
        match random.random_range(0..100) {
            0..12 => {
                self.status = random.random_range(100..1000);
                "status"
            }
            12..17 => {
                self.line = Some(values::status_line(random));
                "first line"
            }
            17..35 => {
                self.headers.push(values::header(random));
                "header"
            }
            35..40 => self.distort_headers(random),
            40..46 => {
                self.framing = Some(values::framing(random));
                "length"
            }
            46..49 => {
                let size = values::chunk_size(random);
                self.framing = Some("Transfer-Encoding: chunked\r\n".to_owned());
                self.body = [size.as_bytes(), b"\r\n", &self.body].concat();
                "chunk"
            }
            49..75 => {
                self.body = match self.body.starts_with(b"<") {
                    true => values::bent_xml(random, &self.body),
                    false => values::bent(random, &self.body),
                };
                "member"
            }
            75..82 => {
                self.body = values::nonsense(random);
                "nonsense"
            }
            82..85 => {
                self.framing = Some(endless_framing(random));
                self.end = End::Endless;
                "endless"
            }
            other => self.end_oddly(other, random),
        }
    }

    fn end_oddly(&mut self, which: u32, random: &mut StdRng) -> &'static str {
        let (end, name) = match which {
            85..89 => (End::Cut, "cut"),
            89..92 => (End::Reset, "reset"),
            92..94 => (End::Hang, "hangs"),
            94..95 => (End::Drip, "drips"),
            95..97 => {
                self.body.truncate(random.random_range(0..=self.body.len()));
                (End::Whole, "short")
            }
            97..98 => {
                let second = b"HTTP/1.1 503 Odd\r\nContent-Length: 0\r\n\r\n";
                self.framing = Some(format!("Content-Length: {}\r\n", self.body.len()));
                self.body.extend(second);
                (End::Whole, "twice")
            }
            _ => {
                self.body.clear();
                (End::Whole, "empty")
            }
        };
        self.end = end;
        name
    }

    fn distort_headers(&mut self, random: &mut StdRng) -> &'static str {
        match random.random_range(0..5) {
            0 => {
                let most = random.random_range(90..5000);
                let many = (0..most).map(|n| (format!("x-odd-{n}"), b"odd".to_vec()));
                self.headers.extend(many);
                "many headers"
            }
            1 => {
                let length = random.random_range(10_000..2_000_000);
                self.headers.push(("x-long".to_owned(), vec![b'x'; length]));
                "long header"
            }
            2 => {
                self.headers.push(("x y\r\n\tz".to_owned(), b":".to_vec()));
                "header's name"
            }
            3 => {
                self.headers.clear();
                "no header"
            }
            _ => {
                if let Some(at) = self.headers.len().checked_sub(1) {
                    let at = random.random_range(0..=at);
                    self.headers[at].1 = values::header(random).1;
                }
                "header's value"
            }
        }
    }
}

fn endless_framing(random: &mut StdRng) -> String {
    match random.random_range(0..3) {
        0 => "Transfer-Encoding: chunked\r\n\r\n10000000000\r\n".to_owned(),
        1 => "Content-Length: 1000000000000000\r\n".to_owned(),
        _ => String::new(),
    }
}

/// A request, head and body as they came. What came behind it is left in `rest`.
async fn read_request(
    client: &mut TcpStream,
    rest: &mut Vec<u8>,
) -> anyhow::Result<(Head, Vec<u8>)> {
    let end = loop {
        if let Some(at) = rest.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if client.read_buf(rest).await? == 0 {
            bail!("no further request");
        }
    };
    let text = String::from_utf8_lossy(&rest[..end]).into_owned();
    let mut words = text.split(' ').map(str::to_owned);
    let head = Head {
        method: words.next().unwrap_or_default(),
        target: words.next().unwrap_or_default(),
        copies: text.to_ascii_lowercase().contains("\r\nx-amz-copy-source"),
    };
    let lower = text.to_ascii_lowercase();
    let length = lower
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    let chunked = lower.contains("\r\ntransfer-encoding: chunked");
    let complete = |bytes: &[u8]| match (length, chunked) {
        (Some(length), _) => (bytes.len() >= end + length).then_some(end + length),
        (None, true) => bytes.ends_with(b"0\r\n\r\n").then_some(bytes.len()),
        (None, false) => Some(end),
    };
    let end = loop {
        match complete(rest) {
            Some(end) => break end,
            None if client.read_buf(rest).await? == 0 => bail!("half a request"),
            None => {}
        }
    };
    let others = rest.split_off(end);
    Ok((head, std::mem::replace(rest, others)))
}

/// A chunked body in one piece.
fn whole(mut body: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let end = body.windows(2).position(|two| two == b"\r\n");
        let (size, others) = body.split_at(end.context("a chunk's size")?);
        let size = usize::from_str_radix(std::str::from_utf8(size)?.trim(), 16)?;
        if size == 0 {
            return Ok(whole);
        }
        whole.extend(others.get(2..2 + size).context("a whole chunk")?);
        body = others.get(4 + size..).context("another chunk")?;
    }
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    match std::str::from_utf8(bytes) {
        Ok(text) => text
            .replace(
                &*String::from_utf8_lossy(from),
                &String::from_utf8_lossy(to),
            )
            .into_bytes(),
        Err(_) => bytes.to_vec(),
    }
}
