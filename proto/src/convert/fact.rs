//! Facts.

use jiff::Timestamp;
use keytrail_model::fact::{
    Exposure, ExposureSource, Fact, Gap, GapKind, ProcessExited, ProcessStarted,
};

use super::{WireError, choice, optional, optional_text, required, text, texts};
use crate::wire;
use crate::wire::event::Fact as WireFact;
use crate::wire::exposure::Source;

/// Takes an event apart into its time and its fact.
///
/// # Errors
/// Says which field does not say what it must.
pub fn event(wire: wire::Event) -> Result<(Timestamp, Fact), WireError> {
    let wire::Event { time, fact } = wire;
    let time = required(time, "time")?;
    let fact = fact.ok_or_else(|| WireError::missing("fact"))?;
    Ok((time, fact.try_into()?))
}

impl From<Fact> for WireFact {
    fn from(model: Fact) -> Self {
        match model {
            Fact::Exposure(fact) => Self::Exposure((*fact).into()),
            Fact::ConnectionOpened(fact) => Self::ConnectionOpened(fact.into()),
            Fact::ConnectionNamed(fact) => Self::ConnectionNamed(fact.into()),
            Fact::ConnectionClosed(fact) => Self::ConnectionClosed(fact.into()),
            Fact::ProcessStarted(fact) => Self::ProcessStarted(fact.into()),
            Fact::ProcessExited(fact) => Self::ProcessExited(fact.into()),
            Fact::Gap(fact) => Self::Gap(fact.into()),
            Fact::Coverage(fact) => Self::Coverage(fact.into()),
            Fact::Listening(fact) => Self::Listening((*fact).into()),
            Fact::Accepted(fact) => Self::Accepted(fact.into()),
            Fact::RequestEdge(fact) => Self::RequestEdge(fact.into()),
            Fact::NameLookups(fact) => Self::NameLookups(fact.into()),
            Fact::ConfigChanged(fact) => Self::ConfigChanged((*fact).into()),
            Fact::Tampering(fact) => Self::Tampering(fact.into()),
        }
    }
}

impl TryFrom<WireFact> for Fact {
    type Error = WireError;

    fn try_from(wire: WireFact) -> Result<Self, WireError> {
        fn within<M, W>(wire: W, field: &str) -> Result<M, WireError>
        where
            M: TryFrom<W, Error = WireError>,
        {
            required(Some(wire), field)
        }
        Ok(match wire {
            WireFact::Exposure(fact) => Self::Exposure(Box::new(within(fact, "exposure")?)),
            WireFact::ConnectionOpened(fact) => {
                Self::ConnectionOpened(within(fact, "connection_opened")?)
            }
            WireFact::ConnectionNamed(fact) => {
                Self::ConnectionNamed(within(fact, "connection_named")?)
            }
            WireFact::ConnectionClosed(fact) => {
                Self::ConnectionClosed(within(fact, "connection_closed")?)
            }
            WireFact::ProcessStarted(fact) => {
                Self::ProcessStarted(within(fact, "process_started")?)
            }
            WireFact::ProcessExited(fact) => Self::ProcessExited(within(fact, "process_exited")?),
            WireFact::Gap(fact) => Self::Gap(within(fact, "gap")?),
            WireFact::Coverage(fact) => Self::Coverage(within(fact, "coverage")?),
            WireFact::Listening(fact) => Self::Listening(Box::new(within(fact, "listening")?)),
            WireFact::Accepted(fact) => Self::Accepted(within(fact, "accepted")?),
            WireFact::RequestEdge(fact) => Self::RequestEdge(within(fact, "request_edge")?),
            WireFact::NameLookups(fact) => Self::NameLookups(within(fact, "name_lookups")?),
            WireFact::ConfigChanged(fact) => {
                Self::ConfigChanged(Box::new(within(fact, "config_changed")?))
            }
            WireFact::Tampering(fact) => Self::Tampering(within(fact, "tampering")?),
        })
    }
}

impl From<Exposure> for wire::Exposure {
    fn from(model: Exposure) -> Self {
        let Exposure {
            credential,
            source,
            process,
            actor,
            unexpected_reader,
            destinations,
        } = model;
        let source = match source {
            ExposureSource::File {
                path,
                dev,
                ino,
                entry,
                version_known,
            } => Source::File(wire::FileSource {
                path,
                dev,
                ino,
                entry,
                version_known,
            }),
            ExposureSource::Environment { variable } => {
                Source::Environment(wire::EnvironmentSource { variable })
            }
            ExposureSource::Socket { path } => Source::Socket(wire::SocketSource { path }),
            ExposureSource::Metadata { address } => Source::Metadata(wire::MetadataSource {
                address: Some(address.into()),
            }),
            ExposureSource::Process { victim, exe, via } => Source::Victim(wire::ProcessSource {
                victim: Some(victim.into()),
                exe,
                via,
            }),
        };
        Self {
            credential: credential.to_string(),
            source: Some(source),
            process: Some(process.into()),
            actor: Some(actor.into()),
            unexpected_reader,
            destinations,
        }
    }
}

