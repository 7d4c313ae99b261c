//! The real programs, as the build left them.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, thread};

use anyhow::{Context, ensure};
use reqwest::StatusCode;
use serde_json::Value;
use tempfile::TempDir;

use crate::canaries;
use crate::meta::Sender;
use crate::ports;
use crate::process::{Process, command};
use crate::servers::S3Access;

/// The app secret that [`Ingress`] gets unless told otherwise.
pub const APP_SECRET: &str = "app-secret";

const START: Duration = Duration::from_secs(90);

/// What to wait for before a program counts as started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// `/ready` answers 200: it and its servers are well.
    Ready,
    /// `/health` answers 200: it lives, whatever its servers do.
    Healthy,
    /// Nothing: to watch it refuse to start.
    Spawned,
}

/// Settings of a program that is about to start; what isn't set has the program's own default.
#[derive(Debug)]
pub struct Builder<P> {
    binary: &'static str,
    /// Instead of the one that the build left.
    path: Option<PathBuf>,
    admin: String,
    settings: BTreeMap<String, String>,
    arguments: Vec<String>,
    until: Until,
    program: PhantomData<P>,
}

impl<P: From<Program>> Builder<P> {
    fn new(binary: &'static str) -> Self {
        let admin = format!("127.0.0.1:{}", ports::free());
        let builder = Self {
            binary,
            path: None,
            admin,
            settings: BTreeMap::new(),
            arguments: Vec::new(),
            until: Until::Ready,
            program: PhantomData,
        };
        builder.env("LOG_FORMAT", "json").env("LOG_LEVEL", "info")
    }

    /// Sets an environment variable; the last value counts.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.settings.insert(name.to_owned(), value.to_string());
        self
    }

    #[must_use]
    pub fn without_env(mut self, name: &str) -> Self {
        self.settings.remove(name);
        self
    }

    /// Another build of the program.
    #[must_use]
    pub fn built_at(mut self, path: PathBuf) -> Self {
        self.path = Some(path);
        self
    }

    #[must_use]
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// What [`Builder::start`] waits for; default: [`Until::Ready`].
    #[must_use]
    pub fn until(mut self, until: Until) -> Self {
        self.until = until;
        self
    }

    /// Starts the program.
    ///
    /// # Panics
    /// See [`Builder::try_start`].
    pub async fn start(self) -> P {
        let binary = self.binary;
        match self.try_start().await {
            Ok(program) => program,
            Err(error) => panic!("{binary}: {error:#}"),
        }
    }

    /// Starts the program.
    ///
    /// # Errors
    /// It isn't built, ended at once, or doesn't become ready; with the end of its log.
    pub async fn try_start(self) -> anyhow::Result<P> {
        crate::install_tls_provider();
        let folder = tempfile::tempdir().context("temporary folder")?;
        let launch = Launch {
            path: self.path.map_or_else(|| built(self.binary), Ok)?,
            binary: self.binary,
            settings: self.settings,
            arguments: self.arguments,
            folder,
        };
        let mut program = Program {
            process: launch.process()?,
            launch,
            admin: self.admin,
            until: self.until,
            log_was_read: false,
        };
        program.started(self.until).await?;
        Ok(P::from(program))
    }
}

#[derive(Debug)]
struct Launch {
    binary: &'static str,
    path: PathBuf,
    settings: BTreeMap<String, String>,
    arguments: Vec<String>,
    folder: TempDir,
}

impl Launch {
    fn process(&self) -> anyhow::Result<Process> {
        let mut program = self.command();
        program.args(&self.arguments);
        Process::spawn(self.binary, program, self.folder.path())
    }

    fn command(&self) -> std::process::Command {
        let mut program = command(&self.path);
        // Settings of whoever runs the tests must not reach the program.
        program.env_clear();
        for name in [
            "PATH",
            "HOME",
            "TMPDIR",
            "RUST_BACKTRACE",
            "LLVM_PROFILE_FILE",
        ] {
            if let Some(value) = env::var_os(name) {
                program.env(name, value);
            }
        }
        program.envs(&self.settings);
        program
    }
}

/// The binary beside the running test (`target/<profile>/deps/<test>`) or tool.
///
/// # Errors
/// It isn't there; with what to do.
pub fn built(binary: &str) -> anyhow::Result<PathBuf> {
    let own = env::current_exe().context("path of this program")?;
    let folder = own.parent().unwrap_or(Path::new("."));
    let folder = match folder.file_name() {
        Some(name) if name == "deps" => folder.parent().unwrap_or(folder),
        _ => folder,
    };
    let path = folder.join(binary);
    ensure!(
        path.exists(),
        "{} is not there: build it with `cargo build --workspace --bins`",
        path.display()
    );
    Ok(path)
}

