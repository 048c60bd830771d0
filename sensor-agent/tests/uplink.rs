//! Both ends of the wire in one process, over real TLS on loopback: enrolment, streaming,
//! acknowledgement, restarts, refusals.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use correlator::ingest::sink::{IngestBatch, IngestSink, SinkError};
use correlator::ingest::{Ingest, IngestConfig};
use jiff::Timestamp;
use keytrail_model::fact::{ConnectionClosed, Fact, Watermark};
use keytrail_model::ids::{BootId, ConnectionId, HostId};
use keytrail_pki::ca::{Ca, Validity};
use keytrail_pki::identity::{HostIdentity, Serial};
use keytrail_pki::request::KeyRequest;
use keytrail_pki::token::JoinToken;
use keytrail_spool::Limits;
use sensor_agent::uplink::enrol::{Enrolment, ensure};
use sensor_agent::uplink::{EnrolError, HostFact, Identity, Uplink, UplinkConfig, UplinkStatus};
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(20);

/// What reached the store, per host and boot. Outlives correlators, like a file. Unlike the real
/// store it does not ignore duplicates: it refuses them loudly.
#[derive(Default)]
struct Store {
    hosts: Mutex<BTreeMap<(HostId, BootId), Kept>>,
    /// Submissions to refuse before one is taken.
    failures: Mutex<u32>,
}

#[derive(Clone, Default)]
struct Kept {
    last_seq: u64,
    facts: Vec<(u64, Fact)>,
    watermarks: Vec<(Watermark, usize)>,
}

impl IngestSink for Store {
    async fn submit(&self, batch: IngestBatch) -> Result<(), SinkError> {
        // Long enough for another stream to come in between, if it could.
        tokio::time::sleep(Duration::from_millis(2)).await;
        {
            let mut failures = self.failures.lock().unwrap();
            if *failures > 0 {
                *failures -= 1;
                return Err(SinkError::Unavailable("disk full (test)".to_owned()));
            }
        }
        let mut hosts = self.hosts.lock().unwrap();
        let kept = hosts.entry((batch.host.clone(), batch.boot)).or_default();
        for event in batch.events {
            assert_eq!(event.id.host, batch.host);
            assert_eq!(event.id.boot, batch.boot);
            assert!(event.id.seq > kept.last_seq, "{} came twice", event.id);
            kept.last_seq = event.id.seq;
            kept.facts.push((event.id.seq, event.fact));
        }
        assert!(batch.last_seq >= kept.last_seq);
        kept.last_seq = batch.last_seq;
        let so_far = kept.facts.len();
        kept.watermarks
            .extend(batch.watermark.map(|watermark| (watermark, so_far)));
        Ok(())
    }

    async fn last_seq(&self, host: &HostId, boot: BootId) -> Result<u64, SinkError> {
        let hosts = self.hosts.lock().unwrap();
        Ok(hosts
            .get(&(host.clone(), boot))
            .map_or(0, |kept| kept.last_seq))
    }
}

impl Store {
    fn of(&self, host: &str, boot: BootId) -> Kept {
        let hosts = self.hosts.lock().unwrap();
        hosts
            .get(&(HostId(host.to_owned()), boot))
            .cloned()
            .unwrap_or_default()
    }
}

