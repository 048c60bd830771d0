//! Connections.

use keytrail_model::fact::{
    ConnectionClosed, ConnectionNamed, ConnectionOpened, NameSource, Transport,
};
use keytrail_model::ids::ConnectionId;

use super::{WireError, choice, required, text, texts};
use crate::wire;

impl From<ConnectionOpened> for wire::ConnectionOpened {
    fn from(model: ConnectionOpened) -> Self {
        let ConnectionOpened {
            id: ConnectionId(id),
            process,
            unit,
            exe,
            transport,
            local,
            remote,
        } = model;
        let transport = match transport {
            Transport::Tcp => wire::Transport::Tcp,
            Transport::Udp => wire::Transport::Udp,
            Transport::Raw => wire::Transport::Raw,
        };
        Self {
            id,
            process: Some(process.into()),
            unit: Some(unit.into()),
            exe,
            transport: transport.into(),
            local: Some(local.into()),
            remote: Some(remote.into()),
        }
    }
}

impl TryFrom<wire::ConnectionOpened> for ConnectionOpened {
    type Error = WireError;

    fn try_from(wire: wire::ConnectionOpened) -> Result<Self, WireError> {
        let wire::ConnectionOpened {
            id,
            process,
            unit,
            exe,
            transport,
            local,
            remote,
        } = wire;
        Ok(Self {
            id: ConnectionId(id),
            process: required(process, "process")?,
            unit: required(unit, "unit")?,
            exe: text(exe, "exe")?,
            transport: choice(transport, "transport", |transport| match transport {
                wire::Transport::Unspecified => None,
                wire::Transport::Tcp => Some(Transport::Tcp),
                wire::Transport::Udp => Some(Transport::Udp),
                wire::Transport::Raw => Some(Transport::Raw),
            })?,
            local: required(local, "local")?,
            remote: required(remote, "remote")?,
        })
    }
}

impl From<ConnectionNamed> for wire::ConnectionNamed {
    fn from(model: ConnectionNamed) -> Self {
        let ConnectionNamed {
            id: ConnectionId(id),
            name,
            source,
            alpn,
        } = model;
        let source = match source {
            NameSource::TlsServerName => wire::NameSource::TlsServerName,
            NameSource::Dns => wire::NameSource::Dns,
        };
        Self {
            id,
            name,
            source: source.into(),
            alpn,
        }
    }
}

impl TryFrom<wire::ConnectionNamed> for ConnectionNamed {
    type Error = WireError;

    fn try_from(wire: wire::ConnectionNamed) -> Result<Self, WireError> {
        let wire::ConnectionNamed {
            id,
            name,
            source,
            alpn,
        } = wire;
        Ok(Self {
            id: ConnectionId(id),
            name: text(name, "name")?,
            source: choice(source, "source", |source| match source {
                wire::NameSource::Unspecified => None,
                wire::NameSource::TlsServerName => Some(NameSource::TlsServerName),
                wire::NameSource::Dns => Some(NameSource::Dns),
            })?,
            alpn: texts(alpn, "alpn")?,
        })
    }
}

impl From<ConnectionClosed> for wire::ConnectionClosed {
    fn from(model: ConnectionClosed) -> Self {
        let ConnectionClosed {
            id: ConnectionId(id),
            bytes_sent,
            bytes_received,
        } = model;
        Self {
            id,
            bytes_sent,
            bytes_received,
        }
    }
}

impl TryFrom<wire::ConnectionClosed> for ConnectionClosed {
    type Error = WireError;

    fn try_from(wire: wire::ConnectionClosed) -> Result<Self, WireError> {
        let wire::ConnectionClosed {
            id,
            bytes_sent,
            bytes_received,
        } = wire;
        Ok(Self {
            id: ConnectionId(id),
            bytes_sent,
            bytes_received,
        })
    }
}
