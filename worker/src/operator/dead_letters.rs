//! `worker dlq`: what consumers rejected. Looking takes nothing away: messages are taken without being
//! acknowledged, and return when the channel closes. That counts as a delivery, of which a queue of dead
//! letters allows two billion.

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use lapin::message::BasicGetMessage;
use lapin::options::{BasicAckOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Confirmation, Connection};
use serde::{Deserialize, Serialize};
use shared::telemetry::{EndsWith, audit};
use tokio_util::sync::CancellationToken;

use super::arguments::{CallerArgs, any_page_size, page_size};
use super::given_id::GivenId;
use super::output::{Output, ProgressLine, Style, row};
use super::{Deployment, WrongCall, could_not_look, header_text};
use crate::config::Config;
use crate::out::topology;

/// Dead letters of a queue that are held at a time while it is looked through.
const MOST_LOOKED_AT: usize = 10_000;
/// What the broker notes of how a message died: it dies anew, if it does.
const DEATH_HEADERS: [&str; 8] = [
    "x-death",
    "x-delivery-count",
    "x-acquired-count",
    "x-first-death-exchange",
    "x-first-death-queue",
    "x-first-death-reason",
    "x-last-death-exchange",
    "x-last-death-queue",
];

#[derive(Args, Debug, Clone)]
pub struct DeadLettersArgs {
    #[command(subcommand)]
    command: DeadLettersCommand,
}

#[derive(Subcommand, Debug, Clone)]
enum DeadLettersCommand {
    /// What consumers rejected: ids, types, reasons; nothing of what they say
    List(DeadLettersListArgs),
    /// Put dead letters back into the queue that they died in
    Requeue(DeadLettersTakeArgs),
    /// Delete dead letters
    Discard(DeadLettersTakeArgs),
}

#[derive(Args, Debug, Clone, Deserialize)]
pub(crate) struct DeadLettersListArgs {
    /// Of this queue only, by its own name or with .DLQ
    #[arg(long, value_name = "QUEUE")]
    queue: Option<String>,
    /// Dead letters of each queue
    #[arg(long, value_name = "N", default_value_t = page_size(), value_parser = clap::value_parser!(u16).range(1..=1000))]
    #[serde(default = "page_size", deserialize_with = "any_page_size")]
    limit: u16,
    /// The queues have a policy with a delivery limit, although they were declared without
    #[arg(long)]
    #[serde(skip)]
    policy_is_set: bool,
    /// JSON instead of text
    #[arg(long)]
    #[serde(skip)]
    json: bool,
}

#[derive(Args, Debug, Clone, Deserialize)]
pub(crate) struct DeadLettersTakeArgs {
    /// Events, or correlation ids of their webhooks
    #[arg(value_name = "ID", num_args = 0..=100)]
    #[serde(default)]
    ids: Vec<GivenId>,
    /// Of this queue only, by its own name or with .DLQ
    #[arg(long, value_name = "QUEUE")]
    queue: Option<String>,
    /// Of this tenant only
    #[arg(long, value_name = "ID")]
    tenant: Option<String>,
    /// All of them
    #[arg(long, conflicts_with_all = ["ids", "tenant"])]
    #[serde(default)]
    all: bool,
    /// Do it; without it, only what is meant is counted
    #[arg(long)]
    #[serde(default)]
    yes: bool,
    /// The queues have a policy with a delivery limit, although they were declared without
    #[arg(long)]
    #[serde(skip)]
    policy_is_set: bool,
    #[command(flatten)]
    #[serde(skip)]
    pub(crate) caller: CallerArgs,
    /// JSON instead of text
    #[arg(long)]
    #[serde(skip)]
    json: bool,
}

/// A message that a consumer rejected, by its properties.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeadLetter {
    queue: String,
    event_id: String,
    event_type: String,
    tenant_id: String,
    correlation_id: String,
    /// As RabbitMQ says: `rejected`, `delivery_limit`, `expired`, …
    reason: Option<String>,
    size_bytes: usize,
}

/// What was, or would be, put back or deleted.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeadLettersReport {
    count: usize,
    done: usize,
    /// More of a queue's dead letters than are looked through at a time.
    more: bool,
    stopped: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeadLetterAction {
    Requeue,
    Discard,
}

/// # Errors
/// RabbitMQ is away, or nothing was found.
pub async fn run(config: &Config, args: &DeadLettersArgs) -> anyhow::Result<()> {
    could_not_look(match &args.command {
        DeadLettersCommand::List(args) => run_list(config, args).await,
        DeadLettersCommand::Requeue(args) => {
            run_take(config, args, DeadLetterAction::Requeue).await
        }
        DeadLettersCommand::Discard(args) => {
            run_take(config, args, DeadLetterAction::Discard).await
        }
    })
}

