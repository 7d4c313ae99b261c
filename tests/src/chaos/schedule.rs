//! Which fault strikes when: all of it follows from the seed.

use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::neighbours::{Fault as Misbehaviour, Service};
use crate::proxy::Mode;

/// What is there to be hit.
#[derive(Debug, Clone, Copy)]
pub struct Targets {
    pub ingress: usize,
    pub workers: usize,
    pub redis_nodes: usize,
    pub rabbitmq_nodes: usize,
    /// Redis' files lie on a small disk of their own, which can be filled.
    pub small_disk: bool,
}

/// Something that faults happen to, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    Ingress(usize),
    Worker(usize),
    Redis(usize),
    RabbitMq(usize),
    Store,
    Link(Link),
    Neighbour(Service),
    /// All programs and servers.
    Everything,
}

/// A connection with a proxy in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Link {
    IngressToRedis,
    WorkersToRedis,
    WorkersToRabbitMq,
    ToStore,
    WorkersToGraph,
}

impl Link {
    pub const ALL: [Self; 5] = [
        Self::IngressToRedis,
        Self::WorkersToRedis,
        Self::WorkersToRabbitMq,
        Self::ToStore,
        Self::WorkersToGraph,
    ];
}

/// What happens to it. Everything heals after the planned time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// `kill -9`, started again afterwards with its data.
    Kill,
    /// SIGSTOP, then SIGCONT.
    Freeze,
    /// SIGTERM, started again afterwards.
    Terminate,
    /// Redis: `maxmemory` is what it has.
    NoMemory,
    /// RabbitMQ: the memory alarm.
    MemoryAlarm,
    /// Redis: its disk is full; it is started again when there is room.
    DiskFull,
    Network(Mode),
    Misbehave(Misbehaviour),
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Since the beginning
    pub at: Duration,
    pub target: Target,
    pub action: Action,
    pub lasts: Duration,
}

impl Planned {
    /// Whether an event may be published again because of it: what a worker has published may then
    /// be unknown to it, or to Redis.
    pub fn may_repeat(&self) -> bool {
        match self.target {
            Target::Worker(_) | Target::Redis(_) | Target::RabbitMq(_) | Target::Everything => true,
            Target::Link(link) => match link {
                Link::WorkersToRedis | Link::WorkersToRabbitMq => true,
                Link::IngressToRedis | Link::ToStore | Link::WorkersToGraph => false,
            },
            Target::Ingress(_) | Target::Store | Target::Neighbour(_) => false,
        }
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.target, self.action)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ingress(n) => write!(f, "ingress {}", n + 1),
            Self::Worker(n) => write!(f, "worker {}", n + 1),
            Self::Redis(n) => numbered(f, "Redis", *n),
            Self::RabbitMq(n) => numbered(f, "RabbitMQ", *n),
            Self::Store => f.write_str("store"),
            Self::Link(link) => write!(f, "{link}"),
            Self::Neighbour(service) => f.write_str(service.name()),
            Self::Everything => f.write_str("everything"),
        }
    }
}

