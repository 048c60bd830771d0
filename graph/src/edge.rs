//! Edges: what was seen between two nodes.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::node::NodeId;

/// Records kept as evidence of one edge: the first two and the latest six.
pub const MAX_EVIDENCE: usize = 8;
/// Of these, from the beginning.
const FIRST: usize = 2;

/// What kind of relation it is. Edges run from cause to effect: from the human towards what is
/// reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum EdgeKind {
    /// account -> device: processes of this account were seen there.
    WorksOn,
    /// account -> agent session, MCP server or program: it runs as this account.
    Runs,
    /// device -> agent session, program or location: it is there.
    Hosts,
    /// agent session -> MCP server or program: the agent started it.
    Started,
    /// package -> MCP server: the package provides it.
    Provides,
    /// agent session, MCP server or program -> credential: it came to hold it.
    Holds,
    /// location -> credential: it was found there.
    Contains,
    /// credential -> credential: a use of the first made the second.
    Minted,
    /// credential -> credential: the record says that the second descends from the first.
    Issued,
    /// credential -> identity: the provider took its bearer for this identity.
    ActsAs,
    /// credential -> service: it was used there.
    Used,
    /// credential -> resource: it was used on it.
    Accessed,
    /// workload or address -> credential: it was presented from there.
    Presented,
    /// device -> credential: a connection of this device accounts for a use.
    Carried,
}

impl EdgeKind {
    /// Every kind. The position is the number in the store: append only.
    pub const ALL: [Self; 14] = [
        Self::WorksOn,
        Self::Runs,
        Self::Hosts,
        Self::Started,
        Self::Provides,
        Self::Holds,
        Self::Contains,
        Self::Minted,
        Self::Issued,
        Self::ActsAs,
        Self::Used,
        Self::Accessed,
        Self::Presented,
        Self::Carried,
    ];

    /// Its name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WorksOn => "works-on",
            Self::Runs => "runs",
            Self::Hosts => "hosts",
            Self::Started => "started",
            Self::Provides => "provides",
            Self::Holds => "holds",
            Self::Contains => "contains",
            Self::Minted => "minted",
            Self::Issued => "issued",
            Self::ActsAs => "acts-as",
            Self::Used => "used",
            Self::Accessed => "accessed",
            Self::Presented => "presented",
            Self::Carried => "carried",
        }
    }

    /// Its number in the store.
    #[must_use]
    pub fn number(self) -> u8 {
        let position = Self::ALL.iter().position(|kind| *kind == self);
        position
            .and_then(|p| u8::try_from(p).ok())
            .unwrap_or(u8::MAX)
    }

    /// The kind of that number.
    #[must_use]
    pub fn numbered(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

impl fmt::Display for EdgeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which edge.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EdgeKey {
    /// From where.
    pub from: NodeId,
    /// What kind.
    pub kind: EdgeKind,
    /// To where.
    pub to: NodeId,
}

/// One record that shows an edge.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Evidence {
    /// When, event time.
    pub time: Timestamp,
    /// The record's id: a sensor's `<host>/<boot>/<number>` or a cloud record's.
    pub record: String,
}

/// What is known of one edge. Merging is commutative and associative, except that a record is
/// recognised as counted already only while it is among the evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// First seen, event time in whole microseconds.
    pub first: Timestamp,
    /// Last seen.
    pub last: Timestamp,
    /// How many records showed it.
    pub count: u64,
    /// Some of them in the order of their times: the first two and the latest six.
    pub evidence: Vec<Evidence>,
}

impl Edge {
    /// An edge that one record shows.
    #[must_use]
    pub fn new(time: Timestamp, record: &str) -> Self {
        let time = whole_microseconds(time);
        Self {
            first: time,
            last: time,
            count: 1,
            evidence: vec![Evidence {
                time,
                record: record.to_owned(),
            }],
        }
    }

    /// Takes one more record in.
    pub fn see(&mut self, time: Timestamp, record: &str) {
        let one = Evidence {
            time: whole_microseconds(time),
            record: record.to_owned(),
        };
        let Err(place) = self.evidence.binary_search(&one) else {
            return;
        };
        self.first = self.first.min(one.time);
        self.last = self.last.max(one.time);
        self.count = self.count.saturating_add(1);
        self.evidence.insert(place, one);
        if self.evidence.len() > MAX_EVIDENCE {
            self.evidence.remove(FIRST);
        }
    }
}

/// The store keeps microseconds, so the graph does too: a reload changes nothing.
fn whole_microseconds(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}
