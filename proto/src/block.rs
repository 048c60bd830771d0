//! What a batch carries: an `EventBlock`, built from facts that were encoded one by one.
//!
//! A protobuf message with one repeated field is the concatenation of `tag, length, element`. So a
//! spool can store encoded facts in that framing and send a stored block as it is, without decoding
//! or encoding anything again.

use keytrail_model::fact::Fact;
use prost::Message as _;

use crate::convert::WireError;
use crate::wire;

/// Tag of `EventBlock.events`: field 1, length-delimited.
const EVENTS_TAG: u8 = 0x0a;

/// Largest block before compression that either side makes or takes, bytes.
pub const MAX_BLOCK_BYTES: usize = 4 * 1024 * 1024;

/// Encodes one fact as an `Event`.
#[must_use]
pub fn encode_fact(time: jiff::Timestamp, fact: Fact) -> Vec<u8> {
    wire::Event {
        time: Some(time.into()),
        fact: Some(fact.into()),
    }
    .encode_to_vec()
}

/// Decodes one `Event` as [`encode_fact`] makes it.
///
/// # Errors
/// When the bytes are no event, or the event is no fact.
pub fn decode_fact(bytes: &[u8]) -> Result<(jiff::Timestamp, Fact), WireError> {
    let event = wire::Event::decode(bytes)
        .map_err(|error| WireError::invalid("event", error.to_string()))?;
    crate::convert::event(event)
}

/// Appends one encoded event to a block.
pub fn append(block: &mut Vec<u8>, event: &[u8]) {
    block.push(EVENTS_TAG);
    // A `Vec` on any supported platform fits; the error case cannot occur.
    let length = u64::try_from(event.len()).unwrap_or(u64::MAX);
    prost::encoding::encode_varint(length, block);
    block.extend_from_slice(event);
}

/// Takes a block apart into wire events.
///
/// # Errors
/// When the bytes are no `EventBlock`.
pub fn events(block: &[u8]) -> Result<Vec<wire::Event>, WireError> {
    let wire::EventBlock { events } = wire::EventBlock::decode(block)
        .map_err(|error| WireError::invalid("batch.block_zstd", error.to_string()))?;
    Ok(events)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appended_events_are_what_prost_reads() {
        let mut block = Vec::new();
        let mut expected = Vec::new();
        for seconds in [0, 1, 1_700_000_000] {
            let event = wire::Event {
                time: Some(wire::Time { seconds, nanos: 7 }),
                fact: None,
            };
            append(&mut block, &event.encode_to_vec());
            expected.push(event);
        }
        assert_eq!(events(&block).unwrap(), expected);
        assert_eq!(block, wire::EventBlock { events: expected }.encode_to_vec());
    }
}
