//! Model to wire and back. Wire to model checks: whatever comes in may be hostile.

mod actor;
mod connection;
mod coverage;
mod fact;
mod surroundings;
mod values;

use thiserror::Error;

pub use fact::event;

/// Longest text that is taken in, bytes.
pub const MAX_TEXT: usize = 64 * 1024;
/// Longest list inside a fact that is taken in.
pub const MAX_LIST: usize = 4096;
/// Longest lineage that is taken in.
pub const MAX_LINEAGE: usize = 64;

/// What a message lacks or has wrong. The sender is at fault.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// A field that must be there is not, or (for a choice) is of a kind unknown here.
    #[error("{field}: missing, or of a kind that this version does not know")]
    Missing {
        /// Path of the field.
        field: String,
    },
    /// A number outside an enumeration.
    #[error("{field}: {value} is no known value")]
    UnknownValue {
        /// Path of the field.
        field: String,
        /// What stands there.
        value: i32,
    },
    /// A value that does not keep the rules of its type.
    #[error("{field}: {why}")]
    Invalid {
        /// Path of the field.
        field: String,
        /// Which rule.
        why: String,
    },
    /// Longer than the limit.
    #[error("{field}: {len} long, at most {max} allowed")]
    TooLong {
        /// Path of the field.
        field: String,
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
}

impl WireError {
    pub(crate) fn missing(field: &str) -> Self {
        Self::Missing {
            field: field.to_owned(),
        }
    }

    pub(crate) fn invalid(field: &str, why: impl Into<String>) -> Self {
        Self::Invalid {
            field: field.to_owned(),
            why: why.into(),
        }
    }

    /// Path of the field at fault.
    #[must_use]
    pub fn field(&self) -> &str {
        match self {
            Self::Missing { field }
            | Self::UnknownValue { field, .. }
            | Self::Invalid { field, .. }
            | Self::TooLong { field, .. } => field,
        }
    }

    /// The same error, seen from the message that holds the field.
    #[must_use]
    pub fn within(mut self, outer: &str) -> Self {
        match &mut self {
            Self::Missing { field }
            | Self::UnknownValue { field, .. }
            | Self::Invalid { field, .. }
            | Self::TooLong { field, .. } => {
                field.insert(0, '.');
                field.insert_str(0, outer);
            }
        }
        self
    }
}

/// Converts a field that must be there.
fn required<W, M>(value: Option<W>, field: &str) -> Result<M, WireError>
where
    M: TryFrom<W, Error = WireError>,
{
    let wire = value.ok_or_else(|| WireError::missing(field))?;
    M::try_from(wire).map_err(|error| error.within(field))
}

/// Converts a field that may be absent.
fn optional<W, M>(value: Option<W>, field: &str) -> Result<Option<M>, WireError>
where
    M: TryFrom<W, Error = WireError>,
{
    value
        .map(|wire| M::try_from(wire).map_err(|error| error.within(field)))
        .transpose()
}

/// Converts a list of at most `max`.
fn list<W, M>(values: Vec<W>, max: usize, field: &str) -> Result<Vec<M>, WireError>
where
    M: TryFrom<W, Error = WireError>,
{
    within_limit(values.len(), max, field)?;
    values
        .into_iter()
        .enumerate()
        .map(|(index, wire)| {
            M::try_from(wire).map_err(|error| error.within(&format!("{field}[{index}]")))
        })
        .collect()
}

fn within_limit(len: usize, max: usize, field: &str) -> Result<(), WireError> {
    if len > max {
        return Err(WireError::TooLong {
            field: field.to_owned(),
            len,
            max,
        });
    }
    Ok(())
}

fn text(value: String, field: &str) -> Result<String, WireError> {
    within_limit(value.len(), MAX_TEXT, field)?;
    Ok(value)
}

fn optional_text(value: Option<String>, field: &str) -> Result<Option<String>, WireError> {
    value.map(|value| text(value, field)).transpose()
}

fn texts(values: Vec<String>, field: &str) -> Result<Vec<String>, WireError> {
    within_limit(values.len(), MAX_LIST, field)?;
    for value in &values {
        within_limit(value.len(), MAX_TEXT, field)?;
    }
    Ok(values)
}

/// An enumeration's number to the model's variant; `0` is the unspecified value of every one.
fn choice<W, M>(value: i32, field: &str, known: impl FnOnce(W) -> Option<M>) -> Result<M, WireError>
where
    W: TryFrom<i32>,
{
    W::try_from(value)
        .ok()
        .and_then(known)
        .ok_or_else(|| WireError::UnknownValue {
            field: field.to_owned(),
            value,
        })
}
