//! A proxy that knows frames of AMQP 0-9-1, and puts odd ones among those of a broker.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use rand::Rng;
use rand::rngs::StdRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::{Odds, values};

/// Of a hundred frames so many meet something odd: some twenty make a connection and look at its
/// topology, and one in three comes so far.
const PERCENT: u32 = 5;
const LONGEST: Duration = Duration::from_secs(3);
const METHOD: u8 = 1;
/// Publishing and its confirms: what of these is changed could say what isn't true.
const BASIC: u16 = 60;

/// One connection, from accept to close.
pub(super) async fn serve(
    client: TcpStream,
    upstream: &str,
    odds: &Arc<Odds>,
) -> anyhow::Result<()> {
    let server = TcpStream::connect(upstream).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut requests, client) = client.into_split();
    let (answers, mut server) = server.into_split();
    tokio::select! {
        copied = tokio::io::copy(&mut requests, &mut server) => drop(copied?),
        ended = forward(answers, client, odds) => ended?,
    }
    Ok(())
}

/// Passes frames on; at some something odd happens.
async fn forward(
    mut server: OwnedReadHalf,
    mut client: OwnedWriteHalf,
    odds: &Arc<Odds>,
) -> anyhow::Result<()> {
    loop {
        let frame = read_frame(&mut server).await?;
        let Some(mut draw) = odds.draw("amqp", PERCENT) else {
            client.write_all(&frame).await?;
            continue;
        };
        let (what, odd) = Odd::drawn(&mut draw.random, &frame);
        draw.told(what);
        odd.send(&mut client, &frame).await?;
    }
}

/// One connection of which each frame of the broker's is changed by `answer`; `None`: nothing more comes,
/// and it stays open.
pub(super) async fn serve_frames(
    client: TcpStream,
    upstream: &str,
    answer: impl Fn(usize, Vec<u8>) -> Option<Vec<u8>>,
) -> anyhow::Result<()> {
    let server = TcpStream::connect(upstream).await?;
    let (mut requests, mut client) = client.into_split();
    let (mut answers, mut server) = server.into_split();
    let answering = async {
        for n in 0.. {
            match answer(n, read_frame(&mut answers).await?) {
                Some(frame) => client.write_all(&frame).await?,
                None => std::future::pending().await,
            }
        }
        anyhow::Ok(())
    };
    tokio::select! {
        copied = tokio::io::copy(&mut requests, &mut server) => drop(copied?),
        ended = answering => ended?,
    }
    Ok(())
}

async fn read_frame(server: &mut OwnedReadHalf) -> anyhow::Result<Vec<u8>> {
    let mut frame = vec![0; 7];
    server.read_exact(&mut frame).await?;
    let size = u32::from_be_bytes([frame[3], frame[4], frame[5], frame[6]]) as usize;
    frame.resize(7 + size + 1, 0);
    server.read_exact(&mut frame[7..]).await?;
    Ok(frame)
}

/// What happens at a frame.
enum Odd {
    Before(Vec<u8>),
    /// Instead of it, and the connection goes on.
    Instead(Vec<u8>),
    /// Instead of it; then the connection ends.
    Last(Vec<u8>),
    /// The same, by a reset.
    Reset(Vec<u8>),
    /// Before it, and then nothing for a while; then the connection ends.
    Stall(Vec<u8>),
    /// Bytes without end.
    Endless,
}

impl Odd {
    async fn send(self, client: &mut OwnedWriteHalf, frame: &[u8]) -> anyhow::Result<()> {
        match self {
            Self::Before(bytes) => client.write_all(&[&bytes, frame].concat()).await?,
            Self::Instead(bytes) => client.write_all(&bytes).await?,
            Self::Last(bytes) => {
                client.write_all(&bytes).await?;
                client.shutdown().await?;
                bail!("ended");
            }
            Self::Reset(bytes) => {
                client.write_all(&bytes).await?;
                client.as_ref().set_zero_linger()?;
                bail!("reset");
            }
            Self::Stall(bytes) => {
                client.write_all(&bytes).await?;
                tokio::time::sleep(LONGEST).await;
                bail!("stalled");
            }
            Self::Endless => {
                let bytes = [3, 0, 1, 0, 1, 0, 0].into_iter().cycle();
                let piece: Vec<u8> = bytes.take(65_543).collect();
                for _ in 0..2000 {
                    client.write_all(&piece).await?;
                }
                bail!("endless");
            }
        }
        Ok(())
    }

