//! Small values: times, process keys, addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use jiff::Timestamp;
use keytrail_model::ids::ProcessKey;

use super::WireError;
use crate::wire;

impl From<Timestamp> for wire::Time {
    fn from(time: Timestamp) -> Self {
        Self {
            seconds: time.as_second(),
            nanos: time.subsec_nanosecond(),
        }
    }
}

impl TryFrom<wire::Time> for Timestamp {
    type Error = WireError;

    fn try_from(wire: wire::Time) -> Result<Self, WireError> {
        let wire::Time { seconds, nanos } = wire;
        if nanos.unsigned_abs() >= 1_000_000_000 {
            return Err(WireError::invalid("nanos", "magnitude not below 1e9"));
        }
        Self::new(seconds, nanos)
            .map_err(|error| WireError::invalid("seconds", format!("no point in time: {error}")))
    }
}

impl From<ProcessKey> for wire::ProcessKey {
    fn from(key: ProcessKey) -> Self {
        let ProcessKey { pid, start_ns } = key;
        Self { pid, start_ns }
    }
}

impl TryFrom<wire::ProcessKey> for ProcessKey {
    type Error = WireError;

    fn try_from(wire: wire::ProcessKey) -> Result<Self, WireError> {
        let wire::ProcessKey { pid, start_ns } = wire;
        Ok(Self { pid, start_ns })
    }
}

impl From<SocketAddr> for wire::SocketAddress {
    fn from(address: SocketAddr) -> Self {
        let (ip, flow_info, scope_id) = match address {
            SocketAddr::V4(v4) => (v4.ip().octets().to_vec(), 0, 0),
            SocketAddr::V6(v6) => (v6.ip().octets().to_vec(), v6.flowinfo(), v6.scope_id()),
        };
        Self {
            ip,
            port: u32::from(address.port()),
            flow_info,
            scope_id,
        }
    }
}

impl TryFrom<wire::SocketAddress> for SocketAddr {
    type Error = WireError;

    fn try_from(wire: wire::SocketAddress) -> Result<Self, WireError> {
        let wire::SocketAddress {
            ip,
            port,
            flow_info,
            scope_id,
        } = wire;
        let port = u16::try_from(port)
            .map_err(|_too_large| WireError::invalid("port", format!("{port} is above 65535")))?;
        match ip_address(&ip)? {
            IpAddr::V4(v4) if flow_info == 0 && scope_id == 0 => {
                Ok(Self::V4(SocketAddrV4::new(v4, port)))
            }
            IpAddr::V4(_) => Err(WireError::invalid(
                "flow_info",
                "only an IPv6 address has flow_info or scope_id",
            )),
            IpAddr::V6(v6) => Ok(Self::V6(SocketAddrV6::new(v6, port, flow_info, scope_id))),
        }
    }
}

fn ip_address(bytes: &[u8]) -> Result<IpAddr, WireError> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ok(IpAddr::V4(Ipv4Addr::from(v4)));
    }
    if let Ok(v6) = <[u8; 16]>::try_from(bytes) {
        return Ok(IpAddr::V6(Ipv6Addr::from(v6)));
    }
    Err(WireError::invalid(
        "ip",
        format!("{} bytes, expected 4 or 16", bytes.len()),
    ))
}
