//! Tasks that a program needs for as long as it runs. One that panics, or ends before it is told to, ends
//! the program, with the task's name: what it did would not be done any more, and nobody would see it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use tokio::sync::SetOnce;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The tasks of a program.
#[derive(Debug, Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    failed: Arc<SetOnce<&'static str>>,
    stop: CancellationToken,
}

impl Tasks {
    /// Tasks that end once `stop` says so.
    pub fn new(stop: CancellationToken) -> Self {
        Self {
            tracker: TaskTracker::new(),
            failed: Arc::default(),
            stop,
        }
    }

    /// What tells them to end.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Spawns a task that the program needs until it is told to stop.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let tasks = self.clone();
        self.tracker.spawn(async move {
            let ended = AssertUnwindSafe(task).catch_unwind().await;
            if ended.is_err() || !tasks.stop.is_cancelled() {
                let panicked = ended.is_err();
                tracing::error!(
                    task = name,
                    panicked,
                    "a background task failed: the program ends"
                );
                // The first one is the reason.
                drop(tasks.failed.set(name));
            }
        });
    }

    /// Spawns a task that is one of many of its kind: if it panics, it fails alone.
    pub fn spawn_alone(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(async move {
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                tracing::error!(task = name, "a task panicked");
            }
        });
    }

    /// Returns once a task has failed, with its name.
    pub async fn failed(&self) -> anyhow::Error {
        let name = self.failed.wait().await;
        anyhow::anyhow!("the background task `{name}` failed; see the log before this line")
    }

    /// For tasks whose end, also by a panic, is seen by whoever spawns them.
    pub fn tracker(&self) -> &TaskTracker {
        &self.tracker
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    use super::*;

    /// Where something is spawned without a name, and who sees it panic.
    const SEEN_OTHERWISE: [(&str, usize); 12] = [
        // Connections: the client sees it, and none is needed by others.
        ("ingress/src/connections.rs", 2),
        ("shared/src/admin.rs", 1),
        // Calls of Redis, each of which catches its own panics: those who wait for its answer see it.
        ("ingress/src/intake.rs", 1),
        // The probe of Redis, whose end is waited for; a thread, which has a task that waits for its end.
        ("ingress/src/server.rs", 2),
        // Panics are resumed by whoever waits for it.
        ("shared/src/secrets.rs", 1),
        ("worker/src/read/leases.rs", 1),
        // An error for whoever waits for it.
        ("shared/src/trace.rs", 1),
        ("worker/src/console/mod.rs", 1),
        // The helper itself.
        ("shared/src/tasks.rs", 2),
        // It only waits for signals.
        ("shared/src/telemetry.rs", 1),
        // lapin's: a connection of which one ends is a connection that fails.
        ("worker/src/out/publisher/socket.rs", 2),
        // `Landing` sees it.
        ("worker/src/out/media.rs", 1),
    ];

    fn sources(folder: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).expect("a folder");
        let entries = entries.map(|entry| entry.expect("an entry").path());
        entries
            .flat_map(|path| match path.is_dir() {
                true => sources(&path),
                false => vec![path],
            })
            .collect()
    }

    /// Calls that spawn something without naming it.
    fn unnamed(source: &str) -> usize {
        let code = source.split("#[cfg(test)]").next().unwrap_or_default();
        let calls = ["spawn(", "spawn_on(", "spawn_blocking(", "spawn_local("];
        let calls = calls.into_iter().flat_map(|call| code.match_indices(call));
        calls
            .filter(|(at, call)| {
                let (before, rest) = code.split_at(*at);
                let argument = rest.strip_prefix(call).unwrap_or_default();
                before.ends_with(['.', ':']) && !argument.trim_start().starts_with('"')
            })
            .count()
    }

    #[test]
    fn nothing_runs_in_the_background_without_a_name_unless_its_panics_are_seen() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut found = BTreeMap::new();
        for program in ["ingress", "shared", "worker"] {
            for path in sources(&root.join(program).join("src")) {
                let source = std::fs::read_to_string(&path).expect("a text");
                let name = path.strip_prefix(&root).expect("below it");
                let name = name.to_string_lossy().into_owned();
                if unnamed(&source) > 0 {
                    found.insert(name, unnamed(&source));
                }
            }
        }
        let allowed = SEEN_OTHERWISE.map(|(path, count)| (path.to_owned(), count));
        assert_eq!(found, BTreeMap::from(allowed));
    }

    async fn named(tasks: &Tasks) -> &'static str {
        let failed = tokio::time::timeout(Duration::from_secs(10), tasks.failed.wait()).await;
        failed.expect("a task that failed")
    }

    #[tokio::test]
    async fn a_panic_is_told_with_the_name_of_its_task() {
        let tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("well", std::future::pending());
        tasks.spawn_alone("one of many", async { panic!("on purpose") });
        tasks.spawn("the probe", async {
            // After the one of many.
            tokio::task::yield_now().await;
            panic!("on purpose")
        });
        assert_eq!(named(&tasks).await, "the probe");
        tasks.spawn("another", async { panic!("on purpose") });
        tokio::task::yield_now().await;
        assert_eq!(named(&tasks).await, "the probe");
    }

    #[tokio::test]
    async fn a_task_may_end_once_it_is_told_to_and_not_before() {
        let stop = CancellationToken::new();
        let tasks = Tasks::new(stop.clone());
        tasks.spawn("the server", stop.clone().cancelled_owned());
        stop.cancel();
        tasks.tracker().close();
        tasks.tracker().wait().await;
        assert!(tasks.failed().now_or_never().is_none());
        let tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("the server", async {});
        assert_eq!(named(&tasks).await, "the server");
    }
}