    /// A name for people, and what it is.
    fn drawn(random: &mut StdRng, frame: &[u8]) -> (&'static str, Self) {
        match random.random_range(0..26) {
            0 => ("connection.close", Self::Last(connection_close(random))),
            1 => ("connection.close", Self::Before(connection_close(random))),
            2 | 3 => ("channel.close", Self::Before(channel_close(random))),
            4 => ("wrong end", Self::Before(wrong_end(frame))),
            5 => ("huge frame", Self::Stall(header(METHOD, 0, u32::MAX))),
            6 => {
                let kind = random.random();
                ("unknown type", Self::Before(framed(kind, 1, b"odd")))
            }
            7 => {
                let (class, id) = (random.random_range(200..u16::MAX), random.random());
                let odd = method(
                    random.random_range(0..4),
                    class,
                    id,
                    &values::noise(random, 40),
                );
                ("unknown method", Self::Before(odd))
            }
            8 => ("heartbeat", Self::Before(framed(8, 5, b"beat"))),
            9 => ("basic.return", Self::Before(returned())),
            10 => (
                "basic.deliver",
                Self::Before(method(1, BASIC, 60, &delivered())),
            ),
            11 => ("content header", Self::Before(content_header(u64::MAX))),
            12 => (
                "basic.nack of all",
                Self::Before(method(1, BASIC, 120, &tag(0, 1))),
            ),
            13 => (
                "basic.ack",
                Self::Before(method(1, BASIC, 80, &tag(u64::MAX, 0))),
            ),
            14 => ("blocked", Self::Stall(blocked(random))),
            15 => (
                "blocked",
                Self::Before([blocked(random), unblocked()].concat()),
            ),
            16 | 17 => ("tune", Self::tune(random, frame)),
            18 => ("start", Self::Instead(start(random))),
            19 => ("version", Self::Last(b"AMQP\0\0\x09\x01".to_vec())),
            20 => ("another protocol", Self::Last(values::status_line(random))),
            21 => ("flow", Self::Before(method(1, 20, 20, &[random.random()]))),
            22 => (
                "secure",
                Self::Before(method(0, 10, 20, &[0, 0, 0, 1, b'?'])),
            ),
            23 => ("endless", Self::Endless),
            24 => ("cut", Self::cut(random, frame)),
            _ => ("garbled", Self::garbled(random, frame)),
        }
    }

    fn cut(random: &mut StdRng, frame: &[u8]) -> Self {
        let most = random.random_range(0..frame.len());
        let piece = frame[..most].to_vec();
        match random.random() {
            true => Self::Last(piece),
            false => Self::Reset(piece),
        }
    }

    fn garbled(random: &mut StdRng, frame: &[u8]) -> Self {
        let is_method = frame[0] == METHOD && frame.len() > 8;
        if is_method && u16::from_be_bytes([frame[7], frame[8]]) == BASIC {
            return Self::cut(random, frame);
        }
        let mut garbled = frame.to_vec();
        for _ in 0..random.random_range(1..6) {
            let at = random.random_range(0..garbled.len());
            garbled[at] = random.random();
        }
        // A class that became that of confirms must confirm nothing.
        if garbled.len() > 8 && garbled[7..9] == BASIC.to_be_bytes() {
            return Self::Last(frame[..7].to_vec());
        }
        Self::Instead(garbled)
    }

    /// Limits of a connection, in place of the broker's where those stand.
    fn tune(random: &mut StdRng, frame: &[u8]) -> Self {
        let pick = |random: &mut StdRng, of: &[u32]| of[random.random_range(0..of.len())];
        let channels = pick(random, &[0, 1, 2, 65_535]) as u16;
        let frame_max = pick(random, &[0, 1, 4095, 4096, 131_072, 16_777_216, u32::MAX]);
        let heartbeat = pick(random, &[0, 1, 2, 65_535]) as u16;
        let limits = joined([
            &channels.to_be_bytes(),
            &frame_max.to_be_bytes(),
            &heartbeat.to_be_bytes(),
        ]);
        let tune = method(0, 10, 30, &limits);
        match frame.get(7..11) {
            Some([0, 10, 0, 30]) => Self::Instead(tune),
            _ => Self::Before(tune),
        }
    }
}

