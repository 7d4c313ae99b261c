//! Measurements, for people: how much, how fast, and how it goes when there is too much. Everything
//! runs on this machine (load, servers, programs), so compare figures of one run only.

pub mod all;
pub mod baselines;
pub mod compare;
pub mod figures;
pub mod gate;
pub mod ingress;
pub mod isolation;
pub mod load;
pub mod machine;
pub mod media;
pub mod path;
pub mod plot;
pub mod scale;
pub mod wire;
pub mod worker;

use crate::output::Paint;

/// What is done now, for whoever waits.
#[allow(clippy::print_stderr, reason = "a command line tool")]
fn tell(what: &str) {
    eprintln!("{}", Paint::stdout().quiet(&format!("{what} …")));
}