/// The first one needs no number: mostly it is the only one.
fn numbered(f: &mut fmt::Formatter<'_>, name: &str, n: usize) -> fmt::Result {
    match n {
        0 => f.write_str(name),
        n => write!(f, "{name} {}", n + 1),
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IngressToRedis => "ingress→Redis",
            Self::WorkersToRedis => "workers→Redis",
            Self::WorkersToRabbitMq => "workers→RabbitMQ",
            Self::ToStore => "→store",
            Self::WorkersToGraph => "workers→Graph",
        })
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: &Duration| time.as_millis();
        match self {
            Self::Kill => f.write_str("killed"),
            Self::Freeze => f.write_str("frozen"),
            Self::Terminate => f.write_str("restarted"),
            Self::NoMemory => f.write_str("without memory"),
            Self::MemoryAlarm => f.write_str("in memory alarm"),
            Self::DiskFull => f.write_str("without disk"),
            Self::Misbehave(fault) => write!(f, "{fault}"),
            Self::Network(mode) => match mode {
                Mode::Pass => f.write_str("passes"),
                Mode::Refuse => f.write_str("refused"),
                Mode::Reset => f.write_str("reset"),
                Mode::Blackhole => f.write_str("half open"),
                Mode::HalfOpen => f.write_str("half open for good"),
                Mode::LoseAnswers => f.write_str("loses answers"),
                Mode::Slow(pause) => write!(f, "slow by {} ms", ms(pause)),
                Mode::Drip(pause) => write!(f, "drips a byte in {} ms", ms(pause)),
                Mode::CutRequestsAfter(bytes) => write!(f, "cut after {bytes} bytes of requests"),
                Mode::CutAnswersAfter(bytes) => write!(f, "cut after {bytes} bytes of answers"),
                Mode::Hold(_) => f.write_str("holds some requests"),
                Mode::Answer(_) | Mode::AnswerTo(..) => f.write_str("answers something else"),
            },
        }
    }
}

/// At most so many faults at once.
const AT_ONCE: usize = 3;
/// A target is left in peace for so long after a fault, so that something goes through it.
const PEACE: Duration = Duration::from_secs(3);
/// RabbitMQ takes seconds to start, and a queue declared just before a kill may be without a leader
/// for minutes.
const RABBITMQ_PEACE: Duration = Duration::from_secs(15);

/// The faults of a run, by when they strike.
pub fn schedule(seed: u64, length: Duration, targets: Targets) -> Vec<Planned> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut planned: Vec<Planned> = Vec::new();
    let mut at = Duration::from_millis(random.random_range(1000..2500));
    while at < length {
        let target = target(&mut random, targets);
        let action = action(&mut random, target, targets);
        let lasts = lasts(&mut random, length).min(length - at);
        let one = Planned {
            at,
            target,
            action,
            lasts,
        };
        if has_room(&planned, &one) {
            planned.push(one);
        }
        at += Duration::from_millis(random.random_range(200..2500));
    }
    planned
}

fn has_room(planned: &[Planned], one: &Planned) -> bool {
    let running = |other: &&Planned| other.at + other.lasts > one.at;
    let peace = match one.target {
        Target::RabbitMq(_) | Target::Everything => RABBITMQ_PEACE,
        _ => PEACE,
    };
    let disturbs = planned.iter().any(|other| {
        let same = other.target == one.target || other.target == Target::Everything;
        same && other.at + other.lasts + peace > one.at
    });
    !disturbs && planned.iter().filter(running).count() < AT_ONCE
}

fn target(random: &mut StdRng, targets: Targets) -> Target {
    match random.random_range(0..100) {
        0..28 => Target::Worker(random.random_range(0..targets.workers)),
        28..40 => Target::Ingress(random.random_range(0..targets.ingress)),
        40..54 => Target::Redis(one_of(random, targets.redis_nodes)),
        54..64 => Target::RabbitMq(one_of(random, targets.rabbitmq_nodes)),
        64..70 => Target::Store,
        70..90 => loop {
            let link = Link::ALL[random.random_range(0..Link::ALL.len())];
            // Clients of a cluster learn its nodes' own addresses, past the proxy.
            let past = matches!(link, Link::IngressToRedis | Link::WorkersToRedis);
            if !past || targets.redis_nodes == 1 {
                break Target::Link(link);
            }
        },
        90..98 => Target::Neighbour(Service::ALL[random.random_range(0..Service::ALL.len())]),
        _ => Target::Everything,
    }
}

/// Draws nothing where there is nothing to choose: a seed means the same with one node as ever.
fn one_of(random: &mut StdRng, nodes: usize) -> usize {
    match nodes {
        0 | 1 => 0,
        nodes => random.random_range(0..nodes),
    }
}

