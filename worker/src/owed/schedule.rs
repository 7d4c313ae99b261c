//! Which piece of one kind runs next: what is due, tenants in turn, and how long each waits that failed.
//! Nothing here knows Redis or a clock; times are Redis' (ms since 1970).

#![deny(clippy::wildcard_enum_match_arm)]

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Tries that a score holds. More don't make the pause longer.
const MOST_TRIES: u8 = 15;
/// Between tries of what an operator must mend.
const SELDOM: Duration = Duration::from_secs(300);

/// How much of a kind is done side by side and known, and how long its pieces wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct ScheduleLimits {
    /// Pieces in work, and of one tenant among them.
    pub at_once: usize,
    pub of_tenant: usize,
    /// Pieces known that are due, and of one tenant among them; those behind are looked up when these
    /// are done.
    pub known: usize,
    pub known_of_tenant: usize,
    /// A piece that failed: the first pause, and the longest.
    pub first_pause: Duration,
    pub longest_pause: Duration,
    /// Nobody answers: until one piece is tried, first and at most; for all of the kind, and for one tenant.
    pub away: Duration,
    pub longest_away: Duration,
    pub longest_away_of_tenant: Duration,
}

/// When a piece is due, and how often it was tried, as one number that sorts by time: ms, and sixteenths
/// that count the tries.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Score(pub f64);

impl Score {
    fn new(due_ms: u64, tries: u8) -> Self {
        Self(due_ms as f64 + f64::from(tries.min(MOST_TRIES)) / 16.0)
    }

    fn tries(self) -> u8 {
        (self.0.fract() * 16.0) as u8
    }
}

/// A piece that is due.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub text: Arc<str>,
    /// Whose share it takes: a tenant, a tenant's history, or the folder of an account without one.
    pub tenant: Arc<str>,
    pub tries: u8,
    /// From then on it runs whoever is away: it is its end.
    pub until_ms: Option<u64>,
    /// How many others had been answered when nobody answered for it.
    unanswered: Option<u64>,
}

impl Piece {
    pub(super) fn new(text: &str, tenant: &str, score: Score, until_ms: Option<u64>) -> Self {
        Self {
            text: text.into(),
            tenant: tenant.into(),
            tries: score.tries(),
            until_ms,
            unanswered: None,
        }
    }
}

/// What became of a piece that ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PieceOutcome {
    Done,
    /// Another piece has taken its place.
    Replaced,
    /// It wasn't owed any more.
    Gone,
    /// This one: another may still succeed. Not again before this pause is over.
    Failed(Duration),
    /// An operator must mend something.
    Seldom,
    /// The same, but it may be mended without anybody telling us. Not again before this pause is over.
    AwaitsOperator(Duration),
    /// Nobody answers.
    Away(Scope),
}

/// Whose pieces can't be done while nobody answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    Kind,
    Tenant,
}

/// What Redis has of a piece that ran.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Update {
    Done,
    Later(Score),
    /// It is as due as it was, and waits.
    Nothing,
}

/// While nobody answers one piece is tried at a time.
#[derive(Debug)]
struct Away {
    pause: Duration,
    until_ms: u64,
    probe: Option<Arc<str>>,
}

impl Away {
    fn lets(this: Option<&Self>, now_ms: u64) -> bool {
        this.is_none_or(|away| away.probe.is_none() && away.until_ms <= now_ms)
    }

    /// Nobody answered for `piece`. Those that were under way when that began change nothing.
    fn more(this: &mut Option<Self>, piece: &Piece, now_ms: u64, first: Duration, most: Duration) {
        let pause = match this {
            None => first,
            Some(away) if away.probe.as_ref() == Some(&piece.text) => (away.pause * 2).min(most),
            Some(_) => return,
        };
        *this = Some(Self {
            pause,
            until_ms: now_ms + pause.as_millis() as u64,
            probe: None,
        });
    }
}

#[derive(Debug, Default)]
struct TenantQueue {
    queue: VecDeque<Piece>,
    running: usize,
    away: Option<Away>,
}

impl TenantQueue {
    fn is_over(&self) -> bool {
        self.queue.is_empty() && self.running == 0
    }
}

