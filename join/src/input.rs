//! What goes into the join and what comes out.

use jiff::Timestamp;
use keytrail_model::alert::{AddressMatch, Alert};
use keytrail_model::consumption::Consumption;
use keytrail_model::credential::CredentialId;
use keytrail_model::fact::{HostEvent, Watermark};
use keytrail_model::ids::{EventRef, RecordId};
use serde::{Deserialize, Serialize};

use crate::baseline::policy::Policy;

/// The closed set of inputs, as they are recorded and replayed (one JSON object a line).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "input", rename_all = "kebab-case")]
#[expect(
    clippy::large_enum_variant,
    reason = "inputs are taken one by one; a box for each use would cost more than it saves"
)]
pub enum Input {
    /// A fact from a host.
    Host(HostEvent),
    /// A cloud-side use.
    Use(Consumption),
    /// A host's promise that its earlier facts have all arrived.
    Watermark(Watermark),
    /// The correlator's clock, now and then: ages state out, turns long indecision into a blind spot.
    Tick {
        /// Now.
        time: Timestamp,
    },
    /// What people allow agents beside what is learned, from now on; in place of what was given by
    /// this way before, and beside [`crate::Settings::policy`].
    Policy {
        /// When it was given.
        time: Timestamp,
        /// The pinned entries.
        policy: Policy,
    },
}

/// What follows from an input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "effect", rename_all = "kebab-case")]
pub enum Effect {
    /// An alert began or changed: store it under its id, whole.
    Alert(Box<Alert>),
    /// A use was decided, or decided anew.
    Use(UseDecision),
}

/// The state of one use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UseDecision {
    /// The cloud record.
    pub record: RecordId,
    /// Its credential.
    pub credential: CredentialId,
    /// What is thought of it now.
    pub state: UseState,
}

/// What is thought of a use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum UseState {
    /// No sensor has seen this credential (yet): nothing to judge by.
    Unwatched,
    /// A holder's sensor is behind, silent or partly blind.
    Undecided {
        /// Which, and why.
        waiting_for: Vec<String>,
    },
    /// The provider itself acted on the principal's behalf.
    ServiceSide {
        /// Which service.
        service: String,
    },
    /// A holder's connection accounts for it.
    Explained {
        /// The sensor's record of that connection.
        connection: EventRef,
        /// Why the address fits.
        address: AddressMatch,
        /// Who made it.
        by: String,
    },
    /// A declared holder without a sensor accounts for it.
    Declared {
        /// Its name in the settings.
        holder: String,
    },
    /// Nothing accounts for it.
    Unexplained {
        /// Why not, one line a holder.
        because: Vec<String>,
    },
}
