//! The contract of one stream (`ingest.proto`), without I/O: messages in, steps out.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use keytrail_model::fact::{Fact, Gap, GapKind, HostEvent, Watermark};
use keytrail_model::ids::{BootId, EventRef, HostId};
use keytrail_model::text::shown;
use keytrail_proto::block::{self, MAX_BLOCK_BYTES};
use keytrail_proto::convert::{self, WireError};
use keytrail_proto::wire::{self, reject::Reason, sensor_message::Message};
use keytrail_proto::{PROTOCOL_VERSION, wire::Welcome};
use uuid::Uuid;

use super::clock::ClockGauge;

/// Numbers beyond this are refused: a store may count in signed 64 bits.
const MAX_SEQ: u64 = 1 << 60;
/// How far a watermark may lie ahead of the host's clock as measured.
const FUTURE_SLACK: SignedDuration = SignedDuration::from_secs(2);
/// How many Batches may be unacknowledged.
const MAX_UNACKED: u32 = 16;

/// Why a stream ends in a Reject. The sensor is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {detail}")]
pub(super) struct Rejection {
    pub(super) reason: Reason,
    pub(super) seq: u64,
    pub(super) field: String,
    pub(super) detail: String,
}

impl Rejection {
    pub(super) fn protocol(field: &str, detail: impl Into<String>) -> Self {
        Self {
            reason: Reason::Protocol,
            seq: 0,
            field: field.to_owned(),
            detail: detail.into(),
        }
    }

    fn fact(seq: u64, error: &WireError) -> Self {
        Self {
            reason: Reason::Fact,
            seq,
            field: error.field().to_owned(),
            detail: error.to_string(),
        }
    }

    pub(super) fn message(&self) -> wire::Reject {
        wire::Reject {
            reason: self.reason.into(),
            seq: self.seq,
            field: self.field.clone(),
            detail: self.detail.clone(),
        }
    }
}

/// What follows from a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Facts up to `last_seq`, in order, to be made durable.
    Facts {
        events: Vec<HostEvent>,
        last_seq: u64,
        duplicates: u64,
        lost: u64,
    },
    /// Everything in the message is durable already: acknowledge again.
    Duplicate { count: u64 },
    /// A promise, to be applied after all facts so far.
    Watermark(Watermark),
    /// A promise that cannot be used.
    WatermarkIgnored,
    /// A reply to send at once.
    ClockReply(u64),
}

/// What a Hello says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Greeting {
    pub(super) boot: BootId,
    boot_time: Timestamp,
    pub(super) agent_version: String,
}

/// Reads the first message of a stream.
pub(super) fn greeting(message: Option<Message>) -> Result<Greeting, Rejection> {
    let Some(Message::Hello(hello)) = message else {
        return Err(Rejection::protocol("message", "the first must be Hello"));
    };
    let wire::Hello {
        protocol_version,
        boot_id,
        boot_time,
        agent_version,
    } = hello;
    if protocol_version != PROTOCOL_VERSION {
        return Err(Rejection {
            reason: Reason::Version,
            seq: 0,
            field: "hello.protocol_version".to_owned(),
            detail: format!("{protocol_version} is not spoken here, {PROTOCOL_VERSION} is"),
        });
    }
    let boot = Uuid::from_slice(&boot_id)
        .map_err(|_length| Rejection::protocol("hello.boot_id", "not 16 bytes"))?;
    let boot_time = boot_time
        .ok_or_else(|| Rejection::protocol("hello.boot_time", "missing"))
        .and_then(|time| {
            Timestamp::try_from(time)
                .map_err(|error| Rejection::protocol("hello.boot_time", error.to_string()))
        })?;
    Ok(Greeting {
        boot: BootId(boot),
        boot_time,
        agent_version: shown(&agent_version, 64).to_string(),
    })
}

/// One stream after its Hello.
#[derive(Debug)]
pub(super) struct Session {
    host: HostId,
    boot: BootId,
    seen_from: IpAddr,
    /// The number that is expected next.
    next: u64,
    clock: ClockGauge,
    watermark: Timestamp,
    /// Time of the latest fact, or when the boot began: where an unexplained gap starts.
    latest: Timestamp,
}

