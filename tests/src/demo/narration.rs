//! What a tour says, and what of it was not as it should be.

use std::fmt::Display;

use crate::output::{Paint, column};

/// Writes a tour for people, line by line.
#[derive(Debug)]
pub struct Narration {
    paint: Paint,
    write: fn(&str),
    steps: usize,
    missing: Vec<String>,
}

impl Narration {
    /// `write` is called with each line.
    pub fn new(paint: Paint, write: fn(&str)) -> Self {
        Self {
            paint,
            write,
            steps: 0,
            missing: Vec::new(),
        }
    }

    /// What was not as it should be, a sentence each.
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// Begins a step of the tour.
    pub fn step(&mut self, title: &str) {
        self.steps += 1;
        let title = format!("{}  {title}", self.steps);
        (self.write)(&format!("\n{}", self.paint.title(&title)));
    }

    /// Something that happens now.
    pub fn say(&self, text: &str) {
        (self.write)(&format!("   {text}"));
    }

    /// What takes its time, or is of less interest.
    pub fn quietly(&self, text: &str) {
        (self.write)(&format!("   {}", self.paint.quiet(text)));
    }

    /// A name and what it stands for, whole, so that it can be copied.
    pub fn fact(&self, name: &str, value: impl Display) {
        let name = self.paint.quiet(&column(name, 9));
        (self.write)(&format!("      {name}  {value}"));
    }

    /// A command as one would type it, and what it printed.
    pub fn command(&self, command: &str, output: &str) {
        (self.write)(&format!("   {}", self.paint.title(&format!("$ {command}"))));
        for line in output.lines() {
            (self.write)(&format!("     {line}"));
        }
    }

    /// What a step was for: whether it was so.
    pub fn expect(&mut self, is_so: bool, what: &str) {
        if is_so {
            (self.write)(&format!("   {} {what}", self.paint.good("✓")));
        } else {
            (self.write)(&format!(
                "   {}",
                self.paint.bad(&format!("✗ not so: {what}"))
            ));
            self.missing.push(what.to_owned());
        }
    }

    /// A text that is written as it is.
    pub fn plain(&self, text: &str) {
        (self.write)(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_so_is_remembered_and_numbers_of_steps_go_on() {
        let mut told = Narration::new(Paint::stdout(), |_| {});
        told.step("one");
        told.expect(true, "all is well");
        assert!(told.missing().is_empty());
        told.step("two");
        told.expect(false, "it came out");
        assert_eq!(told.missing(), ["it came out"]);
        assert_eq!(told.steps, 2);
    }
}
