//! Tasks that a program needs for as long as it runs. A panic of one of them ends the program, with the
//! task's name: what it did would not be done any more, and nobody would see it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use tokio::sync::SetOnce;
use tokio_util::task::TaskTracker;

/// The tasks of a program.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    failed: Arc<SetOnce<&'static str>>,
}

impl Tasks {
    /// Spawns a task that ends when it is told to.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let tasks = self.clone();
        self.tracker.spawn(async move {
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                tasks.fail(name);
            }
        });
    }

    /// A task has ended that must not.
    pub fn fail(&self, name: &'static str) {
        tracing::error!(task = name, "a background task failed: the program ends");
        // The first one is the reason.
        drop(self.failed.set(name));
    }

    /// Returns once a task has failed, with its name.
    pub async fn failed(&self) -> anyhow::Error {
        let name = self.failed.wait().await;
        anyhow::anyhow!("the background task `{name}` failed; see the log before this line")
    }

    /// For tasks that belong to one item and may fail alone.
    pub fn tracker(&self) -> &TaskTracker {
        &self.tracker
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_told_with_the_name_of_its_task() {
        let tasks = Tasks::default();
        tasks.spawn("well", std::future::pending());
        tasks.spawn("ended", async {});
        tasks.spawn("the probe", async { panic!("on purpose") });
        assert!(tasks.failed().await.to_string().contains("`the probe`"));
        tasks.fail("another");
        assert!(tasks.failed().await.to_string().contains("`the probe`"));
    }
}
