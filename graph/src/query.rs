//! Questions to the graph: what is reached, who depends on it, how it got here.
//!
//! Each is a breadth-first walk, bounded in depth, nodes and edges looked at; an answer that was cut
//! says so. The path shown to a node is a shortest one; among equals, the first by kind and name.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::edge::{EdgeKind, Evidence};
use crate::graph::{Graph, Link};
use crate::node::{NodeId, NodeKind};

/// Longest path, edges.
const MAX_DEPTH: u8 = 16;
/// Nodes visited at most.
const MAX_VISITED: usize = 10_000;
/// Edges of one node looked at, at most.
const MAX_LINKS: usize = 10_000;
/// Nodes in an answer at most.
const MAX_LISTED: usize = 500;
/// Chains in an answer at most.
const MAX_CHAINS: usize = 64;

/// One edge on a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Hop {
    /// From where; untrusted text.
    pub from: NodeId,
    /// What kind of relation.
    pub kind: EdgeKind,
    /// To where; untrusted text.
    pub to: NodeId,
    /// First seen, event time.
    pub first: Timestamp,
    /// Last seen.
    pub last: Timestamp,
    /// How many records showed it.
    pub count: u64,
    /// Some of them, earliest first: the first two and the latest six.
    pub evidence: Vec<Evidence>,
}

/// A node that a walk came to, and the way there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Found {
    /// The node; untrusted text.
    pub node: NodeId,
    /// What kind of node.
    pub kind: NodeKind,
    /// The edges between it and the node asked about, in the direction of the edges.
    pub path: Vec<Hop>,
}

/// What a walk found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Walk {
    /// The node asked about; untrusted text.
    pub of: NodeId,
    /// How many nodes of each kind.
    pub totals: BTreeMap<NodeKind, u64>,
    /// The nodes, nearest first, then by kind and name; at most 500.
    pub found: Vec<Found>,
    /// True when bounds cut the walk or the list.
    pub truncated: bool,
}

impl Walk {
    /// A walk that found nothing.
    #[must_use]
    pub fn empty(of: &NodeId) -> Self {
        Self {
            of: of.clone(),
            totals: BTreeMap::new(),
            found: Vec::new(),
            truncated: false,
        }
    }
}

/// How a credential came to where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Origin {
    /// The node asked about; untrusted text.
    pub of: NodeId,
    /// Chains from the outermost cause (account, package, place, parent credential) to the node;
    /// the earliest first, at most 64.
    pub chains: Vec<Vec<Hop>>,
    /// True when bounds cut the walk or the list.
    pub truncated: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forward,
    Backward,
}

/// The tree of one walk.
struct Tree<'g> {
    graph: &'g Graph,
    direction: Direction,
    /// For each visited node: the one before it, the edge between, the depth.
    from: BTreeMap<u32, Option<(u32, Link<'g>)>>,
    /// In the order of visits.
    order: Vec<u32>,
    truncated: bool,
}

