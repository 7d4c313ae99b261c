//! Child processes that can't outlive the program that started them.

use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{LazyLock, mpsc};
use std::time::Duration;
use std::{env, fs, io};

use anyhow::{Context, bail};

use crate::waiting::poll;

/// A running child, leader of its own process group. Dropping it kills the group and reaps it.
///
/// Should this program be killed before it can drop anything, the kernel kills the child
/// (`PDEATHSIG`, where `setpriv` is installed). That signal comes when the *thread* that spawned
/// the child ends, and it is not inherited: what the child starts is only reached through the group.
/// Children are therefore all spawned by one thread that lives as long as the program.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

/// Where a program is.
///
/// # Errors
/// It is not installed; with what to do.
pub fn installed(program: &str) -> anyhow::Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|folder| folder.join(program));
    found
        .into_iter()
        .find(|file| file.is_file())
        .with_context(|| {
            format!(
                "{program} is not installed: run deploy/local/install.sh, or install it yourself"
            )
        })
}

/// A command for [`Process::spawn`], wrapped so that the child dies with this program.
pub fn command(program: impl AsRef<Path>) -> Command {
    static SETPRIV: LazyLock<bool> = LazyLock::new(|| installed("setpriv").is_ok());
    let program = program.as_ref();
    if *SETPRIV {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

impl Process {
    /// Starts `command` (see [`command`]). Its output is appended to `<folder>/<name>.log`.
    ///
    /// # Errors
    /// The log can't be opened, or the program can't be started.
    pub fn spawn(name: &str, mut command: Command, folder: &Path) -> anyhow::Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let output = open_log(&log).with_context(|| format!("{}", log.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone().context("log file")?)
            .stderr(output)
            .process_group(0);
        let child =
            spawn_on_lasting_thread(command).with_context(|| format!("can't start {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// The most memory that it ever had, in MB; `None` if it isn't known.
    pub fn peak_memory_mb(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kilobytes / 1024)
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// File that has the output of this and earlier processes of the same name and folder.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// Everything in the log so far; bytes that are not UTF-8 are replaced.
    pub fn log(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The last `lines` of the log.
    pub fn log_tail(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Sends a signal by its name (`TERM`, `STOP`, `CONT`) to the whole group.
    pub fn signal(&self, signal: &str) {
        send_signal(signal, &format!("-{}", self.id()));
    }

    /// `kill -9` of the group; it is gone when this returns.
    pub fn kill(&mut self) {
        self.signal("KILL");
        // Only fails if it has been reaped already.
        drop(self.child.wait());
    }

    /// Whether the child has not ended. A stopped (`STOP`) one is running.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until the child ends by itself.
    ///
    /// # Errors
    /// It didn't within `deadline`.
    pub async fn wait(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        let child = &mut self.child;
        poll(deadline, async || child.try_wait().ok().flatten())
            .await
            .with_context(|| format!("{} did not end within {deadline:?}", self.name))
    }

    /// TERM, and KILL to what is left after `patience`.
    pub async fn stop(&mut self, patience: Duration) {
        self.signal("TERM");
        if self.wait(patience).await.is_err() {
            self.kill();
        }
    }

    /// Asks until `check` is true.
    ///
    /// # Errors
    /// The child ended, or `deadline` passed; with the end of its log.
    pub async fn ready_when(
        &mut self,
        deadline: Duration,
        mut check: impl AsyncFnMut() -> bool,
    ) -> anyhow::Result<()> {
        let child = &mut self.child;
        let outcome = poll(deadline, async || match child.try_wait() {
            Ok(Some(status)) => Some(Some(status)),
            Ok(None) | Err(_) => check().await.then_some(None),
        })
        .await;
        let name = &self.name;
        match outcome {
            Some(None) => Ok(()),
            Some(Some(status)) => bail!("{name} ended with {status}:\n{}", self.log_tail(30)),
            None => bail!(
                "{name} was not ready within {deadline:?}:\n{}",
                self.log_tail(30)
            ),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal by name to a process, or to the group whose negative id is given. One that is
/// gone already is no error.
pub fn send_signal(signal: &str, target: &str) {
    // `sh` has `kill` built in; the program of that name is not installed everywhere.
    let sent = Command::new("sh")
        .args(["-c", "kill -s \"$0\" -- \"$1\"", signal, target])
        .stderr(Stdio::null())
        .status();
    drop(sent);
}

fn open_log(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn spawn_on_lasting_thread(command: Command) -> io::Result<Child> {
    type Order = (Command, mpsc::SyncSender<io::Result<Child>>);
    static SPAWNER: LazyLock<mpsc::Sender<Order>> = LazyLock::new(|| {
        let (sender, orders) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, reply) in orders {
                // Whoever ordered waits for the reply below.
                drop(reply.send(command.spawn()));
            }
        });
        sender
    });
    let gone = || io::Error::other("the spawning thread has ended");
    let (reply, child) = mpsc::sync_channel(1);
    SPAWNER.send((command, reply)).map_err(|_| gone())?;
    child.recv().map_err(|_| gone())?
}
