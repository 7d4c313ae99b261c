//! A circuit breaker: stops asking a neighbour that mostly fails, and tries with one call at a time
//! whether it is well again. It only counts and decides; the calls are [`crate::ask::neighbour`]'s.
//!
//! Each call is about somebody, its *subject*: an account, or a tenant. A neighbour may fail for one of
//! them alone (its data are damaged, its token is odd), so each subject has a circuit of its own, and
//! the one for all opens only when every subject heard of lately fails. Even then calls about a subject
//! that doesn't fail are let through: the failures of others are no verdict about it.

#![deny(clippy::wildcard_enum_match_arm)]

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::metrics::neighbours::BreakerState;

/// Calls older than this don't count.
const WINDOW: Duration = Duration::from_secs(10);
/// Calls are counted together by this much time.
const SLICE: Duration = Duration::from_secs(1);
/// Fewer calls than this in the window prove nothing.
const LEAST_CALLS: u32 = 5;
/// From this share of failed calls on a subject fails.
const FAILED_PERCENT: u32 = 50;
/// How long nothing is asked.
const OPEN_FOR: Duration = Duration::from_secs(5);
/// Subjects that are counted; calls about others count for nobody while there are so many.
const MOST_SUBJECTS: usize = 4096;

/// What a call said about the neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallOutcome {
    Healthy,
    Unhealthy,
    /// It was given up before it ended.
    Inconclusive,
}

/// A call that was let through. Its end must be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdmittedCall {
    way: AdmittedAs,
    /// It finds out whether the neighbour is well again for its subject.
    probes_own: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AdmittedAs {
    Normal,
    /// The one call that finds out whether the neighbour is well again.
    Probe,
    /// A call about a subject that doesn't fail, while all others do.
    Trial,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Circuit {
    Closed,
    Open { until: Instant },
    HalfOpen { probing: bool },
}

impl Circuit {
    fn opened(now: Instant) -> Self {
        Self::Open {
            until: now + OPEN_FOR,
        }
    }

    fn refuses(self, now: Instant) -> bool {
        match self {
            Self::Closed => false,
            Self::Open { until } => now < until,
            Self::HalfOpen { probing } => probing,
        }
    }

    /// Takes in a call that isn't refused; whether it is the probe.
    fn take(&mut self) -> bool {
        let probes = *self != Self::Closed;
        if probes {
            *self = Self::HalfOpen { probing: true };
        }
        probes
    }

    fn after_probe(now: Instant, outcome: CallOutcome) -> Self {
        match outcome {
            CallOutcome::Healthy => Self::Closed,
            CallOutcome::Unhealthy => Self::opened(now),
            CallOutcome::Inconclusive => Self::HalfOpen { probing: false },
        }
    }
}

#[derive(Debug)]
struct TimeSlice {
    from: Instant,
    calls: u32,
    failed: u32,
}

/// What is known of one subject.
#[derive(Debug)]
struct Subject {
    circuit: Circuit,
    slices: VecDeque<TimeSlice>,
}

impl Default for Subject {
    fn default() -> Self {
        Self {
            circuit: Circuit::Closed,
            slices: VecDeque::new(),
        }
    }
}

impl Subject {
    fn count(&mut self, now: Instant, failed: bool) {
        match self.slices.back_mut() {
            Some(slice) if now.duration_since(slice.from) < SLICE => {
                slice.calls += 1;
                slice.failed += u32::from(failed);
            }
            Some(_) | None => self.slices.push_back(TimeSlice {
                from: now,
                calls: 1,
                failed: u32::from(failed),
            }),
        }
    }

    /// Calls of the window, and how many of them failed.
    fn counted(&mut self, now: Instant) -> (u32, u32) {
        let old = |slice: &TimeSlice| now.duration_since(slice.from) >= WINDOW;
        while self.slices.front().is_some_and(old) {
            self.slices.pop_front();
        }
        let counted = self.slices.iter();
        counted.fold((0, 0), |(calls, failed), slice| {
            (calls + slice.calls, failed + slice.failed)
        })
    }

    fn fails(&mut self, now: Instant) -> bool {
        let (calls, failed) = self.counted(now);
        let mostly = failed > 0 && failed * 100 >= calls * FAILED_PERCENT;
        mostly || self.circuit != Circuit::Closed
    }

    /// Whether it is heard of in the window, or would be if it weren't left alone.
    fn counts(&mut self, now: Instant) -> bool {
        let left_alone = match self.circuit {
            Circuit::Closed => false,
            Circuit::Open { until } => now < until,
            Circuit::HalfOpen { probing } => probing,
        };
        left_alone || self.counted(now).0 > 0
    }
}

/// The breaker of one neighbour.
#[derive(Debug)]
pub struct Breaker {
    all: Circuit,
    subjects: HashMap<String, Subject>,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            all: Circuit::Closed,
            subjects: HashMap::new(),
        }
    }
}

