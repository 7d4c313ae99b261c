//! The example of nginx in front of ingress, run by nginx: what Meta sends arrives as it was sent, and
//! nobody else's does.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use reqwest::header::{CONNECTION, TRANSFER_ENCODING};
use reqwest::{Body, Certificate, Client, Identity, StatusCode};
use tempfile::TempDir;
use tests::meta::payload::{self, Number};
use tests::meta::sign;
use tests::process::{Process, command};
use tests::programs::APP_SECRET;
use tests::{Stage, ports};

use crate::stored;

const EXAMPLE: &str = include_str!("../../../deploy/proxies/nginx.conf");
const META: &str = "client.webhooks.fbclientcerts.com";

/// A certificate of a name and its key in the folder, signed by the CA there; the first one is the CA.
fn certificate(folder: &Path, file: &str, name: &str) {
    let mut openssl = Command::new("openssl");
    openssl
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ])
        .args([
            "-nodes",
            "-days",
            "2",
            "-subj",
            &format!("/O=Test/CN={name}"),
        ])
        .args([
            "-keyout",
            &format!("{file}.key"),
            "-out",
            &format!("{file}.pem"),
        ]);
    if file != "ca" {
        openssl.args(["-CA", "ca.pem", "-CAkey", "ca.key"]);
        openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
        openssl.args(["-addext", &format!("subjectAltName=DNS:{name}")]);
    }
    let made = openssl.current_dir(folder).output().expect("openssl");
    let told = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{told}");
}

/// nginx as the example has it, but for names, paths and ports.
struct Nginx {
    folder: TempDir,
    port: u16,
    _process: Process,
}

impl Nginx {
    async fn before(ingress: &str) -> Self {
        let (folder, port) = (tempfile::tempdir().expect("a folder"), ports::free());
        let path = folder.path();
        for (file, name) in [
            ("ca", "CA"),
            ("server", "localhost"),
            ("meta", META),
            ("other", "other"),
        ] {
            certificate(path, file, name);
        }
        let at = |file: &str| path.join(file).display().to_string();
        let mut settings = EXAMPLE.to_owned();
        for (ours, theirs) in [
            ("127.0.0.1:8080", ingress.to_owned()),
            ("listen 443 ssl", format!("listen 127.0.0.1:{port} ssl")),
            ("webhooks.example.com", "localhost".to_owned()),
            ("/etc/nginx/tls/fullchain.pem", at("server.pem")),
            ("/etc/nginx/tls/privkey.pem", at("server.key")),
            (
                "/etc/nginx/tls/meta-outbound-api-ca-2025-12.pem",
                at("ca.pem"),
            ),
        ] {
            assert!(settings.contains(ours), "{ours} is not in the example");
            settings = settings.replace(ours, &theirs);
        }
        let own = format!(
            "daemon off; error_log stderr; pid {}; user root;\n",
            at("pid")
        );
        std::fs::write(path.join("nginx.conf"), own + &settings).expect("its settings");
        let mut nginx = command("nginx");
        nginx.arg("-p").arg(path).args(["-c", &at("nginx.conf")]);
        let mut process = Process::spawn("nginx", nginx, path).expect("nginx");
        let listening = async || {
            tokio::net::TcpStream::connect(("127.0.0.1", port))
                .await
                .is_ok()
        };
        let up = process.ready_when(Duration::from_secs(20), listening).await;
        up.expect("nginx listens");
        Self {
            folder,
            port,
            _process: process,
        }
    }

    fn url(&self) -> String {
        format!("https://localhost:{}/webhook/meta", self.port)
    }

    /// A client with the certificate of that file.
    fn client(&self, of: Option<&str>) -> Client {
        let file = |name: &str| std::fs::read(self.folder.path().join(name)).expect("a file");
        let ca = Certificate::from_pem(&file("ca.pem")).expect("a certificate");
        let mut client = Client::builder().tls_certs_only([ca]).no_proxy();
        if let Some(of) = of {
            let both = [file(&format!("{of}.pem")), file(&format!("{of}.key"))].concat();
            client = client.identity(Identity::from_pem(&both).expect("an identity"));
        }
        client.build().expect("a client")
    }

    async fn post(&self, client: &Client, signature: &str, body: impl Into<Body>) -> StatusCode {
        let request = client
            .post(self.url())
            .header("X-Hub-Signature-256", signature);
        let answer = request.body(body).send().await.expect("an answer");
        answer.status()
    }
}

/// A webhook of so many bytes.
fn large(bytes: usize) -> Bytes {
    Number::fresh().message(payload::text("15550001", &"x".repeat(bytes)))
}

#[tokio::test]
async fn behind_nginx_metas_webhooks_arrive_as_they_were_sent() {
    let stage = Stage::new().await;
    let ingress = stage
        .ingress()
        .env("META_VERIFY_TOKEN", "verify")
        .start()
        .await;
    let nginx = Nginx::before(ingress.address()).await;
    let meta = nginx.client(Some("meta"));
    // Whole and in chunks, small and as large as Meta's are, one after the other on a connection.
    for body in [large(10), large(3_000_000), large(200_000)] {
        let signature = sign(APP_SECRET, &body);
        assert_eq!(nginx.post(&meta, &signature, body).await, 200);
    }
    let body = large(1_000_000);
    let signature = sign(APP_SECRET, &body);
    let pieces: Vec<_> = body
        .chunks(10_000)
        .map(|piece| Ok::<_, std::io::Error>(Bytes::copy_from_slice(piece)))
        .collect();
    let chunked = Body::wrap_stream(stream::iter(pieces));
    assert_eq!(nginx.post(&meta, &signature, chunked).await, 200);
    assert_eq!(stored(&stage).await, 4);
    assert_eq!(nginx.post(&meta, "sha256=00", large(10)).await, 401);
    // One connection served them: nginx keeps it.
    let connections = ingress.metric("whatsapp_ingress_connections", "").await;
    assert!(connections <= 2.0, "{connections} connections");
}

#[tokio::test]
async fn behind_nginx_metas_challenge_is_answered_and_nobody_else_gets_in() {
    let stage = Stage::new().await;
    let ingress = stage
        .ingress()
        .env("META_VERIFY_TOKEN", "verify")
        .start()
        .await;
    let nginx = Nginx::before(ingress.address()).await;
    let challenge = format!(
        "{}?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=verify",
        nginx.url()
    );
    let answer = nginx
        .client(Some("meta"))
        .get(&challenge)
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.headers().get(TRANSFER_ENCODING), None);
    assert_eq!(
        answer.headers().get(CONNECTION).map(|it| it.as_bytes()),
        Some(&b"keep-alive"[..])
    );
    assert_eq!(answer.text().await.expect("a body"), "1158201444");
    for stranger in [None, Some("other")] {
        let refused = nginx
            .client(stranger)
            .get(&challenge)
            .send()
            .await
            .expect("an answer");
        assert!(
            [400, 403].contains(&refused.status().as_u16()),
            "{stranger:?}"
        );
    }
    let elsewhere = nginx.url().replace("/webhook/meta", "/ready");
    let answer = nginx
        .client(Some("meta"))
        .get(elsewhere)
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 404);
    assert_eq!(stored(&stage).await, 0);
}
