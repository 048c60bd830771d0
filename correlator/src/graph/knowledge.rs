//! What people imported and directories provisioned, ready for questions.
//!
//! Documents are the truth; what is made of them is made when it is first asked for after a change,
//! so that a directory that provisions thousands of people one by one costs no rebuild for each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keytrail_graph::permission::{Import, Permissions};

use crate::store::{Collection, Document, Store, StoreError};

/// Imported documents and what follows from them.
#[derive(Debug, Default)]
pub struct Knowledge(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    documents: BTreeMap<Collection, BTreeMap<String, String>>,
    permissions: Option<Arc<Permissions>>,
}

impl Knowledge {
    /// Reads every document.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn load(store: &Store) -> Result<Self, StoreError> {
        let mut state = State::default();
        for collection in Collection::ALL {
            let documents = store.documents(collection)?;
            state
                .documents
                .insert(collection, documents.into_iter().collect());
        }
        Ok(Self(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a committed change in.
    pub fn install(&self, document: &Document) {
        let mut state = self.state();
        let all = state.documents.entry(document.collection).or_default();
        match &document.body {
            Some(body) => all.insert(document.id.clone(), body.clone()),
            None => all.remove(&document.id),
        };
        match document.collection {
            Collection::Permissions => state.permissions = None,
            Collection::Directory | Collection::ScimUsers | Collection::ScimGroups => {}
        }
    }

    /// The documents of a collection, by id.
    #[must_use]
    pub fn documents(&self, collection: Collection) -> BTreeMap<String, String> {
        self.state()
            .documents
            .get(&collection)
            .cloned()
            .unwrap_or_default()
    }

    /// All imported permissions together.
    #[must_use]
    pub fn permissions(&self) -> Arc<Permissions> {
        let mut state = self.state();
        if let Some(ready) = &state.permissions {
            return Arc::clone(ready);
        }
        let documents = state.documents.get(&Collection::Permissions);
        let imports = documents.into_iter().flatten().filter_map(|(name, body)| {
            serde_json::from_str::<Import>(body)
                .inspect_err(|error| {
                    tracing::error!(%name, %error, "imported permissions cannot be read back; import the file again");
                })
                .ok()
        });
        let ready = Arc::new(Permissions::of(imports));
        state.permissions = Some(Arc::clone(&ready));
        ready
    }
}
