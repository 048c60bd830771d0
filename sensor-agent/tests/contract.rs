//! The correlator's side of the contract, probed by a bare client: what `ingest.proto` says a
//! correlator MUST do.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use correlator::ingest::sink::{IngestBatch, IngestSink, SinkError};
use correlator::ingest::{Ingest, IngestConfig};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use keytrail_model::fact::{ConnectionClosed, Fact, HostEvent};
use keytrail_model::ids::{BootId, ConnectionId, HostId};
use keytrail_pki::ca::{Ca, Validity};
use keytrail_pki::identity::HostIdentity;
use keytrail_pki::request::KeyRequest;
use keytrail_pki::tls;
use keytrail_proto::block;
use keytrail_proto::wire::correlator_message::Message as In;
use keytrail_proto::wire::sensor_ingest_client::SensorIngestClient;
use keytrail_proto::wire::sensor_message::Message as Out;
use keytrail_proto::wire::{self, CorrelatorMessage, SensorMessage, reject::Reason};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

#[derive(Default)]
struct Store(Mutex<Vec<HostEvent>>);

impl IngestSink for Store {
    async fn submit(&self, batch: IngestBatch) -> Result<(), SinkError> {
        self.0.lock().unwrap().extend(batch.events);
        Ok(())
    }

    async fn last_seq(&self, _host: &HostId, _boot: BootId) -> Result<u64, SinkError> {
        let events = self.0.lock().unwrap();
        Ok(events.last().map_or(0, |event| event.id.seq))
    }
}

struct Lab {
    _pki: tempfile::TempDir,
    ca: Ca,
    store: Arc<Store>,
    ingest: Ingest,
}

async fn lab() -> Lab {
    let pki = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::default());
    let config = IngestConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        pki_dir: pki.path().to_owned(),
        ..IngestConfig::default()
    };
    let ingest = Ingest::start(config, Arc::clone(&store)).await.unwrap();
    let ca = Ca::load_or_create(pki.path(), Timestamp::now().as_second()).unwrap();
    Lab {
        _pki: pki,
        ca,
        store,
        ingest,
    }
}

struct Client {
    out: mpsc::Sender<SensorMessage>,
    inbound: Streaming<CorrelatorMessage>,
}

impl Lab {
    async fn channel(&self, with_certificate: bool) -> Channel {
        let certified = with_certificate.then(|| {
            let request = KeyRequest::generate().unwrap();
            let host = HostIdentity {
                tenant: "default".to_owned(),
                host: "probe".to_owned(),
            };
            let validity = Validity::days(Timestamp::now().as_second(), 1);
            let chain = self
                .ca
                .certify_host(request.csr_pem(), &host, validity)
                .unwrap();
            tls::certified(&chain, request.key_pem()).unwrap()
        });
        let config = tls::client_config(self.ingest.ca_pem(), certified).unwrap();
        let address = self.ingest.address();
        Endpoint::from_static("http://localhost")
            .connect_with_connector(tower::service_fn(move |_uri| {
                let config = Arc::clone(&config);
                async move {
                    let tcp = TcpStream::connect(address).await?;
                    let name = ServerName::try_from("localhost").unwrap();
                    let stream = TlsConnector::from(config).connect(name, tcp).await?;
                    Ok::<_, std::io::Error>(TokioIo::new(stream))
                }
            }))
            .await
            .unwrap()
    }

    async fn open(&self, with_certificate: bool) -> Result<Client, Status> {
        let (out, receiver) = mpsc::channel(64);
        let inbound = SensorIngestClient::new(self.channel(with_certificate).await)
            .stream(ReceiverStream::new(receiver))
            .await?
            .into_inner();
        Ok(Client { out, inbound })
    }

    /// A stream after Hello, Welcome and a first heartbeat.
    async fn greeted(&self) -> Client {
        let mut client = self.open(true).await.unwrap();
        client.say(hello(1)).await;
        assert!(matches!(client.hear().await.unwrap(), In::Welcome(_)));
        client
            .say(Out::Heartbeat(wire::Heartbeat {
                host_time: Some(Timestamp::now().into()),
                reply_to: 0,
                held_ns: 0,
            }))
            .await;
        assert!(matches!(client.hear().await.unwrap(), In::ClockReply(_)));
        client
    }

    fn seqs(&self) -> Vec<u64> {
        let events = self.store.0.lock().unwrap();
        events.iter().map(|event| event.id.seq).collect()
    }
}

impl Client {
    async fn say(&self, message: Out) {
        let message = SensorMessage {
            message: Some(message),
        };
        self.out.send(message).await.unwrap();
    }

    async fn hear(&mut self) -> Result<In, Status> {
        let message = tokio::time::timeout(Duration::from_secs(10), self.inbound.message());
        Ok(message.await.unwrap()?.unwrap().message.unwrap())
    }

    async fn acked(&mut self) -> u64 {
        match self.hear().await.unwrap() {
            In::Ack(ack) => ack.last_seq,
            other => panic!("expected an Ack, got {other:?}"),
        }
    }

    /// Expects a Reject and then the end; returns both.
    async fn rejected(&mut self) -> (wire::Reject, Status) {
        let reject = match self.hear().await.unwrap() {
            In::Reject(reject) => reject,
            other => panic!("expected a Reject, got {other:?}"),
        };
        (reject, self.hear().await.unwrap_err())
    }
}

fn hello(protocol_version: u32) -> Out {
    Out::Hello(wire::Hello {
        protocol_version,
        boot_id: vec![7; 16],
        boot_time: Some(Timestamp::UNIX_EPOCH.into()),
        agent_version: "probe".to_owned(),
    })
}

