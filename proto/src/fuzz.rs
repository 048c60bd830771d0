//! The bodies of the fuzz targets `wire_fact` and `wire_block`, and of the short run in
//! `tests/smoke.rs`.

use crate::{block, convert};

/// What a sensor sends as one event: a fact or a refusal, and a fact says the same when it is
/// written and read again.
///
/// # Panics
/// When it does not.
pub fn fact(data: &[u8]) {
    let Ok((time, fact)) = block::decode_fact(data) else {
        return;
    };
    let written = block::encode_fact(time, fact.clone());
    let again = block::decode_fact(&written);
    assert!(
        again.is_ok_and(|again| again == (time, fact)),
        "another fact"
    );
}

/// What a batch carries: events or a refusal.
///
/// # Panics
/// When an event is refused in a block and taken alone.
pub fn events(data: &[u8]) {
    for event in block::events(data).unwrap_or_default() {
        let alone = prost::Message::encode_to_vec(&event);
        let taken = convert::event(event).is_ok();
        assert!(
            taken == block::decode_fact(&alone).is_ok(),
            "taken alone only"
        );
    }
}