impl Session {
    /// A session that goes on after `last_seq`.
    pub(super) fn new(host: HostId, greeting: &Greeting, seen_from: IpAddr, last_seq: u64) -> Self {
        Self {
            host,
            boot: greeting.boot,
            seen_from,
            next: last_seq.saturating_add(1),
            clock: ClockGauge::default(),
            watermark: Timestamp::MIN,
            latest: greeting.boot_time,
        }
    }

    /// The answer to Hello, which leaves at `now`.
    pub(super) fn welcome(&mut self, now: Instant, heartbeat: Duration) -> Welcome {
        let number = self.clock.reply(now);
        debug_assert_eq!(number, 0, "Welcome is reply 0");
        Welcome {
            last_seq: self.next - 1,
            max_block_bytes: u32::try_from(MAX_BLOCK_BYTES).unwrap_or(u32::MAX),
            max_unacked_batches: MAX_UNACKED,
            heartbeat_ms: u32::try_from(heartbeat.as_millis()).unwrap_or(u32::MAX),
        }
    }

    /// Takes one message in that arrived at `now` (`wall` by the wall clock).
    pub(super) fn take(
        &mut self,
        message: Option<Message>,
        now: Instant,
        wall: Timestamp,
    ) -> Result<Step, Rejection> {
        match message {
            Some(Message::Batch(batch)) => self.batch(&batch),
            Some(Message::Lost(lost)) => self.lost(lost),
            Some(Message::Watermark(watermark)) => self.take_watermark(watermark, wall),
            Some(Message::Heartbeat(heartbeat)) => self.heartbeat(heartbeat, now, wall),
            Some(Message::Hello(_)) => Err(Rejection::protocol("message", "a second Hello")),
            None => Err(Rejection::protocol("message", "missing or of unknown kind")),
        }
    }

    fn batch(&mut self, batch: &wire::Batch) -> Result<Step, Rejection> {
        let wire::Batch {
            first_seq,
            count,
            block_bytes,
            block_zstd,
        } = batch;
        let count = u64::from(*count);
        let end = last_of(*first_seq, count, "batch")?;
        if end < self.next {
            return Ok(Step::Duplicate { count });
        }
        let size = usize::try_from(*block_bytes).unwrap_or(usize::MAX);
        if size > MAX_BLOCK_BYTES {
            return Err(Rejection::protocol(
                "batch.block_bytes",
                format!("{size} is above {MAX_BLOCK_BYTES}"),
            ));
        }
        let raw = zstd::bulk::decompress(block_zstd, size)
            .map_err(|error| Rejection::protocol("batch.block_zstd", error.to_string()))?;
        let found = block::events(&raw)
            .map_err(|error| Rejection::protocol("batch.block_zstd", error.to_string()))?;
        if found.len() as u64 != count || raw.len() != size {
            return Err(Rejection::protocol(
                "batch.count",
                format!("{count} said, {} in the block", found.len()),
            ));
        }
        let duplicates = self.next.saturating_sub(*first_seq);
        let lost = first_seq.saturating_sub(self.next);
        let mut events = Vec::with_capacity(found.len() + 1);
        for (seq, event) in (*first_seq..=end).zip(found) {
            if seq < self.next {
                continue;
            }
            let (time, fact) =
                convert::event(event).map_err(|error| Rejection::fact(seq, &error))?;
            if events.is_empty() && lost > 0 {
                events.push(self.skipped(lost, time));
            }
            events.push(self.event(seq, time, fact));
        }
        if let Some(event) = events.last() {
            self.latest = self.latest.max(event.time);
        }
        self.next = end + 1;
        Ok(Step::Facts {
            events,
            last_seq: end,
            duplicates,
            lost,
        })
    }

