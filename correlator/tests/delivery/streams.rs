//! Senders with an open connection: sockets and syslog, with a real sender where there is one.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;

use correlator::sources::config::Via;

use crate::common::Rig;
use crate::{line, source};

async fn bound(rig: &Rig, name: &str) -> SocketAddr {
    let place = rig.source(name).await["folder"]
        .as_str()
        .unwrap()
        .to_owned();
    place.rsplit("tcp:").next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_over_tcp_and_unix_sockets_are_taken_as_they_come() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.sock");
    let rig = Rig::start_with(dir.path(), |config| {
        let mut tcp = source("tcp", Via::Socket);
        tcp.listen = Some("127.0.0.1:0".to_owned());
        let mut unix = source("unix", Via::Socket);
        unix.listen = Some(format!("unix:{}", path.display()));
        config.source.extend([tcp, unix]);
    })
    .await;
    let mut tcp = TcpStream::connect(bound(&rig, "tcp").await).unwrap();
    let mut unix = UnixStream::connect(&path).unwrap();
    for (nth, id) in ["a", "b", "c"].iter().enumerate() {
        tcp.write_all(line(&format!("t-{id}")).as_bytes()).unwrap();
        unix.write_all(line(&format!("u-{id}")).as_bytes()).unwrap();
        // The connection stays open: nothing waits for its end.
        rig.reaches("uses_new", 2 * (nth as u64 + 1)).await;
    }
    tcp.write_all(b"no record\n{\"torn\":").unwrap();
    drop(tcp);
    rig.reaches("tcp_rejected_bad_json", 2).await;
    rig.server.stop().await;
    assert!(!path.exists(), "the socket is removed at the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn syslog_from_util_linux_logger() {
    if Command::new("logger").arg("--version").output().is_err() {
        println!(
            "SKIPPED syslog_from_util_linux_logger: no `logger` (package util-linux, bsdutils)"
        );
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start_with(dir.path(), |config| {
        let mut syslog = source("syslog", Via::Syslog);
        syslog.listen = Some("127.0.0.1:0".to_owned());
        config.source.push(syslog);
    })
    .await;
    let port = bound(&rig, "syslog").await.port().to_string();
    for (nth, options) in [
        vec!["--rfc5424"],
        vec!["--rfc5424", "--octet-count"],
        vec!["--rfc5424=notime,nohost", "--octet-count"],
        vec![
            "--rfc5424",
            "--octet-count",
            "--sd-id",
            "x@32473",
            "--sd-param",
            r#"a="b\]c""#,
        ],
        vec!["--rfc3164"],
        vec!["--rfc3164", "--octet-count"],
        vec!["--rfc3164", "--id=4711", "--tag", "vault"],
    ]
    .into_iter()
    .enumerate()
    {
        let record = line(&format!("s-{nth}"));
        let sent = Command::new("logger")
            .args([
                "--tcp",
                "--server",
                "127.0.0.1",
                "--port",
                &port,
                "--size",
                "64KiB",
            ])
            .args(&options)
            .arg(record.trim_end())
            .status()
            .unwrap();
        assert!(sent.success(), "{options:?}");
        rig.reaches("uses_new", nth as u64 + 1).await;
    }
    let source = rig.source("syslog").await;
    assert_eq!(source["rejected"], serde_json::json!({}), "{source}");
    assert_eq!(source["records"], 7, "{source}");
    rig.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn syslog_over_tls_with_a_client_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let issue = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    };
    let put = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let ca_file = put("ca.pem", &ca_pem);
    let (server_cert, server_key) = issue("localhost");
    let (client_cert, client_key) = issue("sender");
    let (cert, key) = (
        put("server.pem", &server_cert),
        put("server.key", &server_key),
    );
    let rig = Rig::start_with(dir.path(), |config| {
        let mut syslog = source("secure", Via::Syslog);
        syslog.listen = Some("127.0.0.1:0".to_owned());
        syslog.tls_cert = Some(cert);
        syslog.tls_key = Some(key);
        syslog.tls_client_ca = Some(ca_file.clone());
        config.source.push(syslog);
    })
    .await;
    let place = rig.source("secure").await["folder"]
        .as_str()
        .unwrap()
        .to_owned();
    let address = place.strip_prefix("tls:").unwrap().to_owned();
    let message = format!("<13>1 - - - - - - {}", line("tls-1").trim_end());
    let framed = format!("{} {message}", message.len());
    let good = [
        put("client.pem", &client_cert),
        put("client.key", &client_key),
    ];
    // An independent TLS client, without and with a certificate.
    for (credentials, taken) in [(None, 0), (Some(&good), 1)] {
        let mut client = Command::new("openssl");
        client
            .args(["s_client", "-quiet", "-connect", &address, "-CAfile"])
            .arg(&ca_file);
        if let Some([cert, key]) = credentials {
            client.arg("-cert").arg(cert).arg("-key").arg(key);
        }
        let spawned = client
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn();
        let Ok(mut child) = spawned else {
            println!("SKIPPED syslog_over_tls_with_a_client_certificate: no `openssl`");
            return;
        };
        let mut stdin = child.stdin.take().unwrap();
        drop(stdin.write_all(framed.as_bytes()));
        if taken > 0 {
            rig.reaches("uses_new", taken).await;
        } else {
            rig.reaches("secure_connections_failed", 1).await;
            assert_eq!(rig.counter("uses_new").await, 0);
        }
        drop(stdin);
        drop(child.kill());
        drop(child.wait());
    }
    rig.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn syslog_over_udp_from_util_linux_logger() {
    if Command::new("logger").arg("--version").output().is_err() {
        println!(
            "SKIPPED syslog_over_udp_from_util_linux_logger: no `logger` (package util-linux, \
             bsdutils)"
        );
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start_with(dir.path(), |config| {
        let mut syslog = source("syslog", Via::Syslog);
        syslog.listen = Some("udp:127.0.0.1:0".to_owned());
        config.source.push(syslog);
    })
    .await;
    let place = rig.source("syslog").await["folder"].clone();
    let place = place.as_str().unwrap().strip_prefix("udp:").unwrap();
    let address: SocketAddr = place.parse().unwrap();
    for (nth, options) in [vec!["--rfc5424"], vec!["--rfc3164"]]
        .into_iter()
        .enumerate()
    {
        let record = line(&format!("u-{nth}"));
        let sent = Command::new("logger")
            .args([
                "--udp",
                "--server",
                "127.0.0.1",
                "--size",
                "64KiB",
                "--port",
            ])
            .arg(address.port().to_string())
            .args(&options)
            .arg(record.trim_end())
            .status()
            .unwrap();
        assert!(sent.success(), "{options:?}");
        rig.reaches("uses_new", nth as u64 + 1).await;
    }
    // Datagrams at once, the largest among them, one empty, one that is no record.
    let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let padded = line("u-large").replacen("made-up", &"x".repeat(60_000), 1);
    for datagram in ["", "<13>1 - - - - - - nothing", &format!("<13>{padded}")] {
        sender.send_to(datagram.as_bytes(), address).unwrap();
    }
    for n in 0..200 {
        let datagram = format!("<13>1 - - - - - - {}", line(&format!("f-{n}")));
        sender.send_to(datagram.as_bytes(), address).unwrap();
    }
    rig.reaches("uses_new", 203).await;
    rig.reaches("syslog_rejected_bad_json", 1).await;
    assert_eq!(rig.counter("syslog_datagrams_lost").await, 0);
    rig.server.stop().await;
}

/// Datagrams sent at once.
const ROUND: u64 = 3000;

/// More than the socket holds, while nobody takes them: what the kernel dropped is counted.
#[tokio::test(flavor = "multi_thread")]
async fn datagrams_that_the_kernel_drops_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start_with(dir.path(), |config| {
        let mut syslog = source("syslog", Via::Syslog);
        syslog.listen = Some("udp:127.0.0.1:0".to_owned());
        config.source.push(syslog);
    })
    .await;
    let place = rig.source("syslog").await["folder"].clone();
    let address: SocketAddr = place.as_str().unwrap()[4..].parse().unwrap();
    let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let record = line("same").replacen("made-up", &"x".repeat(40_000), 1);
    let datagram = format!("<13>1 - - - - - - {record}");
    let (mut sent, mut lost) = (0, 0);
    // Until the receiver falls behind, which on any machine it soon does.
    for _ in 0..20 {
        let (sender, datagram) = (sender.try_clone().unwrap(), datagram.clone());
        tokio::task::spawn_blocking(move || {
            for _ in 0..ROUND {
                sender.send_to(datagram.as_bytes(), address).unwrap();
            }
        })
        .await
        .unwrap();
        sent += ROUND;
        lost = all_told(&rig, sent).await;
        if lost > 0 {
            break;
        }
    }
    assert!(lost > 0, "the kernel dropped none of {sent}");
    println!("{lost} of {sent} lost");
    rig.server.stop().await;
}

/// Waits until every one of `sent` datagrams is either taken or counted as lost. Returns the lost.
async fn all_told(rig: &Rig, sent: u64) -> u64 {
    let start = std::time::Instant::now();
    loop {
        let taken = rig.counter("syslog_records").await;
        let lost = rig.counter("syslog_datagrams_lost").await;
        assert!(taken + lost <= sent, "{taken} taken, {lost} lost of {sent}");
        if taken + lost == sent {
            return lost;
        }
        assert!(
            start.elapsed() < std::time::Duration::from_secs(20),
            "{taken} taken, {lost} lost of {sent}"
        );
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}
