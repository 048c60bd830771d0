//! How the rest of the process talks to the runner.

use std::sync::Arc;

use keytrail_join::Lineage;
use keytrail_join::baseline::policy::Policy;
use keytrail_model::alert::Alert;
use keytrail_model::credential::CredentialId;
use keytrail_model::ids::{BootId, HostId};
use tokio::sync::{broadcast, mpsc, oneshot};

use super::work::{UsesBatch, Work};
use super::{PULSE, RunnerError};
use crate::counters::Counters;
use crate::graph::Index;
use crate::ingest::sink::{IngestBatch, IngestSink, SinkError};
use crate::networks::Networks;
use crate::partition::Baselines;
use crate::store::{Document, Reader};

/// A changed alert, announced after its commit.
#[derive(Clone, Debug)]
pub struct AlertChange {
    /// Its revision: the event id of the stream.
    pub revision: u64,
    /// The alert as it is now.
    pub alert: Alert,
}

/// What became of a batch of uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsesReply {
    /// Taken in.
    pub new: u64,
    /// Seen before.
    pub duplicate: u64,
}

/// Talks to the runner; cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    sender: mpsc::Sender<Work>,
    feed: broadcast::Sender<Arc<AlertChange>>,
    reader: Reader,
    counters: Arc<Counters>,
    index: Arc<Index>,
    networks: Networks,
}

impl Handle {
    pub(super) fn new(
        sender: mpsc::Sender<Work>,
        feed: broadcast::Sender<Arc<AlertChange>>,
        reader: Reader,
        counters: Arc<Counters>,
        index: Arc<Index>,
    ) -> Self {
        Self {
            sender,
            feed,
            reader,
            counters,
            index,
            networks: Networks::default(),
        }
    }

    pub(super) fn set_networks(&mut self, networks: Networks) {
        self.networks = networks;
    }

    /// The table of networks, for questions.
    #[must_use]
    pub fn networks(&self) -> &Networks {
        &self.networks
    }

    /// Takes facts in; returns once they are durable.
    ///
    /// # Errors
    /// When the store does not take them, or the runner is stopping: then nothing was taken.
    pub async fn ingest(&self, mut batch: IngestBatch) -> Result<(), RunnerError> {
        if let Some(watermark) = &mut batch.watermark {
            self.networks.fill_watermark(watermark);
        }
        self.ask(|reply| Work::Ingest(Box::new(batch), reply)).await
    }

    /// Takes uses in, each with the network of its address as the table has it now (NW-1); returns
    /// once they are durable and judged.
    ///
    /// # Errors
    /// As [`Handle::ingest`].
    pub async fn uses(&self, mut batch: UsesBatch) -> Result<UsesReply, RunnerError> {
        self.networks.fill(&mut batch.uses);
        self.ask(|reply| Work::Uses(batch, reply)).await
    }

    /// [`Handle::uses`] for a thread that may block.
    ///
    /// # Errors
    /// As [`Handle::ingest`].
    pub fn uses_blocking(&self, mut batch: UsesBatch) -> Result<UsesReply, RunnerError> {
        self.networks.fill(&mut batch.uses);
        let (reply, answer) = oneshot::channel();
        self.sender
            .blocking_send(Work::Uses(batch, reply))
            .map_err(|_| RunnerError::Stopping)?;
        answer.blocking_recv().map_err(|_| RunnerError::Stopping)?
    }

    /// Every credential with any state.
    ///
    /// # Errors
    /// When the runner is stopping.
    pub async fn credentials(&self) -> Result<Vec<CredentialId>, RunnerError> {
        let (reply, answer) = oneshot::channel();
        self.send(Work::Credentials(reply)).await?;
        answer.await.map_err(|_| RunnerError::Stopping)
    }

    /// Everything about one credential.
    ///
    /// # Errors
    /// When the runner is stopping.
    pub async fn lineage(&self, id: CredentialId) -> Result<Option<Lineage>, RunnerError> {
        let (reply, answer) = oneshot::channel();
        self.send(Work::Lineage(id, reply)).await?;
        answer.await.map_err(|_| RunnerError::Stopping)
    }

    /// What is usual for agents, of one credential or of all.
    ///
    /// # Errors
    /// When the runner is stopping.
    pub async fn baselines(&self, only: Option<CredentialId>) -> Result<Baselines, RunnerError> {
        let (reply, answer) = oneshot::channel();
        self.send(Work::Baselines(only, reply)).await?;
        answer.await.map_err(|_| RunnerError::Stopping)
    }

    /// Allows agents what the policy says, in place of what was allowed by this way before; returns
    /// once that is durable. It is an input like any other, so that a replay sees it too.
    ///
    /// # Errors
    /// As [`Handle::ingest`].
    pub async fn put_policy(&self, policy: Policy) -> Result<(), RunnerError> {
        self.ask(|reply| Work::Policy(policy, reply)).await
    }

    /// Announcements of changed alerts, from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<AlertChange>> {
        self.feed.subscribe()
    }

    /// The store, for reading.
    #[must_use]
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// The lineage graph, for questions.
    #[must_use]
    pub fn graph(&self) -> &Arc<Index> {
        &self.index
    }

    /// Keeps, replaces or removes an imported document; returns once that is durable.
    ///
    /// # Errors
    /// As [`Handle::ingest`].
    pub async fn put_document(&self, document: Document) -> Result<(), RunnerError> {
        self.ask(|reply| Work::Document(Box::new(document), reply))
            .await
    }

    /// What is counted.
    #[must_use]
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Makes the runner look at the clock every second, until it ends.
    pub async fn pulse(&self) {
        let mut interval = tokio::time::interval(PULSE);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            interval.tick().await;
            if self.sender.send(Work::Pulse).await.is_err() {
                return;
            }
        }
    }

    pub(super) async fn stop(&self) {
        let (reply, answer) = oneshot::channel();
        if self.sender.send(Work::Stop(reply)).await.is_ok() {
            // An error means that the thread has ended already, which is what was wanted.
            drop(answer.await);
        }
    }

    pub(super) async fn abandon(&self) {
        drop(self.sender.send(Work::Abandon).await);
    }

    async fn send(&self, work: Work) -> Result<(), RunnerError> {
        self.sender
            .send(work)
            .await
            .map_err(|_| RunnerError::Stopping)
    }

    async fn ask<T>(
        &self,
        work: impl FnOnce(super::work::Reply<T>) -> Work,
    ) -> Result<T, RunnerError> {
        let (reply, answer) = oneshot::channel();
        self.send(work(reply)).await?;
        answer.await.map_err(|_| RunnerError::Stopping)?
    }
}

impl IngestSink for Handle {
    async fn submit(&self, batch: IngestBatch) -> Result<(), SinkError> {
        self.ingest(batch).await.map_err(|error| match error {
            RunnerError::Stopping => SinkError::Closed,
            other => SinkError::Unavailable(other.to_string()),
        })
    }

    async fn last_seq(&self, host: &HostId, boot: BootId) -> Result<u64, SinkError> {
        let (reader, host) = (self.reader.clone(), host.clone());
        tokio::task::spawn_blocking(move || reader.position(&host, boot))
            .await
            .map_err(|_| SinkError::Closed)?
            .map_err(|error| SinkError::Unavailable(error.to_string()))
    }
}
