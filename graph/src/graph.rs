//! The graph: interned nodes, edges with their evidence, adjacency both ways.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::edge::{Edge, EdgeKey, EdgeKind};
use crate::node::NodeId;
use crate::observe::Observation;

/// How large the graph may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Edges in all. Beyond it new ones find no room until old ones age out.
    pub edges: usize,
    /// Edges of one kind out of, and into, one endpoint, credential or workload. Beyond it the one
    /// longest unseen makes room.
    pub fan: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            edges: 2_000_000,
            fan: 4_096,
        }
    }
}

/// How large it is, and what found no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Nodes.
    pub nodes: u64,
    /// Edges.
    pub edges: u64,
    /// Observations without room, since the start.
    pub dropped: u64,
    /// Edges that made room for later ones of the same node, since the start.
    pub displaced: u64,
}

type NodeNr = u32;
type EdgeNr = u32;

#[derive(Clone, Debug)]
struct Node {
    id: NodeId,
    /// Sorted by (kind, other end's arrival): the order is that of insertion within a kind.
    out: BTreeSet<(EdgeKind, EdgeNr)>,
    into: BTreeSet<(EdgeKind, EdgeNr)>,
}

#[derive(Clone, Debug)]
struct Slot {
    from: NodeNr,
    kind: EdgeKind,
    to: NodeNr,
    edge: Edge,
}

/// The graph in memory. The store beside it holds the same edges.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    limits: Limits,
    index: BTreeMap<NodeId, NodeNr>,
    nodes: Vec<Option<Node>>,
    free_nodes: Vec<NodeNr>,
    edges: Vec<Option<Slot>>,
    free_edges: Vec<EdgeNr>,
    by_key: BTreeMap<(NodeNr, EdgeKind, NodeNr), EdgeNr>,
    dropped: u64,
    displaced: u64,
}

/// Changes that are not in the graph yet: computed first, stored, then put in, so that a failed
/// commit leaves the graph as it was.
#[derive(Clone, Debug, Default)]
pub struct Staged {
    put: BTreeMap<EdgeKey, Edge>,
    removed: BTreeSet<EdgeKey>,
    new: usize,
    dropped: u64,
}

impl Staged {
    /// Edges that are new or changed, as they are to be.
    pub fn put(&self) -> impl Iterator<Item = (&EdgeKey, &Edge)> {
        self.put.iter()
    }

    /// Edges that go.
    pub fn removed(&self) -> impl Iterator<Item = &EdgeKey> {
        self.removed.iter()
    }

    /// True when nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.put.is_empty() && self.removed.is_empty()
    }
}

/// An edge as seen from one of its ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link<'a> {
    pub(crate) kind: EdgeKind,
    pub(crate) other: NodeNr,
    pub(crate) edge: &'a Edge,
}

impl Graph {
    /// An empty graph.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// Works out what `observation` changes, on top of what is staged already.
    pub fn stage(&self, staged: &mut Staged, observation: &Observation) {
        let Observation {
            from,
            kind,
            to,
            time,
            record,
        } = observation;
        let key = EdgeKey {
            from: from.clone(),
            kind: *kind,
            to: to.clone(),
        };
        if let Some(edge) = staged.put.get_mut(&key) {
            edge.see(*time, record);
            return;
        }
        let known = (!staged.removed.contains(&key))
            .then(|| self.edge(&key))
            .flatten();
        if let Some(known) = known {
            let mut edge = known.clone();
            edge.see(*time, record);
            if edge != *known {
                staged.put.insert(key, edge);
            }
            return;
        }
        let total = (self.by_key.len() + staged.new).saturating_sub(staged.removed.len());
        if total >= self.limits.edges {
            staged.dropped += 1;
            return;
        }
        self.make_room(staged, &key);
        staged.removed.remove(&key);
        staged.put.insert(key, Edge::new(*time, record));
        staged.new += 1;
    }

