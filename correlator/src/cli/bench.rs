//! Measures the time from a CloudTrail file's arrival to its alert.
//!
//! A whole correlator runs in this process on a directory of its own. Each round has a credential
//! of its own with one holder whose watermark is ahead, so that the use in the dropped file can be
//! judged at once; the clock starts when the file is renamed into the folder and stops when a
//! client of the API's alert stream (HTTP, server-sent events) has received and read the alert.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::{SignedDuration, Timestamp};
use keytrail_model::alert::Alert;
use keytrail_model::coverage::{Coverage, CoverageArea, CoverageRow, CoverageState};
use keytrail_model::credential::CredentialId;
use keytrail_model::fact::{Exposure, ExposureSource, Fact, HostEvent, Watermark};
use keytrail_model::ids::{BootId, EventRef, HostId, ProcessKey};
use keytrail_model::process::{Actor, ProcessSummary, UnitKind};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::Client;
use super::client::Api;
use super::style::print;
use crate::clock;
use crate::config::Config;
use crate::ingest::sink::IngestBatch;
use crate::serve::Server;

/// An alert that takes longer than this is missing.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) async fn run(data_dir: &Path, rounds: u32) -> Result<()> {
    ensure!(rounds > 0, "--rounds must be at least 1");
    let folder = data_dir.join("cloudtrail");
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = Server::start(Config {
        data_dir: data_dir.join("data"),
        listen_ingest: any,
        listen_api: any,
        cloudtrail_dir: Some(folder.clone()),
        ..Config::default()
    })
    .await?;
    let client = Client {
        api: format!("http://{}", server.api),
        token_file: None,
        data_dir: data_dir.join("data"),
    };
    let delivered = listen(Api::new(&client)?);
    let taken = measure(&server, delivered, &folder, rounds).await;
    server.stop().await;
    let mut taken = taken?;
    taken.sort();
    let at = |percent: usize| {
        let index = (taken.len() * percent).div_ceil(100).saturating_sub(1);
        taken.get(index).map_or(0.0, |d| d.as_secs_f64() * 1000.0)
    };
    let report = serde_json::json!({
        "what": "CloudTrail file renamed into the folder -> alert received on the API's stream",
        "rounds": rounds,
        "median_ms": at(50),
        "p99_ms": at(99),
        "max_ms": at(100),
    });
    Ok(print(&format!("{report}\n"))?)
}

/// Follows the alert stream on a thread of its own: whose alert arrived, and when.
fn listen(api: Api) -> mpsc::Receiver<(CredentialId, Instant)> {
    let (sender, receiver) = mpsc::channel(1024);
    std::thread::spawn(move || {
        // From the first alert on, so that it does not matter when the stream opens. It ends with
        // the server; a missing alert is noticed by whoever waits for it.
        let ended = api.stream(Some(0), |data| {
            let alert: Alert = serde_json::from_str(data)?;
            Ok(sender.blocking_send((alert.credential, Instant::now()))?)
        });
        drop(ended);
    });
    receiver
}

async fn measure(
    server: &Server,
    mut delivered: mpsc::Receiver<(CredentialId, Instant)>,
    folder: &Path,
    rounds: u32,
) -> Result<Vec<Duration>> {
    let host = HostId("bench-host".to_owned());
    let boot = BootId(Uuid::new_v4());
    let mut taken = Vec::new();
    for round in 0..rounds {
        let key = format!("AKIA{:A>16}", base26(round));
        let credential = CredentialId::aws_access_key(&key)?;
        let now = clock::now();
        let used = now.checked_sub(SignedDuration::from_mins(10))?;
        server
            .handle()
            .ingest(holder(&host, boot, u64::from(round), &credential, now)?)
            .await?;
        let temporary = folder.join(format!("{round}.part"));
        std::fs::write(&temporary, file(&key, round, used)?)?;
        let start = Instant::now();
        std::fs::rename(&temporary, folder.join(format!("{round}.json.gz")))?;
        loop {
            match tokio::time::timeout(PATIENCE, delivered.recv()).await {
                Ok(Some((about, when))) if about == credential => {
                    taken.push(when.duration_since(start));
                    break;
                }
                Ok(Some(_)) => {}
                Ok(None) => bail!("round {round}: the alert stream ended"),
                Err(_) => bail!("round {round}: no alert within {} s", PATIENCE.as_secs()),
            }
        }
    }
    Ok(taken)
}

/// A number as letters, so that every round has a key id of its own.
fn base26(mut number: u32) -> String {
    let mut text = String::new();
    loop {
        let digit = u8::try_from(number % 26).unwrap_or(0);
        text.insert(0, char::from(b'A' + digit));
        number /= 26;
        if number == 0 {
            return text;
        }
    }
}

/// Facts that make `host` a holder of `credential` with everything seen until now.
fn holder(
    host: &HostId,
    boot: BootId,
    round: u64,
    credential: &CredentialId,
    now: Timestamp,
) -> Result<IngestBatch> {
    let process = ProcessKey {
        pid: 4242,
        start_ns: 1,
    };
    let hour_ago = now.checked_sub(SignedDuration::from_hours(1))?;
    let event = |seq: u64, fact: Fact| HostEvent {
        id: EventRef {
            host: host.clone(),
            boot,
            seq,
        },
        time: hour_ago,
        fact,
    };
    let coverage = Coverage {
        kernel: "bench".to_owned(),
        plan: "A".to_owned(),
        scope: None,
        agent_version: "bench".to_owned(),
        rows: vec![CoverageRow {
            area: CoverageArea::Network,
            what: "connections".to_owned(),
            state: CoverageState::Live {
                hook: "bench".to_owned(),
            },
        }],
    };
    let exposure = Exposure {
        credential: credential.clone(),
        source: ExposureSource::Environment {
            variable: "AWS_ACCESS_KEY_ID".to_owned(),
        },
        process,
        actor: Actor {
            unit: process,
            unit_kind: UnitKind::Other,
            agent: None,
            mcp_server: None,
            user: None,
            lineage: vec![ProcessSummary {
                key: process,
                exe: "/usr/bin/bench".to_owned(),
                argv: vec!["bench".to_owned()],
                started: hour_ago,
            }],
        },
        unexpected_reader: false,
        destinations: Vec::new(),
    };
    let first = round * 2 + 1;
    Ok(IngestBatch {
        host: host.clone(),
        boot,
        events: vec![
            event(first, Fact::Coverage(coverage)),
            event(first + 1, Fact::Exposure(Box::new(exposure))),
        ],
        last_seq: first + 1,
        watermark: Some(Watermark {
            host: host.clone(),
            boot,
            time: now,
            clock_offset_ms: 0,
            clock_error_ms: 1,
            seen_from: Some([198, 51, 100, 1].into()),
            seen_network: None,
        }),
    })
}

/// One gzip log file with one use from a foreign address.
fn file(key: &str, round: u32, used: Timestamp) -> Result<Vec<u8>> {
    let record = serde_json::json!({
        "eventVersion": "1.11",
        "eventID": format!("bench-{round}"),
        "eventTime": used.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "eventSource": "sts.amazonaws.com",
        "eventName": "GetCallerIdentity",
        "awsRegion": "us-east-1",
        "sourceIPAddress": "203.0.113.66",
        "userAgent": "bench",
        "userIdentity": {"type": "IAMUser", "accessKeyId": key},
    });
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(
        serde_json::json!({"Records": [record]})
            .to_string()
            .as_bytes(),
    )?;
    Ok(gzip.finish()?)
}