async fn run_list(config: &Config, args: &DeadLettersListArgs) -> anyhow::Result<()> {
    let deployment = Deployment::open(config).await?;
    let letters = letters(config, &deployment, args).await?;
    let mut output = Output::new();
    if args.json {
        output.json(&letters)?;
    } else {
        write_list(&mut output, &letters);
    }
    output.show()?;
    match letters.is_empty() {
        true => Err(EndsWith(1).into()),
        false => Ok(()),
    }
}

/// The first dead letters of each queue that is meant.
///
/// # Errors
/// RabbitMQ is away, or the queues may not be looked at.
pub(crate) async fn letters(
    config: &Config,
    deployment: &Deployment,
    args: &DeadLettersListArgs,
) -> anyhow::Result<Vec<DeadLetter>> {
    let connection = deployment.rabbitmq().await?;
    may_be_looked_at(&connection, config, args.policy_is_set).await?;
    let mut letters = Vec::new();
    for queue in queues(args.queue.as_deref())? {
        let limit = usize::from(args.limit);
        letters.extend(list(&connection, &queue, limit).await.context("RabbitMQ")?);
    }
    drop(connection.close(200, "done".into()).await);
    Ok(letters)
}

/// A queue that was declared without a limit may drop what is looked at for the 21st time.
async fn may_be_looked_at(
    connection: &Connection,
    config: &Config,
    policy_is_set: bool,
) -> anyhow::Result<()> {
    if policy_is_set {
        return Ok(());
    }
    let differs = topology::dead_letters_that_differ(connection, &config.amqp).await;
    if let Some(difference) = differs.context("RabbitMQ")? {
        bail!(
            "{difference}: RabbitMQ may drop a dead letter that is looked at for the 21st time. `worker doctor` \
             names the policy that mends it; once it is set, --policy-is-set says so"
        );
    }
    Ok(())
}

/// The queues of dead letters that are meant.
fn queues(named: Option<&str>) -> anyhow::Result<Vec<String>> {
    let all = topology::queues().filter(|queue| queue.ends_with(topology::DEAD_LETTERS));
    let is_meant = |queue: &String| {
        let own = queue.trim_end_matches(topology::DEAD_LETTERS);
        named.is_none_or(|named| named == queue || named == own)
    };
    let meant: Vec<_> = all.filter(is_meant).collect();
    ensure!(
        !meant.is_empty(),
        WrongCall("--queue is none of this deployment's".into())
    );
    Ok(meant)
}

/// The first dead letters of a queue.
///
/// # Errors
/// RabbitMQ is away, or the queue isn't there.
async fn list(
    connection: &Connection,
    queue: &str,
    limit: usize,
) -> Result<Vec<DeadLetter>, lapin::Error> {
    let channel = connection.create_channel().await?;
    let mut letters = Vec::new();
    while letters.len() < limit
        && let Some(message) = get(&channel, queue).await?
    {
        letters.push(DeadLetter::of(queue, &message));
    }
    // What wasn't acknowledged returns, to where it was.
    channel.close(200, "done".into()).await?;
    Ok(letters)
}

async fn get(channel: &Channel, queue: &str) -> Result<Option<BasicGetMessage>, lapin::Error> {
    let queue = ShortString::try_new(queue.to_owned()).unwrap_or_default();
    channel.basic_get(queue, BasicGetOptions::default()).await
}

async fn run_take(
    config: &Config,
    args: &DeadLettersTakeArgs,
    action: DeadLetterAction,
) -> anyhow::Result<()> {
    let deployment = Deployment::open(config).await?;
    let stop = shared::telemetry::shutdown_on_signal()?;
    let report = take(config, &deployment, args, action, &stop).await?;
    let mut output = Output::new();
    if args.json {
        output.json(&report)?;
    } else {
        write_taken(&mut output, &report, args.yes, action);
    }
    output.show()?;
    match report.count == 0 || report.stopped {
        true => Err(EndsWith(1).into()),
        false => Ok(()),
    }
}

/// Counts what is meant, and puts it back or deletes it if told to.
///
/// # Errors
/// Nothing is named, or RabbitMQ is away or refuses.
pub(crate) async fn take(
    config: &Config,
    deployment: &Deployment,
    args: &DeadLettersTakeArgs,
    action: DeadLetterAction,
    stop: &CancellationToken,
) -> anyhow::Result<DeadLettersReport> {
    ensure!(
        args.all || !args.ids.is_empty() || args.tenant.is_some(),
        WrongCall("say which: ids, --tenant, or --all".into())
    );
    let connection = deployment.rabbitmq().await?;
    may_be_looked_at(&connection, config, args.policy_is_set).await?;
    let mut report = DeadLettersReport::default();
    let mut progress = ProgressLine::new("dead letters");
    for queue in queues(args.queue.as_deref())? {
        let channel = connection.create_channel().await.context("RabbitMQ")?;
        let options = ConfirmSelectOptions::default();
        channel.confirm_select(options).await.context("RabbitMQ")?;
        let mut looked_at = 0;
        while !stop.is_cancelled()
            && let Some(message) = get(&channel, &queue).await.context("RabbitMQ")?
        {
            looked_at += 1;
            let letter = DeadLetter::of(&queue, &message);
            if letter.is_meant(args) {
                report.count += 1;
                if args.yes {
                    let by = args.caller.name();
                    end(&channel, &queue, &message, action).await?;
                    audit(action.name(), &by, &letter.event_id, 1);
                    report.done += 1;
                }
            }
            progress.at(looked_at, None);
            if looked_at == MOST_LOOKED_AT {
                report.more = true;
                break;
            }
        }
        channel
            .close(200, "done".into())
            .await
            .context("RabbitMQ")?;
    }
    drop(connection.close(200, "done".into()).await);
    report.stopped = stop.is_cancelled();
    Ok(report)
}

