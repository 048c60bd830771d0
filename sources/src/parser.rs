//! One parser for every kind.

use keytrail_model::consumption::Consumption;

use crate::{Parsed, Rejection, SourceKind, aws};

/// A mapping file, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {}

/// What a source's settings say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Server names under which a self-hosted service is reached (`vault.corp.example`), as
    /// suffixes on a label boundary.
    pub endpoints: Vec<String>,
    /// The tenant, organisation or site that the records belong to, where they do not say it.
    pub tenant: Option<String>,
    /// The mapping of a [`SourceKind::Mapped`].
    pub mapping: Option<Mapping>,
}

/// Makes uses of records of one source. Cheap to share between threads.
#[derive(Clone, Debug)]
pub struct Parser {
    kind: SourceKind,
    options: Options,
}

impl Parser {
    /// A parser of `kind`.
    #[must_use]
    pub fn new(kind: SourceKind, options: Options) -> Self {
        Self { kind, options }
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> SourceKind {
        self.kind
    }

    /// Its settings.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Appends the uses in one record to `out`.
    ///
    /// # Errors
    /// The reason, when the record is refused; `out` is then as it was.
    pub fn parse(&self, record: &[u8], out: &mut Vec<Consumption>) -> Result<Parsed, Rejection> {
        match self.kind {
            SourceKind::AwsCloudTrail => aws::parse(record, out),
            _ => Err(Rejection::NoEvent),
        }
    }
}
