//! Where everything listens, and what one needs to try it oneself.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::{ACCOUNT, ADMIN_TOKEN, CUSTOMER, Demo};
use crate::meta::payload::{self, Number};
use crate::output::column;
use crate::programs::{Ingress, Program, Worker};

/// Files beside the build, gone when dropped.
#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
}

impl Files {
    /// Writes the settings of both programs for a shell, and a webhook to begin with.
    pub(super) fn write(ingress: &Ingress, worker: &Worker) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("path of this program")?;
        let programs = program.parent().unwrap_or(Path::new("."));
        let folder = programs.with_file_name("demo");
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let files = Self { folder };
        let mut settings = settings_of(ingress);
        settings.extend(settings_of(worker));
        settings.insert("WEBHOOK_URL".to_owned(), ingress.webhook_url());
        settings.insert("ADMIN_TOKEN".to_owned(), ADMIN_TOKEN.to_owned());
        let mut text = "# Settings of the demo that runs: source this file.\n".to_owned();
        for (name, value) in settings {
            let value = value.replace('\'', r"'\''");
            writeln!(text, "export {name}='{value}'")?;
        }
        writeln!(text, "export PATH='{}':\"$PATH\"", programs.display())?;
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(files.settings())?.write_all(text.as_bytes())?;
        let message = payload::text(CUSTOMER, "Do you ship to Iceland?");
        fs::write(files.webhook(), Number::of(ACCOUNT).message(message))?;
        Ok(files)
    }

    fn settings(&self) -> PathBuf {
        self.folder.join("env")
    }

    fn webhook(&self) -> PathBuf {
        self.folder.join("webhook.json")
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for file in [self.settings(), self.webhook()] {
            // Only fails if somebody has deleted it.
            drop(fs::remove_file(file));
        }
    }
}

/// Those that a command needs: how the programs log is not among them.
fn settings_of(program: &Program) -> BTreeMap<String, String> {
    let mut settings = program.settings().clone();
    settings.retain(|name, _| !name.starts_with("LOG_"));
    settings
}

impl Demo {
    /// Everything that can be opened or called, and how to send a webhook of one's own.
    pub fn addresses(&self) -> String {
        let (ingress, worker) = (self.ingress.admin(), self.worker.admin());
        let access = self.s3.access();
        let (webhooks, media) = (&self.stage.webhook_bucket, &self.stage.media_bucket);
        let rows = [
            (
                "Console",
                format!("http://{worker}/console   admin token {ADMIN_TOKEN}"),
            ),
            ("Pages", format!("http://{worker}/  http://{ingress}/")),
            (
                "Metrics",
                format!("http://{worker}/metrics  http://{ingress}/metrics"),
            ),
            (
                "RabbitMQ",
                format!("{}   guest, guest", self.rabbitmq.management()),
            ),
            ("", self.stage.amqp_url.clone()),
            (
                "S3",
                format!(
                    "{}   {}, {}",
                    access.endpoint, access.access_key, access.secret_key
                ),
            ),
            ("", format!("buckets {webhooks}, {media}")),
            ("Redis", self.stage.redis.url()),
            ("Webhook", self.ingress.webhook_url()),
            (
                "Graph API",
                format!(
                    "{}/_control   played by this program",
                    self.stage.neighbours.url()
                ),
            ),
        ];
        let rows = rows.map(|(name, value)| format!("{}  {value}", column(name, 9)));
        let (settings, webhook) = (self.files.settings(), self.files.webhook());
        format!(
            "{}\nIn another terminal, for every command of the worker and the simulator:\n\n  \
             source {}\n  worker inspect\n  \
             curl -i \"$WEBHOOK_URL\" -H \"X-Hub-Signature-256: $(simulator sign {webhook})\" \
             --data-binary @{webhook}\n  \
             simulator send --body {webhook} --account {ACCOUNT}\n\n\
             Both commands send the same text of a customer. The second is a duplicate, and nothing comes out: \
             for a new message, change the text's id in the file.\n",
            boxed(&rows),
            settings.display(),
            webhook = webhook.display(),
        )
    }
}

fn boxed(rows: &[String]) -> String {
    let width = rows
        .iter()
        .map(|row| row.chars().count())
        .max()
        .unwrap_or(0);
    let rule = "─".repeat(width + 2);
    let mut text = format!("┌{rule}┐\n");
    for row in rows {
        text += &format!("│ {row:width$} │\n");
    }
    text + &format!("└{rule}┘\n")
}
