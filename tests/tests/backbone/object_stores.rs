//! What the programs need of an S3, of the test run's and of the one within the harness.

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{
    Attribute, Attributes, Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
};
use reqwest::{Method, StatusCode};
use tests::servers::{S3, Shared};
use tests::store::Store;

/// More than a page of a listing, in two folders.
const MANY: usize = 1100;

/// A bucket of its own in each store, by the store's name.
struct Stores {
    stores: Vec<(&'static str, Store)>,
    // What one of them is in.
    _embedded: S3,
}

impl Stores {
    async fn new() -> Self {
        let embedded = S3::embedded().expect("a store");
        let name = format!("needs-{}", uuid::Uuid::new_v4().simple());
        let stores = vec![
            ("the run's", Store::new(&Shared::from_env().s3, &name)),
            ("embedded", Store::new(embedded.access(), &name)),
        ];
        for (_, store) in &stores {
            store.create_bucket().await.expect("a bucket");
            store.create_bucket().await.expect("the same bucket");
        }
        Self {
            stores,
            _embedded: embedded,
        }
    }
}

fn described() -> PutOptions {
    let mut attributes = Attributes::new();
    attributes.insert(Attribute::ContentType, "image/png".into());
    attributes.insert(Attribute::Metadata("reason".into()), "unreadable".into());
    PutOptions {
        attributes,
        ..PutOptions::default()
    }
}

#[tokio::test]
async fn of_many_who_create_an_object_one_wins() {
    let stores = Stores::new().await;
    for (name, store) in &stores.stores {
        let key = Path::from("a/b");
        let puts = (0..8).map(|n| {
            let key = &key;
            async move {
                let body = Bytes::from(vec![n; 10_000]);
                store
                    .client()
                    .put_opts(key, body.into(), PutMode::Create.into())
                    .await
            }
        });
        let ended = futures::future::join_all(puts).await;
        let won = ended.iter().filter(|ended| ended.is_ok()).count();
        assert_eq!(won, 1, "{name}: {ended:?}");
        let lost = ended.into_iter().filter_map(Result::err);
        for error in lost {
            assert!(
                matches!(error, Error::AlreadyExists { .. }),
                "{name}: {error}"
            );
        }
    }
}

#[tokio::test]
async fn a_copy_has_what_was_written_beside_it_and_deleting_twice_is_no_error() {
    let stores = Stores::new().await;
    for (name, store) in &stores.stores {
        let (from, to) = (Path::from("a"), Path::from("deep/er/b"));
        let body = Bytes::from_static(b"bytes");
        let written = store
            .client()
            .put_opts(&from, body.clone().into(), described());
        written.await.expect(name);
        store.client().copy(&from, &to).await.expect(name);
        for _ in 0..2 {
            store.client().delete(&from).await.expect(name);
        }
        assert!(store.object("a").await.expect(name).is_none(), "{name}");
        let copy = store.object("deep/er/b").await.expect(name).expect(name);
        assert_eq!(copy.bytes, body, "{name}");
        assert_eq!(copy.metadata["reason"], "unreadable", "{name}");
        assert_eq!(copy.content_type.as_deref(), Some("image/png"), "{name}");
    }
}

#[tokio::test]
async fn listings_have_every_key_in_order_whatever_their_page_and_many_are_deleted_at_once() {
    let stores = Stores::new().await;
    for (name, store) in &stores.stores {
        let keys: Vec<String> = (0..MANY).map(|n| format!("f{}/{n:05}", n % 2)).collect();
        let puts = stream::iter(&keys).map(|key| async move {
            let key = Path::from(key.as_str());
            store.client().put(&key, "x".into()).await
        });
        let written: Result<Vec<_>, _> = puts.buffer_unordered(16).try_collect().await;
        written.expect(name);
        let mut sorted = keys.clone();
        sorted.sort();
        assert_eq!(store.list("").await.expect(name), sorted, "{name}");
        let offset = Path::from(sorted[MANY - 3].as_str());
        let behind = store.client().list_with_offset(None, &offset);
        let behind: Vec<_> = behind.try_collect().await.expect(name);
        assert_eq!(behind.len(), 2, "{name}");
        let top = store.client().list_with_delimiter(None).await.expect(name);
        let folders = ["f0", "f1"].map(Path::from);
        assert_eq!(top.common_prefixes, folders, "{name}");
        assert!(top.objects.is_empty(), "{name}");
        let all = stream::iter(sorted).map(|key| Ok(Path::from(key))).boxed();
        let deleted: Result<Vec<_>, _> = store.client().delete_stream(all).try_collect().await;
        assert_eq!(deleted.expect(name).len(), MANY, "{name}");
        assert!(store.list("").await.expect(name).is_empty(), "{name}");
    }
}

#[tokio::test]
async fn a_signed_url_works_for_what_it_was_signed_for() {
    let stores = Stores::new().await;
    let minute = Duration::from_secs(60);
    let client = reqwest::Client::new();
    for (name, store) in &stores.stores {
        let key = Path::from("picture");
        let sign = async |method: Method, expiry: Duration| {
            store
                .client()
                .signed_url(method, &key, expiry)
                .await
                .expect(name)
        };
        let large = Bytes::from(vec![7; 100_000_000]);
        let put = client
            .put(sign(Method::PUT, minute).await)
            .body(large.clone());
        let put = put.send().await.expect(name);
        assert!(put.status().is_success(), "{name}: {}", put.status());
        let url = sign(Method::GET, minute).await;
        let got = reqwest::get(url.clone()).await.expect(name);
        assert_eq!(got.bytes().await.expect(name), large, "{name}");
        let part = client.get(url.clone()).header("range", "bytes=99999998-");
        let part = part.send().await.expect(name);
        assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT, "{name}");
        assert_eq!(
            part.bytes().await.expect(name),
            [7_u8, 7].as_slice(),
            "{name}"
        );
        let others = url.as_str().replace("picture", "pictures");
        let deleted = client.delete(url).send().await.expect(name);
        assert_eq!(deleted.status(), StatusCode::FORBIDDEN, "{name}");
        let other = reqwest::get(others).await.expect(name);
        assert_eq!(other.status(), StatusCode::FORBIDDEN, "{name}");
    }
}

