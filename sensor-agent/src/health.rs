//! What was lost, told: kernel counters become gaps, everything else becomes a line when it changes.

use jiff::Timestamp;
use keytrail_abi::RecordKind;
use keytrail_model::fact::{Fact, Gap, GapKind};
use tracing::warn;

use crate::kernel::stats::Loss;
use crate::pipeline::{Pipeline, PipelineCounters, Timed};
use crate::uplink::UplinkStatus;

/// What was last told.
pub struct Health {
    loss: Loss,
    /// Up to when losses have been told.
    since: Timestamp,
    pipeline: PipelineCounters,
    refused: u64,
    dropped: u64,
}

/// Which records hide what when they are lost.
const GROUPS: [(GapKind, &[RecordKind]); 3] = [
    (
        GapKind::Access,
        &[RecordKind::FileAccess, RecordKind::ProcessAccess],
    ),
    (
        GapKind::Network,
        &[
            RecordKind::ConnOpen,
            RecordKind::ConnHello,
            RecordKind::ConnClose,
            RecordKind::Datagram,
            RecordKind::Listen,
            RecordKind::UnixPeer,
            RecordKind::Dns,
            RecordKind::OpaqueSocket,
        ],
    ),
    (
        GapKind::Process,
        &[
            RecordKind::Fork,
            RecordKind::Exec,
            RecordKind::ExecChunkSmall,
            RecordKind::ExecChunkLarge,
            RecordKind::Exit,
            RecordKind::BpfLoad,
        ],
    ),
];

impl Health {
    /// From these counters on, which were those at that time.
    #[must_use]
    pub fn new(loss: Loss, since: Timestamp) -> Self {
        Self {
            loss,
            since,
            pipeline: PipelineCounters::default(),
            refused: 0,
            dropped: 0,
        }
    }

    /// Compares with the last look; returns a gap for each kind of loss since then.
    pub fn look(
        &mut self,
        loss: Loss,
        mark: Timestamp,
        pipeline: &mut Pipeline,
        uplink: &UplinkStatus,
    ) -> Vec<Timed> {
        let gaps = gaps(&self.loss, &loss, self.since.min(mark), mark);
        for (_, fact) in &gaps {
            if let Fact::Gap(gap) = fact {
                warn!(what = ?gap.what, count = gap.count, "events were lost: {}", gap.reason);
            }
        }
        self.since = mark;
        self.loss = loss;
        self.tell(pipeline, uplink);
        gaps
    }

    fn tell(&mut self, pipeline: &mut Pipeline, uplink: &UplinkStatus) {
        let counters = pipeline.counters();
        if counters.unreadable_hellos > self.pipeline.unreadable_hellos {
            warn!(
                total = counters.unreadable_hellos,
                "connections whose server name could not be read"
            );
        }
        let (places, entries) = pipeline.files().refused();
        if places + entries > self.refused {
            self.refused = places + entries;
            warn!(
                places,
                entries, "there is more to watch than fits; see the limits"
            );
        }
        let tree = pipeline.identity().counters().tree;
        if tree.refused + uplink.dropped > self.dropped {
            self.dropped = tree.refused + uplink.dropped;
            warn!(
                processes = tree.refused,
                facts = uplink.dropped,
                "there is more going on than can be kept"
            );
        }
        self.pipeline = counters;
    }
}

/// A gap for each kind of loss between two looks at the counters.
pub(crate) fn gaps(before: &Loss, now: &Loss, from: Timestamp, to: Timestamp) -> Vec<Timed> {
    let mut gaps = Vec::new();
    let mut add = |what, count: u64, reason: &str| {
        if count > 0 {
            let count = Some(count);
            let gap = Gap {
                from,
                to,
                what,
                count,
                reason: reason.to_owned(),
            };
            gaps.push((to, Fact::Gap(gap)));
        }
    };
    for (what, kinds) in GROUPS {
        let lost = |loss: &Loss| {
            kinds
                .iter()
                .map(|kind| loss.kind(*kind).lost())
                .sum::<u64>()
        };
        let count = lost(now).saturating_sub(lost(before));
        add(what, count, "the kernel's ring or a map was full");
    }
    let undecodable = now.undecodable.saturating_sub(before.undecodable);
    add(
        GapKind::All,
        undecodable,
        "records from the kernel could not be read",
    );
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::stats::KindStats;

    #[test]
    fn losses_become_gaps_of_their_kind() {
        let lost = |ring_full| KindStats {
            seen: 9,
            submitted: 9 - ring_full,
            ring_full,
            ..KindStats::default()
        };
        let before = Loss {
            kinds: vec![(RecordKind::ConnOpen.name(), lost(1))],
            ..Loss::default()
        };
        let now = Loss {
            kinds: vec![
                (RecordKind::ConnOpen.name(), lost(3)),
                (RecordKind::FileAccess.name(), lost(1)),
            ],
            undecodable: 2,
            ..Loss::default()
        };
        let (from, to) = (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH);
        let told: Vec<_> = gaps(&before, &now, from, to)
            .into_iter()
            .map(|(_, fact)| match fact {
                Fact::Gap(gap) => (gap.what, gap.count),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(
            told,
            [
                (GapKind::Access, Some(1)),
                (GapKind::Network, Some(2)),
                (GapKind::All, Some(2))
            ]
        );
        assert!(gaps(&now, &now, from, to).is_empty());
    }
}
