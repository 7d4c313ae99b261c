//! Whether a webhook's way has become dearer: instructions that ingress and worker need for one text,
//! counted by valgrind, beside what they needed when the figures below were written. Instructions don't
//! hang on the machine's pace, so that this can be part of the tests; they are the debug build's, since
//! that is the one that tests have.

use std::time::Duration;

use anyhow::{Context, ensure};
use futures::future::try_join_all;
use serde::Serialize;

use super::wire::{Requests, Shape, Wire};
use super::worker::waiting;
use crate::Stage;
use crate::output::{Paint, column};
use crate::process::installed;
use crate::programs::{APP_SECRET, Builder, Ingress, Program, built};
use crate::waiting::poll;

/// Instructions of a text, in thousands, and how much more is taken for noise. Whoever makes the way
/// dearer for a good reason, or cheaper, writes the new figure here.
const INGRESS: Committed = Committed {
    thousands: 201.0,
    tolerance: 0.1,
};
const WORKER: Committed = Committed {
    thousands: 750.0,
    tolerance: 0.15,
};

/// What starts a program is in both counts, and in neither's difference.
const FEW: u64 = 200;
const MANY: u64 = 1_000;
/// Others on the machine only add to a count, since batches are smaller and waits longer beside them
/// (1,223 once where 750 are usual): the least of so many counts.
const ATTEMPTS: usize = 4;
const CONNECTIONS: u64 = 4;
const DONE: Duration = Duration::from_secs(120);

