//! Ranges made disjoint, sorted and small: the most specific of those that overlap is kept.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// No value: a gap between ranges.
const NONE: u32 = u32::MAX;

/// An address as a number.
pub(crate) trait Key: Copy + Ord {
    /// The next address, unless this is the last.
    fn next(self) -> Option<Self>;
    /// How many bits it takes to count from this address to `last`: 8 for a /24 of IPv4.
    fn bits_to(self, last: Self) -> u8;
}

macro_rules! key {
    ($($type:ty),*) => {$(
        impl Key for $type {
            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }

            fn bits_to(self, last: Self) -> u8 {
                let bits = <$type>::BITS - last.saturating_sub(self).leading_zeros();
                u8::try_from(bits).unwrap_or(u8::MAX)
            }
        }
    )*};
}
key!(u32, u128);

/// One range of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<K> {
    pub(crate) first: K,
    pub(crate) last: K,
    pub(crate) value: u32,
    /// It says less than others of its size (AWS's AMAZON beside its EC2).
    pub(crate) generic: bool,
}

/// Disjoint ranges: each reaches to the next one's start.
#[derive(Clone, Debug)]
pub(crate) struct Ranges<K> {
    starts: Vec<K>,
    values: Vec<u32>,
    /// Size of the range that the file wrote, in bits: the smaller, the more specific.
    bits: Vec<u8>,
}

impl<K: Key> Ranges<K> {
    /// Of overlapping rows the smallest counts; of those of one size the one that is not generic,
    /// then the later.
    pub(crate) fn build(rows: Vec<Row<K>>) -> Self {
        let mut bounds: Vec<K> = rows.iter().map(|row| row.first).collect();
        bounds.extend(rows.iter().filter_map(|row| row.last.next()));
        bounds.sort_unstable();
        bounds.dedup();
        let mut order: Vec<u32> = (0..u32::try_from(rows.len()).unwrap_or(u32::MAX)).collect();
        order.sort_by_key(|index| rows.get(*index as usize).map(|row| row.first));
        let mut coming = order.into_iter().peekable();
        let mut open = BinaryHeap::new();
        let mut ranges = Self {
            starts: Vec::new(),
            values: Vec::new(),
            bits: Vec::new(),
        };
        for start in bounds {
            while let Some(index) = coming.peek().copied()
                && let Some(row) = rows.get(index as usize)
                && row.first <= start
            {
                let bits = row.first.bits_to(row.last);
                open.push(Reverse((bits, row.generic, Reverse(index), row.last)));
                coming.next();
            }
            while open.peek().is_some_and(|Reverse((.., last))| *last < start) {
                open.pop();
            }
            let now = open
                .peek()
                .map(|Reverse((bits, _, Reverse(index), _))| (*bits, *index));
            let (value, bits) = now.map_or((NONE, 0), |(bits, index)| {
                (rows.get(index as usize).map_or(NONE, |row| row.value), bits)
            });
            ranges.add(start, value, bits);
        }
        ranges.starts.shrink_to_fit();
        ranges.values.shrink_to_fit();
        ranges.bits.shrink_to_fit();
        ranges
    }

    fn add(&mut self, start: K, value: u32, bits: u8) {
        if self.values.last() == Some(&value) && self.bits.last() == Some(&bits) {
            return;
        }
        self.starts.push(start);
        self.values.push(value);
        self.bits.push(bits);
    }

    /// The value for an address, and the size of its range.
    pub(crate) fn find(&self, address: K) -> Option<(u32, u8)> {
        let index = self
            .starts
            .partition_point(|start| *start <= address)
            .checked_sub(1)?;
        let value = *self.values.get(index)?;
        (value != NONE).then_some((value, *self.bits.get(index)?))
    }

    /// Memory taken.
    pub(crate) fn bytes(&self) -> usize {
        self.starts.capacity() * size_of::<K>() + self.values.capacity() * 4 + self.bits.capacity()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(first: u32, last: u32, value: u32, generic: bool) -> Row<u32> {
        Row {
            first,
            last,
            value,
            generic,
        }
    }

    /// The same by looking at every row.
    fn slowly(rows: &[Row<u32>], address: u32) -> Option<(u32, u8)> {
        rows.iter()
            .enumerate()
            .filter(|(_, row)| (row.first..=row.last).contains(&address))
            .min_by_key(|(index, row)| (row.first.bits_to(row.last), row.generic, Reverse(*index)))
            .map(|(_, row)| (row.value, row.first.bits_to(row.last)))
    }

    proptest! {
        #[test]
        fn as_if_every_row_were_looked_at(
            raw in prop::collection::vec((any::<u8>(), 0_u8..64, 0_u32..5, any::<bool>()), 0..24),
            high in any::<bool>(),
        ) {
            let base = if high { u32::MAX - 255 } else { 0 };
            let rows: Vec<Row<u32>> = raw
                .into_iter()
                .map(|(first, size, value, generic)| {
                    row(base + u32::from(first), base + u32::from(first.saturating_add(size)), value, generic)
                })
                .collect();
            let ranges = Ranges::build(rows.clone());
            for address in 0..=255 {
                prop_assert_eq!(ranges.find(base + address), slowly(&rows, base + address));
            }
        }
    }
}
