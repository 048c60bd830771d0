//! The servers that stand for the world outside the laptop. Each is a process of its own inside the
//! lab's Internet: it gets its [`Config`] on standard input (keys and scripts never touch a disk),
//! listens, and writes one JSON line to standard output for every thing that happened.

pub mod collector;
pub mod edge;
pub mod http;
pub mod model;
pub mod registry;

use std::io::{BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde::{Deserialize, Serialize};

use self::http::Message;
use super::authority::Identity;

/// Connections served at once by one stand-in; more are closed at once.
const MAX_CONNECTIONS: usize = 64;

/// What a stand-in is told.
#[derive(Serialize, Deserialize)]
pub struct Config {
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// Its certificate.
    pub identity: Identity,
    /// What it is.
    pub role: Role,
}

/// What a stand-in is.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The edge of AWS: terminates TLS before moto and logs each request.
    Edge(edge::Edge),
    /// The thief's collector.
    Collector(collector::Collector),
    /// The model behind the agent.
    Model(model::Model),
    /// The package registry.
    Registry(registry::Registry),
}

/// Who is at the other end of a request, as the server saw it.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Peer {
    /// The source address.
    pub address: IpAddr,
    /// The source port.
    pub port: u16,
    /// The TLS server name of the ClientHello.
    pub server_name: Option<String>,
    /// As CloudTrail writes it: `TLSv1.3`.
    pub tls_version: String,
    /// As CloudTrail writes it: `TLS_AES_128_GCM_SHA256`.
    pub cipher_suite: String,
}

/// Answers requests. One value serves every connection.
pub trait Service: Send + Sync {
    /// The answer to one request.
    ///
    /// # Errors
    /// Whatever makes an answer impossible; the client gets a 500 with the text.
    fn answer(&self, peer: &Peer, request: &Message) -> Result<Message>;
}

/// Runs a stand-in until it is killed.
///
/// # Errors
/// When the configuration is malformed or an address cannot be bound.
pub fn run() -> Result<()> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let config: Config = serde_json::from_str(&text).context("the stand-in's configuration")?;
    let tls = config.identity.server_config()?;
    let service: Arc<dyn Service> = match config.role {
        Role::Edge(edge) => Arc::new(edge),
        Role::Collector(collector) => Arc::new(collector),
        Role::Model(model) => Arc::new(model),
        Role::Registry(registry) => Arc::new(registry),
    };
    let mut servers = Vec::new();
    for address in config.listen {
        let listener =
            TcpListener::bind(address).with_context(|| format!("listening on {address}"))?;
        let (tls, service) = (tls.clone(), service.clone());
        servers.push(std::thread::spawn(move || serve(&listener, &tls, &service)));
    }
    report(&serde_json::json!({"ready": true}));
    for server in servers {
        drop(server.join());
    }
    Ok(())
}

/// Writes one event for the runner.
pub fn report(event: &impl Serialize) {
    let Ok(text) = serde_json::to_string(event) else {
        return;
    };
    let mut out = std::io::stdout().lock();
    // The runner is gone when this fails, and the stand-in goes with it.
    drop(writeln!(out, "{text}").and_then(|()| out.flush()));
}

fn serve(listener: &TcpListener, tls: &Arc<ServerConfig>, service: &Arc<dyn Service>) {
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        if open.fetch_add(1, Ordering::SeqCst) >= MAX_CONNECTIONS {
            open.fetch_sub(1, Ordering::SeqCst);
            continue;
        }
        let (tls, service, open) = (tls.clone(), service.clone(), open.clone());
        std::thread::spawn(move || {
            if let Err(error) = converse(stream, tls, service.as_ref()) {
                eprint_line(&format!("{error:#}"));
            }
            open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

fn eprint_line(text: &str) {
    drop(writeln!(std::io::stderr(), "{text}"));
}

/// Serves one connection until either side closes it.
fn converse(mut tcp: TcpStream, tls: Arc<ServerConfig>, service: &dyn Service) -> Result<()> {
    tcp.set_read_timeout(Some(Duration::from_mins(2)))?;
    tcp.set_nodelay(true)?;
    let from = tcp.peer_addr()?;
    let mut session = ServerConnection::new(tls)?;
    session
        .complete_io(&mut tcp)
        .with_context(|| format!("TLS handshake with {from}"))?;
    let peer = Peer {
        address: from.ip(),
        port: from.port(),
        server_name: session.server_name().map(str::to_owned),
        tls_version: session
            .protocol_version()
            .map(|v| tls_version(&format!("{v:?}")))
            .unwrap_or_default(),
        cipher_suite: session
            .negotiated_cipher_suite()
            .map(|s| format!("{:?}", s.suite()).replace("TLS13_", "TLS_"))
            .unwrap_or_default(),
    };
    let mut stream = BufReader::new(StreamOwned::new(session, tcp));
    while let Some(request) = Message::read(&mut stream)? {
        let answer = service.answer(&peer, &request).unwrap_or_else(|error| {
            eprint_line(&format!("{}: {error:#}", request.start));
            Message::response(500, "text/plain", format!("{error:#}"))
        });
        answer.write(stream.get_mut(), request.request_line().0 == "HEAD")?;
        if request
            .header("connection")
            .is_some_and(|v| v.eq_ignore_ascii_case("close"))
        {
            break;
        }
    }
    let inner = stream.get_mut();
    inner.conn.send_close_notify();
    inner.conn.complete_io(&mut inner.sock)?;
    Ok(())
}

/// rustls says `TLSv1_3`, the provider's logs `TLSv1.3`.
fn tls_version(debug: &str) -> String {
    debug.replace('_', ".")
}
