//! The partition count is changed, and the change is stopped in its middle.

use std::process::Output;

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use tests::Stage;
use tests::meta::payload::{self, Number};
use tests::programs::Worker;
use tests::waiting::eventually;

use crate::{SOON, drained, first_texts};

const ADA: &str = "4915100000001";

/// Runs `worker repartition`, with other settings.
async fn repartition(worker: &Worker, to: u16, settings: &[(&str, &str)]) -> Output {
    let mut command = worker.command();
    command.args(["repartition", "--to", &to.to_string()]);
    command.envs(settings.iter().copied());
    let output = tokio::task::spawn_blocking(move || command.output());
    output.await.expect("no panic").expect("it runs")
}

async fn done(worker: &Worker, to: u16, why: &str) {
    let output = repartition(worker, to, &[]).await;
    let (told, problem) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    assert!(output.status.success(), "{problem}");
    assert!(told.contains(why), "{told}");
}

/// As JSON: to the count that it has already.
async fn tells_programs(worker: &Worker, count: u16) {
    let run = async |settings: &'static [(&str, &str)]| {
        let mut command = worker.command();
        command.args(["repartition", "--json", "--by", "ops", "--to"]);
        command
            .arg(count.to_string())
            .envs(settings.iter().copied());
        let output = tokio::task::spawn_blocking(move || command.output());
        output.await.expect("no panic").expect("it runs")
    };
    let output = run(&[]).await;
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        told,
        serde_json::json!({"partitions": count, "before": count, "undone": false})
    );
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains(r#""action":"repartition""#), "{errors}");
    let away = run(&[("REDIS_URL", "redis://127.0.0.1:1")]).await;
    assert_eq!(away.status.code(), Some(2));
}

async fn refused(worker: &Worker, to: u16, why: &str) {
    let output = repartition(worker, to, &[]).await;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && told.contains(why), "{told}");
}

/// Runs it with a login of Redis that may not write `key`: it ends right before it would.
async fn stopped_before_writing(stage: &Stage, worker: &Worker, to: u16, key: &str) {
    let mut redis = stage.redis.connection().await;
    let rest = ["whatsapp:{*", "whatsapp:workers", "whatsapp:partitions"];
    let mut user = redis::cmd("ACL");
    user.arg("SETUSER").arg("halfway").arg("reset");
    user.arg(&["on", ">secret", "+@all", &format!("%R~{key}")]);
    user.arg(
        rest.iter()
            .filter(|pattern| **pattern != key)
            .map(|pattern| format!("~{pattern}"))
            .collect::<Vec<_>>(),
    );
    user.query_async::<()>(&mut redis).await.expect("a login");
    let url = stage
        .redis
        .url()
        .replace("redis://", "redis://halfway:secret@");
    let output = repartition(worker, to, &[("REDIS_URL", &url)]).await;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "it was stopped");
    assert!(told.contains("run this again"), "{told}");
}

async fn count_of(redis: &mut MultiplexedConnection, partition: u16) -> Option<String> {
    let seen = format!("whatsapp:{{{partition}}}:seen");
    redis.hget(seen, "partitions").await.expect("HGET")
}

#[tokio::test]
async fn repartition_waits_for_nothing_to_be_under_way_and_locks_the_old_count_out() {
    let stage = Stage::new().await;
    let ingress = stage.ingress().start().await;
    let mut worker = stage.worker().start().await;
    let events = stage.events();
    let number = Number::fresh();
    let sender = stage.sender(&ingress);
    refused(&worker, 32, "stop them first").await;
    assert!(worker.stop(SOON).await);
    sender.send(number.message(payload::text(ADA, "1"))).await;
    refused(&worker, 32, "not drained").await;
    worker.restart().await;
    events.wait_for(1, SOON).await;
    drained(&stage).await;
    assert!(worker.stop(SOON).await);

    done(&worker, 32, "32 partitions (there were 16)").await;
    tells_programs(&worker, 32).await;
    let body = number.message(payload::text(ADA, "2"));
    let answer = sender.post_once(body.clone()).await.expect("an answer");
    assert_eq!(answer.status, 503);

    let renewed = stage.ingress().env("STREAM_PARTITIONS", 32).start().await;
    worker.restart_with("STREAM_PARTITIONS", 32).await;
    stage.sender(&renewed).send(body).await;
    let seen = events.wait_for(2, SOON).await;
    assert_eq!(first_texts(&seen)[ADA], ["1", "2"]);
}