/// A running program. If a test fails, the end of its log is printed.
#[derive(Debug)]
pub struct Program {
    process: Process,
    launch: Launch,
    admin: String,
    until: Until,
    log_was_read: bool,
}

impl Program {
    /// `host:port` of `/metrics`, `/health` and `/ready`.
    pub fn admin(&self) -> &str {
        &self.admin
    }

    /// The process: log, signals, waiting for its end.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// A setting that it was started with; empty if it has none of the name.
    pub fn setting(&self, name: &str) -> &str {
        self.launch.settings.get(name).map_or("", String::as_str)
    }

    /// All that it was started with.
    pub fn settings(&self) -> &BTreeMap<String, String> {
        &self.launch.settings
    }

    /// The same program with the same settings, for one of its other commands.
    pub fn command(&self) -> std::process::Command {
        self.launch.command()
    }

    /// What of a text must not be told; see [`canaries`].
    pub fn private_parts(&self, text: &str) -> Vec<String> {
        canaries::found_in(text, &self.launch.settings)
    }

    /// Lines of the log that tell what no log may; at most five. What is found here is not looked for
    /// again when the program is dropped.
    pub fn leaks(&mut self) -> Vec<String> {
        self.log_was_read = true;
        // A flag that has a secret's name.
        let log = self.log().replace("--app-secrets", "");
        if self.private_parts(&log).is_empty() {
            return Vec::new();
        }
        let lines = log.lines().filter_map(|line| {
            let found = self.private_parts(line);
            (!found.is_empty()).then(|| format!("{found:?} in {line}"))
        });
        lines.take(5).collect()
    }

    /// Everything logged so far, by earlier runs of this program too.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The log's lines that are JSON.
    pub fn log_lines(&self) -> Vec<Value> {
        let log = self.log();
        let lines = log.lines().map(serde_json::from_str);
        lines.filter_map(Result::ok).collect()
    }

    /// Sends `TERM`, `STOP` (frozen) or `CONT`.
    pub fn signal(&self, signal: &str) {
        self.process.signal(signal);
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Whether it ended in order, with exit status 0; after `patience` it is killed.
    pub async fn stop(&mut self, patience: Duration) -> bool {
        self.process.signal("TERM");
        let ended = self.process.wait(patience).await;
        self.process.kill();
        ended.is_ok_and(|status| status.success())
    }

    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Starts it again with the same settings and ports; kills it first if it runs.
    ///
    /// # Panics
    /// If it doesn't become ready.
    pub async fn restart(&mut self) {
        self.process.kill();
        self.process = self.launch.process().expect("it was started before");
        let until = self.until;
        self.started(until).await.expect("ready after a restart");
    }

    /// Starts it again with a setting changed.
    ///
    /// # Panics
    /// If it doesn't become ready.
    pub async fn restart_with(&mut self, name: &str, value: impl ToString) {
        let settings = &mut self.launch.settings;
        settings.insert(name.to_owned(), value.to_string());
        self.restart().await;
    }

    /// Status and body of one of the admin routes, such as `/ready`.
    ///
    /// # Errors
    /// No answer within 5 s.
    pub async fn get(&self, path: &str) -> anyhow::Result<(StatusCode, String)> {
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(5))
            .build()?;
        let url = format!("http://{}{path}", self.admin);
        let answer = client.get(url).send().await?;
        Ok((answer.status(), answer.text().await?))
    }

    /// Status and body of an admin route that is posted to, with a bearer token if there is one.
    ///
    /// # Errors
    /// No answer within 15 s.
    pub async fn post(
        &self,
        path: &str,
        token: Option<&str>,
    ) -> anyhow::Result<(StatusCode, String)> {
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(15))
            .build()?;
        let mut request = client.post(format!("http://{}{path}", self.admin));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await?;
        Ok((answer.status(), answer.text().await?))
    }

    /// Sum of a metric over those of its series whose labels contain `labels`, such as
    /// `code="200"`; 0 if there are none.
    ///
    /// # Panics
    /// If `/metrics` doesn't answer.
    pub async fn metric(&self, name: &str, labels: &str) -> f64 {
        let (_, text) = self.get("/metrics").await.expect("/metrics");
        let series = text.lines().filter_map(|line| {
            let (series, value) = line.split_once("} ").or_else(|| line.split_once(' '))?;
            let (found, with) = series.split_once('{').unwrap_or((series, ""));
            let value = value.split(' ').next()?.parse::<f64>().ok()?;
            (found == name && with.contains(labels)).then_some(value)
        });
        series.sum()
    }

    async fn started(&mut self, until: Until) -> anyhow::Result<()> {
        let path = match until {
            Until::Ready => "ready",
            Until::Healthy => "health",
            Until::Spawned => return Ok(()),
        };
        let url = format!("http://{}/{path}", self.admin);
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(2))
            .build()?;
        self.process
            .ready_when(START, async || {
                let answer = client.get(&url).send().await;
                answer.is_ok_and(|answer| answer.status().is_success())
            })
            .await
    }
}

