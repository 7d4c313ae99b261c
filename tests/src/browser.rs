//! A real browser, driven as people do: headless Chromium over the pipe of its debugging protocol.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use data_encoding::BASE64;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// Any answer of the browser's, on a busy machine.
const ANSWER: Duration = Duration::from_secs(30);

/// One page of a browser of its own.
#[derive(Debug)]
pub struct BrowserPage {
    _browser: Child,
    _profile: TempDir,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    last: u64,
    session: Option<String>,
    /// What the page complained of: exceptions, refused resources.
    pub complaints: Vec<String>,
}

impl BrowserPage {
    /// # Panics
    /// Chromium isn't installed, or doesn't start.
    pub async fn open(url: &str) -> Self {
        let profile = tempfile::tempdir().expect("a profile");
        let mut browser = Command::new("sh");
        // It reads requests from 3 and writes answers to 4.
        browser.args([
            "-c",
            "exec chromium \"$@\" 3<&0 4>&1 0</dev/null 1>&2",
            "sh",
        ]);
        browser.args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
        ]);
        browser.args([
            "--no-first-run",
            "--disable-background-networking",
            "--disable-sync",
        ]);
        browser.args([
            "--disable-component-update",
            "--hide-scrollbars",
            "--remote-debugging-pipe",
        ]);
        browser.arg(format!("--user-data-dir={}", profile.path().display()));
        browser
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut browser = browser
            .kill_on_drop(true)
            .spawn()
            .expect("chromium is installed");
        let mut page = Self {
            requests: browser.stdin.take().expect("a pipe"),
            answers: BufReader::new(browser.stdout.take().expect("a pipe")),
            _browser: browser,
            _profile: profile,
            last: 0,
            session: None,
            complaints: Vec::new(),
        };
        let target = page
            .call("Target.createTarget", json!({"url": "about:blank"}))
            .await;
        let target = json!({"targetId": target["targetId"], "flatten": true});
        let attached = page.call("Target.attachToTarget", target).await;
        page.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            page.call(&format!("{domain}.enable"), json!({})).await;
        }
        page.call("Page.navigate", json!({"url": url})).await;
        page.wait_for("document.readyState === 'complete'").await;
        page
    }

    async fn call(&mut self, method: &str, params: Value) -> Value {
        let called = timeout(ANSWER, self.try_call(method, params)).await;
        let called = called.unwrap_or_else(|_| panic!("{method}: no answer"));
        called.unwrap_or_else(|error| panic!("{method}: {error:#}"))
    }

    async fn try_call(&mut self, method: &str, params: Value) -> anyhow::Result<Value> {
        self.last += 1;
        let mut request = json!({"id": self.last, "method": method, "params": params});
        if let Some(session) = &self.session {
            request["sessionId"] = json!(session);
        }
        let mut bytes = serde_json::to_vec(&request)?;
        bytes.push(0);
        self.requests.write_all(&bytes).await?;
        loop {
            let mut bytes = Vec::new();
            self.answers.read_until(0, &mut bytes).await?;
            bytes.pop().context("the browser has ended")?;
            let message: Value = serde_json::from_slice(&bytes)?;
            if message["id"] == self.last {
                if message["error"].is_object() {
                    bail!("{}", message["error"]);
                }
                return Ok(message["result"].clone());
            }
            self.note(&message);
        }
    }

    fn note(&mut self, message: &Value) {
        let entry = &message["params"]["entry"];
        // A refused request is told of by the page itself.
        let is_error = entry["level"] == "error" && entry["source"] != "network";
        if message["method"] == "Runtime.exceptionThrown" || is_error {
            self.complaints.push(message["params"].to_string());
        }
    }

    /// The value of an expression, awaited.
    ///
    /// # Panics
    /// It throws.
    pub async fn value(&mut self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let answer = self.call("Runtime.evaluate", asked).await;
        assert!(
            answer["exceptionDetails"].is_null(),
            "{expression}: {answer}"
        );
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    ///
    /// # Panics
    /// It isn't in time; with what the page shows.
    pub async fn wait_for(&mut self, expression: &str) {
        let until = tokio::time::Instant::now() + ANSWER;
        while self.value(expression).await != json!(true) {
            if tokio::time::Instant::now() > until {
                let shown = self.value("document.body.innerText").await;
                panic!("not {expression}:\n{}", shown.as_str().unwrap_or_default());
            }
            tokio::task::yield_now().await;
        }
    }

    /// Waits until an element shows a text.
    pub async fn wait_for_text(&mut self, selector: &str, text: &str) {
        let (selector, text) = (json!(selector), json!(text));
        self.wait_for(&format!(
            "[...document.querySelectorAll({selector})].some((it) => it.innerText.includes({text}))"
        ))
        .await;
    }

    /// Clicks a button or link below `selector` by its text, once it is there.
    pub async fn click(&mut self, selector: &str, text: &str) {
        let found = format!(
            "[...document.querySelectorAll({})].find((it) => it.innerText.startsWith({}) && it.checkVisibility())",
            json!(format!("{selector} button, {selector} a")),
            json!(text)
        );
        self.wait_for(&format!("Boolean({found})")).await;
        self.value(&format!("{found}.click()")).await;
    }

    /// Types into a field, as from a keyboard.
    pub async fn fill(&mut self, selector: &str, text: &str) {
        let field = format!("document.querySelector({})", json!(selector));
        self.wait_for(&format!("Boolean({field}?.checkVisibility())"))
            .await;
        self.value(&format!("{field}.focus(), {field}.select()"))
            .await;
        self.call("Input.insertText", json!({"text": text})).await;
    }

    /// A key such as `Enter` or `Tab`.
    pub async fn press(&mut self, key: &str) {
        let code = match key {
            "Enter" => 13,
            "Tab" => 9,
            _ => 0,
        };
        let text = if key == "Enter" { "\r" } else { "" };
        let down = json!({"type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text});
        self.call("Input.dispatchKeyEvent", down).await;
        let up = json!({"type": "keyUp", "key": key, "code": key, "windowsVirtualKeyCode": code});
        self.call("Input.dispatchKeyEvent", up).await;
    }

    /// Width and height of the window, and dark or light.
    pub async fn look(&mut self, (width, height): (u32, u32), scheme: &str) {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", size).await;
        let feature = json!({"name": "prefers-color-scheme", "value": scheme});
        self.call("Emulation.setEmulatedMedia", json!({"features": [feature]}))
            .await;
    }

    /// A picture of what is seen.
    ///
    /// # Panics
    /// The file can't be written.
    pub async fn picture(&mut self, file: &Path) {
        let taken = self
            .call("Page.captureScreenshot", json!({"format": "png"}))
            .await;
        let data = taken["data"].as_str().unwrap_or_default();
        let bytes = BASE64.decode(data.as_bytes());
        let folder = file.parent().expect("a folder");
        std::fs::create_dir_all(folder).expect("a folder");
        std::fs::write(file, bytes.expect("base64")).expect("a file");
    }
}
