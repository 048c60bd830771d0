//! The lineage graph's nodes and edges.

use jiff::Timestamp;
use keytrail_graph::{Edge, EdgeKey, EdgeKind, NodeId, Staged};
use rusqlite::{OptionalExtension as _, params};

use super::{Batch, Store, StoreError, to_i64, to_u64};

/// Where in the log the stored graph stands.
const OFFSET: &str = "graph_offset";

impl Store {
    /// Every stored edge, in the order of the store.
    ///
    /// # Errors
    /// When SQLite fails or a stored value is damaged.
    pub fn graph_edges(&self, mut each: impl FnMut(EdgeKey, Edge)) -> Result<(), StoreError> {
        let mut edges = self.conn.prepare(
            "SELECT s.node, e.kind, t.node, e.first_us, e.last_us, e.count, e.evidence
             FROM graph_edges e
             JOIN graph_nodes s ON s.id = e.source JOIN graph_nodes t ON t.id = e.target",
        )?;
        let mut rows = edges.query([])?;
        while let Some(row) = rows.next()? {
            let damaged =
                |detail: &dyn std::fmt::Display| StoreError::value("a graph edge", detail);
            let node = |text: String| text.parse::<NodeId>().map_err(|e| damaged(&e));
            let time = |us: i64| Timestamp::from_microsecond(us).map_err(|e| damaged(&e));
            let key = EdgeKey {
                from: node(row.get(0)?)?,
                kind: EdgeKind::numbered(row.get(1)?)
                    .ok_or_else(|| damaged(&"unknown kind of edge"))?,
                to: node(row.get(2)?)?,
            };
            let evidence: String = row.get(6)?;
            let edge = Edge {
                first: time(row.get(3)?)?,
                last: time(row.get(4)?)?,
                count: to_u64(row.get(5)?),
                evidence: serde_json::from_str(&evidence).map_err(|e| damaged(&e))?,
            };
            each(key, edge);
        }
        Ok(())
    }

    /// The log offset up to which the stored graph reaches; `None` when there is none yet.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn graph_offset(&self) -> Result<Option<u64>, StoreError> {
        let offset: Option<i64> = self
            .conn
            .query_row("SELECT value FROM meta WHERE key = ?1", [OFFSET], |row| {
                row.get(0)
            })
            .optional()?;
        Ok(offset.map(to_u64))
    }
}

impl Batch<'_> {
    /// Stores changes of the graph, and that it now reaches to the log's end.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn put_graph(&self, staged: &Staged) -> Result<(), StoreError> {
        for key in staged.removed() {
            self.remove_edge(key)?;
        }
        for (key, edge) in staged.put() {
            self.put_edge(key, edge)?;
        }
        self.tx
            .prepare_cached(
                "INSERT INTO meta (key, value) VALUES (?1, ?2)
                 ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            )?
            .execute(params![OFFSET, to_i64(self.next_offset)])?;
        Ok(())
    }

    fn put_edge(&self, key: &EdgeKey, edge: &Edge) -> Result<(), StoreError> {
        let evidence = serde_json::to_string(&edge.evidence).map_err(|e| StoreError::Encode {
            what: "an edge's evidence",
            detail: e.to_string(),
        })?;
        self.tx
            .prepare_cached(
                "INSERT INTO graph_edges
                    (source, kind, target, first_us, last_us, count, evidence)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT (source, kind, target) DO UPDATE SET
                    first_us = excluded.first_us, last_us = excluded.last_us,
                    count = excluded.count, evidence = excluded.evidence",
            )?
            .execute(params![
                self.node(&key.from)?,
                key.kind.number(),
                self.node(&key.to)?,
                edge.first.as_microsecond(),
                edge.last.as_microsecond(),
                to_i64(edge.count),
                evidence,
            ])?;
        Ok(())
    }

    fn node(&self, node: &NodeId) -> Result<i64, StoreError> {
        let text = node.to_string();
        let known: Option<i64> = self
            .tx
            .prepare_cached("SELECT id FROM graph_nodes WHERE node = ?1")?
            .query_row([&text], |row| row.get(0))
            .optional()?;
        if let Some(id) = known {
            return Ok(id);
        }
        self.tx
            .prepare_cached("INSERT INTO graph_nodes (node) VALUES (?1)")?
            .execute([&text])?;
        Ok(self.tx.last_insert_rowid())
    }

    /// Removes an edge, and its ends where nothing else touches them.
    fn remove_edge(&self, key: &EdgeKey) -> Result<(), StoreError> {
        let (source, target) = (self.node(&key.from)?, self.node(&key.to)?);
        self.tx
            .prepare_cached(
                "DELETE FROM graph_edges WHERE source = ?1 AND kind = ?2 AND target = ?3",
            )?
            .execute(params![source, key.kind.number(), target])?;
        for end in [source, target] {
            self.tx
                .prepare_cached(
                    "DELETE FROM graph_nodes WHERE id = ?1
                        AND NOT EXISTS (SELECT 1 FROM graph_edges WHERE source = ?1)
                        AND NOT EXISTS (SELECT 1 FROM graph_edges WHERE target = ?1)",
                )?
                .execute([end])?;
        }
        Ok(())
    }
}
