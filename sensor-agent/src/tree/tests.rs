use proptest::prelude::*;

use super::*;

fn key(pid: u32, start_ns: u64) -> ProcessKey {
    ProcessKey { pid, start_ns }
}

fn node(pid: u32, parent: Option<u32>) -> Node {
    let at = |pid: u32| key(pid, u64::from(pid) * 7);
    Node::new(at(pid), parent.map(at), Timestamp::UNIX_EPOCH)
}

fn pids(lineage: &[ProcessSummary]) -> Vec<u32> {
    lineage.iter().map(|p| p.key.pid).collect()
}

#[test]
fn lineage_survives_the_death_of_parents() {
    let mut tree = ProcessTree::new(TreeLimits::default());
    tree.insert(node(1, None));
    tree.insert(node(2, Some(1)));
    tree.insert(node(3, Some(2)));
    tree.exit(node(2, None).summary.key);
    let at = node(3, None).summary.key;
    assert_eq!(pids(&tree.lineage(at, None)), [3, 2, 1]);
    assert_eq!(
        pids(&tree.lineage(at, Some(node(2, None).summary.key))),
        [3, 2]
    );
}

#[test]
fn a_long_lineage_keeps_both_ends() {
    let mut tree = ProcessTree::new(TreeLimits::default());
    tree.insert(node(1, None));
    for pid in 2..=40 {
        tree.insert(node(pid, Some(pid - 1)));
    }
    let top = node(1, None).summary.key;
    let lineage = pids(&tree.lineage(node(40, None).summary.key, Some(top)));
    assert_eq!(lineage.len(), MAX_LINEAGE);
    assert_eq!((lineage[0], lineage[1], lineage[15]), (40, 39, 1));
}

#[test]
fn a_reused_pid_is_another_process() {
    let mut tree = ProcessTree::new(TreeLimits::default());
    tree.insert(Node::new(key(9, 100_000_000), None, Timestamp::UNIX_EPOCH));
    assert_eq!(tree.take_exact_key(key(9, 900_000_000)), None);
    assert!(tree.get(key(9, 900_000_000)).is_none());
}

#[test]
fn a_seeded_process_takes_on_its_exact_key() {
    let mut tree = ProcessTree::new(TreeLimits::default());
    let (rounded, exact) = (key(9, 120_000_000), key(9, 123_456_789));
    tree.insert(Node::new(rounded, None, Timestamp::UNIX_EPOCH));
    tree.insert(Node::new(key(10, 5), Some(rounded), Timestamp::UNIX_EPOCH));
    assert_eq!(tree.take_exact_key(exact), Some(rounded));
    assert!(tree.get(rounded).is_none());
    assert_eq!(pids(&tree.lineage(key(10, 5), None)), [10, 9]);
    assert_eq!(tree.get(key(10, 5)).unwrap().parent, Some(exact));
}

#[test]
fn the_bounds_hold_and_what_is_lost_is_counted() {
    let mut tree = ProcessTree::new(TreeLimits { live: 4, exited: 2 });
    tree.insert(node(1, None));
    for pid in 2..=10 {
        tree.insert(node(pid, Some(1)));
    }
    assert_eq!((tree.len(), tree.counters().refused), (4, 6));
    for pid in 2..=4 {
        tree.exit(node(pid, None).summary.key);
    }
    assert_eq!(tree.counters().forgotten, 1);
    // A chain of ended processes, each with a descendant: the oldest has to go.
    let mut tree = ProcessTree::new(TreeLimits {
        live: 10,
        exited: 2,
    });
    tree.insert(node(1, None));
    for pid in 2..=5 {
        tree.insert(node(pid, Some(pid - 1)));
    }
    for pid in 1..=3 {
        tree.exit(node(pid, None).summary.key);
    }
    assert_eq!(tree.counters().lineages_cut, 1);
    assert_eq!(
        pids(&tree.lineage(node(5, None).summary.key, None)),
        [5, 4, 3, 2]
    );
}

proptest! {
    /// Whatever comes in whatever order: the bounds hold and every lineage ends.
    #[test]
    fn any_history_stays_in_bounds(
        steps in proptest::collection::vec((0_u8..3, 0_u32..24, 0_u32..24), 0..300)
    ) {
        let limits = TreeLimits { live: 12, exited: 6 };
        let mut tree = ProcessTree::new(limits);
        for (what, a, b) in steps {
            match what {
                0 => { tree.insert(node(a, Some(b))); }
                1 => tree.exit(node(a, None).summary.key),
                _ => { let _ = tree.take_exact_key(node(a, None).summary.key); }
            }
            prop_assert!(tree.len() <= limits.live + limits.exited + 1);
            prop_assert!(tree.lineage(node(b, None).summary.key, None).len() <= MAX_LINEAGE);
            tree.take_removed();
        }
    }
}
