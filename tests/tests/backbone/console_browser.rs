//! The jobs of a bad day, by the console in a real browser.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tests::browser::BrowserPage;
use tests::meta::payload::{self, Number};
use tests::neighbours::Tenant;
use tests::waiting::eventually;

use crate::commands::id;
use crate::operator::{ADA, ADMIN, Scene, TEXT, keys, reject};
use crate::{SOON, drained};

/// `UPDATE_IMAGES=1` writes the pictures of the documents.
fn image(name: &str) -> Option<PathBuf> {
    std::env::var_os("UPDATE_IMAGES")?;
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/images");
    Some(images.join(format!("console-{name}.png")))
}

async fn picture(page: &mut BrowserPage, name: &str) {
    for (look, scheme, size) in [
        ("light", "light", (1200, 900)),
        ("dark", "dark", (1200, 900)),
        ("phone", "light", (400, 900)),
    ] {
        page.look(size, scheme).await;
        if let Some(file) = image(&format!("{name}-{look}")) {
            page.picture(&file).await;
        }
    }
    page.look((1200, 900), "light").await;
}

/// The page of a worker, signed in by keyboard alone.
async fn signed_in(scene: &Scene) -> BrowserPage {
    let mut page = BrowserPage::open(&format!("http://{}/console", scene.worker.admin())).await;
    page.wait_for_text("#state", "answers").await;
    page.click("header", "Sign in").await;
    page.fill("#sign-in-form [name=name]", "Ada").await;
    page.press("Tab").await;
    let focused = page.value("document.activeElement.name").await;
    assert_eq!(focused, "token");
    page.fill("#sign-in-form [name=token]", ADMIN).await;
    page.press("Enter").await;
    page.wait_for_text("#who", "signed in as Ada").await;
    page
}

/// Closes what is looked at.
async fn closed(page: &mut BrowserPage) {
    page.click("#detail", "Close").await;
    page.wait_for("!document.querySelector('#detail').open")
        .await;
}

fn assert_quiet(page: &BrowserPage) {
    assert_eq!(page.complaints, Vec::<String>::new());
}

#[tokio::test]
async fn the_page_fits_every_window_and_each_field_has_a_name() {
    let scene = Scene::new().await;
    let mut page = signed_in(&scene).await;
    page.wait_for_text("#tiles", "Set aside").await;
    let mut sending = tokio::time::interval(Duration::from_millis(100));
    let (sender, number) = (scene.stage.sender(&scene.ingress), Number::fresh());
    let rate = "[...document.querySelectorAll('.tile')].some((it) => /Webhooks a second\\s*[1-9]/.test(it.innerText))";
    let until = tokio::time::Instant::now() + SOON;
    while page.value(rate).await != true {
        assert!(tokio::time::Instant::now() < until, "no rate");
        sending.tick().await;
        sender.send(number.message(payload::text(ADA, "b"))).await;
    }
    page.wait_for_text("#cards", "tenant suspended").await;
    page.wait_for_text("#cards", "0.1.0").await;
    picture(&mut page, "overview").await;
    let nameless = "[...document.querySelectorAll('input, select')]
        .filter((it) => !it.labels.length && !it.ariaLabel).length";
    for view in ["overview", "failed", "search", "tenant", "dlq", "tail"] {
        page.value(&format!("location.hash = '#{view}'")).await;
        page.wait_for(&format!(
            "document.querySelector('#view-{view}').checkVisibility()"
        ))
        .await;
        for width in [400, 800, 1600] {
            page.look((width, 900), "dark").await;
            let wide =
                "document.documentElement.scrollWidth - document.documentElement.clientWidth";
            assert_eq!(page.value(wide).await, 0, "{view} at {width} px");
        }
        assert_eq!(page.value(nameless).await, 0, "{view}");
    }
    assert_quiet(&page);
}