    fn lost(&mut self, lost: wire::Lost) -> Result<Step, Rejection> {
        let wire::Lost {
            first_seq,
            last_seq,
            from,
            to,
            reason,
        } = lost;
        if first_seq == 0 || last_seq < first_seq || last_seq > MAX_SEQ {
            return Err(Rejection::protocol(
                "lost.last_seq",
                "not a range of numbers",
            ));
        }
        let time = |time: Option<wire::Time>, field: &str| {
            let time = time.ok_or_else(|| Rejection::protocol(field, "missing"))?;
            Timestamp::try_from(time).map_err(|error| Rejection::protocol(field, error.to_string()))
        };
        let (from, to) = (time(from, "lost.from")?, time(to, "lost.to")?);
        if to < from {
            return Err(Rejection::protocol("lost.to", "before lost.from"));
        }
        if last_seq < self.next {
            let count = last_seq - first_seq + 1;
            return Ok(Step::Duplicate { count });
        }
        let count = last_seq - self.next + 1;
        let from = if first_seq > self.next {
            from.min(self.latest)
        } else {
            from
        };
        let gap = Gap {
            from,
            to,
            what: GapKind::All,
            count: Some(count),
            reason: shown(&reason, 200).to_string(),
        };
        let event = self.event(self.next, to, Fact::Gap(gap));
        let duplicates = self.next.saturating_sub(first_seq);
        self.next = last_seq + 1;
        self.latest = self.latest.max(to);
        Ok(Step::Facts {
            events: vec![event],
            last_seq,
            duplicates,
            lost: count,
        })
    }

    /// The fact that stands for numbers that the sensor skipped without a word.
    fn skipped(&self, count: u64, until: Timestamp) -> HostEvent {
        let gap = Gap {
            from: self.latest.min(until),
            to: until,
            what: GapKind::All,
            count: Some(count),
            reason: "the sensor no longer had these facts, and the correlator never did".to_owned(),
        };
        self.event(self.next, until, Fact::Gap(gap))
    }

    fn event(&self, seq: u64, time: Timestamp, fact: Fact) -> HostEvent {
        HostEvent {
            id: EventRef {
                host: self.host.clone(),
                boot: self.boot,
                seq,
            },
            time,
            fact,
        }
    }

    fn take_watermark(
        &mut self,
        watermark: wire::Watermark,
        wall: Timestamp,
    ) -> Result<Step, Rejection> {
        let wire::Watermark { time, after_seq } = watermark;
        let time = time.ok_or_else(|| Rejection::protocol("watermark.time", "missing"))?;
        let time = Timestamp::try_from(time)
            .map_err(|error| Rejection::protocol("watermark.time", error.to_string()))?;
        if after_seq >= self.next {
            return Err(Rejection::protocol(
                "watermark.after_seq",
                format!("{after_seq} has not been sent, next is {}", self.next),
            ));
        }
        let Some(clock) = self.clock.best() else {
            return Err(Rejection::protocol(
                "watermark",
                "there was no Heartbeat before it",
            ));
        };
        let error = SignedDuration::try_from(clock.error).unwrap_or(SignedDuration::MAX);
        let latest = wall
            .saturating_add(clock.offset.saturating_add(error))
            .and_then(|time| time.saturating_add(FUTURE_SLACK))
            .unwrap_or(Timestamp::MAX);
        if time <= self.watermark || time > latest {
            return Ok(Step::WatermarkIgnored);
        }
        self.watermark = time;
        Ok(Step::Watermark(Watermark {
            host: self.host.clone(),
            boot: self.boot,
            time,
            clock_offset_ms: i64::try_from(clock.offset.as_millis()).unwrap_or(i64::MAX),
            // Rounded up: it is a bound.
            clock_error_ms: u32::try_from(clock.error.as_millis().saturating_add(1))
                .unwrap_or(u32::MAX),
            seen_from: Some(self.seen_from),
            seen_network: None,
        }))
    }

    fn heartbeat(
        &mut self,
        heartbeat: wire::Heartbeat,
        now: Instant,
        wall: Timestamp,
    ) -> Result<Step, Rejection> {
        let wire::Heartbeat {
            host_time,
            reply_to,
            held_ns,
        } = heartbeat;
        let host_time = host_time
            .ok_or_else(|| Rejection::protocol("heartbeat.host_time", "missing"))
            .and_then(|time| {
                Timestamp::try_from(time)
                    .map_err(|error| Rejection::protocol("heartbeat.host_time", error.to_string()))
            })?;
        let held = Duration::from_nanos(held_ns);
        self.clock.heartbeat(host_time, reply_to, held, now, wall);
        Ok(Step::ClockReply(self.clock.reply(now)))
    }
}

fn last_of(first: u64, count: u64, message: &str) -> Result<u64, Rejection> {
    if first == 0 || count == 0 {
        return Err(Rejection::protocol(
            message,
            "first_seq and count begin at 1",
        ));
    }
    first
        .checked_add(count - 1)
        .filter(|last| *last <= MAX_SEQ)
        .ok_or_else(|| Rejection::protocol(message, "numbers end at 2^60"))
}
