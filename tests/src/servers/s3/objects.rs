//! Buckets and objects in memory. `s3s` brings a file backend, but there an object can be read before its
//! digest is checked and its metadata written, names of more than 255 bytes can't be stored, and a listing
//! fails while something is deleted.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Sha256};
use s3s::dto::*;
use s3s::{S3, S3Error, S3Request, S3Response, S3Result, s3_error};

/// A page of a listing.
const PAGE: i32 = 1000;

type Contents = BTreeMap<String, Arc<StoredObject>>;

/// All buckets. An object becomes visible whole, under the lock under which its conditions were checked.
#[derive(Debug, Default)]
pub(super) struct Objects(Mutex<BTreeMap<String, Contents>>);

/// An object; a copy of it shares its bytes.
#[derive(Debug, Clone)]
struct StoredObject {
    pieces: Vec<Bytes>,
    length: u64,
    e_tag: ETag,
    modified: SystemTime,
    described: Described,
}

/// What is told beside the bytes.
#[derive(Debug, Clone)]
struct Described {
    metadata: Option<Metadata>,
    content_type: Option<ContentType>,
    content_disposition: Option<ContentDisposition>,
    content_encoding: Option<ContentEncoding>,
    cache_control: Option<CacheControl>,
    checksum_sha256: Option<ChecksumSHA256>,
}

impl StoredObject {
    fn new(pieces: Vec<Bytes>, described: Described) -> Self {
        Self {
            length: pieces.iter().map(|piece| piece.len() as u64).sum(),
            pieces,
            e_tag: ETag::Strong(uuid::Uuid::new_v4().simple().to_string()),
            modified: SystemTime::now(),
            described,
        }
    }

    fn content_length(&self) -> i64 {
        i64::try_from(self.length).unwrap_or(i64::MAX)
    }

    /// The bytes from `start` to before `end`.
    fn range(&self, start: u64, end: u64) -> Vec<Bytes> {
        let mut at = 0;
        let mut found = Vec::new();
        for piece in &self.pieces {
            let next = at + piece.len() as u64;
            let (from, to) = (start.max(at), end.min(next));
            if from < to {
                let within = |position: u64| usize::try_from(position - at).unwrap_or(usize::MAX);
                found.push(piece.slice(within(from)..within(to)));
            }
            at = next;
        }
        found
    }
}

impl Objects {
    fn buckets(&self) -> MutexGuard<'_, BTreeMap<String, Contents>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn object(&self, bucket: &str, key: &str) -> S3Result<Arc<StoredObject>> {
        let buckets = self.buckets();
        let found = known(buckets.get(bucket))?.get(key).cloned();
        found.ok_or_else(|| s3_error!(NoSuchKey))
    }

    /// Checks the conditions and writes, in one step.
    fn put(
        &self,
        bucket: &str,
        key: &str,
        stored: StoredObject,
        if_match: Option<&ETagCondition>,
        if_none_match: Option<&ETagCondition>,
    ) -> S3Result<()> {
        let mut buckets = self.buckets();
        let bucket = known(buckets.get_mut(bucket))?;
        let there = bucket.get(key);
        let is_there = |condition: &ETagCondition| there.is_some_and(|it| meets(it, condition));
        if if_match.is_some_and(|it| !is_there(it)) || if_none_match.is_some_and(is_there) {
            return Err(s3_error!(PreconditionFailed));
        }
        bucket.insert(key.to_owned(), Arc::new(stored));
        Ok(())
    }
}

fn known<B>(bucket: Option<B>) -> S3Result<B> {
    bucket.ok_or_else(|| s3_error!(NoSuchBucket))
}

fn meets(object: &StoredObject, condition: &ETagCondition) -> bool {
    match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(e_tag) => e_tag.value() == object.e_tag.value(),
    }
}