fn event(id: u64) -> wire::Event {
    let fact = Fact::ConnectionClosed(ConnectionClosed {
        id: ConnectionId(id),
        bytes_sent: 0,
        bytes_received: 0,
    });
    wire::Event {
        time: Some(Timestamp::now().into()),
        fact: Some(fact.into()),
    }
}

fn batch(first_seq: u64, events: Vec<wire::Event>) -> wire::Batch {
    use prost::Message as _;
    let count = u32::try_from(events.len()).unwrap();
    let raw = wire::EventBlock { events }.encode_to_vec();
    assert_eq!(block::events(&raw).unwrap().len(), count as usize);
    wire::Batch {
        first_seq,
        count,
        block_bytes: u32::try_from(raw.len()).unwrap(),
        block_zstd: zstd::bulk::compress(&raw, 1).unwrap().into(),
    }
}

fn good(first: u64, last: u64) -> Out {
    Out::Batch(batch(first, (first..=last).map(event).collect()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_needs_a_certificate() {
    let lab = lab().await;
    let status = lab.open(false).await.err().expect("refused");
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(status.message().contains("certificate"), "{status}");
    assert_eq!(lab.ingest.counts().streams_refused, 1);
    lab.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicates_change_nothing_and_are_acknowledged_again() {
    let lab = lab().await;
    let mut client = lab.greeted().await;
    client.say(good(1, 5)).await;
    assert_eq!(client.acked().await, 5);
    client.say(good(1, 5)).await;
    assert_eq!(client.acked().await, 5);
    client.say(good(4, 8)).await;
    assert_eq!(client.acked().await, 8);
    assert_eq!(lab.seqs(), (1..=8).collect::<Vec<_>>());
    assert_eq!(lab.ingest.counts().duplicates, 7);
    // A newer stream of the same host replaces this one and goes on where it ended.
    let mut newer = lab.open(true).await.unwrap();
    newer.say(hello(1)).await;
    let In::Welcome(welcome) = newer.hear().await.unwrap() else {
        panic!("expected Welcome");
    };
    assert_eq!(welcome.last_seq, 8);
    assert_eq!(client.hear().await.unwrap_err().code(), Code::Aborted);
    lab.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_becomes_one_gap() {
    let lab = lab().await;
    let mut client = lab.greeted().await;
    client.say(good(1, 2)).await;
    assert_eq!(client.acked().await, 2);
    let (from, to) = (Timestamp::UNIX_EPOCH, Timestamp::now());
    client
        .say(Out::Lost(wire::Lost {
            first_seq: 3,
            last_seq: 9,
            from: Some(from.into()),
            to: Some(to.into()),
            reason: "full\n".to_owned(),
        }))
        .await;
    assert_eq!(client.acked().await, 9);
    client.say(good(12, 13)).await;
    assert_eq!(client.acked().await, 13);
    assert_eq!(lab.seqs(), [1, 2, 3, 10, 12, 13]);
    let events = lab.store.0.lock().unwrap().clone();
    let Fact::Gap(told) = &events[2].fact else {
        panic!("expected a gap");
    };
    assert_eq!((told.count, told.from, told.to), (Some(7), from, to));
    assert_eq!(told.reason, "full\\u{a}");
    let Fact::Gap(skipped) = &events[3].fact else {
        panic!("expected a gap");
    };
    assert_eq!(skipped.count, Some(2));
    assert_eq!(lab.ingest.counts().lost, 9);
    lab.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_the_contract_is_named_and_ends_the_stream() {
    let broken_fact = Out::Batch(batch(
        1,
        vec![
            event(1),
            wire::Event {
                time: Some(Timestamp::now().into()),
                fact: Some(wire::event::Fact::ConnectionNamed(wire::ConnectionNamed {
                    id: 1,
                    name: "x".to_owned(),
                    source: 77,
                    alpn: Vec::new(),
                })),
            },
        ],
    ));
    let miscounted = Out::Batch(wire::Batch {
        count: 3,
        ..batch(1, vec![event(1)])
    });
    let bomb = Out::Batch(wire::Batch {
        first_seq: 1,
        count: 1,
        block_bytes: 1000,
        block_zstd: zstd::bulk::compress(&vec![0; 1 << 24], 1).unwrap().into(),
    });
    let huge = Out::Batch(wire::Batch {
        block_bytes: u32::MAX,
        ..batch(1, vec![event(1)])
    });
    let far = Out::Batch(batch(u64::MAX, vec![event(1)]));
    let too_early = Out::Watermark(wire::Watermark {
        time: Some(Timestamp::now().into()),
        after_seq: 5,
    });
    for (message, reason, seq, field) in [
        (broken_fact, Reason::Fact, 2, "connection_named.source"),
        (miscounted, Reason::Protocol, 0, "batch.count"),
        (bomb, Reason::Protocol, 0, "batch.block_zstd"),
        (huge, Reason::Protocol, 0, "batch.block_bytes"),
        (far, Reason::Protocol, 0, "batch"),
        (too_early, Reason::Protocol, 0, "watermark.after_seq"),
        (hello(1), Reason::Protocol, 0, "message"),
    ] {
        let lab = lab().await;
        let mut client = lab.greeted().await;
        client.say(message).await;
        let (reject, status) = client.rejected().await;
        assert_eq!((reject.reason(), reject.seq), (reason, seq), "{field}");
        assert_eq!(reject.field, field);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(lab.seqs(), Vec::<u64>::new());
        assert_eq!(lab.ingest.counts().rejected, 1);
        lab.ingest.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_version_is_refused_at_hello() {
    let lab = lab().await;
    let mut client = lab.open(true).await.unwrap();
    client.say(hello(99)).await;
    let (reject, _) = client.rejected().await;
    assert_eq!(reject.reason(), Reason::Version);
    lab.ingest.stop().await;
}
