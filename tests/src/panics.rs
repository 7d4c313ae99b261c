//! Makes a task of a program that runs in this process panic: where it logs a certain line.

use std::fmt::Debug;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Panics in whoever logs a line that has a field of this value. Everything else is dropped.
#[derive(Debug)]
pub struct PanicsAt {
    pub field: &'static str,
    pub value: &'static str,
}

impl Subscriber for PanicsAt {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut looked = Looked {
            at: self,
            found: false,
        };
        event.record(&mut looked);
        assert!(!looked.found, "{self:?}");
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Looked<'a> {
    at: &'a PanicsAt,
    found: bool,
}

impl Visit for Looked<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.found |= field.name() == self.at.field && format!("{value:?}") == self.at.value;
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.found |= field.name() == self.at.field && value == self.at.value;
    }
}
