//! What can be wrong with a scenario file.

use std::path::PathBuf;

use keytrail_model::credential::CredentialIdError;
use thiserror::Error;

/// Why a scenario cannot be run.
#[derive(Debug, Error)]
pub enum ScenarioError {
    /// It cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which file or folder.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// There is none.
    #[error("{}: no *.toml file in this folder", .0.display())]
    Empty(PathBuf),
    /// Something in it is wrong.
    #[error("{}:{line}: {what}", path.display())]
    Wrong {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What, and how to mend it.
        what: String,
    },
}

/// What is wrong with one line; [`ScenarioError::Wrong`] says where it is.
#[derive(Debug, Error)]
pub(crate) enum Fault {
    /// A word is missing.
    #[error("{0} is missing here")]
    Missing(&'static str),
    /// A word is not what it must be.
    #[error("`{found}` is no {wanted}")]
    Form { found: String, wanted: &'static str },
    /// A name that nothing defines.
    #[error("no {kind} is called `{name}`; known: {known}")]
    Unknown {
        kind: &'static str,
        name: String,
        known: String,
    },
    /// A name that is taken.
    #[error("{kind} `{name}` is there already")]
    Taken { kind: &'static str, name: String },
    /// Words that nothing takes.
    #[error("not understood: {0}; see tests/scenarios/README.md for what this line may say")]
    Leftover(String),
    /// A quote without an end.
    #[error("a quote is not closed")]
    Quote,
    /// Two words that exclude each other, or neither of them.
    #[error("say either `{0}` or `{1}`")]
    Either(&'static str, &'static str),
    /// A credential's id is none.
    #[error(transparent)]
    Id(#[from] CredentialIdError),
    /// A provider's record was not taken.
    #[error("the record was refused: {0}")]
    Raw(String),
    /// A name that cannot be looked up needs its address.
    #[error("a use of a {0} needs endpoints= or at=: where is its service reached?")]
    Endpoints(String),
}

/// The known names, for people.
pub(crate) fn known<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.map(String::as_str).take(24).collect();
    if names.is_empty() {
        "none yet".to_owned()
    } else {
        names.join(", ")
    }
}