/// The pieces of one kind that are due.
#[derive(Debug)]
pub(super) struct Schedule {
    limits: ScheduleLimits,
    tenants: HashMap<Arc<str>, TenantQueue>,
    /// Tenants with a queue, each once, in turn.
    turns: VecDeque<Arc<str>>,
    /// Queued, running, or ended and Redis doesn't know yet.
    in_hand: HashSet<Arc<str>>,
    queued: usize,
    running: usize,
    away: Option<Away>,
    /// Tenants of which more is due than is known.
    more_of: HashSet<Arc<str>>,
    /// Pieces that somebody answered for.
    answered: u64,
}

impl Schedule {
    pub(super) fn new(limits: ScheduleLimits) -> Self {
        Self {
            limits,
            tenants: HashMap::new(),
            turns: VecDeque::new(),
            in_hand: HashSet::new(),
            queued: 0,
            running: 0,
            away: None,
            more_of: HashSet::new(),
            answered: 0,
        }
    }

    /// Whether it helps to know of more that is due. While nobody answers it needs some to choose from, or
    /// one that is never answered for would be the only one that is tried.
    pub(super) fn wants_more(&self) -> bool {
        let wanted = match self.away {
            None => self.limits.known,
            Some(_) => self.limits.at_once,
        };
        self.queued < wanted
    }

    /// A tenant has nothing queued of which more was due than was taken in: all that is due must be looked
    /// up again.
    pub(super) fn lacks(&self) -> bool {
        let queue = |tenant| self.tenants.get(tenant).map_or(0, |it| it.queue.len());
        self.wants_more() && self.more_of.iter().any(|tenant| queue(tenant) == 0)
    }

    /// Nothing is queued, and nothing runs.
    pub(super) fn is_idle(&self) -> bool {
        self.tenants.is_empty()
    }

    /// All that is due will be found again.
    pub(super) fn begin_again(&mut self) {
        self.more_of.clear();
    }

    /// Takes in a piece that is due, once.
    pub(super) fn found(&mut self, piece: Piece) {
        if self.in_hand.contains(&piece.text) {
            return;
        }
        let tenant = self.tenants.entry(piece.tenant.clone()).or_default();
        if tenant.queue.len() >= self.limits.known_of_tenant {
            self.more_of.insert(piece.tenant);
            return;
        }
        self.in_hand.insert(piece.text.clone());
        self.queue(piece, VecDeque::push_back);
    }

    fn queue(&mut self, piece: Piece, push: impl FnOnce(&mut VecDeque<Piece>, Piece)) {
        let tenant = self.tenants.entry(piece.tenant.clone()).or_default();
        if tenant.queue.is_empty() {
            self.turns.push_back(piece.tenant.clone());
        }
        push(&mut tenant.queue, piece);
        self.queued += 1;
    }

    /// A piece to run now: of the next tenant whose turn it is.
    pub(super) fn take(&mut self, now_ms: u64) -> Option<Piece> {
        if self.running >= self.limits.at_once {
            return None;
        }
        for _ in 0..self.turns.len() {
            let name = self.turns.pop_front()?;
            let piece = self.take_of(&name, now_ms);
            if self
                .tenants
                .get(&name)
                .is_some_and(|it| !it.queue.is_empty())
            {
                self.turns.push_back(name);
            }
            if piece.is_some() {
                return piece;
            }
        }
        None
    }

    fn take_of(&mut self, name: &Arc<str>, now_ms: u64) -> Option<Piece> {
        let lets = Away::lets(self.away.as_ref(), now_ms);
        let tenant = self.tenants.get_mut(name)?;
        if tenant.running >= self.limits.of_tenant {
            return None;
        }
        let lets = lets && Away::lets(tenant.away.as_ref(), now_ms);
        let is_over = |piece: &Piece| piece.until_ms.is_some_and(|until| until <= now_ms);
        let piece = tenant.queue.pop_front_if(|piece| lets || is_over(piece))?;
        tenant.running += 1;
        self.running += 1;
        self.queued -= 1;
        if lets {
            for away in [&mut self.away, &mut tenant.away].into_iter().flatten() {
                away.probe = Some(piece.text.clone());
            }
        }
        Some(piece)
    }

