//! Sensors that should not be let in: each gives one clear line and a count, and stops nothing else.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test program fails by panicking, its helpers too"
)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use keytrail_pki::ca::{Ca, Certified, Validity};
use keytrail_pki::identity::HostIdentity;
use keytrail_pki::request::KeyRequest;
use keytrail_pki::tls;
use keytrail_tests::lab::child::wait_for;
use keytrail_tests::probe;
use keytrail_tests::product::Correlator;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

const DEMO: &str = env!("CARGO_BIN_EXE_demo");
const DAY: i64 = 86_400;

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// A host's certificate by the authority in `pki`, valid for a day from `from_unix`.
fn host(pki: &Path, from_unix: i64) -> Certified {
    let ca = Ca::load_or_create(pki, now()).unwrap();
    let request = KeyRequest::generate().unwrap();
    let identity = HostIdentity {
        tenant: "default".to_owned(),
        host: "laptop-1".to_owned(),
    };
    let validity = Validity::days(from_unix, 1);
    let certificate = ca
        .certify_host(request.csr_pem(), &identity, validity)
        .unwrap();
    tls::certified(&certificate, request.key_pem()).unwrap()
}

/// Connects to ingest as a sensor does and sends HTTP/2's first bytes. The error, if the correlator
/// turned the certificate down.
fn knock(correlator: &Correlator, host: Option<Certified>) -> std::io::Result<()> {
    let ca = std::fs::read_to_string(correlator.enrol_file("ca.pem"))?;
    let config = tls::client_config(&ca, host).unwrap();
    let tcp = TcpStream::connect(&correlator.ingest)?;
    tcp.set_read_timeout(Some(Duration::from_mins(1)))?;
    let address = correlator
        .ingest
        .parse::<std::net::SocketAddr>()
        .unwrap()
        .ip();
    let session = ClientConnection::new(config, ServerName::IpAddress(address.into())).unwrap();
    let mut stream = StreamOwned::new(session, tcp);
    // In TLS 1.3 a client learns what the server thinks of its certificate with the first answer:
    // here the server's HTTP/2 settings.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")?;
    stream.flush()?;
    stream.read_exact(&mut [0; 9])
}

/// The line with which the correlator refused, once it is there.
fn refusal(correlator: &Correlator, word: &str) -> String {
    let line = wait_for("the log line", Duration::from_mins(1), || {
        let logged = correlator.logged();
        let line = logged
            .lines()
            .find(|l| l.contains("refused") && l.contains(word));
        Ok(line.map(str::to_owned))
    });
    line.unwrap_or_else(|e| panic!("no refusal with {word:?}: {e:#}\n{}", correlator.logged()))
}

#[test]
fn wrong_and_expired_certificates_are_refused_in_words_and_stop_nothing() {
    let name = "wrong_and_expired_certificates_are_refused_in_words_and_stop_nothing";
    let Some(programs) = probe::programs(name, DEMO) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut correlator = Correlator::start(&programs, dir.path()).unwrap();
    let own = correlator.data.join("pki");
    assert!(
        own.join("ca.crt").is_file(),
        "the correlator keeps its authority in {}",
        own.display()
    );

    let stranger = host(&dir.path().join("another-pki"), now());
    let expired = host(&own, now() - 3 * DAY);
    for (nth, (bad, word)) in [(stranger, "unknown-issuer"), (expired, "expired")]
        .into_iter()
        .enumerate()
    {
        assert!(knock(&correlator, Some(bad)).is_err(), "{word} was let in");
        let line = refusal(&correlator, word);
        assert!(
            line.contains("127.0.0.1"),
            "the line names the peer: {line}"
        );
        // The line and the count are not written at the same moment.
        let counted = || correlator.counter("sensor_handshakes_failed");
        let wanted = nth as u64 + 1;
        wait_for("the count", Duration::from_mins(1), || {
            Ok((counted()? >= wanted).then_some(()))
        })
        .unwrap();
        assert_eq!(counted().unwrap(), wanted, "each is counted once");
    }

    // A good certificate of the same host is let in after that.
    knock(&correlator, Some(host(&own, now()))).unwrap();
    assert!(correlator.is_running().unwrap());
    correlator.stop().unwrap();
}
