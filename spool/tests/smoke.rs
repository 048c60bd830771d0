//! The body of the fuzz target on whatever proptest makes up.

use keytrail_spool::fuzz;
use proptest::prelude::*;

proptest! {
    #[test]
    fn blocks_hold(claimed in 0_u16..64, parts in prop::collection::vec(any::<Vec<u8>>(), 0..6)) {
        let mut data = claimed.to_le_bytes().to_vec();
        for part in &parts {
            data.push(0x0a);
            data.push(u8::try_from(part.len()).unwrap_or(u8::MAX) & 0x7f);
            data.extend(part);
        }
        fuzz::block(&data);
    }
}
