//! A correlator in this process, with made-up facts and files.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    missing_docs,
    dead_code,
    reason = "test code: it fails by panicking and has no public interface"
)]

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use correlator::config::Config;
use correlator::ingest::sink::IngestBatch;
use correlator::serve::Server;
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::{SignedDuration, Timestamp};
use keytrail_model::coverage::{Coverage, CoverageArea, CoverageRow, CoverageState};
use keytrail_model::fact::{Exposure, ExposureSource, Fact, HostEvent, Watermark};
use keytrail_model::ids::{BootId, EventRef, HostId, ProcessKey};
use keytrail_model::process::{Actor, ProcessSummary, UnitKind};
use serde_json::Value;
use uuid::Uuid;

pub const KEY: &str = "AKIAIOSFODNN7EXAMPLE";
const PATIENCE: Duration = Duration::from_secs(20);

/// A correlator and its folders.
pub struct Rig {
    pub server: Server,
    pub data: PathBuf,
    pub trail: PathBuf,
    token: String,
}

impl Rig {
    /// Starts one in `dir` (again, when it was used before).
    pub async fn start(dir: &Path) -> Self {
        Self::start_with(dir, |_| {}).await
    }

    /// The same with other settings.
    pub async fn start_with(dir: &Path, change: impl FnOnce(&mut Config)) -> Self {
        let (data, trail) = (dir.join("data"), dir.join("trail"));
        std::fs::create_dir_all(&trail).unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut config = Config {
            data_dir: data.clone(),
            listen_ingest: any,
            listen_api: any,
            listen_push: any,
            cloudtrail_dir: Some(trail.clone()),
            rescan_seconds: 1,
            ..Config::default()
        };
        change(&mut config);
        let server = Server::start(config).await.unwrap();
        let token = std::fs::read_to_string(data.join("api-token")).unwrap();
        Self {
            server,
            data,
            trail,
            token,
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.api)
    }

    /// Status and body of a GET, with headers of the caller's choice.
    pub async fn raw(&self, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
        let url = self.url(path);
        let headers: Vec<(String, String)> = headers
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        tokio::task::spawn_blocking(move || {
            let agent: ureq::Agent = ureq::Agent::config_builder()
                .http_status_as_error(false)
                .build()
                .into();
            let mut request = agent.get(&url);
            for (name, value) in headers {
                request = request.header(name, value);
            }
            let mut response = request.call().unwrap();
            let status = response.status().as_u16();
            (status, response.body_mut().read_to_string().unwrap())
        })
        .await
        .unwrap()
    }

    /// Status and body of a request with a body, as the API's own user.
    pub async fn send(&self, method: &str, path: &str, body: &[u8]) -> (u16, String) {
        self.send_as(&self.bearer(), method, path, body).await
    }

    /// [`Rig::send`] with a bearer of the caller's choice.
    pub async fn send_as(
        &self,
        bearer: &str,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> (u16, String) {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(self.url(path))
            .header("authorization", bearer)
            .header("content-type", "application/json")
            .body(body.to_vec())
            .unwrap();
        tokio::task::spawn_blocking(move || {
            let agent: ureq::Agent = ureq::Agent::config_builder()
                .http_status_as_error(false)
                .allow_non_standard_methods(true)
                .build()
                .into();
            let mut response = agent.run(request).unwrap();
            let status = response.status().as_u16();
            (status, response.body_mut().read_to_string().unwrap())
        })
        .await
        .unwrap()
    }

    pub fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }

    pub async fn get(&self, path: &str) -> Value {
        let bearer = self.bearer();
        let (status, body) = self.raw(path, &[("authorization", &bearer)]).await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    pub async fn counter(&self, name: &str) -> u64 {
        let status = self.get("/v1/status").await;
        let counters = status["counters"].as_array().unwrap();
        let one = counters.iter().find(|c| c["name"] == name);
        // Some are shown only once they are not zero.
        one.map_or(0, |one| one["value"].as_u64().unwrap())
    }

    /// One source's part of the status.
    pub async fn source(&self, name: &str) -> Value {
        let status = self.get("/v1/status").await;
        let sources = status["sources"].as_array().unwrap();
        let one = sources.iter().find(|source| source["name"] == name);
        one.unwrap_or_else(|| panic!("no source {name}")).clone()
    }

    /// Waits until a counter has reached `value`.
    pub async fn reaches(&self, name: &str, value: u64) {
        let start = Instant::now();
        loop {
            let now = self.counter(name).await;
            if now >= value {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{name} is {now}, not {value}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Puts a file into the folder at once, as a delivery does.
    pub fn deliver(&self, name: &str, bytes: &[u8]) {
        let temporary = self.trail.join(format!("{name}.part"));
        std::fs::write(&temporary, bytes).unwrap();
        std::fs::rename(temporary, self.trail.join(name)).unwrap();
    }

    /// Makes `host` a holder of [`KEY`], seen until `until`.
    pub async fn holder(&self, host: &str, until: Timestamp) {
        let batch = holder(host, until);
        self.server.handle().ingest(batch).await.unwrap();
    }

    /// Waits for the first alert, whole.
    pub async fn alert(&self) -> Value {
        let start = Instant::now();
        loop {
            let list = self.get("/v1/alerts").await;
            if let Some(id) = list["alerts"][0]["id"].as_str() {
                return self.get(&format!("/v1/alerts/{id}")).await;
            }
            assert!(start.elapsed() < PATIENCE, "no alert");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A CloudTrail record of a use of [`KEY`] from a foreign address.
pub fn record(id: &str, time: Timestamp) -> Value {
    serde_json::json!({
        "eventVersion": "1.11",
        "eventID": id,
        "eventTime": time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "eventSource": "sts.amazonaws.com",
        "eventName": "GetCallerIdentity",
        "awsRegion": "us-east-1",
        "sourceIPAddress": "203.0.113.66",
        "userAgent": "made-up",
        "userIdentity": {"type": "IAMUser", "accessKeyId": KEY},
    })
}

pub fn file(records: &[Value]) -> Vec<u8> {
    serde_json::to_vec(&serde_json::json!({ "Records": records })).unwrap()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

pub fn minutes_ago(minutes: i64) -> Timestamp {
    Timestamp::now() - SignedDuration::from_mins(minutes)
}

pub fn holder(host: &str, until: Timestamp) -> IngestBatch {
    let host = HostId(host.to_owned());
    let boot = BootId(Uuid::from_u128(7));
    let started = until - SignedDuration::from_hours(1);
    let event = |seq, fact| HostEvent {
        id: EventRef {
            host: host.clone(),
            boot,
            seq,
        },
        time: started,
        fact,
    };
    let process = ProcessKey {
        pid: 42,
        start_ns: 1,
    };
    let coverage = Coverage {
        kernel: "6.1.0".to_owned(),
        plan: "A".to_owned(),
        scope: None,
        agent_version: "0.1.0".to_owned(),
        rows: vec![CoverageRow {
            area: CoverageArea::Network,
            what: "connections".to_owned(),
            state: CoverageState::Live {
                hook: "test".to_owned(),
            },
        }],
    };
    let exposure = Exposure {
        credential: format!("aws-access-key:{KEY}").parse().unwrap(),
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
                exe: "/usr/bin/aws".to_owned(),
                argv: vec!["aws".to_owned()],
                started,
            }],
        },
        unexpected_reader: false,
        destinations: Vec::new(),
    };
    IngestBatch {
        events: vec![
            event(1, Fact::Coverage(coverage)),
            event(2, Fact::Exposure(Box::new(exposure))),
        ],
        last_seq: 2,
        watermark: Some(Watermark {
            host: host.clone(),
            boot,
            time: until,
            clock_offset_ms: 0,
            clock_error_ms: 1,
            seen_from: Some([198, 51, 100, 1].into()),
            seen_network: None,
        }),
        host,
        boot,
    }
}
