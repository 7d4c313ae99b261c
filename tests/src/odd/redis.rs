//! A proxy that knows the answers of Redis, and puts odd ones in their place.

use std::sync::Arc;

use anyhow::bail;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::{Odds, values};

/// One connection, from accept to close.
pub(super) async fn serve(
    client: TcpStream,
    upstream: &str,
    odds: &Arc<Odds>,
    (route, percent): (&str, u32),
) -> anyhow::Result<()> {
    let server = TcpStream::connect(upstream).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut requests, client) = client.into_split();
    let (answers, mut server) = server.into_split();
    tokio::select! {
        copied = tokio::io::copy(&mut requests, &mut server) => drop(copied?),
        ended = forward(answers, client, odds, (route, percent)) => ended?,
    }
    Ok(())
}

async fn forward(
    mut server: OwnedReadHalf,
    mut client: OwnedWriteHalf,
    odds: &Arc<Odds>,
    (route, percent): (&str, u32),
) -> anyhow::Result<()> {
    let mut read = Vec::new();
    loop {
        while let Some(length) = whole(&read) {
            let others = read.split_off(length);
            let answer = std::mem::replace(&mut read, others);
            // What is pushed answers nothing.
            let draw = match answer.starts_with(b">") {
                true => None,
                false => odds.draw(route, percent),
            };
            let Some(mut draw) = draw else {
                client.write_all(&answer).await?;
                continue;
            };
            let (odd, goes_on) = odd(&mut draw.random, &answer);
            let start = &odd[..odd.len().min(60)];
            draw.told(&String::from_utf8_lossy(start).replace("\r\n", " "));
            client.write_all(&odd).await?;
            if !goes_on {
                bail!("ended");
            }
        }
        if server.read_buf(&mut read).await? == 0 {
            return Ok(());
        }
    }
}

/// How long the first answer is, once all of it is there.
fn whole(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(2).position(|two| two == b"\r\n")? + 2;
    let number = || {
        std::str::from_utf8(&bytes[1..end - 2])
            .ok()?
            .parse::<i64>()
            .ok()
    };
    let elements = match bytes[0] {
        b'$' | b'!' | b'=' => {
            let length = usize::try_from(number()?).ok();
            let end = length.map_or(end, |length| end + length + 2);
            return (bytes.len() >= end).then_some(end);
        }
        b'*' | b'~' | b'>' => number()?.max(0),
        b'%' => 2 * number()?.max(0),
        _ => return Some(end),
    };
    let mut end = end;
    for _ in 0..elements {
        end += whole(bytes.get(end..)?)?;
    }
    Some(end)
}

const ERRORS: [&str; 18] = [
    "-LOADING Redis is loading the dataset in memory",
    "-READONLY You can't write against a read only replica.",
    "-OOM command not allowed when used memory > 'maxmemory'.",
    "-MISCONF Redis is configured to save RDB snapshots",
    "-BUSY Redis is busy running a script.",
    "-NOSCRIPT No matching script.",
    "-WRONGTYPE Operation against a key holding the wrong kind of value",
    "-NOAUTH Authentication required.",
    "-NOPERM this user has no permissions",
    "-NOGROUP No such key",
    "-MASTERDOWN Link with MASTER is down",
    "-CLUSTERDOWN The cluster is down",
    "-MOVED 1 127.0.0.1:1",
    "-ASK 99999 :0",
    "-TRYAGAIN",
    "-ERR unknown command",
    "-",
    "-\u{0} \u{fffd}",
];

/// Of a type that no script of ours answers.
const OTHERS: [&str; 10] = [
    "$3\r\nfoo\r\n",
    "+PONG\r\n",
    ",nan\r\n",
    ",1e308\r\n",
    "(340282366920938463463374607431768211456\r\n",
    "%1\r\n+a\r\n+b\r\n",
    "~1\r\n+a\r\n",
    "#t\r\n",
    "=7\r\ntxt:foo\r\n",
    "*3\r\n+a\r\n*0\r\n$-1\r\n",
];

const BROKEN: [&str; 14] = [
    "*99999999999\r\n",
    "*9223372036854775807\r\n",
    "%9223372036854775807\r\n",
    "|-1\r\n",
    "$9223372036854775807\r\nx",
    "$-9\r\n",
    "=-5\r\n",
    "!-1\r\n",
    ":9223372036854775808\r\n",
    ":\r\n",
    "$3\r\nfoobar\r\n",
    "HTTP/1.1 400 Bad Request\r\n\r\n",
    ">3\r\n:1\r\n:2\r\n:3\r\n",
    "\r\n",
];

fn one_of(random: &mut StdRng, lines: &[&'static str]) -> &'static str {
    lines.choose(random).copied().unwrap_or("-")
}

/// What stands in place of an answer, and whether the connection can go on.
fn odd(random: &mut StdRng, answer: &[u8]) -> (Vec<u8>, bool) {
    match random.random_range(0..20) {
        0..9 => (
            format!("{}\r\n", one_of(random, &ERRORS)).into_bytes(),
            true,
        ),
        9..13 => (one_of(random, &OTHERS).as_bytes().to_vec(), true),
        13..15 => (one_of(random, &BROKEN).as_bytes().to_vec(), false),
        15 => (
            "*1\r\n"
                .repeat(random.random_range(50..50_000))
                .into_bytes(),
            false,
        ),
        16 => (values::noise(random, 500), false),
        17 => (
            [b"$536870912\r\n", vec![b'x'; 16 << 20].as_slice()].concat(),
            false,
        ),
        _ => (
            answer[..random.random_range(0..answer.len())].to_vec(),
            false,
        ),
    }
}
