//! What became of a record.

use thiserror::Error;

/// A record that was understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// Uses that it gave.
    pub uses: usize,
    /// Why it gave none.
    pub skipped: Option<Skip>,
    /// It has no event id of its own and is known by the hash of its content.
    pub derived_id: bool,
    /// Its credential's identifier is masked or damaged; the use is joined by session or account.
    pub masked_id: bool,
    /// Its format version is newer than known; used all the same, since its fields were found.
    pub unknown_version: bool,
    /// Records inside it (where it is an envelope of several) that were refused.
    pub refused_inside: usize,
}

impl Parsed {
    /// A sound record without a use.
    #[must_use]
    pub fn skip(why: Skip) -> Self {
        Self {
            skipped: Some(why),
            ..Self::default()
        }
    }
}

/// Why a sound record gives no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Skip {
    /// It names neither credential nor account.
    NoCredential,
    /// The provider's own doing, for nobody.
    ServiceEvent,
    /// A measurement over other events (CloudTrail Insights).
    Insight,
    /// A call without a credential.
    Anonymous,
    /// A sign-in or call that was refused before the credential was accepted.
    NotAuthenticated,
    /// Another record tells of the same use, and more of it.
    HalfOfPair,
    /// Not an act of a credential's holder: an alert, a state, a report.
    NotAUse,
    /// Left out by the mapping's conditions.
    Filtered,
    /// A message of the delivery itself.
    Control,
}

impl Skip {
    /// Every reason.
    pub const ALL: [Self; 9] = [
        Self::NoCredential,
        Self::ServiceEvent,
        Self::Insight,
        Self::Anonymous,
        Self::NotAuthenticated,
        Self::HalfOfPair,
        Self::NotAUse,
        Self::Filtered,
        Self::Control,
    ];

    /// Its name in counters.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoCredential => "no-credential",
            Self::ServiceEvent => "service-event",
            Self::Insight => "insight",
            Self::Anonymous => "anonymous",
            Self::NotAuthenticated => "not-authenticated",
            Self::HalfOfPair => "half-of-pair",
            Self::NotAUse => "not-a-use",
            Self::Filtered => "filtered",
            Self::Control => "control",
        }
    }

    /// What it means, for people.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::NoCredential => "names neither a credential nor an account: nothing to join on",
            Self::ServiceEvent => "the provider's own doing, for nobody",
            Self::Insight => "a measurement over other events, not a call",
            Self::Anonymous => "a call without a credential",
            Self::NotAuthenticated => "refused before the credential was accepted",
            Self::HalfOfPair => "another record tells of the same use, and more of it",
            Self::NotAUse => "not an act of a credential's holder (an alert, a state, a report)",
            Self::Filtered => "left out by the mapping's conditions",
            Self::Control => "a message of the delivery itself",
        }
    }
}

impl std::fmt::Display for Skip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a record is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Error)]
pub enum Rejection {
    /// Not an object.
    #[error("not a JSON object; deliver one object a record")]
    NotObject,
    /// Not JSON.
    #[error("damaged JSON; deliver the record again as the provider wrote it")]
    BadJson,
    /// No time, or none that can be read.
    #[error("the event's time is missing or no time; deliver the record with its time field")]
    BadTime,
    /// A credential id that is none.
    #[error("the credential's identifier has not its kind's form (masked or damaged)")]
    BadKey,
    /// Not this source's shape.
    #[error("not a record of this source: the fields that name its event are missing")]
    NoEvent,
    /// Above the size limit.
    #[error("larger than the limit for one record")]
    TooLarge,
    /// Base64 or compression inside the record cannot be undone.
    #[error("its envelope's payload cannot be decoded (base64, gzip, size)")]
    BadEnvelope,
    /// A mapped source without a mapping.
    #[error("this source has no mapping; name a mapping file in its settings")]
    NoMapping,
}

impl Rejection {
    /// Every reason.
    pub const ALL: [Self; 8] = [
        Self::NotObject,
        Self::BadJson,
        Self::BadTime,
        Self::BadKey,
        Self::NoEvent,
        Self::TooLarge,
        Self::BadEnvelope,
        Self::NoMapping,
    ];

    /// Its name in counters and in the dead-letter file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotObject => "not-object",
            Self::BadJson => "bad-json",
            Self::BadTime => "bad-time",
            Self::BadKey => "bad-key",
            Self::NoEvent => "no-event",
            Self::TooLarge => "too-large",
            Self::BadEnvelope => "bad-envelope",
            Self::NoMapping => "no-mapping",
        }
    }
}
