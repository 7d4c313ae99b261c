//! Secrets: they never print, and those that come from a file follow it, so that a key can be
//! rotated without a restart.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio_util::sync::CancellationToken;

/// A value that never prints.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether it is what was given; how long that takes tells nothing.
    pub fn is(&self, given: &[u8]) -> bool {
        let (own, given) = (Sha256::digest(self.0.as_bytes()), Sha256::digest(given));
        own.ct_eq(&given).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl FromStr for Secret {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // A byte order mark is what some editors begin a file with.
        match text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}') {
            "" => Err("must not be empty"),
            text => Ok(Self(text.to_owned())),
        }
    }
}

/// Files are looked at this often. Polled, since a mounted Kubernetes secret is replaced by moving
/// a link three folders up, which no watch on the file sees.
const INTERVAL: Duration = Duration::from_millis(250);
/// More than this is no secret.
const LONGEST_SECRET: u64 = 64 * 1024;
/// More than this is no list of secrets that is read this often.
const LONGEST_LIST: u64 = 4 * 1024 * 1024;

/// What was made of a secret: of its value, or of what its file holds now.
pub struct Rotating<T> {
    variable: &'static str,
    file: Option<SecretFile>,
    parse: Parse<T>,
    current: ArcSwap<T>,
    version: AtomicU64,
}

type Parse<T> = Box<dyn Fn(&Secret) -> Result<T, String> + Send + Sync>;

struct SecretFile {
    path: PathBuf,
    longest: u64,
    seen: Mutex<FileState>,
}

struct FileState {
    used: Secret,
    /// Read once. It counts when the next look finds the same: a file that is being written
    /// holds half a secret.
    fresh: Option<Result<Secret, String>>,
    /// Why the file can't be used, as it was logged last.
    logged: Option<String>,
}

impl Rotating<Secret> {
    /// [`Rotating::open`] for a secret that is used as it is.
    ///
    /// # Errors
    /// As there.
    pub fn plain(
        variable: &'static str,
        value: Option<&Secret>,
        file: Option<&Path>,
    ) -> Result<Option<Arc<Self>>, String> {
        Self::open(variable, value, file, |secret| Ok(secret.clone()))
    }
}

impl<T> Rotating<T> {
    /// The setting `variable`, given as `value` or by `file`; `None` if by neither.
    ///
    /// # Errors
    /// Given by both, a file that can't be read, or whatever `parse` says, which must not repeat the
    /// secret. The message names the variable.
    pub fn open(
        variable: &'static str,
        value: Option<&Secret>,
        file: Option<&Path>,
        parse: impl Fn(&Secret) -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Option<Arc<Self>>, String> {
        let (secret, file) = match (value, file) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => {
                return Err(format!(
                    "{variable} and {variable}_FILE are both set: unset one of them"
                ));
            }
            (Some(value), None) => (value.clone(), None),
            (None, Some(path)) => {
                let (secret, followed) = SecretFile::open(variable, path, LONGEST_SECRET)?;
                (secret, Some(followed))
            }
        };
        Self::made(variable, &secret, file, parse).map(Some)
    }

    /// A list of secrets that only a file can hold, named by `{variable}_FILE`.
    ///
    /// # Errors
    /// A file that can't be read, or whatever `parse` says, as in [`Rotating::open`].
    pub fn list(
        variable: &'static str,
        file: &Path,
        parse: impl Fn(&Secret) -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Arc<Self>, String> {
        let (secret, followed) = SecretFile::open(variable, file, LONGEST_LIST)?;
        Self::made(variable, &secret, Some(followed), parse)
    }

    fn made(
        variable: &'static str,
        secret: &Secret,
        file: Option<SecretFile>,
        parse: impl Fn(&Secret) -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Arc<Self>, String> {
        let current = parse(secret).map_err(|error| format!("{variable}: {error}"))?;
        Ok(Arc::new(Self {
            variable,
            file,
            parse: Box::new(parse),
            current: ArcSwap::from_pointee(current),
            version: AtomicU64::new(0),
        }))
    }

    /// For the moment: hold it no longer than a request.
    pub fn current(&self) -> Guard<Arc<T>> {
        self.current.load()
    }

    /// Grows with each change.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }
}

impl<T> fmt::Debug for Rotating<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=***", self.variable)
    }
}

impl SecretFile {
    fn open(variable: &str, path: &Path, longest: u64) -> Result<(Secret, Self), String> {
        let secret = read(path, longest)
            .map_err(|error| format!("{variable}_FILE {}: {error}", path.display()))?;
        let seen = Mutex::new(FileState {
            used: secret.clone(),
            fresh: None,
            logged: None,
        });
        let path = path.to_owned();
        Ok((
            secret,
            Self {
                path,
                longest,
                seen,
            },
        ))
    }
}

