//! The bodies of the fuzz targets on whatever proptest makes up.

use keytrail_proto::fuzz;
use proptest::prelude::*;

proptest! {
    #[test]
    fn events_hold(
        time in prop::collection::vec(any::<u8>(), 0..8),
        field in 0_u8..24,
        fact in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        // Field 1 is the time, one of the others the fact (`Event` in the contract).
        let length = |bytes: &[u8]| u8::try_from(bytes.len()).unwrap_or(0);
        let mut event = vec![0x0a, length(&time)];
        event.extend(&time);
        event.extend([field << 3 | 2, length(&fact)]);
        event.extend(&fact);
        fuzz::fact(&event);
        fuzz::events(&[&[0x0a, length(&event)][..], &event].concat());
    }
}