/// Puts a message back, or deletes it. It leaves the dead letters once the broker has it elsewhere: a crash in
/// between doubles it.
async fn end(
    channel: &Channel,
    queue: &str,
    message: &BasicGetMessage,
    action: DeadLetterAction,
) -> anyhow::Result<()> {
    if action == DeadLetterAction::Requeue {
        let own = queue.trim_end_matches(topology::DEAD_LETTERS);
        let own = ShortString::try_new(own.to_owned()).unwrap_or_default();
        let headers = message.properties.headers().clone().unwrap_or_default();
        let mut kept = FieldTable::default();
        for (name, value) in headers.inner() {
            if !DEATH_HEADERS.contains(&name.as_str()) && name.as_str() != "x-last-death-reason" {
                kept.insert(name.clone(), value.clone());
            }
        }
        let properties = message.properties.clone().with_headers(kept);
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        // By the default exchange: to its own queue, and to no other that is bound.
        let sent = channel.basic_publish("".into(), own, options, &message.data, properties);
        let confirmed = sent.await.context("RabbitMQ")?.await.context("RabbitMQ")?;
        ensure!(
            matches!(confirmed, Confirmation::Ack(None)),
            "its queue doesn't take it: it is full, or isn't there"
        );
    }
    let acked = message.delivery.acker.ack(BasicAckOptions::default()).await;
    acked.map(drop).context("RabbitMQ")
}

impl DeadLetterAction {
    fn name(self) -> &'static str {
        match self {
            Self::Requeue => "dlq requeue",
            Self::Discard => "dlq discard",
        }
    }
}

impl DeadLetter {
    fn of(queue: &str, message: &BasicGetMessage) -> Self {
        let properties = &message.properties;
        let text = |value: &Option<ShortString>| value.clone().unwrap_or_default().to_string();
        let header = |name: &str| header_text(properties, name);
        Self {
            queue: queue.to_owned(),
            event_id: text(properties.message_id()),
            event_type: text(properties.kind()),
            tenant_id: header("x-tenant-id").unwrap_or_default(),
            correlation_id: text(properties.correlation_id()),
            reason: header("x-last-death-reason").or_else(|| header("x-first-death-reason")),
            size_bytes: message.data.len(),
        }
    }

    fn is_meant(&self, args: &DeadLettersTakeArgs) -> bool {
        let is_it = |id: &GivenId| [&self.event_id, &self.correlation_id].contains(&&id.text());
        let of_tenant = args
            .tenant
            .as_ref()
            .is_none_or(|tenant| *tenant == self.tenant_id);
        of_tenant && (args.ids.is_empty() || args.ids.iter().any(is_it))
    }
}

fn write_list(output: &mut Output, letters: &[DeadLetter]) {
    if letters.is_empty() {
        return output.line(Style::Good, "no dead letters");
    }
    let names = [
        "queue",
        "type",
        "tenant",
        "reason",
        "bytes",
        "event",
        "correlation id",
    ];
    let mut rows = vec![row(Style::Faint, names)];
    rows.extend(letters.iter().map(|letter| {
        row(
            Style::Plain,
            [
                &letter.queue,
                &letter.event_type,
                &letter.tenant_id,
                letter.reason.as_deref().unwrap_or("-"),
                &letter.size_bytes.to_string(),
                &letter.event_id,
                &letter.correlation_id,
            ],
        )
    }));
    output.table(&rows);
}

fn write_taken(
    output: &mut Output,
    report: &DeadLettersReport,
    yes: bool,
    action: DeadLetterAction,
) {
    let what = match action {
        DeadLetterAction::Requeue => "put back into their queues",
        DeadLetterAction::Discard => "deleted",
    };
    match yes {
        true => {
            let text = format!(
                "{} of {} dead letters are {what}",
                report.done, report.count
            );
            output.line(Style::Plain, text);
        }
        false => {
            let text = format!(
                "{} dead letters would be {what}: --yes does it",
                report.count
            );
            output.line(Style::Doubtful, text);
        }
    }
    if report.more {
        let text = format!("of the first {MOST_LOOKED_AT} of a queue: run it again for the next");
        output.line(Style::Doubtful, text);
    }
    if report.stopped {
        output.line(Style::Doubtful, "stopped: run it again to go on");
    }
}
