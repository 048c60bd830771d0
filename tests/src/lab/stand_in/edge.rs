//! The edge of AWS: it holds the certificate for the provider's names, hands each request to the moto
//! server behind it, and logs what AWS would log. CloudTrail records are made from these entries and
//! from nothing else.

use std::io::BufReader;
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::http::Message;
use super::{Peer, Service, report};

/// The edge's configuration.
#[derive(Serialize, Deserialize)]
pub struct Edge {
    /// Where moto listens, without TLS, on the Internet's own loopback.
    pub moto: SocketAddr,
}

/// One request, as the edge saw it.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Entry {
    /// When it arrived.
    pub at: Timestamp,
    /// Who asked.
    pub peer: Peer,
    /// The `Host` header.
    pub host: String,
    /// The method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// The `User-Agent` header.
    pub user_agent: String,
    /// The key id in the signature's credential scope.
    pub access_key_id: Option<String>,
    /// The region in the credential scope.
    pub region: String,
    /// The service in the credential scope: `s3`, `sts`.
    pub service: String,
    /// `Action` of a query-protocol body: `GetCallerIdentity`.
    pub action: Option<String>,
    /// moto's answer.
    pub status: u16,
    /// The request id in moto's answer, else one of the edge.
    pub request_id: String,
    /// Who moto says the caller is (`Arn` of a `GetCallerIdentity` answer).
    pub caller_arn: Option<String>,
}

impl Service for Edge {
    fn answer(&self, peer: &Peer, request: &Message) -> Result<Message> {
        let at = Timestamp::now();
        let answer = self.forward(request)?;
        let (method, target) = request.request_line();
        let scope = Scope::of(request.header("authorization").unwrap_or_default());
        let body = String::from_utf8_lossy(&answer.body);
        report(&Entry {
            at,
            peer: peer.clone(),
            host: request.header("host").unwrap_or_default().to_owned(),
            method: method.to_owned(),
            target: target.to_owned(),
            user_agent: request.header("user-agent").unwrap_or_default().to_owned(),
            access_key_id: scope.key_id,
            region: scope.region,
            service: scope.service,
            action: form_value(&request.body, "Action"),
            status: answer.status(),
            request_id: answer
                .header("x-amzn-requestid")
                .or_else(|| answer.header("x-amz-request-id"))
                .map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned),
            caller_arn: tag(&body, "Arn"),
        });
        Ok(answer)
    }
}

impl Edge {
    fn forward(&self, request: &Message) -> Result<Message> {
        let mut inner = request.clone();
        inner
            .headers
            .retain(|(n, _)| n != "connection" && n != "expect");
        inner.headers.push(("connection".into(), "close".into()));
        let moto = TcpStream::connect(self.moto).context("reaching moto")?;
        inner.write(&mut &moto, false)?;
        let mut answer = Message::read(&mut BufReader::new(&moto))?.context("moto said nothing")?;
        answer.headers.retain(|(n, _)| n != "connection");
        Ok(answer)
    }
}

/// The credential scope of a version 4 signature:
/// `Credential=<key id>/<date>/<region>/<service>/aws4_request`.
#[derive(Default)]
struct Scope {
    key_id: Option<String>,
    region: String,
    service: String,
}

impl Scope {
    fn of(authorization: &str) -> Self {
        let Some((_, rest)) = authorization.split_once("Credential=") else {
            return Self::default();
        };
        let scope = rest.split([',', ' ']).next().unwrap_or_default();
        let mut parts = scope.split('/').map(str::to_owned);
        Self {
            key_id: parts.next(),
            region: parts.nth(1).unwrap_or_default(),
            service: parts.next().unwrap_or_default(),
        }
    }
}

fn form_value(body: &[u8], name: &str) -> Option<String> {
    let body = std::str::from_utf8(body).ok()?;
    body.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key == name).then(|| value.to_owned())
    })
}

/// The text of the first `<name>` element.
pub(crate) fn tag(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scope_is_read_from_the_signature() {
        let scope = Scope::of(
            "AWS4-HMAC-SHA256 Credential=AKIA1/20261123/us-east-1/s3/aws4_request, SignedHeaders=host",
        );
        assert_eq!(scope.key_id.as_deref(), Some("AKIA1"));
        assert_eq!(
            (scope.region.as_str(), scope.service.as_str()),
            ("us-east-1", "s3")
        );
        assert!(Scope::of("Bearer x").key_id.is_none());
    }

    #[test]
    fn the_action_is_read_from_the_form() {
        let body = b"Action=GetCallerIdentity&Version=2011-06-15";
        assert_eq!(
            form_value(body, "Action").as_deref(),
            Some("GetCallerIdentity")
        );
        assert_eq!(form_value(b"", "Action"), None);
    }
}