impl Drop for Program {
    #[allow(
        clippy::print_stderr,
        reason = "the test framework shows it with the failed test"
    )]
    fn drop(&mut self) {
        if thread::panicking() {
            let (binary, tail) = (self.launch.binary, self.process.log_tail(40));
            eprintln!("--- end of the log of {binary}:\n{tail}\n---");
            return;
        }
        if self.log_was_read {
            return;
        }
        let leaks = self.leaks();
        assert!(leaks.is_empty(), "the log tells: {leaks:#?}");
    }
}

/// A running ingress.
#[derive(Debug)]
pub struct Ingress(Program);

impl Ingress {
    /// Ingress on ports of its own, with [`APP_SECRET`].
    pub fn builder(redis_url: &str) -> Builder<Self> {
        let builder = Builder::new("ingress");
        let admin = builder.admin.clone();
        builder
            .env("INGRESS_LISTEN", format!("127.0.0.1:{}", ports::free()))
            .env("INGRESS_ADMIN_LISTEN", admin)
            .env("META_APP_SECRETS", APP_SECRET)
            .env("REDIS_URL", redis_url)
    }

    /// `host:port` of the public listener.
    pub fn address(&self) -> &str {
        self.setting("INGRESS_LISTEN")
    }

    /// Where Meta posts.
    pub fn webhook_url(&self) -> String {
        let path = match self.setting("WEBHOOK_PATH") {
            "" => "/webhook/meta",
            path => path,
        };
        format!("http://{}{path}", self.address())
    }

    /// Posts to this ingress, signing with the first of its secrets.
    pub fn sender(&self) -> Sender {
        let secrets = self.setting("META_APP_SECRETS");
        Sender::new(
            self.webhook_url(),
            secrets.split(',').next().unwrap_or(secrets),
        )
    }
}

/// A running worker.
#[derive(Debug)]
pub struct Worker(Program);

impl Worker {
    /// A worker on a port of its own. `neighbours_url` serves as Tenant Service and as Graph API;
    /// the State Manager is off unless `STATE_MANAGER_URL` is set.
    pub fn builder(
        redis_url: &str,
        amqp_url: &str,
        s3: &S3Access,
        neighbours_url: &str,
    ) -> Builder<Self> {
        let builder = Builder::new("worker");
        let admin = builder.admin.clone();
        builder
            .env("WORKER_ADMIN_LISTEN", admin)
            .env("REDIS_URL", redis_url)
            .env("AMQP_URL", amqp_url)
            .env("MINIO_ENDPOINT", &s3.endpoint)
            .env("MINIO_ACCESS_KEY", &s3.access_key)
            .env("MINIO_SECRET_KEY", &s3.secret_key)
            .env("MINIO_REGION", &s3.region)
            .env("TENANT_SERVICE_URL", neighbours_url)
            .env("GRAPH_BASE_URL", neighbours_url)
            .env("MEDIA_ALLOWED_HOSTS", neighbours_url)
    }
}

impl From<Program> for Ingress {
    fn from(program: Program) -> Self {
        Self(program)
    }
}

impl From<Program> for Worker {
    fn from(program: Program) -> Self {
        Self(program)
    }
}

impl Deref for Ingress {
    type Target = Program;

    fn deref(&self) -> &Program {
        &self.0
    }
}

impl DerefMut for Ingress {
    fn deref_mut(&mut self) -> &mut Program {
        &mut self.0
    }
}

impl Deref for Worker {
    type Target = Program;

    fn deref(&self) -> &Program {
        &self.0
    }
}

impl DerefMut for Worker {
    fn deref_mut(&mut self) -> &mut Program {
        &mut self.0
    }
}
