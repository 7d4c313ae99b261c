//! Events that are larger than the broker's `max_message_size`. It closes the channel over one, without
//! saying over which: events that may be the one go out alone, until it is found.

use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::{Error, ErrorKind};

/// What one channel was taught of the sizes that the broker takes.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    /// Bytes of the smallest event that the broker refused.
    refused: Option<usize>,
}

impl Sizes {
    /// How many events go out together next, of some with these sizes that are suspected or not. One that
    /// may close the channel goes alone, or those beside it would have to be published again.
    pub(super) fn together(&self, events: impl IntoIterator<Item = (usize, bool)>) -> usize {
        let mut events = events.into_iter().peekable();
        let alone = |(size, suspected): &(usize, bool)| {
            *suspected || self.refused.is_some_and(|refused| *size >= refused)
        };
        match events.peek() {
            Some(first) if alone(first) => 1,
            Some(_) | None => events.take_while(|event| !alone(event)).count(),
        }
    }

    /// The broker closed a channel over an event of this size.
    pub(super) fn refused(&mut self, size: usize) {
        self.refused = Some(self.refused.map_or(size, |refused| refused.min(size)));
    }

    /// The broker took an event of this size: its limit may be another one by now.
    pub(super) fn note_taken(&mut self, size: usize) {
        self.refused.take_if(|refused| size >= *refused);
    }
}

/// Whether a channel was closed over the size of an event. The same code stands for other faults, and
/// nothing but the text tells them apart: "message size 4194304 is larger than configured max size 1000".
pub(crate) fn refuses_size(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::ProtocolError(closed) => {
            let code = AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED);
            *closed.kind() == code && closed.get_message().as_str().contains("message size")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use lapin::protocol::AMQPError;

    use super::*;

    fn together(sizes: &Sizes, events: &[(usize, bool)]) -> usize {
        sizes.together(events.iter().copied())
    }

    #[test]
    fn all_go_together_until_one_was_refused() {
        let mut sizes = Sizes::default();
        let events = [(10, false), (5000, false), (20, false)];
        assert_eq!(together(&sizes, &events), 3);
        sizes.refused(5000);
        sizes.refused(7000);
        assert_eq!(together(&sizes, &events), 1);
        assert_eq!(together(&sizes, &events[1..]), 1);
        assert_eq!(together(&sizes, &events[2..]), 1);
        assert_eq!(together(&sizes, &[(4999, false), (10, false)]), 2);
        assert_eq!(together(&sizes, &[]), 0);
    }

    #[test]
    fn suspects_go_one_by_one_and_the_others_together() {
        let sizes = Sizes::default();
        let events = [(1, true), (2, true), (3, false), (4, false)];
        assert_eq!(together(&sizes, &events), 1);
        assert_eq!(together(&sizes, &events[1..]), 1);
        assert_eq!(together(&sizes, &events[2..]), 2);
    }

    #[test]
    fn a_limit_that_was_raised_is_noticed() {
        let mut sizes = Sizes::default();
        sizes.refused(5000);
        sizes.note_taken(4000);
        assert_eq!(together(&sizes, &[(5000, false), (5000, false)]), 1);
        sizes.note_taken(5000);
        assert_eq!(together(&sizes, &[(5000, false), (5000, false)]), 2);
    }

    #[test]
    fn only_a_size_is_taken_for_one() {
        let closed = |kind: AMQPSoftError, text: &str| {
            let closed = AMQPError::new(kind.into(), text.into());
            refuses_size(&ErrorKind::ProtocolError(closed).into())
        };
        let told = "PRECONDITION_FAILED - message size 5 is larger than configured max size 4";
        assert!(closed(AMQPSoftError::PRECONDITIONFAILED, told));
        let other = "PRECONDITION_FAILED - unknown delivery tag 1";
        assert!(!closed(AMQPSoftError::PRECONDITIONFAILED, other));
        assert!(!closed(AMQPSoftError::NOTFOUND, told));
    }
}
