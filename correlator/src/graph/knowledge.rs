//! What people imported and directories provisioned, ready for questions.
//!
//! Documents are the truth; what is made of them is made when it is first asked for after a change,
//! so that a directory that provisions thousands of people one by one costs no rebuild for each. It
//! is made outside the lock: the writer never waits for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keytrail_graph::people::{self, Directory, DirectoryImport, DirectoryKind};
use keytrail_graph::permission::{Import, Permissions};
use serde_json::Value;

use crate::store::{Collection, Document, Store, StoreError};

/// Documents of one collection, by id.
pub type Documents = BTreeMap<String, Arc<str>>;

/// Imported documents and what follows from them.
#[derive(Debug, Default)]
pub struct Knowledge(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    documents: BTreeMap<Collection, Documents>,
    /// User name in lower case -> id of the provisioned user.
    user_names: BTreeMap<String, String>,
    /// Rises with every change.
    generation: u64,
    permissions: Option<Arc<Permissions>>,
    directory: Option<Arc<Directory>>,
}

impl State {
    fn put(&mut self, collection: Collection, id: &str, body: Option<&str>) {
        self.generation += 1;
        let all = self.documents.entry(collection).or_default();
        let before = match body {
            Some(body) => all.insert(id.to_owned(), body.into()),
            None => all.remove(id),
        };
        match collection {
            Collection::Permissions => self.permissions = None,
            Collection::Directory | Collection::ScimGroups => self.directory = None,
            Collection::ScimUsers => {
                self.directory = None;
                if let Some(name) = before.as_deref().and_then(user_name) {
                    self.user_names.remove(&name);
                }
                if let Some(name) = body.and_then(user_name) {
                    self.user_names.insert(name, id.to_owned());
                }
            }
        }
    }

    fn of(&self, collection: Collection) -> Documents {
        self.documents.get(&collection).cloned().unwrap_or_default()
    }
}

fn user_name(body: &str) -> Option<String> {
    let user: Value = serde_json::from_str(body).ok()?;
    Some(user.get("userName")?.as_str()?.trim().to_lowercase())
}

impl Knowledge {
    /// Reads every document.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn load(store: &Store) -> Result<Self, StoreError> {
        let mut state = State::default();
        for collection in Collection::ALL {
            for (id, body) in store.documents(collection)? {
                state.put(collection, &id, Some(&body));
            }
        }
        Ok(Self(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a committed change in.
    pub fn install(&self, document: &Document) {
        let body = document.body.as_deref();
        self.state().put(document.collection, &document.id, body);
    }

    /// The documents of a collection, by id.
    #[must_use]
    pub fn documents(&self, collection: Collection) -> Documents {
        self.state().of(collection)
    }

    /// One document.
    #[must_use]
    pub fn document(&self, collection: Collection, id: &str) -> Option<Arc<str>> {
        self.state().documents.get(&collection)?.get(id).cloned()
    }

    /// How many documents a collection has.
    #[must_use]
    pub fn count(&self, collection: Collection) -> usize {
        self.state()
            .documents
            .get(&collection)
            .map_or(0, BTreeMap::len)
    }

    /// The id of the provisioned user of that name, in any case.
    #[must_use]
    pub fn user_named(&self, name: &str) -> Option<String> {
        let name = name.trim().to_lowercase();
        self.state().user_names.get(&name).cloned()
    }

    /// All imported permissions together.
    #[must_use]
    pub fn permissions(&self) -> Arc<Permissions> {
        let (documents, generation) = {
            let state = self.state();
            if let Some(ready) = &state.permissions {
                return Arc::clone(ready);
            }
            (state.of(Collection::Permissions), state.generation)
        };
        let imports = documents
            .iter()
            .filter_map(|(name, body)| read_back::<Import>(name, body));
        let ready = Arc::new(Permissions::of(imports));
        let mut state = self.state();
        if state.generation == generation {
            state.permissions = Some(Arc::clone(&ready));
        }
        ready
    }

    /// All imported and provisioned people together.
    #[must_use]
    pub fn directory(&self) -> Arc<Directory> {
        let (files, users, groups, generation) = {
            let state = self.state();
            if let Some(ready) = &state.directory {
                return Arc::clone(ready);
            }
            (
                state.of(Collection::Directory),
                state.of(Collection::ScimUsers),
                state.of(Collection::ScimGroups),
                state.generation,
            )
        };
        let mut imports: Vec<DirectoryImport> = files
            .iter()
            .filter_map(|(name, body)| read_back(name, body))
            .collect();
        // Last, so that what is provisioned now wins over an older export.
        let provisioned: Vec<&str> = users
            .values()
            .chain(groups.values())
            .map(AsRef::as_ref)
            .collect();
        if !provisioned.is_empty() {
            let list = format!("[{}]", provisioned.join(","));
            match people::import(DirectoryKind::Scim, None, list.as_bytes()) {
                Ok(import) => imports.push(import),
                Err(error) => tracing::error!(%error, "provisioned people cannot be read back"),
            }
        }
        let ready = Arc::new(Directory::of(imports));
        let mut state = self.state();
        if state.generation == generation {
            state.directory = Some(Arc::clone(&ready));
        }
        ready
    }
}

fn read_back<T: serde::de::DeserializeOwned>(name: &str, body: &str) -> Option<T> {
    serde_json::from_str(body)
        .inspect_err(|error| {
            tracing::error!(%name, %error, "an import cannot be read back; import the file again");
        })
        .ok()
}
