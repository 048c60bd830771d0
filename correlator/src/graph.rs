//! The lineage graph of a running correlator: in memory for questions, in the store for good.
//!
//! Architecture invariant (GX-1): a change is worked out first ([`Index::stage`]), stored in the
//! transaction of the inputs that caused it, and put into memory after the commit. A failed commit
//! leaves both as they were.

mod knowledge;

use std::sync::{PoisonError, RwLock};

use jiff::Timestamp;
use keytrail_graph::{Counts, Graph, Limits, Staged, observe};
use keytrail_join::{Effect, Input, UseState};

use crate::counters::CounterView;
use crate::store::{Store, StoreError};

pub use knowledge::{Documents, Knowledge};

/// The graph, shared by the writer and those who ask.
#[derive(Debug)]
pub struct Index {
    graph: RwLock<Graph>,
    knowledge: Knowledge,
}

impl Index {
    /// Reads the stored graph, and takes in what the log has beyond it (after an upgrade).
    ///
    /// # Errors
    /// When the store fails.
    pub fn load(store: &mut Store, now: Timestamp) -> Result<Self, StoreError> {
        let mut graph = Graph::new(Limits::default());
        store.graph_edges(|key, edge| graph.put(&key, edge))?;
        let index = Self {
            graph: RwLock::new(graph),
            knowledge: Knowledge::load(store)?,
        };
        index.catch_up(store, now)?;
        Ok(index)
    }

    fn catch_up(&self, store: &mut Store, now: Timestamp) -> Result<(), StoreError> {
        let from = store.graph_offset()?.unwrap_or(0);
        let from = from.max(store.oldest_offset()?.unwrap_or(0));
        if from >= store.next_offset() {
            return Ok(());
        }
        let mut staged = Staged::default();
        store.replay(from, |_, input| {
            stage_input(&self.read(), &mut staged, &input);
            Ok::<(), StoreError>(())
        })?;
        let batch = store.begin(now)?;
        batch.put_graph(&staged)?;
        batch.commit()?;
        self.install(staged);
        Ok(())
    }

    /// Works out what inputs, and what the join concluded from them at `now`, change in the graph.
    #[must_use]
    pub fn stage(&self, inputs: &[Input], effects: &[Effect], now: Timestamp) -> Staged {
        let graph = self.read();
        let mut staged = Staged::default();
        for input in inputs {
            stage_input(&graph, &mut staged, input);
        }
        for effect in effects {
            if let Effect::Use(decision) = effect
                && let UseState::Explained { connection, .. } = &decision.state
            {
                let one =
                    observe::explained(&decision.credential, &decision.record, now, connection);
                graph.stage(&mut staged, &one);
            }
        }
        staged
    }

    /// Works out which edges nobody has seen since `before`.
    #[must_use]
    pub fn stage_expired(&self, before: Timestamp) -> Staged {
        self.read().stage_expired(before)
    }

    /// Puts committed changes into memory.
    pub fn install(&self, staged: Staged) {
        if !staged.is_empty() {
            self.graph
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .install(staged);
        }
    }

    /// What was imported beside it.
    #[must_use]
    pub fn knowledge(&self) -> &Knowledge {
        &self.knowledge
    }

    /// The graph, for a question.
    pub fn read(&self) -> std::sync::RwLockReadGuard<'_, Graph> {
        self.graph.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// How large the graph is, for the status page.
    #[must_use]
    pub fn view(&self) -> Vec<CounterView> {
        let Counts {
            nodes,
            edges,
            dropped,
            displaced,
        } = self.read().counts();
        [
            ("graph_nodes", nodes, "Nodes of the lineage graph now."),
            ("graph_edges", edges, "Edges of the lineage graph now."),
            ("graph_dropped", dropped, "Relations that found no room in the lineage graph: answers about reach and origin lack them, verdicts do not. Shorten log_days."),
            ("graph_displaced", displaced, "Edges that made room for later ones at the same node (a credential used from thousands of addresses)."),
        ]
        .into_iter()
        .map(|(name, value, meaning)| CounterView {
            name: name.to_owned(),
            value,
            meaning: meaning.to_owned(),
        })
        .collect()
    }
}

fn stage_input(graph: &Graph, staged: &mut Staged, input: &Input) {
    let observations = match input {
        Input::Host(event) => observe::fact(event),
        Input::Use(usage) => observe::usage(usage),
        Input::Watermark(_) | Input::Tick { .. } | Input::Policy { .. } => return,
    };
    for one in &observations {
        graph.stage(staged, one);
    }
}