impl Breaker {
    /// Of the circuit for all.
    pub fn state(&self) -> BreakerState {
        match self.all {
            Circuit::Closed => BreakerState::Closed,
            Circuit::Open { .. } => BreakerState::Open,
            Circuit::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Whether the next call about a subject would be refused.
    pub fn refuses(&mut self, now: Instant, subject: &str) -> bool {
        let Some(known) = self.subjects.get_mut(subject) else {
            return false;
        };
        known.circuit.refuses(now) || (known.fails(now) && self.all.refuses(now))
    }

    /// Lets a call about a subject through, or not.
    pub fn admit(&mut self, now: Instant, subject: &str) -> Option<AdmittedCall> {
        if self.refuses(now, subject) {
            return None;
        }
        let known = self.subjects.get_mut(subject);
        let (fails, probes_own) = match known {
            Some(known) => (known.fails(now), known.circuit.take()),
            None => (false, false),
        };
        let way = match self.all {
            Circuit::Closed => AdmittedAs::Normal,
            Circuit::Open { .. } | Circuit::HalfOpen { .. } if !fails => AdmittedAs::Trial,
            Circuit::Open { .. } | Circuit::HalfOpen { .. } => {
                self.all.take();
                AdmittedAs::Probe
            }
        };
        Some(AdmittedCall { way, probes_own })
    }

    /// A call that was let through has ended; whether its subject is left alone from now on, and was
    /// not before.
    pub fn ended(
        &mut self,
        now: Instant,
        subject: &str,
        admitted: AdmittedCall,
        outcome: CallOutcome,
    ) -> bool {
        match admitted.way {
            AdmittedAs::Normal => {}
            AdmittedAs::Probe => {
                self.all = Circuit::after_probe(now, outcome);
                if self.all == Circuit::Closed {
                    // What failed with all others is well with them.
                    self.subjects.clear();
                }
            }
            AdmittedAs::Trial if outcome == CallOutcome::Healthy => self.all = Circuit::Closed,
            AdmittedAs::Trial => {}
        }
        let Some(known) = self.known(now, subject) else {
            return false;
        };
        if admitted.probes_own && known.circuit != Circuit::Closed {
            known.circuit = Circuit::after_probe(now, outcome);
        }
        // What began before its circuit opened says nothing new.
        let counts = admitted.probes_own || known.circuit == Circuit::Closed;
        if outcome == CallOutcome::Inconclusive || !counts {
            return false;
        }
        known.count(now, outcome == CallOutcome::Unhealthy);
        if outcome == CallOutcome::Healthy {
            return false;
        }
        let opens = known.circuit == Circuit::Closed
            && known.counted(now).0 >= LEAST_CALLS
            && known.fails(now);
        if opens {
            known.circuit = Circuit::opened(now);
        }
        if self.all == Circuit::Closed && self.all_fail(now) {
            self.all = Circuit::opened(now);
        }
        opens
    }

    /// What is known of a subject; `None` if it would be one too many.
    fn known(&mut self, now: Instant, subject: &str) -> Option<&mut Subject> {
        if self.subjects.len() >= MOST_SUBJECTS && !self.subjects.contains_key(subject) {
            self.subjects.retain(|_, known| known.counts(now));
            if self.subjects.len() >= MOST_SUBJECTS {
                return None;
            }
        }
        Some(self.subjects.entry(subject.to_owned()).or_default())
    }

    /// Whether every subject heard of lately fails, in enough calls.
    fn all_fail(&mut self, now: Instant) -> bool {
        let mut calls = 0;
        for subject in self.subjects.values_mut() {
            if subject.counts(now) {
                if !subject.fails(now) {
                    return false;
                }
                calls += subject.counted(now).0;
            }
        }
        calls >= LEAST_CALLS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(breaker: &mut Breaker, now: Instant, subject: &str, outcome: CallOutcome) {
        let admitted = breaker.admit(now, subject).expect("let through");
        breaker.ended(now, subject, admitted, outcome);
    }

    fn fail(breaker: &mut Breaker, now: Instant, subject: &str) {
        for _ in 0..LEAST_CALLS {
            call(breaker, now, subject, CallOutcome::Unhealthy);
        }
    }

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        fail(&mut breaker, now, "a");
        breaker
    }

    #[test]
    fn it_opens_when_half_of_enough_recent_calls_failed() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..LEAST_CALLS - 1 {
            call(&mut breaker, now, "a", CallOutcome::Unhealthy);
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
        // Those are forgotten.
        let later = now + WINDOW;
        let (well, unwell) = (CallOutcome::Healthy, CallOutcome::Unhealthy);
        for seen in [well, well, well, unwell, unwell] {
            call(&mut breaker, later, "a", seen);
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
        call(&mut breaker, later + SLICE, "a", CallOutcome::Unhealthy);
        assert!(breaker.admit(later + SLICE, "a").is_none());
    }

    #[test]
    fn one_call_finds_out_whether_the_neighbour_is_well() {
        let now = Instant::now();
        let mut breaker = opened(now);
        let late = now + OPEN_FOR;
        let probe = breaker.admit(late, "a").expect("the probe");
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert_eq!(breaker.admit(late, "a"), None);
        breaker.ended(late, "a", probe, CallOutcome::Unhealthy);
        assert_eq!(breaker.state(), BreakerState::Open);
        assert_eq!(breaker.admit(late, "a"), None);
        let later = late + OPEN_FOR;
        call(&mut breaker, later, "a", CallOutcome::Healthy);
        assert_eq!(breaker.state(), BreakerState::Closed);
        call(&mut breaker, later, "a", CallOutcome::Healthy);
    }

    #[test]
    fn a_probe_that_was_given_up_leaves_its_place_to_the_next() {
        let now = Instant::now();
        let mut breaker = opened(now);
        let late = now + OPEN_FOR;
        call(&mut breaker, late, "a", CallOutcome::Inconclusive);
        let next = breaker.admit(late, "a");
        assert!(next.is_some_and(|next| next.way == AdmittedAs::Probe && next.probes_own));
    }

    #[test]
    fn a_call_from_before_it_opened_changes_nothing() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        let old = breaker.admit(now, "a").expect("let through");
        fail(&mut breaker, now, "a");
        breaker.ended(now, "a", old, CallOutcome::Healthy);
        assert_eq!(breaker.state(), BreakerState::Open);
    }

    #[test]
    fn one_of_several_subjects_that_fails_is_left_alone_by_itself() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for well in ["b", "c"] {
            call(&mut breaker, now, well, CallOutcome::Healthy);
        }
        fail(&mut breaker, now, "a");
        assert_eq!(breaker.state(), BreakerState::Closed);
        assert_eq!(breaker.admit(now, "a"), None);
        for other in ["b", "c", "d"] {
            call(&mut breaker, now, other, CallOutcome::Healthy);
        }
        // Nor do further ones take the others with them.
        fail(&mut breaker, now, "e");
        assert_eq!(breaker.state(), BreakerState::Closed);
        let late = now + OPEN_FOR;
        call(&mut breaker, late, "a", CallOutcome::Healthy);
        call(&mut breaker, late, "a", CallOutcome::Healthy);
    }

    #[test]
    fn a_subject_that_has_not_failed_is_let_through_whatever_others_do() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for other in ["a", "b", "c", "a", "b"] {
            call(&mut breaker, now, other, CallOutcome::Unhealthy);
        }
        assert_eq!(breaker.state(), BreakerState::Open);
        assert_eq!(breaker.admit(now, "c"), None);
        let both = ["new", "newer"].map(|new| breaker.admit(now, new).expect("let through"));
        breaker.ended(now, "newer", both[1], CallOutcome::Unhealthy);
        assert_eq!(breaker.state(), BreakerState::Open);
        assert_eq!(breaker.admit(now, "newer"), None);
        breaker.ended(now, "new", both[0], CallOutcome::Healthy);
        assert_eq!(breaker.state(), BreakerState::Closed);
        // As long as one is well, the others only have their own circuits.
        for other in ["a", "b", "c"] {
            while breaker.admit(now, other).is_some_and(|admitted| {
                breaker.ended(now, other, admitted, CallOutcome::Unhealthy);
                true
            }) {}
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn one_that_is_away_is_left_alone_after_a_few_calls_about_many() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for n in 0..LEAST_CALLS {
            call(&mut breaker, now, &n.to_string(), CallOutcome::Unhealthy);
        }
        assert_eq!(breaker.state(), BreakerState::Open);
        assert_eq!(breaker.admit(now, "0"), None);
        let late = now + OPEN_FOR;
        call(&mut breaker, late, "0", CallOutcome::Healthy);
        for n in 0..LEAST_CALLS {
            call(&mut breaker, late, &n.to_string(), CallOutcome::Healthy);
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn it_counts_no_more_subjects_than_its_bound() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for n in 0..MOST_SUBJECTS + 10 {
            call(&mut breaker, now, &n.to_string(), CallOutcome::Healthy);
        }
        assert_eq!(breaker.subjects.len(), MOST_SUBJECTS);
        call(&mut breaker, now + WINDOW, "late", CallOutcome::Healthy);
        assert_eq!(breaker.subjects.len(), 1);
    }
}