/// Reads a body, and whether it is what its sender says.
async fn received(
    body: Option<StreamingBlob>,
    sha256: Option<&ChecksumSHA256>,
) -> S3Result<Vec<Bytes>> {
    let mut body = body.ok_or_else(|| s3_error!(IncompleteBody))?;
    let mut hasher = ChecksumHasher {
        sha256: sha256.map(|_| Sha256::new()),
        ..ChecksumHasher::default()
    };
    let mut pieces = Vec::new();
    let broken = |error| S3Error::with_source(s3s::S3ErrorCode::IncompleteBody, error);
    while let Some(piece) = body.try_next().await.map_err(broken)? {
        hasher.update(&piece);
        pieces.push(piece);
    }
    if hasher.finalize().checksum_sha256.as_ref() != sha256 {
        return Err(s3_error!(BadDigest));
    }
    Ok(pieces)
}

type Answered<T> = S3Result<S3Response<T>>;

#[async_trait]
impl S3 for Objects {
    async fn create_bucket(
        &self,
        request: S3Request<CreateBucketInput>,
    ) -> Answered<CreateBucketOutput> {
        let mut buckets = self.buckets();
        if buckets.contains_key(&request.input.bucket) {
            return Err(s3_error!(BucketAlreadyOwnedByYou));
        }
        buckets.insert(request.input.bucket, Contents::new());
        Ok(S3Response::new(CreateBucketOutput::default()))
    }

