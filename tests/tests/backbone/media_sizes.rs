//! What large files cost in memory, and that others go on meanwhile. How fast they come is measured by
//! `deploy/local/bench.sh media`.

use std::time::Duration;

use tests::Stage;
use tests::meta::payload::{self, Number};
use tests::neighbours::Content;
use tokio::time::Instant;

use crate::SOON;

const MB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_large_documents_need_no_memory_and_others_go_on() {
    let stage = Stage::new().await;
    let (ingress, mut worker) = (
        // Texts as fast as they come out, in one account.
        stage
            .ingress()
            .env("RATE_LIMIT_PER_MINUTE", 0)
            .start()
            .await,
        stage.worker().env("MEDIA_DEADLINE", "60s").start().await,
    );
    let events = stage.events();
    let sender = stage.sender(&ingress);
    let numbers: Vec<_> = (0..4).map(|_| Number::fresh()).collect();
    let others = Number::fresh();
    for n in 0..16_u8 {
        let id = format!("100{n}");
        let content = Content::Sized(100 * MB, n);
        stage
            .neighbours
            .set_content(&id, "application/pdf", content);
    }
    let began = Instant::now();
    for n in 0..16 {
        let from = format!("4915100{n:05}");
        let message = payload::media(&from, "document", &format!("100{n}"), "application/pdf");
        sender.send(numbers[n % 4].message(message)).await;
    }
    let documents = |seen: &[tests::events::Event]| {
        let documents = seen
            .iter()
            .filter(|e| e.text("/message/media/status") == "stored");
        documents.count()
    };
    let mut texts = 0;
    while documents(&events.all()) < 16 {
        assert!(
            began.elapsed() < SOON * 4,
            "{} stored",
            documents(&events.all())
        );
        let text = payload::text("16505550000", &texts.to_string());
        let id = text["id"].as_str().expect("an id").to_owned();
        sender.send(others.message(text)).await;
        events
            .wait_until(SOON, |seen| seen.iter().any(|event| event.wamid() == id))
            .await;
        texts += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(texts > 1, "others' texts came out meanwhile");
    let peak = worker.process().peak_memory_mb().expect("a peak");
    assert!(peak < 150, "{peak} MB");
}