async fn ingest(pki: &Path, listen: SocketAddr, store: &Arc<Store>) -> Ingest {
    let config = IngestConfig {
        listen,
        pki_dir: pki.to_owned(),
        heartbeat_ms: 200,
        ..IngestConfig::default()
    };
    // A restart meets its predecessor's port in the kernel's hands for a moment.
    for _ in 0..50 {
        match Ingest::start(config.clone(), Arc::clone(store)).await {
            Ok(ingest) => return ingest,
            Err(error) => eprintln!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the port stays taken");
}

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn boot(number: u128) -> BootId {
    BootId(Uuid::from_u128(number))
}

async fn enrol(
    state_dir: &Path,
    ingest: &Ingest,
    token: Option<&JoinToken>,
) -> Result<Identity, EnrolError> {
    ensure(&Enrolment {
        state_dir,
        address: &ingest.address().to_string(),
        ca_pem: ingest.ca_pem(),
        token,
        hostname: "Test.Machine",
    })
    .await
}

fn config(state_dir: &Path, address: SocketAddr, ca_pem: &str, boot: BootId) -> UplinkConfig {
    UplinkConfig {
        address: address.to_string(),
        ca_pem: ca_pem.to_owned(),
        state_dir: state_dir.to_owned(),
        boot,
        boot_time: Timestamp::now(),
        agent_version: "test".to_owned(),
        spool: Limits::default(),
    }
}

fn facts(ids: std::ops::Range<u64>) -> Vec<HostFact> {
    ids.map(|id| HostFact {
        time: Timestamp::now(),
        fact: Fact::ConnectionClosed(ConnectionClosed {
            id: ConnectionId(id),
            bytes_sent: id,
            bytes_received: 0,
        }),
    })
    .collect()
}

fn ids(kept: &Kept) -> Vec<u64> {
    let id = |fact: &Fact| match fact {
        Fact::ConnectionClosed(closed) => closed.id.0,
        other => panic!("unexpected {other:?}"),
    };
    kept.facts.iter().map(|(_, fact)| id(fact)).collect()
}

async fn until(uplink: &Uplink, what: &str, done: impl Fn(&UplinkStatus) -> bool) -> UplinkStatus {
    let start = std::time::Instant::now();
    loop {
        let status = uplink.status();
        if done(&status) {
            return status;
        }
        assert!(start.elapsed() < PATIENCE, "never {what}: {status:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn facts_arrive_once_in_order_and_free_the_spool() {
    let (pki, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Arc::new(Store::default());
    let ingest = ingest(pki.path(), any_port(), &store).await;
    let token = ingest.issue_token(Duration::from_mins(1), Some(1)).unwrap();
    let identity = enrol(state.path(), &ingest, Some(&token)).await.unwrap();
    assert!(identity.host().starts_with("test-machine-"));
    // Enrolled once, no token is needed; the token itself is used up.
    let again = enrol(state.path(), &ingest, None).await.unwrap();
    assert_eq!(again.host(), identity.host());
    let other = tempfile::tempdir().unwrap();
    let refused = enrol(other.path(), &ingest, Some(&token))
        .await
        .unwrap_err();
    assert!(matches!(refused, EnrolError::Refused(_)), "{refused}");

    let config = config(state.path(), ingest.address(), ingest.ca_pem(), boot(1));
    let uplink = Uplink::start(config).unwrap();
    let outbox = uplink.outbox();
    for chunk in 0..20 {
        assert_eq!(
            outbox.push(facts(chunk * 100..(chunk + 1) * 100)).dropped,
            0
        );
        outbox.watermark(Timestamp::now());
    }
    assert!(uplink.drain(PATIENCE).await, "{:?}", uplink.status());
    let kept = store.of(identity.host(), boot(1));
    assert_eq!(ids(&kept), (0..2000).collect::<Vec<_>>());
    let status = until(&uplink, "freed", |status| status.spool.bytes == 0).await;
    assert_eq!(
        (status.acked, status.durable, status.dropped),
        (2000, 2000, 0)
    );
    // The last promise comes after the last fact, with a measured clock (one machine, one clock).
    let start = std::time::Instant::now();
    let (watermark, after) = loop {
        let kept = store.of(identity.host(), boot(1));
        if let Some((watermark, after)) = kept.watermarks.last()
            && *after == 2000
        {
            break (watermark.clone(), *after);
        }
        assert!(start.elapsed() < PATIENCE, "no watermark");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(after, 2000);
    assert_eq!(watermark.seen_from, Some("127.0.0.1".parse().unwrap()));
    assert!(watermark.clock_offset_ms.unsigned_abs() <= u64::from(watermark.clock_error_ms) + 1);
    assert_eq!(ingest.counts().events, 2000);
    uplink.stop().await;
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_when_either_end_restarts() {
    let (pki, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Arc::new(Store::default());
    let mut ingest = ingest(pki.path(), any_port(), &store).await;
    let address = ingest.address();
    let token = ingest.issue_token(Duration::from_mins(1), None).unwrap();
    let identity = enrol(state.path(), &ingest, Some(&token)).await.unwrap();
    let ca = ingest.ca_pem().to_owned();
    let start = |boot| Uplink::start(config(state.path(), address, &ca, boot)).unwrap();
    let mut uplink = start(boot(1));
    for round in 0..6_u64 {
        for part in 0..10 {
            let first = round * 1000 + part * 100;
            assert_eq!(uplink.outbox().push(facts(first..first + 100)).dropped, 0);
            tokio::time::sleep(Duration::from_millis(7)).await;
        }
        match round {
            1 | 3 => {
                // The correlator goes away in the middle and comes back.
                ingest.stop().await;
                ingest = self::ingest(pki.path(), address, &store).await;
            }
            2 => *store.failures.lock().unwrap() = 2,
            4 => {
                uplink.stop().await;
                uplink = start(boot(1));
            }
            _ => {}
        }
    }
    assert!(uplink.drain(PATIENCE).await, "{:?}", uplink.status());
    uplink.stop().await;
    assert_eq!(
        ids(&store.of(identity.host(), boot(1))),
        (0..6000).collect::<Vec<_>>()
    );
    ingest.stop().await;

    // Facts made while the correlator is away, then a reboot: the old boot's come first.
    let uplink = start(boot(1));
    assert_eq!(uplink.outbox().push(facts(6000..6010)).dropped, 0);
    until(&uplink, "durable", |status| status.durable == 6010).await;
    uplink.stop().await;
    let uplink = start(boot(2));
    assert_eq!(uplink.outbox().push(facts(0..5)).dropped, 0);
    let ingest = self::ingest(pki.path(), address, &store).await;
    assert!(uplink.drain(PATIENCE).await, "{:?}", uplink.status());
    assert_eq!(store.of(identity.host(), boot(1)).facts.len(), 6010);
    assert_eq!(
        ids(&store.of(identity.host(), boot(2))),
        (0..5).collect::<Vec<_>>()
    );

    // Someone deletes the spool: new facts get numbers of their own (SP-7).
    uplink.stop().await;
    std::fs::remove_file(state.path().join("spool.db")).unwrap();
    let uplink = start(boot(2));
    assert_eq!(uplink.outbox().push(facts(5..9)).dropped, 0);
    let all_there = async {
        while store.of(identity.host(), boot(2)).last_seq < 9 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all_there).await.unwrap();
    assert_eq!(
        ids(&store.of(identity.host(), boot(2))),
        (0..9).collect::<Vec<_>>()
    );
    uplink.stop().await;
    ingest.stop().await;
}

/// A store that refuses a batch ends the stream even when the sensor has nothing more to send but
/// heartbeats: it once stalled for good.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_batch_is_sent_again_though_nothing_follows_it() {
    let (pki, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Arc::new(Store::default());
    let ingest = ingest(pki.path(), any_port(), &store).await;
    let token = ingest.issue_token(Duration::from_mins(1), None).unwrap();
    let identity = enrol(state.path(), &ingest, Some(&token)).await.unwrap();
    let config = config(state.path(), ingest.address(), ingest.ca_pem(), boot(1));
    let uplink = Uplink::start(config).unwrap();
    until(&uplink, "connected", |status| status.connected).await;
    *store.failures.lock().unwrap() = 1;
    assert_eq!(uplink.outbox().push(facts(0..10)).dropped, 0);
    assert!(uplink.drain(PATIENCE).await, "{:?}", uplink.status());
    assert_eq!(
        ids(&store.of(identity.host(), boot(1))),
        (0..10).collect::<Vec<_>>()
    );
    uplink.stop().await;
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_kept_apart_and_revocation_ends_a_stream() {
    let pki = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::default());
    let ingest = ingest(pki.path(), any_port(), &store).await;
    let token = ingest.issue_token(Duration::from_mins(1), None).unwrap();
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut sensors = Vec::new();
    for (folder, ids) in [(&first, 0..10), (&second, 100..110)] {
        let identity = enrol(folder.path(), &ingest, Some(&token)).await.unwrap();
        let config = config(folder.path(), ingest.address(), ingest.ca_pem(), boot(1));
        let uplink = Uplink::start(config).unwrap();
        assert_eq!(uplink.outbox().push(facts(ids)).dropped, 0);
        sensors.push((identity, uplink));
    }
    for ((identity, uplink), expected) in sensors.iter().zip([0..10, 100..110]) {
        assert!(uplink.drain(PATIENCE).await, "{:?}", uplink.status());
        let kept = store.of(identity.host(), boot(1));
        assert_eq!(ids(&kept), expected.collect::<Vec<_>>());
    }
    assert_eq!(ingest.streams().len(), 2);
    let (identity, uplink) = &sensors[0];
    let closed = ingest
        .revoke(&Serial(identity.serial().to_owned()))
        .unwrap();
    assert_eq!(closed, 1);
    let status = until(uplink, "revoked", |status| {
        status
            .trouble
            .as_ref()
            .is_some_and(|why| why.contains("revoked"))
    });
    assert!(!status.await.connected);
    // The other goes on.
    let (_, uplink) = &sensors[1];
    assert_eq!(uplink.outbox().push(facts(110..111)).dropped, 0);
    assert!(uplink.drain(PATIENCE).await);
    for (_, uplink) in sensors {
        uplink.stop().await;
    }
    ingest.stop().await;
}

/// Writes an identity as a CA would give it, without asking the correlator.
fn forge(state: &Path, ca: &Ca, tenant: &str, validity: Validity) {
    let request = KeyRequest::generate().unwrap();
    let host = HostIdentity {
        tenant: tenant.to_owned(),
        host: "victim-00c0ffee".to_owned(),
    };
    let chain = ca.certify_host(request.csr_pem(), &host, validity).unwrap();
    let text = format!("{}{chain}", request.key_pem());
    std::fs::write(state.join("identity.pem"), text).unwrap();
}

/// A certificate in the last third of its life is renewed over the open connection, and the next
/// connection uses the new one.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_before_it_ends() {
    let (pki, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Arc::new(Store::default());
    let ingest = ingest(pki.path(), any_port(), &store).await;
    let now = Timestamp::now().as_second();
    let ca = Ca::load_or_create(pki.path(), now).unwrap();
    forge(
        state.path(),
        &ca,
        "default",
        Validity::days(now - 9 * 86400, 10),
    );
    let old = Identity::load(state.path()).unwrap();
    let config = config(state.path(), ingest.address(), ingest.ca_pem(), boot(1));
    let uplink = Uplink::start(config.clone()).unwrap();
    let start = std::time::Instant::now();
    let new = loop {
        let identity = Identity::load(state.path()).unwrap();
        if identity.serial() != old.serial() {
            break identity;
        }
        assert!(start.elapsed() < PATIENCE, "never renewed");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(new.host(), old.host());
    assert_eq!(ingest.counts().renewed, 1);
    uplink.stop().await;
    // The old one may be revoked now: the new one is in use.
    ingest.revoke(&Serial(old.serial().to_owned())).unwrap();
    let uplink = Uplink::start(config).unwrap();
    assert_eq!(uplink.outbox().push(facts(0..3)).dropped, 0);
    assert!(uplink.drain(PATIENCE).await, "{:?}", uplink.status());
    assert_eq!(ingest.counts().renewed, 1, "a fresh one is left alone");
    uplink.stop().await;
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_certificates_get_one_clear_answer_each() {
    let pki = tempfile::tempdir().unwrap();
    let other_pki = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::default());
    let ingest = ingest(pki.path(), any_port(), &store).await;
    let now = Timestamp::now().as_second();
    let ours = Ca::load_or_create(pki.path(), now).unwrap();
    let other = Ca::load_or_create(other_pki.path(), now).unwrap();
    let (good, long_ago) = (Validity::days(now, 1), Validity::days(now - 9 * 86400, 1));
    let in_future = Validity::days(now + 9 * 86400, 1);
    let (our_ca, other_ca) = (ours.certificate_pem(), other.certificate_pem());
    for (name, ca, tenant, validity, trusted, expected) in [
        ("expired", &ours, "default", long_ago, our_ca, "expired"),
        (
            "early",
            &ours,
            "default",
            in_future,
            our_ca,
            "not valid yet",
        ),
        ("other CA", &other, "default", good, our_ca, "another CA"),
        (
            "other correlator",
            &ours,
            "default",
            good,
            other_ca,
            "another CA",
        ),
        (
            "other tenant",
            &ours,
            "elsewhere",
            good,
            our_ca,
            "tenant `elsewhere`",
        ),
    ] {
        let state = tempfile::tempdir().unwrap();
        forge(state.path(), ca, tenant, validity);
        let before = ingest.counts();
        let config = config(state.path(), ingest.address(), trusted, boot(1));
        let uplink = Uplink::start(config).unwrap();
        assert_eq!(uplink.outbox().push(facts(0..3)).dropped, 0);
        // The first word of trouble may be the transport's; the next attempt knows more.
        until(&uplink, name, |status| {
            let trouble = status.trouble.as_deref();
            trouble.is_some_and(|trouble| trouble.contains(expected))
        })
        .await;
        // It lives on, and keeps its facts.
        until(&uplink, "durable", |status| status.durable == 3).await;
        let start = std::time::Instant::now();
        loop {
            let after = ingest.counts();
            let refused = after.handshakes_failed + after.streams_refused;
            if refused > before.handshakes_failed + before.streams_refused {
                break;
            }
            assert!(start.elapsed() < PATIENCE, "{name}: not counted");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        uplink.stop().await;
    }
    assert!(store.hosts.lock().unwrap().is_empty());
    ingest.stop().await;
}
