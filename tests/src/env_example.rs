//! `.env.example`, made of what the programs say of their settings.

const HEADER: &str = "\
# Every setting of ingress and worker with its default. The programs read environment variables and flags, and no file:
# compose.yaml hands them what stands in .env; elsewhere, set what differs in the program's environment.
";

/// A setting as `--help` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Setting {
    variable: String,
    default: String,
    about: String,
}

/// The text of the file. Settings of the same name and meaning in both programs stand once.
pub fn text(ingress_help: &str, worker_help: &str) -> String {
    let (ingress, worker) = (settings(ingress_help), settings(worker_help));
    let (both, ingress): (Vec<_>, Vec<_>) = ingress
        .into_iter()
        .partition(|setting| worker.contains(setting));
    let worker: Vec<_> = worker
        .into_iter()
        .filter(|setting| !both.contains(setting))
        .collect();
    let mut text = HEADER.to_owned();
    for (section, settings) in [("Both", both), ("ingress", ingress), ("worker", worker)] {
        text += &format!("\n# --- {section} ---\n");
        for Setting {
            variable,
            default,
            about,
        } in settings
        {
            text += &format!("\n# {about}\n#{variable}={default}\n");
        }
    }
    text
}

/// Each flag's lines, from one that starts with a dash to the next.
fn settings(help: &str) -> Vec<Setting> {
    let mut said: Vec<String> = Vec::new();
    for line in help.lines().map(str::trim) {
        match said.last_mut() {
            _ if line.starts_with("--") || line.starts_with("-h,") => said.push(String::new()),
            Some(said) if !line.is_empty() => *said += &format!("{line} "),
            Some(_) | None => {}
        }
    }
    said.iter().filter_map(|said| setting(said)).collect()
}

/// `Words [env: NAME=] [default: value] [possible values: a, b]`, of which words may hold a default.
fn setting(said: &str) -> Option<Setting> {
    let inside = |start: &str| Some(said.split_once(start)?.1.split_once(']')?.0);
    Some(Setting {
        variable: inside("[env: ")?.trim_end_matches('=').to_owned(),
        default: inside("[default: ").unwrap_or_default().to_owned(),
        about: said
            .split(" [")
            .next()?
            .split(" Possible values:")
            .next()?
            .to_owned(),
    })
}
