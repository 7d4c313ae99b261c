//! Figures of several runs: medians, how far they spread, and what they should reach.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::output::{Paint, column};

/// What a figure should be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Goal {
    AtLeast(f64),
    AtMost(f64),
    /// It is only told.
    None,
}

#[derive(Debug, Serialize)]
struct Figure {
    unit: &'static str,
    goal: Goal,
    /// In the order of the runs.
    runs: Vec<f64>,
}

/// Figures by part and name, in the order in which they came up first.
#[derive(Debug, Default)]
pub struct Figures {
    order: Vec<String>,
    by_name: BTreeMap<String, Figure>,
}

impl Figures {
    /// One run's value of a figure.
    pub fn add(&mut self, name: impl Into<String>, unit: &'static str, goal: Goal, value: f64) {
        let name = name.into();
        if !self.by_name.contains_key(&name) {
            self.order.push(name.clone());
        }
        let figure = self.by_name.entry(name).or_insert(Figure {
            unit,
            goal,
            runs: Vec::new(),
        });
        figure.runs.push(value);
    }

    /// The value of the latest run; 0 where there is none.
    pub fn latest(&self, name: &str) -> f64 {
        let figure = self.by_name.get(name);
        figure
            .and_then(|figure| figure.runs.last())
            .copied()
            .unwrap_or(0.0)
    }

    /// In their order: name, median, least and most.
    pub fn medians(&self) -> impl Iterator<Item = (&str, f64, f64, f64)> {
        self.order.iter().map(|name| {
            let (median, least, most) = self.by_name[name].spread();
            (name.as_str(), median, least, most)
        })
    }

    pub fn table(&self) -> String {
        let paint = Paint::stdout();
        let head = format!(
            "{} {:>11} {:>11} {:>11}  {}  goal",
            column("", 52),
            "median",
            "least",
            "most",
            column("", 5)
        );
        let lines = self.order.iter().map(|name| {
            let figure = &self.by_name[name];
            let (median, least, most) = figure.spread();
            let goal = match (figure.goal, figure.is_reached()) {
                (Goal::None, _) => String::new(),
                (Goal::AtLeast(goal), true) => paint.good(&format!("≥ {goal}, reached")),
                (Goal::AtMost(goal), true) => paint.good(&format!("≤ {goal}, reached")),
                (Goal::AtLeast(goal), false) => paint.bad(&format!("≥ {goal}, missed")),
                (Goal::AtMost(goal), false) => paint.bad(&format!("≤ {goal}, missed")),
            };
            format!(
                "{} {median:>11.2} {least:>11.2} {most:>11.2}  {}  {goal}\n",
                column(name, 52),
                column(figure.unit, 5)
            )
        });
        let lines: String = lines.collect();
        format!("{}\n{lines}", paint.title(&head))
    }

    /// `{machine, figures: {name: {unit, goal, runs, median}}}`
    pub fn json(&self) -> serde_json::Value {
        let figures = self.order.iter().map(|name| {
            let figure = &self.by_name[name];
            let mut value = serde_json::to_value(figure).unwrap_or_default();
            value["median"] = figure.spread().0.into();
            (name.clone(), value)
        });
        let figures: serde_json::Map<_, _> = figures.collect();
        serde_json::json!({"machine": super::machine::description(), "figures": figures})
    }
}

impl Figure {
    /// Median, least and most.
    fn spread(&self) -> (f64, f64, f64) {
        let mut runs = self.runs.clone();
        runs.sort_by(f64::total_cmp);
        (runs[runs.len() / 2], runs[0], runs[runs.len() - 1])
    }

    fn is_reached(&self) -> bool {
        match self.goal {
            Goal::AtLeast(goal) => self.spread().0 >= goal,
            Goal::AtMost(goal) => self.spread().0 <= goal,
            Goal::None => true,
        }
    }
}