impl TryFrom<wire::Exposure> for Exposure {
    type Error = WireError;

    fn try_from(wire: wire::Exposure) -> Result<Self, WireError> {
        let wire::Exposure {
            credential,
            source,
            process,
            actor,
            unexpected_reader,
            destinations,
        } = wire;
        let source = match source.ok_or_else(|| WireError::missing("source"))? {
            Source::File(wire::FileSource {
                path,
                dev,
                ino,
                entry,
                version_known,
            }) => ExposureSource::File {
                path: text(path, "file.path")?,
                dev,
                ino,
                entry: optional_text(entry, "file.entry")?,
                version_known,
            },
            Source::Environment(wire::EnvironmentSource { variable }) => {
                ExposureSource::Environment {
                    variable: text(variable, "environment.variable")?,
                }
            }
            Source::Socket(wire::SocketSource { path }) => ExposureSource::Socket {
                path: text(path, "socket.path")?,
            },
            Source::Metadata(wire::MetadataSource { address }) => ExposureSource::Metadata {
                address: required(address, "metadata.address")?,
            },
            Source::Victim(wire::ProcessSource { victim, exe, via }) => ExposureSource::Process {
                victim: required(victim, "victim.victim")?,
                exe: text(exe, "victim.exe")?,
                via: text(via, "victim.via")?,
            },
        };
        Ok(Self {
            // The text is not repeated in the error: a broken sensor might have put a secret there.
            credential: credential.parse().map_err(|_quotes_the_text| {
                WireError::invalid("credential", "not a known kind of credential id")
            })?,
            source,
            process: required(process, "process")?,
            actor: required(actor, "actor")?,
            unexpected_reader,
            destinations: texts(destinations, "destinations")?,
        })
    }
}

impl From<ProcessStarted> for wire::ProcessStarted {
    fn from(model: ProcessStarted) -> Self {
        let ProcessStarted {
            process,
            parent,
            unit,
        } = model;
        Self {
            process: Some(process.into()),
            parent: parent.map(Into::into),
            unit: Some(unit.into()),
        }
    }
}

impl TryFrom<wire::ProcessStarted> for ProcessStarted {
    type Error = WireError;

    fn try_from(wire: wire::ProcessStarted) -> Result<Self, WireError> {
        let wire::ProcessStarted {
            process,
            parent,
            unit,
        } = wire;
        Ok(Self {
            process: required(process, "process")?,
            parent: optional(parent, "parent")?,
            unit: required(unit, "unit")?,
        })
    }
}

impl From<ProcessExited> for wire::ProcessExited {
    fn from(model: ProcessExited) -> Self {
        let ProcessExited { process, status } = model;
        Self {
            process: Some(process.into()),
            status,
        }
    }
}

impl TryFrom<wire::ProcessExited> for ProcessExited {
    type Error = WireError;

    fn try_from(wire: wire::ProcessExited) -> Result<Self, WireError> {
        let wire::ProcessExited { process, status } = wire;
        Ok(Self {
            process: required(process, "process")?,
            status,
        })
    }
}

impl From<Gap> for wire::Gap {
    fn from(model: Gap) -> Self {
        let Gap {
            from,
            to,
            what,
            count,
            reason,
        } = model;
        let what = match what {
            GapKind::Access => wire::GapKind::Access,
            GapKind::Network => wire::GapKind::Network,
            GapKind::Process => wire::GapKind::Process,
            GapKind::All => wire::GapKind::All,
        };
        Self {
            from: Some(from.into()),
            to: Some(to.into()),
            what: what.into(),
            count,
            reason,
        }
    }
}

impl TryFrom<wire::Gap> for Gap {
    type Error = WireError;

    fn try_from(wire: wire::Gap) -> Result<Self, WireError> {
        let wire::Gap {
            from,
            to,
            what,
            count,
            reason,
        } = wire;
        Ok(Self {
            from: required(from, "from")?,
            to: required(to, "to")?,
            what: choice(what, "what", |what| match what {
                wire::GapKind::Unspecified => None,
                wire::GapKind::Access => Some(GapKind::Access),
                wire::GapKind::Network => Some(GapKind::Network),
                wire::GapKind::Process => Some(GapKind::Process),
                wire::GapKind::All => Some(GapKind::All),
            })?,
            count,
            reason: text(reason, "reason")?,
        })
    }
}