    async fn head_bucket(&self, request: S3Request<HeadBucketInput>) -> Answered<HeadBucketOutput> {
        known(self.buckets().get(&request.input.bucket))?;
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn put_object(&self, request: S3Request<PutObjectInput>) -> Answered<PutObjectOutput> {
        let input = request.input;
        let pieces = received(input.body, input.checksum_sha256.as_ref()).await?;
        let described = Described {
            metadata: input.metadata,
            content_type: input.content_type,
            content_disposition: input.content_disposition,
            content_encoding: input.content_encoding,
            cache_control: input.cache_control,
            checksum_sha256: input.checksum_sha256,
        };
        let stored = StoredObject::new(pieces, described);
        let e_tag = Some(stored.e_tag.clone());
        self.put(
            &input.bucket,
            &input.key,
            stored,
            input.if_match.as_ref(),
            input.if_none_match.as_ref(),
        )?;
        Ok(S3Response::new(PutObjectOutput {
            e_tag,
            ..PutObjectOutput::default()
        }))
    }

    async fn copy_object(&self, request: S3Request<CopyObjectInput>) -> Answered<CopyObjectOutput> {
        let input = request.input;
        let CopySource::Bucket { bucket, key, .. } = &input.copy_source else {
            return Err(s3_error!(NotImplemented));
        };
        let mut copy = StoredObject::clone(&*self.object(bucket, key)?);
        copy.modified = SystemTime::now();
        let result = CopyObjectResult {
            e_tag: Some(copy.e_tag.clone()),
            last_modified: Some(copy.modified.into()),
            ..CopyObjectResult::default()
        };
        self.put(&input.bucket, &input.key, copy, None, None)?;
        Ok(S3Response::new(CopyObjectOutput {
            copy_object_result: Some(result),
            ..CopyObjectOutput::default()
        }))
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> Answered<GetObjectOutput> {
        let input = request.input;
        let object = self.object(&input.bucket, &input.key)?;
        let all = object.length;
        let range = input.range.map(|range| range.check(all)).transpose()?;
        let (start, end) = range.as_ref().map_or((0, all), |it| (it.start, it.end));
        let pieces = object.range(start, end).into_iter().map(Ok::<_, S3Error>);
        let told = &object.described;
        Ok(S3Response::new(GetObjectOutput {
            body: Some(StreamingBlob::wrap(futures::stream::iter(pieces))),
            content_length: i64::try_from(end - start).ok(),
            content_range: range.map(|it| format!("bytes {}-{}/{all}", it.start, it.end - 1)),
            last_modified: Some(object.modified.into()),
            e_tag: Some(object.e_tag.clone()),
            metadata: told.metadata.clone(),
            content_type: told.content_type.clone(),
            content_disposition: told.content_disposition.clone(),
            content_encoding: told.content_encoding.clone(),
            cache_control: told.cache_control.clone(),
            ..GetObjectOutput::default()
        }))
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> Answered<HeadObjectOutput> {
        let input = request.input;
        let object = self.object(&input.bucket, &input.key)?;
        let told = object.described.clone();
        Ok(S3Response::new(HeadObjectOutput {
            content_length: Some(object.content_length()),
            last_modified: Some(object.modified.into()),
            e_tag: Some(object.e_tag.clone()),
            metadata: told.metadata,
            content_type: told.content_type,
            content_disposition: told.content_disposition,
            content_encoding: told.content_encoding,
            cache_control: told.cache_control,
            checksum_sha256: told.checksum_sha256,
            ..HeadObjectOutput::default()
        }))
    }

    async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> Answered<DeleteObjectOutput> {
        let input = request.input;
        known(self.buckets().get_mut(&input.bucket))?.remove(&input.key);
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> Answered<DeleteObjectsOutput> {
        let input = request.input;
        let mut buckets = self.buckets();
        let bucket = known(buckets.get_mut(&input.bucket))?;
        let deleted = input.delete.objects.into_iter().map(|object| {
            bucket.remove(&object.key);
            DeletedObject {
                key: Some(object.key),
                ..DeletedObject::default()
            }
        });
        Ok(S3Response::new(DeleteObjectsOutput {
            deleted: Some(deleted.collect()),
            ..DeleteObjectsOutput::default()
        }))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> Answered<ListObjectsV2Output> {
        let input = request.input;
        let buckets = self.buckets();
        let bucket = known(buckets.get(&input.bucket))?;
        let page = Page::of(bucket, &input);
        Ok(S3Response::new(ListObjectsV2Output {
            key_count: i32::try_from(page.objects.len() + page.folders.len()).ok(),
            max_keys: Some(input.max_keys.unwrap_or(PAGE)),
            is_truncated: Some(page.next.is_some()),
            next_continuation_token: page.next,
            contents: Some(page.objects),
            common_prefixes: Some(page.folders),
            continuation_token: input.continuation_token,
            delimiter: input.delimiter,
            name: Some(input.bucket),
            prefix: input.prefix,
            start_after: input.start_after,
            ..ListObjectsV2Output::default()
        }))
    }

    /// There are none: nobody uses them.
    async fn list_multipart_uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> Answered<ListMultipartUploadsOutput> {
        known(self.buckets().get(&request.input.bucket))?;
        Ok(S3Response::new(ListMultipartUploadsOutput::default()))
    }
}

/// One answer to a listing.
#[derive(Debug, Default)]
struct Page {
    objects: Vec<Object>,
    folders: Vec<CommonPrefix>,
    /// The last key or folder of it, if there are more.
    next: Option<String>,
}

impl Page {
    fn of(bucket: &Contents, input: &ListObjectsV2Input) -> Self {
        let prefix = input.prefix.as_deref().unwrap_or_default();
        let after = input.continuation_token.as_deref();
        let after = after.max(input.start_after.as_deref()).unwrap_or_default();
        let most = usize::try_from(input.max_keys.unwrap_or(PAGE)).unwrap_or(0);
        let mut page = Self::default();
        let mut last = String::new();
        let from = if prefix > after {
            Bound::Included(prefix)
        } else {
            Bound::Excluded(after)
        };
        let behind = bucket.range::<str, _>((from, Bound::Unbounded));
        for (key, object) in behind.take_while(|(key, _)| key.starts_with(prefix)) {
            let folder = input
                .delimiter
                .as_deref()
                .and_then(|it| folder(key, prefix, it));
            if folder
                .as_deref()
                .is_some_and(|it| it <= after || it == last)
            {
                continue;
            }
            if page.objects.len() + page.folders.len() >= most {
                page.next = Some(last);
                break;
            }
            last = folder.clone().unwrap_or_else(|| key.clone());
            match folder {
                Some(prefix) => page.folders.push(CommonPrefix {
                    prefix: Some(prefix),
                }),
                None => page.objects.push(Object {
                    key: Some(key.clone()),
                    size: Some(object.content_length()),
                    last_modified: Some(object.modified.into()),
                    e_tag: Some(object.e_tag.clone()),
                    ..Object::default()
                }),
            }
        }
        page
    }
}

/// The part of a key up to the first delimiter behind the prefix.
fn folder(key: &str, prefix: &str, delimiter: &str) -> Option<String> {
    let rest = key.strip_prefix(prefix)?;
    let (first, _) = rest.split_once(delimiter)?;
    Some(format!("{prefix}{first}{delimiter}"))
}