fn read(path: &Path, longest: u64) -> Result<Secret, String> {
    let length = std::fs::metadata(path)
        .map_err(|error| error.to_string())?
        .len();
    if length > longest {
        return Err(format!("has {length} bytes, more than {longest}"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    text.parse().map_err(str::to_owned)
}

/// A setting whose file may change.
pub trait WatchedFile: Send + Sync {
    /// Looks at the file, and uses what it finds there twice in a row.
    fn reload(&self);
}

impl<T: Send + Sync> WatchedFile for Rotating<T> {
    fn reload(&self) {
        let Some(SecretFile {
            path,
            longest,
            seen,
        }) = &self.file
        else {
            return;
        };
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let found = read(path, *longest);
        if found.as_ref() == Ok(&seen.used) {
            seen.fresh = None;
            return;
        }
        let before = seen.fresh.replace(found.clone());
        if before.as_ref() != Some(&found) {
            return;
        }
        let variable = self.variable;
        let used = found.and_then(|secret| {
            let parsed = (self.parse)(&secret)?;
            Ok((secret, parsed))
        });
        match used {
            Ok((secret, parsed)) => {
                self.current.store(Arc::new(parsed));
                self.version.fetch_add(1, Ordering::Release);
                seen.used = secret;
                (seen.fresh, seen.logged) = (None, None);
                tracing::info!(variable, "a secret's file has changed and is used");
            }
            Err(error) if seen.logged.as_ref() != Some(&error) => {
                tracing::error!(
                    variable,
                    error,
                    "a secret's file can't be used; the last good one is kept"
                );
                seen.logged = Some(error);
            }
            Err(_) => {}
        }
    }
}

/// Follows the files of `settings` until `shutdown`.
pub async fn watch_files(settings: Vec<Arc<dyn WatchedFile>>, shutdown: CancellationToken) {
    let settings = Arc::new(settings);
    let mut ticks = tokio::time::interval(INTERVAL);
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        let settings = settings.clone();
        let reload = move || settings.iter().for_each(|setting| setting.reload());
        if let Err(failed) = tokio::task::spawn_blocking(reload).await
            && failed.is_panic()
        {
            std::panic::resume_unwind(failed.into_panic());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(secret: &Secret) -> Result<String, String> {
        match secret.expose() {
            "bad" => Err("is bad".to_owned()),
            text => Ok(text.to_owned()),
        }
    }

    #[test]
    fn what_editors_put_around_a_secret_is_taken_off() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        std::fs::write(&path, "\u{feff}one two\r\n").expect("a file");
        let setting = Rotating::open("X", None, Some(&path), plain).expect("readable");
        assert_eq!(**setting.expect("set").current(), "one two");
        assert_eq!(" \u{feff}\r\n".parse::<Secret>(), Err("must not be empty"));
    }

    #[test]
    fn a_changed_file_counts_when_it_has_settled() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        let write = |text: &str| std::fs::write(&path, text).expect("a file");
        write("one\n");
        let setting = Rotating::open("X", None, Some(&path), plain)
            .expect("readable")
            .expect("set");
        let mut held = Vec::new();
        for text in [
            "one", "tw", "two", "two", "bad", "bad", "", "", "three", "three",
        ] {
            write(text);
            setting.reload();
            held.push((**setting.current()).clone());
        }
        assert_eq!(
            held,
            [
                "one", "one", "one", "two", "two", "two", "two", "two", "two", "three"
            ]
        );
        std::fs::remove_file(&path).expect("the file");
        setting.reload();
        setting.reload();
        assert_eq!(**setting.current(), "three");
    }

    #[test]
    fn what_is_wrong_names_the_variable_and_not_the_secret() {
        let bad: Secret = "bad".parse().expect("a secret");
        let both = Rotating::open("X", Some(&bad), Some(Path::new("/nowhere")), plain);
        assert_eq!(
            both.expect_err("both"),
            "X and X_FILE are both set: unset one of them"
        );
        let unreadable = Rotating::open("X", None, Some(Path::new("/nowhere")), plain);
        assert!(
            unreadable
                .expect_err("unreadable")
                .starts_with("X_FILE /nowhere: ")
        );
        let refused = Rotating::open("X", Some(&bad), None, plain);
        assert_eq!(refused.expect_err("refused"), "X: is bad");
    }
}