    /// A piece was taken and could not be begun: it is the next one of its tenant.
    pub(super) fn give_back(&mut self, piece: Piece) {
        self.stopped(&piece);
        self.queue(piece, VecDeque::push_front);
    }

    /// It runs no more, and whoever waits for it as for a probe doesn't.
    fn stopped(&mut self, piece: &Piece) {
        self.running -= 1;
        let tenant = self.tenants.entry(piece.tenant.clone()).or_default();
        tenant.running -= 1;
        for away in [&mut self.away, &mut tenant.away].into_iter().flatten() {
            away.probe.take_if(|probe| *probe == piece.text);
        }
    }

    /// A piece has run. Unless it waits on, [`Self::is_recorded`] must follow.
    pub(super) fn ended(&mut self, mut piece: Piece, outcome: PieceOutcome, now_ms: u64) -> Update {
        let update = match outcome {
            PieceOutcome::Away(scope) => {
                self.nobody_answered(&piece, scope, now_ms);
                // Others were answered for since the last time: it is this piece.
                if piece
                    .unanswered
                    .is_some_and(|answered| answered < self.answered)
                {
                    Update::Later(self.pause(&piece, Duration::ZERO, now_ms))
                } else {
                    piece.unanswered = Some(self.answered);
                    Update::Nothing
                }
            }
            PieceOutcome::Done | PieceOutcome::Replaced | PieceOutcome::Gone => Update::Done,
            PieceOutcome::Failed(least) | PieceOutcome::AwaitsOperator(least) => {
                Update::Later(self.pause(&piece, least, now_ms))
            }
            PieceOutcome::Seldom => {
                let due_ms = now_ms + SELDOM.as_millis() as u64;
                Update::Later(Score::new(due_ms, piece.tries))
            }
        };
        self.stopped(&piece);
        if !matches!(outcome, PieceOutcome::Away(_) | PieceOutcome::Gone) {
            self.answered += 1;
            self.away = None;
            if let Some(tenant) = self.tenants.get_mut(&piece.tenant) {
                tenant.away = None;
            }
        }
        let name = piece.tenant.clone();
        if update == Update::Nothing {
            self.queue(piece, VecDeque::push_back);
        }
        if self.tenants.get(&name).is_some_and(TenantQueue::is_over) {
            self.tenants.remove(&name);
        }
        update
    }

    fn nobody_answered(&mut self, piece: &Piece, scope: Scope, now_ms: u64) {
        let limits = self.limits;
        let Some(tenant) = self.tenants.get_mut(&piece.tenant) else {
            return;
        };
        let (first, most) = (limits.away, limits.longest_away);
        // A probe of the whole kind that failed tells nothing good of the kind either.
        if scope == Scope::Kind || self.away.is_some() {
            Away::more(&mut self.away, piece, now_ms, first, most);
        }
        let most = limits.longest_away_of_tenant;
        if scope == Scope::Tenant || tenant.away.is_some() {
            Away::more(&mut tenant.away, piece, now_ms, first, most);
        }
    }

    /// When a piece that failed is due again: each time the pause is twice as long.
    fn pause(&self, piece: &Piece, least: Duration, now_ms: u64) -> Score {
        let limits = &self.limits;
        let doubled = limits
            .first_pause
            .saturating_mul(1 << piece.tries.min(MOST_TRIES));
        let pause = doubled.min(limits.longest_pause).max(least);
        Score::new(now_ms + pause.as_millis() as u64, piece.tries + 1)
    }

    /// Redis knows what became of a piece; once it is due again it may be found again.
    pub(super) fn is_recorded(&mut self, text: &str) {
        self.in_hand.remove(text);
    }

