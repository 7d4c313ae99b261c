//! Any MIME type, file name and id that a sender may write: the key has one shape, the headers are
//! headers, and nothing that a browser would run is served as such. Three texts, each ended by a line end.
#![no_main]

use libfuzzer_sys::fuzz_target;
use worker::ask::graph::MediaId;
use worker::out::media::names::{content_type, disposition, essence_of_file, extension, key};
use worker::out::media::verify::{contradicts, detected, is_page_instead_of};
use worker::out::store::{folder, header_text};

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let mut parts = text.splitn(4, '\n');
    let [mime, name, tenant, id] = [(); 4].map(|()| parts.next().unwrap_or_default());

    let kept = extension(mime, Some(name));
    assert!(!kept.is_empty() && kept.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    let taken_for = essence_of_file(mime, Some(name));
    let served = content_type(&taken_for);
    for dangerous in ["html", "svg", "xml", "script", "x-msdownload"] {
        // Office documents have `openxml` in their names.
        assert!(!served.contains(dangerous) || served.contains("openxmlformats"), "{served}");
    }
    assert!(served.bytes().all(|byte| byte.is_ascii_graphic()));

    let whole = key(tenant, "image", 1_700_000_000_000, "wamid.A", mime, Some(name));
    let folder = folder(Some(tenant), "0");
    assert_eq!(whole, format!("{folder}/image/2023-11-14/wamid.A.{kept}"));
    assert!(!folder.contains('/') && folder != "." && folder != "..");

    let header = disposition(Some(name), "f.bin");
    let encoded = header.strip_prefix("attachment; filename*=UTF-8''").expect("its start");
    assert!(!encoded.is_empty() && encoded.len() <= 128 * 4 * 3);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-%".contains(&byte);
    assert!(encoded.bytes().all(plain), "{encoded}");
    for folder in ["%2F", "%5C", "%0D", "%0A", "%00", "%E2%80%AE"] {
        assert!(!encoded.contains(folder), "{encoded}");
    }
    assert!(!encoded.starts_with('.'));

    let metadata = header_text(name);
    assert!(metadata.len() <= 500 && !metadata.contains("  "));
    assert!(metadata.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()));

    if let Some(id) = MediaId::parse(id) {
        assert!(id.text().len() <= 32 && id.text().bytes().all(|byte| byte.is_ascii_digit()));
    }
    let _ = is_page_instead_of(mime, name);
    if let Some(detected) = detected(data) {
        contradicts(&taken_for, detected);
    }
});