#[tokio::test]
async fn what_is_set_aside_is_looked_at_replayed_and_discarded_in_the_browser() {
    let scene = Scene::new().await;
    let (stage, suspended) = (&scene.stage, &scene.suspended);
    let sender = stage.sender(&scene.ingress);
    sender
        .send(suspended.message(payload::text(ADA, "b")))
        .await;
    eventually(SOON, "both are set aside", async || {
        (keys(stage, "failed").await.len() == 2).then_some(())
    })
    .await;
    drained(stage).await;
    let mut page = signed_in(&scene).await;
    page.click("nav", "Set aside").await;
    page.wait_for_text("#failed-rows", "tenant suspended").await;
    picture(&mut page, "failed").await;
    page.click("#failed-rows", &scene.failed_key).await;
    page.wait_for_text("#detail", "set aside").await;
    page.click("#detail", "Show the payload").await;
    page.wait_for_text("#detail pre", TEXT).await;
    closed(&mut page).await;

    let account = &suspended.waba_id;
    stage.neighbours.set_tenant(account, Tenant::Active);
    let path = format!("/tenants/{account}/invalidate");
    let invalidated = scene.worker.post(&path, Some(ADMIN)).await;
    assert_eq!(invalidated.expect("an answer").0, 200);
    let events = stage.events();
    page.click("#failed-rows", &scene.failed_key).await;
    page.click("#detail", "Replay").await;
    page.wait_for(
        "[...document.querySelectorAll('#cards td')].some((it) => it.innerText === 'ended')",
    )
    .await;
    assert_eq!(events.wait_for(1, SOON).await[0].wamid(), id(&scene.failed));

    page.click("nav", "Set aside").await;
    page.wait_for("document.querySelectorAll('#failed-rows input').length === 1")
        .await;
    page.value("document.querySelector('#failed-rows input').click()")
        .await;
    page.click("#view-failed", "Discard the chosen").await;
    page.click("#question", "Discard").await;
    page.wait_for_text("#failed-rows", "nothing of this").await;
    assert_eq!(keys(stage, "failed").await, Vec::<String>::new());
    assert_eq!(keys(stage, "discarded").await.len(), 1);
    assert_quiet(&page);
}

#[tokio::test]
async fn messages_customers_and_tenants_are_found_in_the_browser() {
    let scene = Scene::new().await;
    let ids = scene.ids(&scene.archive_key, &scene.published).await;
    let mut page = signed_in(&scene).await;
    page.click("nav", "Search").await;
    for id in &ids[..3] {
        page.fill("#search-form [name=id]", id).await;
        page.press("Enter").await;
        page.wait_for_text("#search-result h2", id).await;
        page.wait_for_text("#search-result", &scene.archive_key)
            .await;
    }
    picture(&mut page, "search").await;
    page.fill("#find-form [name=customer]", "+49 151 0000-0001")
        .await;
    page.press("Enter").await;
    page.wait_for_text("#search-result", "payloads have something of this customer")
        .await;
    page.click("#search-result", &scene.archive_key).await;
    page.wait_for_text("#detail pre", TEXT).await;
    closed(&mut page).await;
    page.click("nav", "Tenant").await;
    page.fill("#tenant-form [name=id]", &scene.suspended.waba_id)
        .await;
    page.press("Enter").await;
    page.wait_for_text("#tenant-result", "suspended").await;
    assert_quiet(&page);
}

#[tokio::test]
async fn dead_letters_are_put_back_and_events_are_watched_in_the_browser() {
    let scene = Scene::new().await;
    let (stage, number) = (&scene.stage, Number::fresh());
    // The one that was published before came first.
    let sender = stage.sender(&scene.ingress);
    sender.send(number.message(payload::text(ADA, "b"))).await;
    reject(stage, 1).await;
    let mut page = signed_in(&scene).await;
    page.click("nav", "Dead letters").await;
    let listed = "document.querySelectorAll('#dlq-rows input').length";
    loop {
        page.wait_for("!document.querySelector('#dlq-list').disabled")
            .await;
        if page.value(listed).await == 1 {
            break;
        }
        page.click("#view-dlq", "List").await;
    }
    page.value("document.querySelector('#dlq-rows input').click()")
        .await;
    page.click("#view-dlq", "Requeue the chosen").await;
    page.wait_for_text("#dlq-rows", "no dead letters").await;
    let event = stage.events().wait_for(1, SOON).await.remove(0);
    assert_eq!(event.text("/channel/businessAccountId"), number.waba_id);

    page.click("nav", "Live").await;
    page.click("#tail-form", "Start").await;
    page.wait_for_text("#tail-state", "listening").await;
    let told = format!("tenant-{}", number.waba_id);
    let told = format!("document.querySelector('#tail-rows').innerText.includes('{told}')");
    // Sent until its queue is bound and has seen one.
    while page.value(&told).await != true {
        sender.send(number.message(payload::text(ADA, TEXT))).await;
    }
    let shown = page.value("document.body.innerText").await;
    assert!(
        !shown.as_str().unwrap_or_default().contains(TEXT),
        "{shown}"
    );
    page.click("#tail-form", "Stop").await;
    page.wait_for_text("#tail-state", "stopped").await;
    assert_quiet(&page);
}
