//! Google Pub/Sub's authenticated push: ID tokens signed by OpenSSL, keys served as Google does.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use correlator::sources::config::Via;
use correlator::sources::push::OidcConfig;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::common::Rig;
use crate::{line, source};

const AUDIENCE: &str = "https://keytrail.example/v1/push/gcp";
const EMAIL: &str = "push@made-up.iam.gserviceaccount.com";

/// An RSA key of OpenSSL's.
struct Key {
    id: &'static str,
    file: PathBuf,
}

impl Key {
    fn make(dir: &Path, id: &'static str) -> Self {
        let file = dir.join(format!("{id}.pem"));
        let made = Command::new("openssl")
            .args(["genrsa", "-out"])
            .args([file.to_str().unwrap(), "2048"])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        Self { id, file }
    }

    /// Its public part as a JWK.
    fn public(&self) -> Value {
        let told = Command::new("openssl")
            .args(["rsa", "-noout", "-modulus", "-in"])
            .arg(&self.file)
            .output()
            .unwrap();
        let text = String::from_utf8(told.stdout).unwrap();
        let digits = text.trim().strip_prefix("Modulus=").unwrap();
        let bytes: Vec<u8> = (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
            .collect();
        json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.id, "e": "AQAB",
            "n": URL_SAFE_NO_PAD.encode(bytes)})
    }

    fn token(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let text = self.file.with_extension("text");
        std::fs::write(&text, &signed).unwrap();
        let signature = Command::new("openssl")
            .args(["dgst", "-sha256", "-sign"])
            .arg(&self.file)
            .arg(&text)
            .output()
            .unwrap();
        assert!(signature.status.success(), "{signature:?}");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.stdout))
    }
}

/// The issuer: says which keys are good, and counts how often it is asked.
struct Issuer {
    url: String,
    keys: Arc<Mutex<Vec<Value>>>,
    asked: Arc<AtomicU32>,
}

impl Issuer {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/certs", listener.local_addr().unwrap());
        let (keys, asked) = (
            Arc::<Mutex<Vec<Value>>>::default(),
            Arc::new(AtomicU32::new(0)),
        );
        let (of, count) = (Arc::clone(&keys), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                drop(stream.read(&mut [0; 4096]));
                count.fetch_add(1, Ordering::SeqCst);
                let keys = of.lock().unwrap().clone();
                let answer = if keys.is_empty() {
                    "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_owned()
                } else {
                    let body = json!({ "keys": keys }).to_string();
                    format!(
                        "HTTP/1.1 200 OK\r\ncache-control: public, max-age=3600\r\n\
                         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
                        body.len()
                    )
                };
                drop(stream.write_all(answer.as_bytes()));
            }
        });
        Self { url, keys, asked }
    }
}

/// Pushes a record as Pub/Sub does; the status.
fn push(rig: &Rig, id: &str, authorization: Option<&str>) -> u16 {
    let address = rig.server.push.unwrap();
    let body = json!({"subscription": "projects/p/subscriptions/s",
        "message": {"messageId": id, "data": STANDARD.encode(line(id))}})
    .to_string();
    let authorization = authorization.map_or_else(String::new, |token| {
        format!("authorization: Bearer {token}\r\n")
    });
    let request = format!(
        "POST /v1/push/gcp HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{authorization}\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn pub_sub_pushes_are_taken_from_the_one_sender_whose_provider_signs_for_it() {
    let name = "pub_sub_pushes_are_taken_from_the_one_sender_whose_provider_signs_for_it";
    if Command::new("openssl").arg("version").output().is_err() {
        println!("SKIPPED {name}: no `openssl` (package openssl)");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (Key::make(dir.path(), "k1"), Key::make(dir.path(), "k2"));
    let issuer = Issuer::start();
    let rig = Rig::start_with(dir.path(), |config| {
        let mut pushed = source("gcp", Via::Http);
        pushed.oidc = Some(OidcConfig {
            audience: AUDIENCE.to_owned(),
            email: EMAIL.to_owned(),
            issuer: Some("https://accounts.google.com".to_owned()),
            jwks_url: Some(issuer.url.clone()),
        });
        config.source.push(pushed);
    })
    .await;
    let now = Timestamp::now().as_second();
    let header = json!({"alg": "RS256", "typ": "JWT", "kid": "k1"});
    let claims = json!({"iss": "https://accounts.google.com", "aud": AUDIENCE, "azp": "1",
        "email": EMAIL, "email_verified": true, "sub": "1", "iat": now, "exp": now + 3600});
    let with = |name: &str, value: Value| {
        let mut changed = claims.clone();
        changed[name] = value;
        first.token(&header, &changed)
    };
    let good = first.token(&header, &claims);
    let mut changed = claims.clone();
    changed["sub"] = json!("2");
    // The issuer does not answer: the sender shall come again.
    assert_eq!(push(&rig, "p-0", Some(&good)), 503);
    issuer.keys.lock().unwrap().push(first.public());
    let start = Instant::now();
    while push(&rig, "p-0", Some(&good)) != 200 {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "the keys are never asked for again"
        );
        std::thread::sleep(Duration::from_millis(500));
    }
    let asked = issuer.asked.load(Ordering::SeqCst);
    let (head, _) = good.rsplit_once('.').unwrap();
    let other = second.token(&header, &claims);
    let (_, foreign) = other.rsplit_once('.').unwrap();
    let unsigned = URL_SAFE_NO_PAD.encode(json!({"alg": "none", "kid": "k1"}).to_string());
    let (_, body) = head.split_once('.').unwrap();
    for (what, token, expected) in [
        ("good", Some(good.clone()), 200),
        ("none", None, 401),
        ("no token at all", Some("made-up".to_owned()), 403),
        ("expired", Some(with("exp", json!(now - 120))), 403),
        (
            "another audience",
            Some(with("aud", json!("https://other"))),
            403,
        ),
        ("another sender", Some(with("email", json!("x@y"))), 403),
        (
            "another issuer",
            Some(with("iss", json!("https://evil"))),
            403,
        ),
        (
            "another key's signature",
            Some(format!("{head}.{foreign}")),
            403,
        ),
        ("another's key under the same id", Some(other.clone()), 403),
        ("unsigned", Some(format!("{unsigned}.{body}.")), 403),
        (
            "changed after it was signed",
            Some(good.replacen(body, &URL_SAFE_NO_PAD.encode(changed.to_string()), 1)),
            403,
        ),
    ] {
        assert_eq!(push(&rig, "p-1", token.as_deref()), expected, "{what}");
    }
    assert_eq!(issuer.asked.load(Ordering::SeqCst), asked, "keys are kept");
    assert_eq!(rig.counter("uses_new").await, 2);
    // The issuer changes its keys: tokens by the new one are taken, those by the old one until
    // then.
    *issuer.keys.lock().unwrap() = vec![second.public()];
    let renewed = second.token(&json!({"alg": "RS256", "kid": "k2"}), &claims);
    let start = Instant::now();
    while push(&rig, "p-2", Some(&renewed)) != 200 {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "the new key is never taken"
        );
        std::thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(push(&rig, "p-3", Some(&good)), 403);
    assert_eq!(rig.counter("uses_new").await, 3);
    rig.server.stop().await;
}
