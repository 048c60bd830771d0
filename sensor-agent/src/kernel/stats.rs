//! What the kernel side saw and lost.

use std::collections::BTreeMap;

use aya::maps::{MapData, MapError, PerCpuArray};
use keytrail_abi::{RecordKind, loss::LossRow};
use serde::Serialize;
use zerocopy::FromBytes;

use super::pins::Source;

/// A row as the map holds it.
pub(super) type RawRow = [u8; size_of::<LossRow>()];

/// Counters of one kind of record. Always `seen = submitted + ring_full + oversized + map_full`,
/// except for what is being counted at the moment of reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KindStats {
    /// Events that had to be recorded.
    pub seen: u64,
    /// Records put into a ring.
    pub submitted: u64,
    /// Lost: the ring was full.
    pub ring_full: u64,
    /// Lost: too large.
    pub oversized: u64,
    /// Lost: a map was full.
    pub map_full: u64,
    /// Repeats left out on purpose.
    pub suppressed: u64,
}

impl KindStats {
    /// Events lost.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.ring_full + self.oversized + self.map_full
    }

    /// Whether the counters add up.
    #[must_use]
    pub fn balanced(&self) -> bool {
        self.seen == self.submitted + self.lost()
    }
}

/// All counters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Loss {
    /// By name of the kind.
    pub kinds: Vec<(&'static str, KindStats)>,
    /// Records that the decoder refused.
    pub undecodable: u64,
    /// Execs of which only pieces came.
    pub orphan_chunks: u64,
}

impl Loss {
    /// The counters of one kind.
    #[must_use]
    pub fn kind(&self, kind: RecordKind) -> KindStats {
        self.kinds
            .iter()
            .find(|(name, _)| *name == kind.name())
            .map_or_else(KindStats::default, |k| k.1)
    }

    /// Events lost, by name of the kind: what is kept to compare with later.
    #[must_use]
    pub fn lost(&self) -> BTreeMap<String, u64> {
        let lost = self.kinds.iter();
        lost.map(|(name, k)| ((*name).to_owned(), k.lost()))
            .collect()
    }

    /// Counters that have lost this many of each kind.
    #[must_use]
    pub fn having_lost(lost: &BTreeMap<String, u64>) -> Self {
        let kinds = RecordKind::ALL.iter().map(|kind| {
            let ring_full = lost.get(kind.name()).copied().unwrap_or(0);
            let stats = KindStats {
                seen: ring_full,
                ring_full,
                ..KindStats::default()
            };
            (kind.name(), stats)
        });
        Self {
            kinds: kinds.collect(),
            ..Self::default()
        }
    }

    /// Everything lost, of whatever kind.
    #[must_use]
    pub fn total_lost(&self) -> u64 {
        self.undecodable + self.kinds.iter().map(|(_, k)| k.lost()).sum::<u64>()
    }
}

/// The counters of a set of programs that this agent did not load.
pub(super) fn of_set(source: &mut Source) -> Result<Loss, MapError> {
    let map: PerCpuArray<MapData, RawRow> = source.take("LOSS")?.try_into()?;
    Ok(Loss {
        kinds: read(&map),
        ..Loss::default()
    })
}

/// Sums the counters of all CPUs.
pub(super) fn read(map: &PerCpuArray<MapData, RawRow>) -> Vec<(&'static str, KindStats)> {
    RecordKind::ALL
        .iter()
        .map(|kind| {
            let mut sum = KindStats::default();
            if let Ok(values) = map.get(&(*kind as u32), 0) {
                for row in values
                    .iter()
                    .filter_map(|raw| LossRow::read_from_bytes(raw).ok())
                {
                    sum.seen += row.seen;
                    sum.submitted += row.submitted;
                    sum.ring_full += row.ring_full;
                    sum.oversized += row.oversized;
                    sum.map_full += row.map_full;
                    sum.suppressed += row.suppressed;
                }
            }
            (kind.name(), sum)
        })
        .collect()
}