fn action(random: &mut StdRng, target: Target, targets: Targets) -> Action {
    let percent = random.random_range(0..100);
    match target {
        Target::Everything => Action::Kill,
        Target::Ingress(_) | Target::Worker(_) => match percent {
            0..50 => Action::Kill,
            50..85 => Action::Freeze,
            _ => Action::Terminate,
        },
        Target::Redis(_) => match percent {
            0..45 => Action::Kill,
            45..70 => Action::Freeze,
            70..85 => Action::NoMemory,
            _ if targets.small_disk => Action::DiskFull,
            _ => Action::Kill,
        },
        Target::RabbitMq(_) => match percent {
            0..40 => Action::Kill,
            40..70 => Action::Freeze,
            _ => Action::MemoryAlarm,
        },
        Target::Store => match percent {
            0..60 => Action::Kill,
            _ => Action::Freeze,
        },
        Target::Link(_) => Action::Network(mode(random, percent)),
        Target::Neighbour(_) => Action::Misbehave(match percent {
            0..30 => Misbehaviour::Status(503),
            30..50 => Misbehaviour::Hang,
            50..75 => Misbehaviour::Slow(Duration::from_millis(random.random_range(50..1500))),
            75..90 => Misbehaviour::Close,
            _ => Misbehaviour::Cut(random.random_range(1..40)),
        }),
    }
}

fn mode(random: &mut StdRng, percent: u32) -> Mode {
    match percent {
        0..15 => Mode::Refuse,
        15..30 => Mode::Reset,
        30..50 => Mode::Blackhole,
        50..65 => Mode::LoseAnswers,
        65..80 => Mode::Slow(Duration::from_millis(random.random_range(5..300))),
        80..85 => Mode::Drip(Duration::from_millis(random.random_range(1..50))),
        85..93 => Mode::CutRequestsAfter(random.random_range(1..20_000)),
        _ => Mode::CutAnswersAfter(random.random_range(1..5000)),
    }
}

/// Mostly short; where there is time, sometimes longer than any time-out.
fn lasts(random: &mut StdRng, length: Duration) -> Duration {
    let long = length > Duration::from_secs(90) && random.random_range(0..100) < 8;
    Duration::from_millis(if long {
        random.random_range(12_000..40_000)
    } else {
        random.random_range(200..5000)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: Targets = Targets {
        ingress: 2,
        workers: 3,
        redis_nodes: 1,
        rabbitmq_nodes: 1,
        small_disk: true,
    };
    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_seed_is_a_schedule() {
        assert_eq!(schedule(7, HOUR, TARGETS), schedule(7, HOUR, TARGETS));
        assert_ne!(schedule(7, HOUR, TARGETS), schedule(8, HOUR, TARGETS));
    }

    #[test]
    fn faults_overlap_but_never_on_one_target() {
        let planned = schedule(7, HOUR, TARGETS);
        let overlapping = |one: &Planned| {
            let others = planned.iter().filter(|other| *other != one);
            let others = others.filter(|other| other.at <= one.at);
            others
                .filter(|other| other.at + other.lasts > one.at)
                .count()
        };
        assert_eq!(planned.iter().map(overlapping).max(), Some(AT_ONCE - 1));
        for (n, one) in planned.iter().enumerate() {
            let later = planned[n + 1..].iter();
            let mut same = later.filter(|later| later.target == one.target);
            assert!(same.all(|later| later.at >= one.at + one.lasts + PEACE));
        }
    }

    #[test]
    fn an_hour_has_every_action() {
        let planned = schedule(7, HOUR, TARGETS);
        for action in [
            Action::Kill,
            Action::Freeze,
            Action::Terminate,
            Action::NoMemory,
            Action::MemoryAlarm,
            Action::DiskFull,
            Action::Network(Mode::Blackhole),
            Action::Network(Mode::LoseAnswers),
            Action::Misbehave(Misbehaviour::Hang),
        ] {
            assert!(planned.iter().any(|one| one.action == action), "{action}");
        }
        let targets: std::collections::BTreeSet<_> = planned.iter().map(|one| one.target).collect();
        assert_eq!(
            targets.len(),
            2 + 3 + 3 + Link::ALL.len() + Service::ALL.len() + 1
        );
    }
}