    /// Takes the edges longest unseen out of a fan that is full.
    fn make_room(&self, staged: &mut Staged, key: &EdgeKey) {
        for (end, outward) in [(&key.from, true), (&key.to, false)] {
            // Everybody uses the same few services; only growth around one credential is bounded.
            let bounded = outward || end.as_credential().is_some();
            let Some(node) = self.number(end).filter(|_| bounded) else {
                continue;
            };
            let size = self.fan(node, key.kind, outward).count();
            let Some(excess) = (size + 1).checked_sub(self.limits.fan).filter(|n| *n > 0) else {
                continue;
            };
            // Within one batch a fan may outgrow its limit; the next observation takes that back.
            let mut others: Vec<(Timestamp, EdgeKey)> = self
                .fan(node, key.kind, outward)
                .filter_map(|nr| self.slot(nr))
                .filter_map(|slot| Some((slot.edge.last, self.key(slot)?)))
                .filter(|(_, key)| !staged.removed.contains(key) && !staged.put.contains_key(key))
                .collect();
            others.sort();
            let gone = others.into_iter().take(excess);
            staged.removed.extend(gone.map(|(_, key)| key));
        }
    }

    fn fan(&self, node: NodeNr, kind: EdgeKind, outward: bool) -> impl Iterator<Item = EdgeNr> {
        let node = self.node(node);
        node.into_iter().flat_map(move |node| {
            let side = if outward { &node.out } else { &node.into };
            side.range((kind, 0)..=(kind, EdgeNr::MAX))
                .map(|(_, nr)| *nr)
        })
    }

    /// Works out which edges were last seen before `before`.
    #[must_use]
    pub fn stage_expired(&self, before: Timestamp) -> Staged {
        let old = self.edges.iter().flatten();
        let removed = old
            .filter(|slot| slot.edge.last < before)
            .filter_map(|slot| self.key(slot))
            .collect();
        Staged {
            removed,
            ..Staged::default()
        }
    }

    /// Makes staged changes so.
    pub fn install(&mut self, staged: Staged) {
        self.dropped += staged.dropped;
        if staged.new > 0 {
            self.displaced += staged.removed.len() as u64;
        }
        for key in &staged.removed {
            self.remove(key);
        }
        for (key, edge) in staged.put {
            self.put(&key, edge);
        }
    }

    /// Puts an edge in as it is, over an older state of it (loading the store).
    pub fn put(&mut self, key: &EdgeKey, edge: Edge) {
        let (from, to) = (self.intern(&key.from), self.intern(&key.to));
        if let Some(nr) = self.by_key.get(&(from, key.kind, to)).copied() {
            if let Some(Some(slot)) = self.edges.get_mut(nr as usize) {
                slot.edge = edge;
            }
            return;
        }
        let slot = Some(Slot {
            from,
            kind: key.kind,
            to,
            edge,
        });
        let nr = place(&mut self.edges, &mut self.free_edges, slot);
        self.by_key.insert((from, key.kind, to), nr);
        if let Some(node) = self.node_mut(from) {
            node.out.insert((key.kind, nr));
        }
        if let Some(node) = self.node_mut(to) {
            node.into.insert((key.kind, nr));
        }
    }

    fn remove(&mut self, key: &EdgeKey) {
        let (Some(from), Some(to)) = (self.number(&key.from), self.number(&key.to)) else {
            return;
        };
        let Some(nr) = self.by_key.remove(&(from, key.kind, to)) else {
            return;
        };
        if let Some(slot) = self.edges.get_mut(nr as usize) {
            *slot = None;
            self.free_edges.push(nr);
        }
        if let Some(node) = self.node_mut(from) {
            node.out.remove(&(key.kind, nr));
        }
        if let Some(node) = self.node_mut(to) {
            node.into.remove(&(key.kind, nr));
        }
        for end in [from, to] {
            let lone = self
                .node(end)
                .is_some_and(|n| n.out.is_empty() && n.into.is_empty());
            if lone && let Some(gone) = self.nodes.get_mut(end as usize).and_then(Option::take) {
                self.index.remove(&gone.id);
                self.free_nodes.push(end);
            }
        }
    }

