//! What this machine is, and what a process on it has used, from Linux' `/proc`.

use std::fs;

use anyhow::Context;

/// User and system time of a process so far, in µs. A tick is 10 ms.
///
/// # Errors
/// There is no such process.
pub fn cpu_us(process: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).context("a process' times")?;
    let (_, after_name) = stat.rsplit_once(')').context("no name")?;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|ticks| ticks.parse::<f64>().ok());
    Ok((ticks(11).context("utime")? + ticks(12).context("stime")?) * 10_000.0)
}

/// Memory that a process has now, in MB.
///
/// # Errors
/// There is no such process.
pub fn memory_mb(process: u32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).context("its memory")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kb = line.and_then(|kb| kb.trim().trim_end_matches(" kB").parse::<f64>().ok());
    Ok(kb.context("VmRSS")? / 1024.0)
}

/// Cores, processor, memory and kernel, in a line.
pub fn description() -> String {
    let of = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.split_once(':'));
        value.map_or_else(String::new, |(_, value)| value.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let memory_kb = of("/proc/meminfo", "MemTotal");
    let memory_gb = memory_kb
        .trim_end_matches(" kB")
        .parse::<f64>()
        .map_or(0.0, |kb| (kb / f64::from(1 << 20)).round());
    format!(
        "{cores} cores of {}, {memory_gb} GB, Linux {}",
        of("/proc/cpuinfo", "model name"),
        kernel.trim()
    )
}
