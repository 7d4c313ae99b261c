//! What this machine is, and what a process on it has used, from Linux' `/proc`.

use std::collections::HashMap;
use std::fs;

use anyhow::Context;

/// User and system time of a process so far, in µs. A tick is 10 ms.
///
/// # Errors
/// There is no such process.
pub fn cpu_us(process: u32) -> anyhow::Result<f64> {
    Ok(Stat::of(process)?.cpu_us)
}

/// User and system time so far of all processes of these names that the program that started this one
/// has started, in µs: of the servers that `lab run` lends.
///
/// # Errors
/// There are none.
pub fn lent_cpu_us(names: &[&str]) -> anyhow::Result<f64> {
    let lender = Stat::of(std::process::id())?.parent;
    let stats: HashMap<u32, Stat> = fs::read_dir("/proc")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        // Others end meanwhile.
        .filter_map(|process| Some((process, Stat::of(process).ok()?)))
        .collect();
    let is_lent = |stat: &Stat| {
        let mut parents = std::iter::successors(Some(stat.parent), |parent| {
            stats.get(parent).map(|stat| stat.parent)
        });
        parents.any(|parent| parent == lender)
    };
    let named = stats.values().filter(|stat| names.contains(&&*stat.name));
    let lent: Vec<f64> = named
        .filter(|stat| is_lent(stat))
        .map(|stat| stat.cpu_us)
        .collect();
    anyhow::ensure!(!lent.is_empty(), "none of {names:?} runs");
    Ok(lent.iter().sum())
}

/// What `/proc/<process>/stat` says.
struct Stat {
    name: String,
    parent: u32,
    cpu_us: f64,
}

impl Stat {
    fn of(process: u32) -> anyhow::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).context("a process")?;
        let (before, after_name) = stat.rsplit_once(')').context("no name")?;
        let (_, name) = before.split_once('(').context("no name")?;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u32>().ok());
        let ticks = number(11).context("utime")? + number(12).context("stime")?;
        Ok(Self {
            name: name.to_owned(),
            parent: number(1).context("a parent")?,
            cpu_us: f64::from(ticks) * 10_000.0,
        })
    }
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