#[tokio::test]
async fn a_change_stopped_before_the_count_is_written_is_ended_by_the_next_run() {
    let stage = Stage::new().await;
    let ingress = stage.spooling_ingress().start().await;
    let mut worker = stage.worker().start().await;
    let (events, sender, number) = (stage.events(), stage.sender(&ingress), Number::fresh());
    assert!(worker.stop(SOON).await);
    stopped_before_writing(&stage, &worker, 32, "whatsapp:partitions").await;

    // An ingress of the old count writes nothing into the stream any more, workers of it neither.
    let body = number.message(payload::text(ADA, "1"));
    let answer = sender.post_once(body).await.expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let spooled = stage.webhooks().list("spool").await.expect("a list");
    assert_eq!(spooled.len(), 1);

    done(&worker, 32, "32 partitions (there were 16)").await;
    worker.restart_with("STREAM_PARTITIONS", 32).await;
    let seen = events.wait_for(1, SOON).await;
    assert_eq!(first_texts(&seen)[ADA], ["1"]);
    eventually(SOON, "the spool is empty", async || {
        let spooled = stage.webhooks().list("spool").await.expect("a list");
        spooled.is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_change_stopped_halfway_through_the_partitions_can_be_undone_or_ended() {
    let stage = Stage::new().await;
    let mut worker = stage.worker().start().await;
    assert!(worker.stop(SOON).await);
    let mut redis = stage.redis.connection().await;
    let half = "whatsapp:{9}:seen";
    for (to, result) in [(16, "undone"), (32, "32 partitions (there were 16)")] {
        redis
            .hset::<_, _, _, ()>("whatsapp:{3}:seen", "partitions", 32)
            .await
            .expect("HSET");
        redis
            .hset::<_, _, _, ()>(half, "partitions", 16)
            .await
            .expect("HSET");
        done(&worker, to, result).await;
        for partition in 0..16 {
            let counts_for = count_of(&mut redis, partition).await;
            assert_eq!(counts_for, Some(to.to_string()));
        }
    }
}

#[tokio::test]
async fn a_change_stopped_halfway_is_undone_if_something_came_in_since() {
    let stage = Stage::new().await;
    let ingress = stage.ingress().start().await;
    let mut worker = stage.worker().start().await;
    let (events, sender, number) = (stage.events(), stage.sender(&ingress), Number::fresh());
    assert!(worker.stop(SOON).await);
    let body = number.message(payload::text(ADA, "1"));
    let answer = sender.post_once(body).await.expect("an answer");
    assert_eq!(answer.status, 200);
    // All but the one that holds something.
    let mut redis = stage.redis.connection().await;
    let mut fenced = Vec::new();
    for partition in 0..16 {
        let stream = format!("whatsapp:{{{partition}}}:stream");
        if redis.xlen::<_, u64>(stream).await.expect("XLEN") == 0 {
            let seen = format!("whatsapp:{{{partition}}}:seen");
            let written = redis.hset::<_, _, _, ()>(seen, "partitions", 32);
            written.await.expect("HSET");
            fenced.push(partition);
        }
    }
    assert_eq!(fenced.len(), 15);

    refused(&worker, 32, "not drained").await;
    for partition in fenced {
        assert_eq!(count_of(&mut redis, partition).await.as_deref(), Some("16"));
    }
    worker.restart().await;
    events.wait_for(1, SOON).await;
    drained(&stage).await;
    assert!(worker.stop(SOON).await);
    done(&worker, 32, "32 partitions (there were 16)").await;
}

#[tokio::test]
async fn limits_go_with_their_accounts_wherever_the_change_was_stopped() {
    let stage = Stage::new().await;
    let mut worker = stage.worker().start().await;
    assert!(worker.stop(SOON).await);
    let mut redis = stage.redis.connection().await;
    // One that lies where nobody of 16 partitions looks for it, as a change before may have left it.
    let keys = shared::keys::Keys::new("whatsapp", 16);
    let new = shared::keys::Keys::new("whatsapp", 32);
    let account = (1..)
        .map(|n| format!("10000{n}"))
        .find(|account| keys.partition_of(account) != new.partition_of(account))
        .expect("every other one");
    let field = format!("l{account}");
    let (here, there) = (
        keys.seen(keys.partition_of(&account)),
        new.seen(new.partition_of(&account)),
    );
    redis
        .hset::<_, _, _, ()>(&here, &field, 7)
        .await
        .expect("HSET");
    redis
        .hset::<_, _, _, ()>(&there, &field, 9)
        .await
        .expect("HSET");
    stopped_before_writing(&stage, &worker, 32, "whatsapp:partitions").await;
    done(&worker, 32, "32 partitions").await;
    let at = async |redis: &mut MultiplexedConnection, key: &str| {
        redis
            .hget::<_, _, Option<u32>>(key, &field)
            .await
            .expect("HGET")
    };
    assert_eq!(at(&mut redis, &here).await, None);
    assert_eq!(at(&mut redis, &there).await, Some(7));
}

/// By a login that may not delete: right after the deployment got its new count.
#[tokio::test]
async fn a_change_stopped_after_the_count_is_written_is_complete_but_for_limits_nobody_reads() {
    let stage = Stage::new().await;
    let mut worker = stage.worker().start().await;
    let (events, number) = (stage.events(), Number::fresh());
    assert!(worker.stop(SOON).await);
    let (old, new) = (
        shared::keys::Keys::new("whatsapp", 16),
        shared::keys::Keys::new("whatsapp", 32),
    );
    let moves = |account: &String| old.partition_of(account) != new.partition_of(account);
    let account = (1..).map(|n| format!("10000{n}")).find(moves);
    let account = account.expect("every other one");
    let (field, here, there) = (
        format!("l{account}"),
        old.seen(old.partition_of(&account)),
        new.seen(new.partition_of(&account)),
    );
    let mut redis = stage.redis.connection().await;
    let noted = redis.hset::<_, _, _, ()>(&here, &field, 7);
    noted.await.expect("HSET");
    let mut user = redis::cmd("ACL");
    user.arg("SETUSER").arg("halfway");
    user.arg(&["on", ">secret", "~*", "&*", "+@all", "-hdel"]);
    user.exec_async(&mut redis).await.expect("a login");
    let url = stage.redis.url();
    let url = url.replace("redis://", "redis://halfway:secret@");
    let output = repartition(&worker, 32, &[("REDIS_URL", &url)]).await;
    assert!(!output.status.success(), "it was stopped");
    let count: u16 = redis.get("whatsapp:partitions").await.expect("GET");
    assert_eq!(count, 32);
    assert!(
        redis
            .hexists::<_, _, bool>(&here, &field)
            .await
            .expect("HEXISTS")
    );

    done(&worker, 32, "32 partitions").await;
    assert!(
        !redis
            .hexists::<_, _, bool>(&here, &field)
            .await
            .expect("HEXISTS")
    );
    let limit: u32 = redis.hget(&there, &field).await.expect("HGET");
    assert_eq!(limit, 7);
    let ingress = stage.ingress().env("STREAM_PARTITIONS", 32).start().await;
    worker.restart_with("STREAM_PARTITIONS", 32).await;
    let body = number.message(payload::text(ADA, "1"));
    stage.sender(&ingress).send(body).await;
    events.wait_for(1, SOON).await;
}
