//! The status page in a real browser.

use std::path::Path;
use std::process::{Command, Output};

use tests::Stage;
use tests::meta::payload::{self, Number};
use tests::programs::Program;

use crate::SOON;

/// Runs headless Chromium on the status page, until it has polled a few times.
async fn browse(program: &Program, path: &str, arguments: &[String]) -> Output {
    let profile = tempfile::tempdir().expect("a profile");
    let mut browser = Command::new("chromium");
    browser
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
        ])
        .args(["--no-first-run", "--disable-background-networking"])
        .args([
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
        ])
        .args(["--enable-logging=stderr", "--virtual-time-budget=7000"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(arguments)
        .arg(format!("http://{}{path}", program.admin()));
    let ran = tokio::task::spawn_blocking(move || browser.output()).await;
    ran.expect("a thread").expect("chromium is installed")
}

/// The page as the browser has it in the end.
async fn page(program: &Program) -> String {
    let ran = browse(program, "/", &["--dump-dom".to_owned()]).await;
    let said = String::from_utf8_lossy(&ran.stderr);
    let complaints: Vec<_> = said
        .lines()
        .filter(|line| line.contains("CONSOLE"))
        .collect();
    assert!(complaints.is_empty(), "{complaints:?}");
    String::from_utf8(ran.stdout).expect("text")
}

/// `STATUS_SCREENSHOTS=<folder>` keeps pictures for people to look at.
async fn pictures(program: &Program, name: &str) {
    let Some(folder) = std::env::var_os("STATUS_SCREENSHOTS") else {
        return;
    };
    for (look, scheme, size) in [
        ("light", 1, "1200,1500"),
        ("dark", 0, "1200,1500"),
        ("phone", 0, "500,3000"),
    ] {
        let file = Path::new(&folder).join(format!("{name}-{look}.png"));
        let arguments = [
            format!("--screenshot={}", file.display()),
            format!("--blink-settings=preferredColorScheme={scheme}"),
            format!("--window-size={size}"),
        ];
        browse(program, "/", &arguments).await;
    }
}

#[tokio::test]
async fn the_status_page_shows_what_happens_in_a_real_browser() {
    let stage = Stage::new().await;
    let (ingress, worker) = (stage.ingress().start().await, stage.worker().start().await);
    let events = stage.events();
    let sender = stage.sender(&ingress);
    let number = Number::fresh();
    let sent: Vec<_> = (0..3)
        .map(|n| payload::text("16505551234", &format!("plum jam {n}")))
        .collect();
    sender.send(number.webhook([number.messages(sent)])).await;
    let broken = format!(
        "{{\"object\":\"whatsapp_business_account\",\"entry\":[{{\"id\":\"<b>{}\"",
        number.waba_id
    );
    sender.send(broken).await;
    events.wait_for(3, SOON).await;
    crate::drained(&stage).await;

    let seen = page(&worker).await;
    for text in [
        "<h1 id=\"program\">worker</h1>",
        ">ready</span>",
        "<td>published</td><td class=\"number\">3</td>",
        "<td>unreadable</td><td class=\"number\">1</td>",
        "<td>rabbitmq</td><td class=\"well\">well</td>",
        "<td>tenant service</td><td class=\"well\">closed</td>",
        "<td>15</td>",
        "<span class=\"quiet\">Spool</span><b>0</b>",
        "Set aside last",
    ] {
        assert!(seen.contains(text), "{text} is not in {seen}");
    }
    let ingress_page = page(&ingress).await;
    assert!(
        ingress_page.contains("<td>200</td><td class=\"number\">2</td>"),
        "{ingress_page}"
    );
    for program in [&*ingress, &*worker] {
        let (status, report) = program.get("/status.json").await.expect("an answer");
        assert_eq!(status, 200);
        let all = format!("{report}{seen}{ingress_page}");
        assert_eq!(program.private_parts(&all), Vec::<String>::new());
        assert!(!all.contains("plum jam"), "{all}");
    }
    let changed = worker.post("/", None).await.expect("an answer");
    assert_eq!(changed.0, 405);
    pictures(&worker, "worker").await;
    pictures(&ingress, "ingress").await;
}
