//! Facts a second from the outbox to the durable acknowledgement: spool, mTLS on loopback, ingest,
//! and a sink that writes every fact to SQLite with `synchronous=FULL` before it says yes.
//!
//! `cargo run --release -p sensor-agent --example pipeline -- [facts]`. Prints one line of JSON.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a measuring tool for developers"
)]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use correlator::ingest::sink::{IngestBatch, IngestSink, SinkError};
use correlator::ingest::{Ingest, IngestConfig};
use jiff::Timestamp;
use keytrail_model::fact::{ConnectionOpened, Fact, ProcessStarted, Transport};
use keytrail_model::ids::{BootId, ConnectionId, HostId, ProcessKey};
use keytrail_model::process::ProcessSummary;
use keytrail_proto::block;
use keytrail_spool::{Limits, Record, Spool};
use sensor_agent::uplink::enrol::{Enrolment, ensure};
use sensor_agent::uplink::{HostFact, Uplink, UplinkConfig};
use uuid::Uuid;

/// Facts are pushed so many at a time, as a ring reader would.
const CHUNK: u64 = 256;

struct Disk(Mutex<Spool>);

impl IngestSink for Disk {
    async fn submit(&self, batch: IngestBatch) -> Result<(), SinkError> {
        let records: Vec<Record> = batch
            .events
            .into_iter()
            .map(|event| Record {
                bytes: block::encode_fact(event.time, event.fact),
                stamp: event.time.as_microsecond(),
            })
            .collect();
        tokio::task::block_in_place(|| self.0.lock().unwrap().append(&records, None))
            .map(drop)
            .map_err(|error| SinkError::Unavailable(error.to_string()))
    }

    async fn last_seq(&self, _host: &HostId, _boot: BootId) -> Result<u64, SinkError> {
        Ok(0)
    }
}

/// Half connections, half process starts with a command line: about what an agent's tree makes.
fn fact(number: u64) -> HostFact {
    let key = ProcessKey {
        pid: u32::try_from(number % 30_000).unwrap(),
        start_ns: number * 1_000,
    };
    let time = Timestamp::now();
    let fact = if number.is_multiple_of(2) {
        Fact::ConnectionOpened(ConnectionOpened {
            id: ConnectionId(number),
            process: key,
            unit: key,
            exe: "node".to_owned(),
            transport: Transport::Tcp,
            local: ([10, 0, 0, 2], u16::try_from(number % 60_000).unwrap()).into(),
            remote: ([203, 0, 113, 9], 443).into(),
        })
    } else {
        Fact::ProcessStarted(ProcessStarted {
            process: ProcessSummary {
                key,
                exe: "/usr/local/lib/node_modules/.bin/mcp-server-files".to_owned(),
                argv: ["node", "server.js", "--root", "/home/dev/project"]
                    .map(str::to_owned)
                    .to_vec(),
                started: time,
            },
            parent: Some(key),
            unit: key,
        })
    };
    HostFact { time, fact }
}

#[tokio::main]
async fn main() {
    let total: u64 = std::env::args()
        .nth(1)
        .map_or(1_000_000, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let limits = Limits { max_bytes: 4 << 30 };
    let disk = Spool::open(&path("sink.db"), [0; 16], limits).unwrap().0;
    let config = IngestConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        pki_dir: path("pki"),
        ..IngestConfig::default()
    };
    let ingest = Ingest::start(config, Arc::new(Disk(Mutex::new(disk))))
        .await
        .unwrap();
    let token = ingest.issue_token(Duration::from_mins(1), None).unwrap();
    let address = ingest.address().to_string();
    ensure(&Enrolment {
        state_dir: &path("state"),
        address: &address,
        ca_pem: ingest.ca_pem(),
        token: Some(&token),
        hostname: "bench",
    })
    .await
    .unwrap();
    let uplink = Uplink::start(UplinkConfig {
        address,
        ca_pem: ingest.ca_pem().to_owned(),
        state_dir: path("state"),
        boot: BootId(Uuid::from_u128(1)),
        boot_time: Timestamp::now(),
        agent_version: "bench".to_owned(),
        spool: limits,
    })
    .unwrap();
    let outbox = uplink.outbox();
    let start = Instant::now();
    let mut number = 0;
    while number < total {
        outbox.ready().await;
        let end = (number + CHUNK).min(total);
        let pushed = outbox.push((number..end).map(fact).collect());
        assert_eq!(pushed.dropped, 0);
        number = end;
    }
    let pushed = start.elapsed();
    assert!(uplink.drain(Duration::from_mins(10)).await);
    let acked = start.elapsed();

    // How long one fact takes when there is nothing else to do.
    let mut single = Vec::new();
    for number in 0..50 {
        let start = Instant::now();
        assert_eq!(outbox.push(vec![fact(number)]).dropped, 0);
        assert!(uplink.drain(Duration::from_secs(10)).await);
        single.push(start.elapsed());
    }
    single.sort();
    println!(
        "{{\"facts\":{total},\"pushed_s\":{:.3},\"acked_s\":{:.3},\"facts_per_s\":{:.0},\
         \"one_fact_p50_ms\":{:.1},\"one_fact_max_ms\":{:.1}}}",
        pushed.as_secs_f64(),
        acked.as_secs_f64(),
        total as f64 / acked.as_secs_f64(),
        single[25].as_secs_f64() * 1000.0,
        single[49].as_secs_f64() * 1000.0,
    );
    uplink.stop().await;
    ingest.stop().await;
}
