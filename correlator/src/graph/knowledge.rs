//! What people imported and directories provisioned, ready for questions.
//!
//! Documents are the truth; what is made of them is made when it is first asked for after a change,
//! so that a directory that provisions thousands of people one by one costs no rebuild for each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keytrail_graph::people::{self, Directory, DirectoryImport, DirectoryKind};
use keytrail_graph::permission::{Import, Permissions};

use crate::store::{Collection, Document, Store, StoreError};

/// Imported documents and what follows from them.
#[derive(Debug, Default)]
pub struct Knowledge(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    documents: BTreeMap<Collection, BTreeMap<String, String>>,
    permissions: Option<Arc<Permissions>>,
    directory: Option<Arc<Directory>>,
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
            Collection::Directory | Collection::ScimUsers | Collection::ScimGroups => {
                state.directory = None;
            }
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

    /// One document.
    #[must_use]
    pub fn document(&self, collection: Collection, id: &str) -> Option<String> {
        self.state().documents.get(&collection)?.get(id).cloned()
    }

    /// All imported and provisioned people together.
    #[must_use]
    pub fn directory(&self) -> Arc<Directory> {
        let mut state = self.state();
        if let Some(ready) = &state.directory {
            return Arc::clone(ready);
        }
        let files = state.documents.get(&Collection::Directory);
        let mut imports: Vec<DirectoryImport> = files
            .into_iter()
            .flatten()
            .filter_map(|(name, body)| {
                serde_json::from_str(body)
                    .inspect_err(|error| {
                        tracing::error!(%name, %error, "an imported directory cannot be read back; import the file again");
                    })
                    .ok()
            })
            .collect();
        // Last, so that what is provisioned now wins over an older export.
        let provisioned: Vec<&str> = [Collection::ScimUsers, Collection::ScimGroups]
            .iter()
            .filter_map(|collection| state.documents.get(collection))
            .flat_map(|all| all.values().map(String::as_str))
            .collect();
        if !provisioned.is_empty() {
            let list = format!("[{}]", provisioned.join(","));
            match people::import(DirectoryKind::Scim, None, list.as_bytes()) {
                Ok(import) => imports.push(import),
                Err(error) => tracing::error!(%error, "provisioned people cannot be read back"),
            }
        }
        let ready = Arc::new(Directory::of(imports));
        state.directory = Some(Arc::clone(&ready));
        ready
    }
}