impl<'g> Tree<'g> {
    fn grow(
        graph: &'g Graph,
        starts: &[u32],
        direction: Direction,
        follow: impl Fn(&Link<'g>) -> bool,
    ) -> Self {
        let mut tree = Self {
            graph,
            direction,
            from: starts.iter().map(|nr| (*nr, None)).collect(),
            order: starts.to_vec(),
            truncated: false,
        };
        let mut level: Vec<u32> = starts.to_vec();
        for _ in 0..MAX_DEPTH {
            let mut next = Vec::new();
            for at in level {
                for link in tree.links(at, &follow) {
                    if tree.from.contains_key(&link.other) {
                        continue;
                    }
                    if tree.from.len() >= MAX_VISITED {
                        tree.truncated = true;
                        return tree;
                    }
                    tree.from.insert(link.other, Some((at, link)));
                    tree.order.push(link.other);
                    next.push(link.other);
                }
            }
            if next.is_empty() {
                return tree;
            }
            level = next;
        }
        tree.truncated |= !level.is_empty();
        tree
    }

    /// The edges at a node that are followed, in an order that does not depend on arrival.
    fn links(&mut self, at: u32, follow: &impl Fn(&Link<'g>) -> bool) -> Vec<Link<'g>> {
        let graph = self.graph;
        let mut links: Vec<Link<'g>> = match self.direction {
            Direction::Forward => graph
                .outward(at)
                .filter(|l| follow(l))
                .take(MAX_LINKS + 1)
                .collect(),
            Direction::Backward => graph
                .inward(at)
                .filter(|l| follow(l))
                .take(MAX_LINKS + 1)
                .collect(),
        };
        if links.len() > MAX_LINKS {
            links.truncate(MAX_LINKS);
            self.truncated = true;
        }
        links.sort_by_key(|link| (link.kind, graph.id(link.other)));
        links
    }

    /// The edges between `nr` and the start, in the direction of the edges.
    fn path(&self, nr: u32) -> Vec<Hop> {
        let mut hops = Vec::new();
        let mut at = nr;
        while let Some(Some((before, link))) = self.from.get(&at) {
            let (from, to) = match self.direction {
                Direction::Forward => (*before, at),
                Direction::Backward => (at, *before),
            };
            if let (Some(from), Some(to)) = (self.graph.id(from), self.graph.id(to)) {
                hops.push(hop(from, link, to));
            }
            at = *before;
        }
        if self.direction == Direction::Forward {
            hops.reverse();
        }
        hops
    }

    fn into_walk(self, of: &NodeId, wanted: impl Fn(NodeKind) -> bool) -> Walk {
        let mut totals: BTreeMap<NodeKind, u64> = BTreeMap::new();
        let mut found = Vec::new();
        let mut truncated = self.truncated;
        for nr in &self.order {
            let Some(id) = self.graph.id(*nr).filter(|id| *id != of) else {
                continue;
            };
            if !wanted(id.kind()) {
                continue;
            }
            *totals.entry(id.kind()).or_default() += 1;
            if found.len() < MAX_LISTED {
                found.push(Found {
                    node: id.clone(),
                    kind: id.kind(),
                    path: self.path(*nr),
                });
            } else {
                truncated = true;
            }
        }
        found.sort_by(|a, b| (a.path.len(), a.kind, &a.node).cmp(&(b.path.len(), b.kind, &b.node)));
        Walk {
            of: of.clone(),
            totals,
            found,
            truncated,
        }
    }
}

fn hop(from: &NodeId, link: &Link<'_>, to: &NodeId) -> Hop {
    Hop {
        from: from.clone(),
        kind: link.kind,
        to: to.clone(),
        first: link.edge.first,
        last: link.edge.last,
        count: link.edge.count,
        evidence: link.edge.evidence.clone(),
    }
}

impl Graph {
    /// What was reached from `node`: everything along the edges. `None` when the graph does not
    /// know the node.
    #[must_use]
    pub fn reached(&self, node: &NodeId) -> Option<Walk> {
        let start = self.number(node)?;
        let tree = Tree::grow(self, &[start], Direction::Forward, |_| true);
        Some(tree.into_walk(node, |_| true))
    }

    /// Who depends on `node`: those that hold, keep, present or carry it, or anything minted from
    /// it, and what these run on. What a credential was itself minted from does not depend on it.
    #[must_use]
    pub fn dependents(&self, node: &NodeId) -> Option<Walk> {
        let start = self.number(node)?;
        let mut starts = vec![start];
        let credential = node.kind() == NodeKind::Credential;
        let mut truncated = false;
        if credential {
            let children = Tree::grow(self, &starts, Direction::Forward, |link| descent(link.kind));
            truncated = children.truncated;
            starts = children.order;
        }
        let tree = Tree::grow(self, &starts, Direction::Backward, |link| {
            !(credential && descent(link.kind))
        });
        let mut walk = tree.into_walk(node, |_| true);
        walk.truncated |= truncated;
        Some(walk)
    }

    /// How `node` came to where it is: every chain that leads to it from an account, a package, a
    /// place or a parent credential.
    #[must_use]
    pub fn origin(&self, node: &NodeId) -> Option<Origin> {
        let start = self.number(node)?;
        let leads_here = |link: &Link<'_>| {
            !matches!(
                link.kind,
                EdgeKind::WorksOn | EdgeKind::Presented | EdgeKind::Carried
            )
        };
        let tree = Tree::grow(self, &[start], Direction::Backward, leads_here);
        let inner: std::collections::BTreeSet<u32> = tree
            .from
            .values()
            .flatten()
            .map(|(before, _)| *before)
            .collect();
        let ends = tree.order.iter().filter(|nr| !inner.contains(nr));
        let mut chains: Vec<Vec<Hop>> = ends
            .map(|nr| tree.path(*nr))
            .filter(|path| !path.is_empty())
            .collect();
        chains.sort_by_cached_key(|chain| {
            let last = chain.last();
            let start = chain.first().map(|hop| hop.from.clone());
            (last.map(|hop| hop.first), chain.len(), start)
        });
        let truncated = tree.truncated || chains.len() > MAX_CHAINS;
        chains.truncate(MAX_CHAINS);
        Some(Origin {
            of: node.clone(),
            chains,
            truncated,
        })
    }
}

fn descent(kind: EdgeKind) -> bool {
    matches!(kind, EdgeKind::Minted | EdgeKind::Issued)
}