#[derive(Debug, Clone, Copy)]
struct Committed {
    thousands: f64,
    tolerance: f64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Counted {
    program: &'static str,
    /// Thousands of instructions a text.
    thousands: f64,
    committed: f64,
    verdict: Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Verdict {
    Same,
    Cheaper,
    Dearer,
}

impl Committed {
    fn judge(self, thousands: f64) -> Verdict {
        match thousands / self.thousands {
            ratio if ratio > 1.0 + self.tolerance => Verdict::Dearer,
            ratio if ratio < 1.0 - self.tolerance => Verdict::Cheaper,
            _ => Verdict::Same,
        }
    }
}

/// Counts, prints, and compares.
///
/// # Errors
/// A program needs more than its committed figure and the tolerance, or something can't be started.
#[allow(clippy::print_stdout, reason = "a command line tool")]
pub async fn run(json: bool) -> anyhow::Result<()> {
    ensure!(
        cfg!(debug_assertions),
        "the committed figures are of the debug build: run target/debug/lab"
    );
    let counted = [
        counted("ingress", INGRESS, of_ingress).await?,
        counted("worker", WORKER, of_worker).await?,
    ];
    if json {
        println!("{}", serde_json::to_string_pretty(&counted)?);
    } else {
        print!("{}", table(&counted));
    }
    let dearer = counted.iter().filter(|it| it.verdict == Verdict::Dearer);
    let dearer: Vec<_> = dearer.map(|it| it.program).collect();
    ensure!(
        dearer.is_empty(),
        "a text costs {} more than it did: find out what in the change does it, or write the new figure \
         into tests/src/bench/gate.rs and say why it is worth it",
        dearer.join(" and ")
    );
    Ok(())
}

async fn counted<F: Future<Output = anyhow::Result<u64>>>(
    program: &'static str,
    committed: Committed,
    of: impl Fn(u64) -> F,
) -> anyhow::Result<Counted> {
    let (mut few, mut many, mut thousands) = (u64::MAX, u64::MAX, f64::MAX);
    for _ in 0..ATTEMPTS {
        super::tell(&format!("instructions of {program}"));
        few = few.min(of(FEW).await?);
        many = many.min(of(MANY).await?);
        thousands = many.saturating_sub(few) as f64 / (MANY - FEW) as f64 / 1e3;
        if committed.judge(thousands) != Verdict::Dearer {
            break;
        }
    }
    Ok(Counted {
        program,
        thousands,
        committed: committed.thousands,
        verdict: committed.judge(thousands),
    })
}

/// Instructions of an ingress that takes so many texts and ends.
async fn of_ingress(texts: u64) -> anyhow::Result<u64> {
    let stage = Stage::new().await;
    let mut ingress = under_valgrind(roomy(&stage), "ingress")?
        .try_start()
        .await?;
    post(&ingress, texts).await?;
    instructions(&mut ingress).await
}

/// Instructions of a worker that finds so many texts, publishes them and ends.
async fn of_worker(texts: u64) -> anyhow::Result<u64> {
    let stage = Stage::new().await;
    post(&roomy(&stage).try_start().await?, texts).await?;
    let worker = stage
        .worker()
        .env("ARCHIVE", false)
        .env("LOG_LEVEL", "warn");
    let mut worker = under_valgrind(worker, "worker")?.try_start().await?;
    let empty = async || (waiting(&stage).await.ok()? == 0).then_some(());
    poll(DONE, empty).await.context("the stream is emptied")?;
    instructions(&mut worker).await
}

fn roomy(stage: &Stage) -> Builder<Ingress> {
    let ingress = stage.ingress().env("RATE_LIMIT_PER_MINUTE", 1_000_000);
    ingress.env("LOG_LEVEL", "warn")
}

fn under_valgrind<P: From<Program>>(
    program: Builder<P>,
    binary: &str,
) -> anyhow::Result<Builder<P>> {
    let program = program
        .built_at(installed("valgrind")?)
        .arg("--tool=cachegrind");
    let program = program
        .arg("--cache-sim=no")
        .arg("--cachegrind-out-file=/dev/null");
    Ok(program.arg(built(binary)?.display().to_string()))
}

async fn post(ingress: &Ingress, texts: u64) -> anyhow::Result<()> {
    let address = ingress.address();
    let requests = Requests::new(address, "/webhook/meta", APP_SECRET, Shape::default());
    try_join_all((0..CONNECTIONS).map(|first| {
        let requests = &requests;
        async move {
            let mut wire = Wire::open(address).await?;
            for n in (first..texts).step_by(CONNECTIONS as usize) {
                let (status, _) = wire.exchange(&requests.request(n)).await?;
                ensure!(status == 200, "ingress answers {status}");
            }
            anyhow::Ok(())
        }
    }))
    .await?;
    Ok(())
}

/// Ends a program and reads what valgrind has counted.
async fn instructions(program: &mut Program) -> anyhow::Result<u64> {
    ensure!(program.stop(DONE).await, "it doesn't end in order");
    let log = program.log();
    let mut counts = log.lines().filter_map(|line| line.split_once("I   refs:"));
    let (_, count) = counts.next_back().context("valgrind told no count")?;
    Ok(count.trim().replace(',', "").parse()?)
}

fn table(counted: &[Counted]) -> String {
    let paint = Paint::stdout();
    let head = format!(
        "{} {:>11} {:>11}",
        column("instructions a text, thousands", 32),
        "now",
        "committed"
    );
    let lines = counted.iter().map(|it| {
        let verdict = match it.verdict {
            Verdict::Same => paint.good("as before"),
            Verdict::Cheaper => paint.good("cheaper: write the new figure down"),
            Verdict::Dearer => paint.bad("dearer"),
        };
        format!(
            "{} {:>11.0} {:>11.0}  {verdict}\n",
            column(it.program, 32),
            it.thousands,
            it.committed
        )
    });
    format!("{}\n{}", paint.title(&head), lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_a_fifth_dearer_is_told_and_noise_is_not() {
        for committed in [INGRESS, WORKER] {
            let of = |factor: f64| committed.judge(committed.thousands * factor);
            assert_eq!(of(1.2), Verdict::Dearer);
            assert_eq!(of(1.05), Verdict::Same);
            assert_eq!(of(0.95), Verdict::Same);
            assert_eq!(of(0.8), Verdict::Cheaper);
        }
    }
}
