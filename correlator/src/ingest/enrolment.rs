//! The `Enrolment` service: join token and request in, host certificate out.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use keytrail_model::text::shown;
use keytrail_pki::ca::{CaError, Validity};
use keytrail_pki::identity::{HostIdentity, new_host_id};
use keytrail_pki::tls;
use keytrail_pki::token::{JoinToken, TokenError};
use keytrail_proto::wire;
use keytrail_proto::wire::enrolment_server::Enrolment;
use tonic::{Request, Response, Status};
use tracing::{error, info};

use super::Shared;
use super::acceptor::{PeerInfo, peer_info};
use super::counters::add;

/// Refused attempts within [`WINDOW`] before further ones are not looked at.
const MAX_REFUSED: usize = 30;
const WINDOW: Duration = Duration::from_mins(1);
const MAX_CSR: usize = 16 * 1024;
const MAX_HOSTNAME: usize = 255;

/// The service.
pub(super) struct Enroller {
    shared: Arc<Shared>,
    refused: Mutex<VecDeque<Instant>>,
}

impl Enroller {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            refused: Mutex::new(VecDeque::new()),
        }
    }

    fn refuse(&self, info: &PeerInfo, kind: &'static str, status: Status) -> Status {
        add(&self.shared.counters.enrolments_refused, 1);
        self.shared
            .reporter
            .refused(info.address.ip(), kind, status.message());
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.push_back(Instant::now());
        if refused.len() > MAX_REFUSED {
            refused.pop_front();
        }
        status
    }

    fn throttled(&self) -> bool {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.len() >= MAX_REFUSED
            && refused
                .front()
                .is_some_and(|oldest| oldest.elapsed() < WINDOW)
    }

    fn certify(
        &self,
        info: &PeerInfo,
        csr_pem: &str,
        identity: HostIdentity,
    ) -> Result<wire::EnrolResponse, Status> {
        let validity = Validity::days(
            Timestamp::now().as_second(),
            self.shared.host_certificate_days,
        );
        match self.shared.ca.certify_host(csr_pem, &identity, validity) {
            Ok(certificate_chain_pem) => Ok(wire::EnrolResponse {
                certificate_chain_pem,
                host_id: identity.host,
                tenant: identity.tenant,
                not_after_unix: validity.ends_unix(),
            }),
            Err(CaError::Request(why)) => Err(self.refuse(
                info,
                "bad-request",
                Status::invalid_argument(format!("csr_pem: {why}")),
            )),
            Err(failure) => {
                error!("cannot certify a host: {failure}");
                Err(Status::internal("the correlator cannot certify hosts now"))
            }
        }
    }
}

#[tonic::async_trait]
impl Enrolment for Enroller {
    async fn enrol(
        &self,
        request: Request<wire::EnrolRequest>,
    ) -> Result<Response<wire::EnrolResponse>, Status> {
        let info = peer_info(&request)?;
        if self.throttled() {
            add(&self.shared.counters.enrolments_refused, 1);
            return Err(Status::resource_exhausted(
                "too many refused enrolments: try again in a minute",
            ));
        }
        let wire::EnrolRequest {
            join_token,
            csr_pem,
            hostname,
            machine_digest,
        } = request.into_inner();
        if let Some(problem) = problem(&csr_pem, &hostname, &machine_digest) {
            return Err(self.refuse(&info, "bad-request", Status::invalid_argument(problem)));
        }
        let now = Timestamp::now().as_second();
        let token = JoinToken::new(&join_token);
        match self.shared.tokens.redeem(&token, now) {
            Ok(()) => {}
            Err(TokenError::Refused) => {
                return Err(self.refuse(
                    &info,
                    "join-token",
                    Status::unauthenticated(TokenError::Refused.to_string()),
                ));
            }
            Err(failure) => {
                error!("cannot use join tokens: {failure}");
                return Err(Status::internal("the correlator cannot enrol hosts now"));
            }
        }
        let random = tls::random().map_err(|failure| Status::internal(failure.to_string()))?;
        let identity = HostIdentity {
            tenant: self.shared.tenant.clone(),
            host: new_host_id(&hostname, random),
        };
        let response = self.certify(&info, &csr_pem, identity)?;
        add(&self.shared.counters.enrolled, 1);
        info!(
            host = response.host_id,
            hostname = %shown(&hostname, 64),
            peer = %info.address,
            "host enrolled"
        );
        Ok(Response::new(response))
    }

    async fn renew(
        &self,
        request: Request<wire::RenewRequest>,
    ) -> Result<Response<wire::EnrolResponse>, Status> {
        let info = peer_info(&request)?;
        let peer = match self.shared.admit(&info) {
            Ok(peer) => peer,
            Err(refusal) => {
                return Err(self.refuse(&info, refusal.kind(), refusal.status()));
            }
        };
        let wire::RenewRequest { csr_pem } = request.into_inner();
        if let Some(problem) = problem(&csr_pem, "", &[]) {
            return Err(self.refuse(&info, "bad-request", Status::invalid_argument(problem)));
        }
        let response = self.certify(&info, &csr_pem, peer.host)?;
        add(&self.shared.counters.renewed, 1);
        info!(host = response.host_id, peer = %info.address, "certificate renewed");
        Ok(Response::new(response))
    }
}

/// What is wrong with a request's fields, if anything.
fn problem(csr_pem: &str, hostname: &str, machine_digest: &[u8]) -> Option<String> {
    if csr_pem.len() > MAX_CSR {
        return Some(format!("csr_pem: more than {MAX_CSR} bytes"));
    }
    if hostname.len() > MAX_HOSTNAME {
        return Some(format!("hostname: more than {MAX_HOSTNAME} bytes"));
    }
    if !matches!(machine_digest.len(), 0 | 32) {
        return Some("machine_digest: neither empty nor 32 bytes".to_owned());
    }
    None
}
