//! The table of networks: its files and ages, and look-ups.

use std::net::IpAddr;

use axum::Json;
use axum::extract::{Path, State};
use keytrail_model::consumption::Network;
use serde::{Deserialize, Serialize};

use super::{ApiState, ErrorCode, Problem};
use crate::networks::NetworksView;

/// What is known of an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NetworkOf {
    /// The address.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// Its network, where a file knows it: what a use from there would be given now.
    pub network: Option<Network>,
    /// Who must be named where this is shown.
    pub attributions: Vec<String>,
}

/// Files of networks, in ascending precedence, with the ages of their data.
#[utoipa::path(
    get,
    path = "/v1/networks",
    tag = "networks",
    security(("token" = [])),
    responses(
        (status = 200, body = NetworksView),
        (status = 401, body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn get_networks(State(state): State<ApiState>) -> Json<NetworksView> {
    Json(state.0.handle.networks().view())
}

/// Whose network an address belongs to.
#[utoipa::path(
    get,
    path = "/v1/networks/{address}",
    tag = "networks",
    security(("token" = [])),
    params(("address" = String, Path, description = "An IPv4 or IPv6 address")),
    responses(
        (status = 200, body = NetworkOf),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn network_of(
    State(state): State<ApiState>,
    Path(address): Path<String>,
) -> Result<Json<NetworkOf>, Problem> {
    let Ok(address) = address.parse::<IpAddr>() else {
        let text = format!("{address:?} is no address; write 192.0.2.7 or 2001:db8::7");
        return Err(Problem::of(ErrorCode::BadRequest, text));
    };
    let networks = state.0.handle.networks();
    Ok(Json(NetworkOf {
        address,
        network: networks.network(address),
        attributions: networks.view().attributions(),
    }))
}