    fn intern(&mut self, id: &NodeId) -> NodeNr {
        if let Some(nr) = self.index.get(id) {
            return *nr;
        }
        let node = Some(Node {
            id: id.clone(),
            out: BTreeSet::new(),
            into: BTreeSet::new(),
        });
        let nr = place(&mut self.nodes, &mut self.free_nodes, node);
        self.index.insert(id.clone(), nr);
        nr
    }

    /// How large it is.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            nodes: self.index.len() as u64,
            edges: self.by_key.len() as u64,
            dropped: self.dropped,
            displaced: self.displaced,
        }
    }

    /// One edge.
    #[must_use]
    pub fn edge(&self, key: &EdgeKey) -> Option<&Edge> {
        let (from, to) = (self.number(&key.from)?, self.number(&key.to)?);
        let nr = self.by_key.get(&(from, key.kind, to))?;
        self.slot(*nr).map(|slot| &slot.edge)
    }

    /// Every edge, by key.
    #[must_use]
    pub fn edges(&self) -> BTreeMap<EdgeKey, &Edge> {
        let slots = self.edges.iter().flatten();
        slots
            .filter_map(|slot| Some((self.key(slot)?, &slot.edge)))
            .collect()
    }

    /// Whether the graph knows this node.
    #[must_use]
    pub fn contains(&self, id: &NodeId) -> bool {
        self.index.contains_key(id)
    }

    pub(crate) fn number(&self, id: &NodeId) -> Option<NodeNr> {
        self.index.get(id).copied()
    }

    pub(crate) fn id(&self, nr: NodeNr) -> Option<&NodeId> {
        self.node(nr).map(|node| &node.id)
    }

    /// Edges out of a node, by kind.
    pub(crate) fn outward(&self, nr: NodeNr) -> impl Iterator<Item = Link<'_>> {
        let links = self.node(nr).map(|node| &node.out);
        links.into_iter().flatten().filter_map(|(kind, nr)| {
            let slot = self.slot(*nr)?;
            Some(Link {
                kind: *kind,
                other: slot.to,
                edge: &slot.edge,
            })
        })
    }

    /// Edges into a node, by kind.
    pub(crate) fn inward(&self, nr: NodeNr) -> impl Iterator<Item = Link<'_>> {
        let links = self.node(nr).map(|node| &node.into);
        links.into_iter().flatten().filter_map(|(kind, nr)| {
            let slot = self.slot(*nr)?;
            Some(Link {
                kind: *kind,
                other: slot.from,
                edge: &slot.edge,
            })
        })
    }

    fn node(&self, nr: NodeNr) -> Option<&Node> {
        self.nodes.get(nr as usize)?.as_ref()
    }

    fn node_mut(&mut self, nr: NodeNr) -> Option<&mut Node> {
        self.nodes.get_mut(nr as usize)?.as_mut()
    }

    fn slot(&self, nr: EdgeNr) -> Option<&Slot> {
        self.edges.get(nr as usize)?.as_ref()
    }

    fn key(&self, slot: &Slot) -> Option<EdgeKey> {
        Some(EdgeKey {
            from: self.id(slot.from)?.clone(),
            kind: slot.kind,
            to: self.id(slot.to)?.clone(),
        })
    }
}

/// Puts a value into a free slot or at the end. Limits keep the number far below `u32::MAX`.
fn place<T>(slots: &mut Vec<Option<T>>, free: &mut Vec<u32>, value: Option<T>) -> u32 {
    if let Some(nr) = free.pop()
        && let Some(slot) = slots.get_mut(nr as usize)
    {
        *slot = value;
        return nr;
    }
    slots.push(value);
    u32::try_from(slots.len() - 1).unwrap_or(u32::MAX)
}
