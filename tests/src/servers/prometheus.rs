//! A private Prometheus that scrapes programs every second.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::ports;
use crate::process::{Process, command};
use crate::waiting::poll;

const START: Duration = Duration::from_secs(90);

/// One series of the answer to a query.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// With `__name__`, if the query keeps it.
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// What a server is told.
#[derive(Debug, Clone, Copy)]
pub struct PrometheusOptions<'a> {
    /// A job's name and `host:port` of one of its programs.
    pub targets: &'a [(&'a str, &'a str)],
    pub rule_files: &'a [&'a Path],
    /// Between two scrapes, and between two evaluations of the rules.
    pub interval: &'a str,
    /// `host:port` of where alerts go.
    pub alertmanager: Option<&'a str>,
}

/// One Prometheus server.
#[derive(Debug)]
pub struct Prometheus {
    port: u16,
    process: Process,
    _folder: TempDir,
}

impl Prometheus {
    /// Starts a server that scrapes `/metrics` of each target, which is a job's name and
    /// `host:port`, and evaluates the rules of the files every second. It is ready when this returns; see
    /// [`Prometheus::scraped`].
    ///
    /// # Errors
    /// Prometheus is not installed, refuses its configuration, or does not become ready.
    pub async fn start(targets: &[(&str, &str)], rule_files: &[&Path]) -> anyhow::Result<Self> {
        let interval = "1s";
        Self::start_with(PrometheusOptions {
            targets,
            rule_files,
            interval,
            alertmanager: None,
        })
        .await
    }

    /// The same with all that can be chosen.
    ///
    /// # Errors
    /// As [`Prometheus::start`].
    pub async fn start_with(options: PrometheusOptions<'_>) -> anyhow::Result<Self> {
        crate::install_tls_provider();
        let port = ports::free();
        let folder = tempfile::tempdir().context("temporary folder")?;
        let configuration = folder.path().join("prometheus.json");
        // YAML, of which JSON is a part.
        fs::write(&configuration, configured(&options).to_string())?;
        let mut server = command("prometheus");
        server
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.path().join("data").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let process = Process::spawn("prometheus", server, folder.path())?;
        let mut prometheus = Self {
            port,
            process,
            _folder: folder,
        };
        let ready = format!("{}/-/ready", prometheus.url());
        prometheus
            .process
            .ready_when(START, async || {
                let answer = reqwest::get(&ready).await;
                answer.is_ok_and(|answer| answer.status().is_success())
            })
            .await?;
        Ok(prometheus)
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What the server logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Waits until every target has been scraped without an error at least once.
    ///
    /// # Errors
    /// Not in time; with what Prometheus says of each.
    pub async fn scraped(&self) -> anyhow::Result<()> {
        let well = async || {
            let targets = self.targets().await.ok()?;
            let all = !targets.is_empty() && targets.iter().all(|target| target["health"] == "up");
            all.then_some(())
        };
        match poll(START, well).await {
            Some(()) => Ok(()),
            None => anyhow::bail!("not scraped: {:?}", self.targets().await?),
        }
    }

    /// Current value of a PromQL expression: a scalar is one series without labels.
    ///
    /// # Errors
    /// The expression is wrong, with Prometheus' words; or no answer within 10 s.
    pub async fn query(&self, expression: &str) -> anyhow::Result<Vec<Series>> {
        let data = self
            .ask("query", &[("query", expression)])
            .await
            .with_context(|| expression.to_owned())?;
        if data["resultType"] == "scalar" {
            let value = number(&data["result"][1])?;
            let labels = BTreeMap::new();
            return Ok(vec![Series { labels, value }]);
        }
        let series = data["result"].as_array().context("a list of series")?;
        series.iter().map(one).collect()
    }

    /// What Prometheus says of its targets, as its HTTP API has it.
    ///
    /// # Errors
    /// No answer within 10 s.
    pub async fn targets(&self) -> anyhow::Result<Vec<Value>> {
        let data = self.ask("targets", &[("state", "active")]).await?;
        let targets = data["activeTargets"].as_array();
        Ok(targets.context("a list of targets")?.clone())
    }

    /// The alerts and what they ask for, by name; each record's own name isn't one.
    ///
    /// # Errors
    /// No answer within 10 s.
    pub async fn alert_queries(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let data = self.ask("rules", &[]).await?;
        let groups = data["groups"].as_array().context("groups of rules")?;
        let rules = groups.iter().filter_map(|group| group["rules"].as_array());
        let rules = rules.flatten().filter(|rule| rule["type"] == "alerting");
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let named = rules.map(|rule| Some((text(&rule["name"])?, text(&rule["query"])?)));
        named.collect::<Option<_>>().context("names and queries")
    }

    async fn ask(&self, what: &str, parameters: &[(&str, &str)]) -> anyhow::Result<Value> {
        let base = format!("{}/api/v1/{what}", self.url());
        let url = url::Url::parse_with_params(&base, parameters)?;
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(10))
            .build()?;
        let mut answer: Value = client.get(url).send().await?.json().await?;
        ensure!(answer["status"] == "success", "{}", answer["error"]);
        Ok(answer["data"].take())
    }
}

fn configured(options: &PrometheusOptions<'_>) -> Value {
    let mut of_job = BTreeMap::<&str, Vec<&str>>::new();
    for (job, address) in options.targets {
        of_job.entry(job).or_default().push(address);
    }
    let jobs: Vec<Value> = of_job
        .into_iter()
        .map(|(job, addresses)| {
            serde_json::json!({
                "job_name": job,
                "static_configs": [{"targets": addresses}],
            })
        })
        .collect();
    let alertmanagers: Vec<Value> = options
        .alertmanager
        .iter()
        .map(|address| serde_json::json!({"static_configs": [{"targets": [address]}]}))
        .collect();
    serde_json::json!({
        "global": {
            "scrape_interval": options.interval,
            "scrape_timeout": "1s",
            "evaluation_interval": options.interval,
        },
        "rule_files": options.rule_files,
        "scrape_configs": jobs,
        "alerting": {"alertmanagers": alertmanagers},
    })
}

fn one(series: &Value) -> anyhow::Result<Series> {
    let labels = serde_json::from_value(series["metric"].clone())?;
    let value = number(&series["value"][1])?;
    Ok(Series { labels, value })
}

/// Prometheus writes numbers as text, also `NaN` and `+Inf`.
fn number(value: &Value) -> anyhow::Result<f64> {
    let text = value.as_str().context("a number")?;
    text.parse().with_context(|| text.to_owned())
}