    /// When a piece may run that may not now because nobody answers.
    pub(super) fn wakes_at(&self) -> Option<u64> {
        if self.queued == 0 {
            return None;
        }
        let until = |away: &Away| away.probe.is_none().then_some(away.until_ms);
        match &self.away {
            Some(away) => until(away),
            None => {
                let waiting = self.turns.iter().filter_map(|it| self.tenants.get(it));
                waiting
                    .filter_map(|it| it.away.as_ref().and_then(until))
                    .min()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const LIMITS: ScheduleLimits = ScheduleLimits {
        at_once: 8,
        of_tenant: 6,
        known: 40,
        known_of_tenant: 10,
        first_pause: Duration::from_millis(500),
        longest_pause: Duration::from_secs(300),
        away: Duration::from_millis(100),
        longest_away: Duration::from_secs(5),
        longest_away_of_tenant: Duration::from_secs(15),
    };
    const NOW: u64 = 1_764_412_345_678;
    /// Pieces that one look brings.
    const PAGE: usize = 15;

    /// Redis and the worker, with pieces of tenants.
    struct Model {
        schedule: Schedule,
        /// Pieces by when they are due.
        list: BTreeMap<String, f64>,
        /// Up to where the list is known.
        cursor: (f64, String),
        running: Vec<Piece>,
        now_ms: u64,
        ran: Vec<String>,
        written: usize,
    }

    fn tenant_of(text: &str) -> &str {
        text.split('-').next().unwrap_or_default()
    }

    impl Model {
        fn new() -> Self {
            Self {
                schedule: Schedule::new(LIMITS),
                list: BTreeMap::new(),
                cursor: Default::default(),
                running: Vec::new(),
                now_ms: NOW,
                ran: Vec::new(),
                written: 0,
            }
        }

        fn owe(&mut self, tenant: usize, n: usize) {
            let piece = format!("t{tenant}-{n}");
            self.now_ms += 1;
            self.list.insert(piece, self.now_ms as f64);
        }

        /// What is due is looked up from where the last look ended, and all of it where that is wanted.
        fn look(&mut self) {
            if self.schedule.lacks() {
                self.schedule.begin_again();
                self.cursor = Default::default();
            }
            let now = self.now_ms as f64;
            let mut due: Vec<_> = self.list.iter().map(|(text, at)| (*at, text)).collect();
            due.retain(|(at, text)| *at <= now && (*at, *text) > (self.cursor.0, &self.cursor.1));
            due.sort_by(|one, other| one.0.total_cmp(&other.0));
            for page in due.chunks(PAGE) {
                if !self.schedule.wants_more() {
                    return;
                }
                for (at, text) in page {
                    let piece = Piece::new(text, tenant_of(text), Score(*at), None);
                    self.schedule.found(piece);
                    self.cursor = (*at, (*text).clone());
                }
            }
        }

        /// Another owner begins anew.
        fn take_over(&mut self) {
            self.schedule = Schedule::new(LIMITS);
            self.cursor = Default::default();
            self.running.clear();
        }

        /// Nothing runs, and something waits: at the time that is told, or soon behind it, it may run.
        fn sleep(&mut self) {
            if !self.running.is_empty() || self.schedule.queued == 0 {
                return;
            }
            for _ in 0..200 {
                if self.take() {
                    return;
                }
                let wakes_at = self.schedule.wakes_at().expect("what waits is woken");
                self.now_ms = wakes_at.max(self.now_ms + 100);
            }
            panic!("what waits never runs");
        }

        fn nothing_may_run(&self) {
            let (schedule, now) = (&self.schedule, self.now_ms);
            let may = |it: &TenantQueue| {
                let lets = |away: &Option<Away>| Away::lets(away.as_ref(), now);
                let waits = !it.queue.is_empty() && it.running < LIMITS.of_tenant;
                waits && lets(&schedule.away) && lets(&it.away)
            };
            let all = self.running.len() == LIMITS.at_once;
            assert!(all || !schedule.tenants.values().any(may), "one may run");
        }

        /// The first of those that run ends.
        fn end_first(&mut self, outcome: PieceOutcome) {
            let piece = self.running.remove(0);
            self.end(piece, outcome);
        }

        fn adds_up(&self) {
            let schedule = &self.schedule;
            let queued = |it: &TenantQueue| it.queue.len();
            let all_queued: usize = schedule.tenants.values().map(queued).sum();
            let running = schedule.tenants.values().map(|it| it.running).sum();
            assert_eq!((schedule.queued, schedule.running), (all_queued, running));
            assert_eq!(self.running.len(), running);
            assert_eq!(schedule.in_hand.len(), all_queued + running);
            assert_eq!(schedule.is_idle(), schedule.in_hand.is_empty());
            assert_eq!(schedule.wakes_at().filter(|_| all_queued == 0), None);
            for tenant in schedule.tenants.values() {
                assert!(tenant.running <= LIMITS.of_tenant);
                assert!(queued(tenant) <= LIMITS.known_of_tenant + LIMITS.of_tenant);
            }
            let turns: HashSet<_> = schedule.turns.iter().collect();
            let waiting = schedule.tenants.values().filter(|it| queued(it) > 0);
            assert_eq!(
                (turns.len(), schedule.turns.len()),
                (waiting.count(), turns.len())
            );
        }

        fn take(&mut self) -> bool {
            let Some(piece) = self.schedule.take(self.now_ms) else {
                self.nothing_may_run();
                return false;
            };
            let twice = self.running.iter().any(|other| other.text == piece.text);
            assert!(!twice, "no piece runs twice at once");
            assert!(self.list[&*piece.text] <= self.now_ms as f64, "it is due");
            self.ran.push(piece.text.to_string());
            self.running.push(piece);
            true
        }

        fn end(&mut self, piece: Piece, outcome: PieceOutcome) {
            let text = piece.text.clone();
            match self.schedule.ended(piece, outcome, self.now_ms) {
                Update::Nothing => return,
                Update::Done => drop(self.list.remove(&*text)),
                Update::Later(score) => {
                    self.written += 1;
                    let least = match outcome {
                        PieceOutcome::Failed(least) | PieceOutcome::AwaitsOperator(least) => least,
                        PieceOutcome::Seldom => SELDOM,
                        PieceOutcome::Away(_) => LIMITS.first_pause,
                        PieceOutcome::Done | PieceOutcome::Replaced | PieceOutcome::Gone => {
                            panic!("it is over")
                        }
                    };
                    let pause = score.0 - self.now_ms as f64;
                    assert!(pause >= least.as_millis() as f64, "too soon: {pause}");
                    let longest = LIMITS.longest_pause.max(least);
                    assert!(
                        pause < longest.as_millis() as f64 + 1.0,
                        "too late: {pause}"
                    );
                    self.list.insert(text.to_string(), score.0);
                }
            }
            self.schedule.is_recorded(&text);
        }

        fn step(&mut self, n: usize, step: Step) {
            match step {
                Step::Owe(tenant) => self.owe(tenant, n),
                Step::Look => self.look(),
                Step::Take => drop(self.take()),
                Step::End(at, outcome) if at < self.running.len() => {
                    let piece = self.running.swap_remove(at);
                    self.end(piece, outcome);
                }
                Step::End(..) => {}
                Step::GiveBack => {
                    if let Some(piece) = self.running.pop() {
                        let text = piece.text.clone();
                        self.schedule.give_back(piece);
                        let next = &self.schedule.tenants[tenant_of(&text)].queue[0];
                        assert_eq!(next.text, text, "the next one of its tenant");
                    }
                }
                Step::Wait(ms) => self.now_ms += ms,
                Step::Sleep => self.sleep(),
                Step::TakeOver => self.take_over(),
            }
        }

        /// Until nothing runs and nothing may.
        fn run(&mut self, mut outcome: impl FnMut(&Piece) -> PieceOutcome) {
            for _ in 0..1000 {
                self.look();
                while self.take() {}
                if self.running.is_empty() {
                    return;
                }
                for piece in std::mem::take(&mut self.running) {
                    let outcome = outcome(&piece);
                    self.end(piece, outcome);
                }
            }
            panic!("it never ends");
        }
    }

    fn outcome() -> impl Strategy<Value = PieceOutcome> {
        prop_oneof![
            Just(PieceOutcome::Done),
            Just(PieceOutcome::Replaced),
            Just(PieceOutcome::Gone),
            Just(PieceOutcome::Failed(Duration::ZERO)),
            Just(PieceOutcome::AwaitsOperator(Duration::from_secs(400))),
            Just(PieceOutcome::Failed(Duration::from_secs(7))),
            Just(PieceOutcome::Seldom),
            Just(PieceOutcome::Away(Scope::Kind)),
            Just(PieceOutcome::Away(Scope::Tenant)),
        ]
    }

    #[derive(Debug, Clone)]
    enum Step {
        Owe(usize),
        Look,
        Take,
        End(usize, PieceOutcome),
        GiveBack,
        Wait(u64),
        Sleep,
        TakeOver,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..4_usize).prop_map(Step::Owe),
            2 => Just(Step::Look),
            4 => Just(Step::Take),
            4 => (0..8_usize, outcome()).prop_map(|(n, outcome)| Step::End(n, outcome)),
            1 => Just(Step::GiveBack),
            2 => (0..20_000_u64).prop_map(Step::Wait),
            1 => Just(Step::Sleep),
            1 => Just(Step::TakeOver),
        ]
    }

    proptest! {
        /// Whatever happens, each piece is done in the end, and none runs twice at once or before it is due.
        #[test]
        fn every_piece_is_done_in_the_end(steps in prop::collection::vec(step(), 0..200)) {
            let mut model = Model::new();
            for (n, step) in steps.into_iter().enumerate() {
                model.step(n, step);
                model.adds_up();
                prop_assert!(model.running.len() <= LIMITS.at_once);
            }
            for piece in std::mem::take(&mut model.running) {
                model.end(piece, PieceOutcome::Away(Scope::Kind));
            }
            for _ in 0..10 {
                model.now_ms += 600_000;
                model.run(|_| PieceOutcome::Done);
            }
            prop_assert!(model.list.is_empty(), "{:?}", model.list);
            prop_assert!(model.schedule.in_hand.is_empty());
            prop_assert!(model.schedule.tenants.is_empty() && !model.schedule.lacks());
        }

        /// What is due and was left out, since so much of its tenant was known, is looked up again as soon
        /// as that is done.
        #[test]
        fn all_that_is_due_is_done_at_once(count in 1..200_usize, tenants in 1..4_usize) {
            let mut model = Model::new();
            (0..count).for_each(|n| model.owe(n % tenants, n));
            model.run(|_| PieceOutcome::Done);
            prop_assert!(model.list.is_empty(), "{:?}", model.list);
            prop_assert_eq!(model.ran.len(), count);
            prop_assert!(!model.schedule.lacks());
        }

        /// However much one tenant owes, each other's next piece runs within a round of turns.
        #[test]
        fn tenants_take_turns(much in 20..300_usize, others in 1..5_usize) {
            let mut model = Model::new();
            (0..much).for_each(|n| model.owe(0, n));
            model.now_ms += 1;
            (1..=others).for_each(|tenant| model.owe(tenant, 0));
            model.look();
            while model.take() {}
            let ran = |tenant: usize| model.ran.iter().any(|text| *text == format!("t{tenant}-0"));
            prop_assert!((1..=others).all(ran), "{:?}", model.ran);
            prop_assert_eq!(model.ran.len(), LIMITS.at_once.min(LIMITS.of_tenant + others));
        }

        /// While nobody answers, one piece is tried at a time, ever more seldom, whatever is owed, and
        /// Redis is told nothing.
        #[test]
        fn while_nobody_answers_one_piece_is_tried(count in 10..200_usize, tenants in 1..5_usize) {
            let mut model = Model::new();
            (0..count).for_each(|n| model.owe(n % tenants, n));
            model.run(|_| PieceOutcome::Away(Scope::Kind));
            let tried = model.ran.len();
            prop_assert!(tried <= LIMITS.at_once);
            for _ in 0..3600 {
                model.now_ms += 1000;
                model.look();
                let runs = model.take();
                prop_assert!(!model.take());
                if runs && let Some(piece) = model.running.pop() {
                    model.end(piece, PieceOutcome::Away(Scope::Kind));
                }
            }
            prop_assert!(model.ran.len() - tried <= 3600 / 5 + 10);
            prop_assert_eq!(model.written, 0);
            // As soon as it is tried again and answered, all is done.
            model.now_ms += LIMITS.longest_away.as_millis() as u64;
            model.run(|_| PieceOutcome::Done);
            prop_assert!(model.list.is_empty(), "{:?}", model.list);
        }

        /// A tenant for which nobody answers is tried one piece at a time; all others' are done.
        #[test]
        fn others_go_on_while_nobody_answers_for_a_tenant(count in 10..100_usize) {
            let mut model = Model::new();
            (0..count).for_each(|n| model.owe(n % 3, n));
            for _ in 0..100 {
                model.now_ms += 1000;
                model.run(|piece| match &*piece.tenant {
                    "t0" => PieceOutcome::Away(Scope::Tenant),
                    _ => PieceOutcome::Done,
                });
            }
            let left = model.list.keys().all(|text| tenant_of(text) == "t0");
            prop_assert!(left, "{:?}", model.list);
            let tries = model.ran.iter().filter(|text| tenant_of(text) == "t0").count();
            prop_assert!(tries <= LIMITS.of_tenant + 20, "{tries}");
            model.now_ms += LIMITS.longest_away_of_tenant.as_millis() as u64;
            model.run(|_| PieceOutcome::Done);
            prop_assert!(model.list.is_empty(), "{:?}", model.list);
        }
    }

    #[test]
    fn tenants_go_in_the_order_in_which_they_came() {
        let mut model = Model::new();
        (0..4).for_each(|tenant| model.owe(tenant, 0));
        model.look();
        while model.take() {}
        assert_eq!(model.ran, ["t0-0", "t1-0", "t2-0", "t3-0"]);
    }

    const FIRST: u64 = LIMITS.away.as_millis() as u64;

    /// Those that were under way when that began change nothing.
    #[test]
    fn the_first_pause_is_as_long_however_many_get_no_answer() {
        for scope in [Scope::Kind, Scope::Tenant] {
            let mut model = Model::new();
            (0..5).for_each(|n| model.owe(0, n));
            model.look();
            while model.take() {}
            (0..4).for_each(|_| model.end_first(PieceOutcome::Away(scope)));
            assert!(!model.take());
            assert_eq!(model.schedule.wakes_at(), Some(model.now_ms + FIRST));
            model.now_ms += FIRST;
            assert!(model.take(), "one is tried");
            model.end_first(PieceOutcome::Away(scope));
            assert!(!model.take(), "and no other beside it");
            model.end_first(PieceOutcome::Away(scope));
            assert_eq!(model.schedule.wakes_at(), Some(model.now_ms + 2 * FIRST));
        }
    }

    #[test]
    fn once_the_piece_that_is_tried_is_answered_all_others_run() {
        for scope in [Scope::Kind, Scope::Tenant] {
            let mut model = Model::new();
            (0..6).for_each(|n| model.owe(0, n));
            model.run(|_| PieceOutcome::Away(scope));
            model.now_ms += FIRST;
            assert!(model.take() && !model.take());
            model.end_first(PieceOutcome::Done);
            while model.take() {}
            assert_eq!(model.running.len(), 5);
        }
    }

    #[test]
    fn a_piece_that_waits_alone_is_woken() {
        let mut model = Model::new();
        model.owe(0, 0);
        model.run(|_| PieceOutcome::Away(Scope::Kind));
        assert_eq!(model.schedule.wakes_at(), Some(model.now_ms + FIRST));
    }

    #[test]
    fn a_tenant_that_gets_no_answer_holds_no_other_up() {
        let mut model = Model::new();
        (0..2).for_each(|tenant| model.owe(tenant, 0));
        model.look();
        while model.take() {}
        model.end_first(PieceOutcome::Away(Scope::Tenant));
        let began = model.now_ms;
        model.owe(2, 0);
        model.look();
        assert!(model.take(), "another tenant's runs at once");
        model.end_first(PieceOutcome::Away(Scope::Tenant));
        assert_eq!(model.schedule.wakes_at(), Some(began + FIRST));
    }

    /// Whoever it is for whom nobody answers: what tried both waits for both.
    #[test]
    fn a_try_that_fails_lengthens_each_pause_that_it_tried_to_end() {
        let mut model = Model::new();
        model.owe(0, 0);
        model.run(|_| PieceOutcome::Away(Scope::Kind));
        model.now_ms += FIRST;
        assert!(model.take());
        model.end_first(PieceOutcome::Away(Scope::Tenant));
        assert_eq!(model.schedule.wakes_at(), Some(model.now_ms + 2 * FIRST));

        let mut model = Model::new();
        model.owe(0, 0);
        model.run(|_| PieceOutcome::Away(Scope::Tenant));
        model.now_ms += FIRST;
        assert!(model.take());
        model.end_first(PieceOutcome::Away(Scope::Kind));
        let until = model.now_ms + 2 * FIRST;
        model.owe(1, 0);
        model.now_ms += FIRST;
        model.look();
        assert!(model.take());
        model.end_first(PieceOutcome::Done);
        assert_eq!(model.schedule.wakes_at(), Some(until));
    }

    #[test]
    fn more_of_a_tenant_is_looked_up_when_nothing_of_it_waits() {
        let mut schedule = Schedule::new(LIMITS);
        let find = |schedule: &mut Schedule, tenant: usize, n: usize| {
            let text = format!("t{tenant}-{n}");
            schedule.found(Piece::new(&text, tenant_of(&text), Score(0.0), None));
        };
        (0..=LIMITS.known_of_tenant).for_each(|n| find(&mut schedule, 0, n));
        assert_eq!(schedule.queued, LIMITS.known_of_tenant);
        assert!(!schedule.lacks());
        let take = |schedule: &mut Schedule| {
            let piece = schedule.take(NOW)?;
            schedule.ended(piece.clone(), PieceOutcome::Done, NOW);
            schedule.is_recorded(&piece.text);
            Some(())
        };
        (1..LIMITS.known_of_tenant).for_each(|_| take(&mut schedule).expect("it waits"));
        assert!(!schedule.lacks());
        let last = schedule.take(NOW).expect("it waits");
        assert!(schedule.lacks(), "the last one runs");
        schedule.ended(last, PieceOutcome::Done, NOW);
        (0..LIMITS.known).for_each(|n| find(&mut schedule, 1 + n / LIMITS.known_of_tenant, n));
        assert!(
            !schedule.wants_more() && !schedule.lacks(),
            "all places are taken"
        );
        take(&mut schedule).expect("it waits");
        assert!(schedule.wants_more() && schedule.lacks());
        schedule.begin_again();
        assert!(!schedule.lacks());
    }

    /// It looks as if nobody answered, again and again, and others are answered: it waits ever longer.
    #[test]
    fn a_piece_that_is_never_answered_for_holds_others_up_less_and_less() {
        let mut model = Model::new();
        model.owe(0, 0);
        for n in 1..3600 {
            model.owe(0, n);
            model.now_ms += 1000;
            model.run(|piece| match &*piece.text {
                "t0-0" => PieceOutcome::Away(Scope::Kind),
                _ => PieceOutcome::Done,
            });
        }
        let tries = model.ran.iter().filter(|text| *text == "t0-0").count();
        assert!(tries < 100, "{tries}");
        assert!(model.list.len() < 10);
    }

    #[test]
    fn the_pause_of_a_piece_grows_up_to_its_longest() {
        let mut model = Model::new();
        model.owe(0, 0);
        let mut pauses = Vec::new();
        for _ in 0..20 {
            model.run(|_| PieceOutcome::Failed(Duration::ZERO));
            let due_ms = model.list["t0-0"] as u64;
            pauses.push(due_ms - model.now_ms);
            // A takeover finds the schedule as it was.
            model.take_over();
            model.now_ms = due_ms + 1;
        }
        assert_eq!(pauses[..4], [500, 1000, 2000, 4000]);
        assert_eq!(pauses[19], 300_000);
        assert!(pauses.is_sorted());
    }

    /// What ends at a time ends then, however long nobody answers.
    #[test]
    fn a_piece_whose_time_is_over_runs_whoever_is_away() {
        let mut schedule = Schedule::new(LIMITS);
        for (text, until_ms) in [("a", None), ("b", Some(NOW + 5000))] {
            schedule.found(Piece::new(text, text, Score(0.0), until_ms));
        }
        let first = [schedule.take(NOW), schedule.take(NOW)];
        for piece in first.into_iter().flatten() {
            schedule.ended(piece, PieceOutcome::Away(Scope::Kind), NOW);
        }
        assert!(schedule.take(NOW + 50).is_none());
        let probe = schedule.take(NOW + 5000).map(|piece| piece.text);
        let over = schedule.take(NOW + 5000).map(|piece| piece.text);
        assert!(probe.is_some());
        assert_eq!(over.or(probe).as_deref(), Some("b"));
    }
}
