//! Metrics of the process itself: which build it is, and what Linux tells of it in `/proc`.

use std::fmt::Error;
use std::fs;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::entry;

/// Clock ticks a second in `/proc`, as every kernel of today's machines has it (USER_HZ).
const TICKS: f64 = 100.0;

/// The commit that this was built from, if the build was told (`BUILD_COMMIT`).
pub const COMMIT: &str = match option_env!("BUILD_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// Registers `whatsapp_build_info` and the customary `process_*`.
pub fn register(registry: &mut Registry) {
    registry.register(
        "whatsapp_build",
        "Version and commit of the running program",
        Info::new([("version", env!("CARGO_PKG_VERSION")), ("commit", COMMIT)]),
    );
    let version = Gauge::<i64>::default();
    version.set(entry::VERSION.into());
    registry.register(
        "whatsapp_entry_version",
        "Version of the stream's entries that the program writes, or the last that it reads",
        version,
    );
    let started = started().unwrap_or_default();
    registry.register_collector(Box::new(ProcessCollector { started }));
}

/// When this process was started, since 1970.
fn started() -> io::Result<Duration> {
    let up = fs::read_to_string("/proc/uptime")?;
    let up: f64 = first(&up).unwrap_or(0.0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let booted = now.unwrap_or_default().as_secs_f64() - up;
    let after = stat()?.get(19).copied().unwrap_or(0.0) / TICKS;
    Ok(Duration::from_secs_f64((booted + after).max(0.0)))
}

/// The numbers of `/proc/self/stat` from the third field on, whose text counts as 0.
fn stat() -> io::Result<Vec<f64>> {
    let text = fs::read_to_string("/proc/self/stat")?;
    // The second is the program's name in brackets, which may hold anything.
    let numbers = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let numbers = numbers.split_whitespace().map(|word| word.parse());
    Ok(numbers.map(|number| number.unwrap_or(0.0)).collect())
}

fn first(text: &str) -> Option<f64> {
    text.split_whitespace().next()?.parse().ok()
}

/// The number behind `key` in a file of lines.
fn number(text: &str, key: &str) -> Option<f64> {
    text.lines().find_map(|line| first(line.strip_prefix(key)?))
}

/// Reads `/proc` at each scrape.
#[derive(Debug)]
struct ProcessCollector {
    started: Duration,
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut gauge = |name, help, value: Option<f64>| {
            let Some(value) = value else { return Ok(()) };
            let gauge = ConstGauge::new(value);
            let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(metric)
        };
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let of_memory = |key| number(&status, key).map(|kib| kib * 1024.0);
        gauge(
            "process_resident_memory_bytes",
            "Memory that the process holds.",
            of_memory("VmRSS:"),
        )?;
        gauge(
            "process_virtual_memory_bytes",
            "Address space of the process.",
            of_memory("VmSize:"),
        )?;
        gauge(
            "process_threads",
            "Threads of the process.",
            number(&status, "Threads:"),
        )?;
        let open = fs::read_dir("/proc/self/fd").ok();
        gauge(
            "process_open_fds",
            "Files and sockets that are open.",
            open.map(|open| open.count() as f64),
        )?;
        gauge(
            "process_max_fds",
            "Files and sockets that may be open.",
            number(&limits, "Max open files"),
        )?;
        gauge(
            "process_start_time_seconds",
            "When the process was started, in seconds since 1970.",
            Some(self.started.as_secs_f64()),
        )?;
        let stat = stat().unwrap_or_default();
        let used: f64 = stat.iter().skip(11).take(2).sum();
        let used = ConstCounter::new(used / TICKS);
        let name = "process_cpu_seconds";
        let help = "Time that processors worked for the process.";
        used.encode(encoder.encode_descriptor(name, help, None, used.metric_type())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_tells_of_the_process_and_its_build() {
        let mut registry = Registry::default();
        register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("text");
        let value = |name: &str| {
            let found = number(&text, &format!("{name} "));
            found.unwrap_or_else(|| panic!("no {name} in\n{text}"))
        };
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_virtual_memory_bytes") > value("process_resident_memory_bytes"));
        assert!(value("process_threads") >= 1.0 && value("process_cpu_seconds_total") >= 0.0);
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_max_fds") > value("process_open_fds"));
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("a clock");
        let age = now.as_secs_f64() - value("process_start_time_seconds");
        assert!((-1.0..3600.0).contains(&age), "{age} s old");
        assert!(text.contains("whatsapp_build_info{version=\""), "{text}");
    }
}