fn joined<const N: usize>(parts: [&[u8]; N]) -> Vec<u8> {
    parts.concat()
}

fn header(kind: u8, channel: u16, size: u32) -> Vec<u8> {
    joined([&[kind], &channel.to_be_bytes(), &size.to_be_bytes()])
}

fn framed(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let header = header(kind, channel, payload.len() as u32);
    joined([&header, payload, &[0xCE]])
}

fn method(channel: u16, class: u16, id: u16, arguments: &[u8]) -> Vec<u8> {
    let name = [class.to_be_bytes(), id.to_be_bytes()].concat();
    framed(METHOD, channel, &[&name, arguments].concat())
}

fn short(text: &[u8]) -> Vec<u8> {
    let text = &text[..text.len().min(255)];
    joined([&[text.len() as u8], text])
}

fn long(text: &[u8]) -> Vec<u8> {
    joined([&(text.len() as u32).to_be_bytes(), text])
}

/// Code, text, and the method that it is about.
fn reason(random: &mut StdRng) -> Vec<u8> {
    const CODES: [u16; 16] = [
        0, 200, 311, 312, 313, 320, 402, 403, 404, 405, 406, 501, 504, 530, 541, 65_535,
    ];
    let code = CODES[random.random_range(0..CODES.len())];
    let text = match random.random_range(0..3) {
        0 => values::noise(random, 255),
        1 => vec![b'x'; 255],
        _ => b"CONNECTION_FORCED - odd".to_vec(),
    };
    joined([
        &code.to_be_bytes(),
        &short(&text),
        &random.random::<[u8; 4]>(),
    ])
}

fn connection_close(random: &mut StdRng) -> Vec<u8> {
    method(random.random_range(0..2), 10, 50, &reason(random))
}

fn channel_close(random: &mut StdRng) -> Vec<u8> {
    method(random.random_range(0..4), 20, 40, &reason(random))
}

fn wrong_end(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame.pop();
    frame.push(0);
    frame
}

fn tag(tag: u64, bits: u8) -> Vec<u8> {
    joined([&tag.to_be_bytes(), &[bits]])
}

/// A message that nobody published.
fn returned() -> Vec<u8> {
    let (code, odd) = (312_u16.to_be_bytes(), short(b"odd"));
    let arguments = joined([&code, &short(b"NO_ROUTE"), &odd, &odd]);
    let method = method(1, BASIC, 50, &arguments);
    [method, content_header(3), framed(3, 1, b"odd")].concat()
}

fn delivered() -> Vec<u8> {
    let odd = short(b"odd");
    joined([&odd, &tag(1, 0), &odd, &odd])
}

fn content_header(body: u64) -> Vec<u8> {
    let fields = joined([&BASIC.to_be_bytes(), &[0, 0], &body.to_be_bytes(), &[0, 0]]);
    framed(2, 1, &fields)
}

fn blocked(random: &mut StdRng) -> Vec<u8> {
    method(0, 10, 60, &short(&values::noise(random, 255)))
}

fn unblocked() -> Vec<u8> {
    method(0, 10, 61, &[])
}

/// lapin reads a table in a table by calling itself: two thousand, which no RabbitMQ sends, are more than
/// its thread's stack, and nothing of ours stands in between.
const DEEPEST: u32 = 100;

/// Who the broker is and how one may log in.
fn start(random: &mut StdRng) -> Vec<u8> {
    let mut table = Vec::new();
    for _ in 0..random.random_range(0..DEEPEST) {
        table = joined([&short(b"t"), b"F", &long(&table)]);
    }
    let version: [u8; 2] = match random.random() {
        true => [0, 9],
        false => random.random(),
    };
    let mechanisms: &[u8] = match random.random_range(0..4) {
        0 => b"",
        1 => b"\xff\xfe",
        2 => b"EXTERNAL",
        _ => b"PLAIN AMQPLAIN",
    };
    let locales = long(&values::noise(random, 100));
    let arguments = joined([&version, &long(&table), &long(mechanisms), &locales]);
    method(0, 10, 10, &arguments)
}