#[tokio::test]
async fn what_breaks_off_or_has_another_digest_is_no_object() {
    let stores = Stores::new().await;
    for (name, store) in &stores.stores {
        let key = Path::from("broken");
        let minute = Duration::from_secs(60);
        let url = store
            .client()
            .signed_url(Method::PUT, &key, minute)
            .await
            .expect(name);
        let first = stream::iter([Ok(Bytes::from(vec![1; 70_000])), Err("broken")]);
        let put = reqwest::Client::new()
            .put(url)
            .header("content-length", "100000");
        let put = put.body(reqwest::Body::wrap_stream(
            first.map_err(std::io::Error::other),
        ));
        assert!(put.send().await.is_err(), "{name}");
        assert!(
            store.object("broken").await.expect(name).is_none(),
            "{name}"
        );
    }
    let (_, embedded) = &stores.stores[1];
    let key = Path::from("other");
    let mut options = object_store::signer::SignedUrlOptions::new();
    let digest = "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=";
    let name = reqwest::header::HeaderName::from_static("x-amz-checksum-sha256");
    options
        .signed_headers
        .insert(name, digest.parse().expect("a header"));
    let minute = Duration::from_secs(60);
    let url = embedded
        .client()
        .signed_url_opts(Method::PUT, &key, minute, &options);
    let put = reqwest::Client::new().put(url.await.expect("a URL"));
    let put = put.headers(options.signed_headers.clone());
    let refused = put
        .try_clone()
        .expect("a request")
        .body("abd")
        .send()
        .await
        .expect("an answer");
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    assert!(embedded.object("other").await.expect("the store").is_none());
    let taken = put.body("abc").send().await.expect("an answer");
    assert_eq!(taken.status(), StatusCode::OK);
}
