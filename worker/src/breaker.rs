//! A circuit breaker: stops asking a neighbour that mostly fails, and tries with one call at a time
//! whether it is well again. It only counts and decides; the calls are [`crate::neighbour`]'s.

#![deny(clippy::wildcard_enum_match_arm)]

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Calls older than this don't count.
const WINDOW: Duration = Duration::from_secs(10);
/// Calls are counted together by this much time.
const SLICE: Duration = Duration::from_secs(1);
/// Fewer calls than this in the window prove nothing.
const LEAST_CALLS: u32 = 5;
/// From this share of failed calls on it opens.
const FAILED_PERCENT: u32 = 50;
/// How long nothing is asked.
const OPEN_FOR: Duration = Duration::from_secs(5);

/// What a breaker does with the next call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Lets it through.
    Closed,
    /// Lets it through if it is the only one.
    HalfOpen,
    /// Refuses it.
    Open,
}

/// What a call said about the neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    Well,
    Unwell,
    /// It was given up before it ended.
    Nothing,
}

/// A call that was let through. Its end must be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admitted {
    Normal,
    /// The one call that finds out whether the neighbour is well again.
    Probe,
}

#[derive(Debug)]
enum Inner {
    Closed(VecDeque<Slice>),
    Open { until: Instant },
    HalfOpen { probing: bool },
}

#[derive(Debug)]
struct Slice {
    from: Instant,
    calls: u32,
    failed: u32,
}

/// The breaker of one neighbour.
#[derive(Debug)]
pub struct Breaker(Inner);

impl Default for Breaker {
    fn default() -> Self {
        Self(Inner::Closed(VecDeque::new()))
    }
}

impl Breaker {
    pub fn state(&self) -> State {
        match self.0 {
            Inner::Closed(_) => State::Closed,
            Inner::Open { .. } => State::Open,
            Inner::HalfOpen { .. } => State::HalfOpen,
        }
    }

    /// Whether the next call would be refused.
    pub fn refuses(&self, now: Instant) -> bool {
        match self.0 {
            Inner::Closed(_) => false,
            Inner::Open { until } => now < until,
            Inner::HalfOpen { probing } => probing,
        }
    }

    /// Lets a call through, or not.
    pub fn admit(&mut self, now: Instant) -> Option<Admitted> {
        if self.refuses(now) {
            return None;
        }
        match &mut self.0 {
            Inner::Closed(_) => Some(Admitted::Normal),
            half_open @ (Inner::Open { .. } | Inner::HalfOpen { .. }) => {
                *half_open = Inner::HalfOpen { probing: true };
                Some(Admitted::Probe)
            }
        }
    }

    /// A call that was let through has ended.
    pub fn ended(&mut self, now: Instant, admitted: Admitted, seen: Seen) {
        let opened = Inner::Open {
            until: now + OPEN_FOR,
        };
        match (&mut self.0, admitted, seen) {
            (_, Admitted::Normal, Seen::Nothing) => {}
            (Inner::Closed(slices), Admitted::Normal, Seen::Well | Seen::Unwell) => {
                if count(slices, now, seen == Seen::Unwell) {
                    self.0 = opened;
                }
            }
            // It began before the breaker opened, and says nothing new.
            (Inner::Open { .. } | Inner::HalfOpen { .. }, Admitted::Normal, _) => {}
            (inner, Admitted::Probe, Seen::Nothing) => *inner = Inner::HalfOpen { probing: false },
            (inner, Admitted::Probe, Seen::Unwell) => *inner = opened,
            (inner, Admitted::Probe, Seen::Well) => *inner = Inner::Closed(VecDeque::new()),
        }
    }
}

/// Counts a call; whether too many have failed.
fn count(slices: &mut VecDeque<Slice>, now: Instant, failed: bool) -> bool {
    while slices
        .front()
        .is_some_and(|slice| now.duration_since(slice.from) >= WINDOW)
    {
        slices.pop_front();
    }
    match slices.back_mut() {
        Some(slice) if now.duration_since(slice.from) < SLICE => {
            slice.calls += 1;
            slice.failed += u32::from(failed);
        }
        Some(_) | None => slices.push_back(Slice {
            from: now,
            calls: 1,
            failed: u32::from(failed),
        }),
    }
    let calls: u32 = slices.iter().map(|slice| slice.calls).sum();
    let all_failed: u32 = slices.iter().map(|slice| slice.failed).sum();
    failed && calls >= LEAST_CALLS && all_failed * 100 >= calls * FAILED_PERCENT
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(breaker: &mut Breaker, now: Instant, seen: Seen) {
        let admitted = breaker.admit(now).expect("let through");
        breaker.ended(now, admitted, seen);
    }

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..LEAST_CALLS {
            call(&mut breaker, now, Seen::Unwell);
        }
        breaker
    }

    #[test]
    fn it_opens_when_half_of_enough_recent_calls_failed() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..LEAST_CALLS - 1 {
            call(&mut breaker, now, Seen::Unwell);
        }
        assert_eq!(breaker.state(), State::Closed);
        // Those are forgotten.
        let later = now + WINDOW;
        for seen in [
            Seen::Well,
            Seen::Well,
            Seen::Well,
            Seen::Unwell,
            Seen::Unwell,
        ] {
            call(&mut breaker, later, seen);
        }
        assert_eq!(breaker.state(), State::Closed);
        call(&mut breaker, later + SLICE, Seen::Unwell);
        assert_eq!(breaker.state(), State::Open);
        assert!(breaker.admit(later + SLICE).is_none());
    }

    #[test]
    fn one_call_finds_out_whether_the_neighbour_is_well() {
        let now = Instant::now();
        let mut breaker = opened(now);
        let late = now + OPEN_FOR;
        let probe = breaker.admit(late).expect("the probe");
        assert_eq!(
            (probe, breaker.state(), breaker.admit(late)),
            (Admitted::Probe, State::HalfOpen, None)
        );
        breaker.ended(late, probe, Seen::Unwell);
        assert_eq!((breaker.state(), breaker.admit(late)), (State::Open, None));
        let later = late + OPEN_FOR;
        call(&mut breaker, later, Seen::Well);
        assert_eq!(breaker.state(), State::Closed);
        assert_eq!(breaker.admit(later), Some(Admitted::Normal));
    }

    #[test]
    fn a_probe_that_was_given_up_leaves_its_place_to_the_next() {
        let now = Instant::now();
        let mut breaker = opened(now);
        call(&mut breaker, now + OPEN_FOR, Seen::Nothing);
        assert_eq!(breaker.admit(now + OPEN_FOR), Some(Admitted::Probe));
    }

    #[test]
    fn a_call_from_before_it_opened_changes_nothing() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        let old = breaker.admit(now).expect("let through");
        for _ in 0..LEAST_CALLS {
            call(&mut breaker, now, Seen::Unwell);
        }
        breaker.ended(now, old, Seen::Well);
        assert_eq!(breaker.state(), State::Open);
    }
}
