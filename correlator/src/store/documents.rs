//! What people imported and directories provisioned: kept whole, replaced whole.

use rusqlite::params;

use super::{Batch, Store, StoreError};

/// Which documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Collection {
    /// Imported permissions, already taken apart: one document a file's name.
    Permissions,
    /// Imported people, devices and ownership rules: one document a file's name.
    Directory,
    /// Users that a directory provisions over SCIM.
    ScimUsers,
    /// Groups that a directory provisions over SCIM.
    ScimGroups,
}

impl Collection {
    /// Every collection.
    pub const ALL: [Self; 4] = [
        Self::Permissions,
        Self::Directory,
        Self::ScimUsers,
        Self::ScimGroups,
    ];

    /// Its name in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Permissions => "permissions",
            Self::Directory => "directory",
            Self::ScimUsers => "scim-users",
            Self::ScimGroups => "scim-groups",
        }
    }
}

/// One document, as it is to be.
#[derive(Clone, Debug)]
pub struct Document {
    /// Where it belongs.
    pub collection: Collection,
    /// Its id there.
    pub id: String,
    /// Its JSON; `None` removes it.
    pub body: Option<String>,
}

impl Store {
    /// Every document of a collection, by id.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn documents(&self, collection: Collection) -> Result<Vec<(String, String)>, StoreError> {
        Ok(self
            .conn
            .prepare("SELECT id, body FROM documents WHERE collection = ?1 ORDER BY id")?
            .query_map([collection.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?)
    }
}

impl Batch<'_> {
    /// Puts, replaces or removes a document.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn put_document(&self, document: &Document) -> Result<(), StoreError> {
        let collection = document.collection.as_str();
        match &document.body {
            Some(body) => self
                .tx
                .prepare_cached(
                    "INSERT INTO documents (collection, id, changed_ms, body)
                     VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (collection, id) DO UPDATE SET
                        changed_ms = excluded.changed_ms, body = excluded.body",
                )?
                .execute(params![collection, document.id, self.now_ms, body])?,
            None => self
                .tx
                .prepare_cached("DELETE FROM documents WHERE collection = ?1 AND id = ?2")?
                .execute(params![collection, document.id])?,
        };
        Ok(())
    }
}
