//! What the runner can be asked: a closed set.

use keytrail_join::Lineage;
use keytrail_join::baseline::policy::Policy;
use keytrail_model::consumption::Consumption;
use keytrail_model::credential::CredentialId;
use tokio::sync::oneshot;

use super::RunnerError;
use super::handle::UsesReply;
use crate::ingest::sink::IngestBatch;
use crate::partition::Baselines;
use crate::store::{Cursor, Document, FileMark};

/// Answers to one work item.
pub(super) type Reply<T> = oneshot::Sender<Result<T, RunnerError>>;

/// Cloud-side uses from one source.
#[derive(Clone, Debug, Default)]
pub struct UsesBatch {
    /// The uses; those seen before are ignored.
    pub uses: Vec<Consumption>,
    /// The file that these uses complete, to be remembered in the same transaction.
    pub file: Option<FileMark>,
    /// How far the stream that they come from is taken in with them, likewise.
    pub cursor: Option<Cursor>,
    /// Streams of the cursor's source whose positions are not needed any more, likewise.
    pub forgotten: Vec<String>,
}

/// One item of work.
#[derive(Debug)]
pub(super) enum Work {
    /// Facts of one host.
    Ingest(Box<IngestBatch>, Reply<()>),
    /// Uses from a source.
    Uses(UsesBatch, Reply<UsesReply>),
    /// Look at the clock.
    Pulse,
    /// List credentials.
    Credentials(oneshot::Sender<Vec<CredentialId>>),
    /// Everything about one credential.
    Lineage(CredentialId, oneshot::Sender<Option<Lineage>>),
    /// What is usual, of one credential or of all.
    Baselines(Option<CredentialId>, oneshot::Sender<Baselines>),
    /// What people allow, from now on.
    Policy(Policy, Reply<()>),
    /// Keep, replace or remove an imported document.
    Document(Box<Document>, Reply<()>),
    /// Save and end.
    Stop(oneshot::Sender<()>),
    /// End as if killed.
    Abandon,
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Go,
    Stop,
    Abandon,
}
