//! One stream: the sensor's side of `ingest.proto`.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use keytrail_proto::wire::correlator_message::Message as In;
use keytrail_proto::wire::reject::Reason;
use keytrail_proto::wire::sensor_ingest_client::SensorIngestClient;
use keytrail_proto::wire::sensor_message::Message as Out;
use keytrail_proto::wire::{self, CorrelatorMessage, SensorMessage};
use keytrail_proto::{MAX_MESSAGE_BYTES, PROTOCOL_VERSION};
use keytrail_spool::{Epoch, Item};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::UplinkConfig;
use super::connect::{ConnectError, Connection};
use super::enrol::EnrolError;
use super::keeper::{Keeper, KeeperError, PendingRead, Tail};

/// Messages between this task and HTTP/2.
const OUT_QUEUE: usize = 4;
const WELCOME_TIMEOUT: Duration = Duration::from_secs(30);

/// Why there is no stream any more.
#[derive(Debug)]
pub(super) struct StreamEnd {
    pub(super) text: String,
    /// Trying again at once is pointless.
    pub(super) fatal: bool,
    /// The fact that the correlator refuses.
    pub(super) refused: Option<u64>,
}

impl StreamEnd {
    fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            fatal: false,
            refused: None,
        }
    }

    pub(super) fn enrol(error: &EnrolError) -> Self {
        Self {
            fatal: true,
            ..Self::new(error.to_string())
        }
    }

    pub(super) fn connect(error: &ConnectError) -> Self {
        let fatal = matches!(
            error,
            ConnectError::Tls { .. } | ConnectError::Address(_) | ConnectError::Settings(_)
        );
        Self {
            fatal,
            ..Self::new(error.to_string())
        }
    }

    fn status(status: &Status, connection: &Connection) -> Self {
        if let Some(fault) = connection.late_fault() {
            return Self::connect(&fault);
        }
        let fatal = matches!(
            status.code(),
            Code::Unauthenticated | Code::PermissionDenied | Code::Unimplemented
        );
        let text = match status.message() {
            "" => format!("the stream ended: {}", status.code()),
            message => format!("the stream ended: {message}"),
        };
        Self {
            fatal,
            ..Self::new(text)
        }
    }
}

impl From<KeeperError> for StreamEnd {
    fn from(error: KeeperError) -> Self {
        Self::new(error.to_string())
    }
}

/// Streams the oldest boot's facts. Returns once an earlier boot's facts are all acknowledged, so
/// that the next one's can follow; the current boot's stream ends only by an error.
pub(super) async fn run(
    config: &UplinkConfig,
    keeper: &Keeper,
    connection: &Connection,
    connected: impl FnOnce(),
) -> Result<(), StreamEnd> {
    let epoch = keeper.oldest().await?;
    let (out, receiver) = mpsc::channel(OUT_QUEUE);
    let hello = Out::Hello(wire::Hello {
        protocol_version: PROTOCOL_VERSION,
        boot_id: epoch.id.to_vec(),
        // An earlier boot's begin is not known any more; it was before this one's.
        boot_time: Some(config.boot_time.into()),
        agent_version: config.agent_version.clone(),
    });
    // The queue is empty: this cannot wait.
    drop(out.send(message(hello)).await);
    let mut inbound = SensorIngestClient::new(connection.channel.clone())
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .stream(ReceiverStream::new(receiver))
        .await
        .map_err(|status| StreamEnd::status(&status, connection))?
        .into_inner();
    let first = tokio::time::timeout(WELCOME_TIMEOUT, inbound.message())
        .await
        .map_err(|_elapsed| StreamEnd::new("the correlator does not answer"))?
        .map_err(|status| StreamEnd::status(&status, connection))?;
    let welcome = match first {
        Some(CorrelatorMessage {
            message: Some(In::Welcome(welcome)),
        }) => welcome,
        Some(CorrelatorMessage {
            message: Some(In::Reject(reject)),
        }) => return Err(rejected(keeper, &epoch, &reject).await),
        Some(_) => return Err(StreamEnd::new("the correlator did not begin with Welcome")),
        None => return Err(StreamEnd::new("the correlator ended the stream")),
    };
    let arrived = Instant::now();
    connected();
    keeper.anchor(epoch.no, welcome.last_seq).await?;
    let stream = Stream {
        keeper,
        connection,
        epoch: epoch.no,
        next: welcome.last_seq + 1,
        unacked: VecDeque::new(),
        max_unacked: usize::try_from(welcome.max_unacked_batches.max(1)).unwrap_or(1),
        reply: (0, arrived),
        queue: VecDeque::new(),
        said: None,
        out,
    };
    let heartbeat = Duration::from_millis(u64::from(welcome.heartbeat_ms.max(10)));
    stream.converse(&mut inbound, heartbeat).await
}

struct Stream<'a> {
    keeper: &'a Keeper,
    connection: &'a Connection,
    epoch: i64,
    /// The number that is to be sent next.
    next: u64,
    /// Last numbers of the batches that are on their way.
    unacked: VecDeque<u64>,
    max_unacked: usize,
    /// The last clock reply: its number and when it arrived.
    reply: (u64, Instant),
    /// Made, not yet taken by HTTP/2. At most one read's worth.
    queue: VecDeque<Out>,
    /// The last promise that was sent.
    said: Option<Timestamp>,
    out: mpsc::Sender<SensorMessage>,
}

/// Waits for a read that was started; stays pending when there is none.
async fn answer(reading: &mut Option<PendingRead>) -> Result<Vec<Item>, KeeperError> {
    match reading {
        Some(pending) => Ok(pending.await.map_err(|_gone| KeeperError::Gone)??),
        None => std::future::pending().await,
    }
}

/// What woke the stream.
enum Event {
    Received(Result<Option<CorrelatorMessage>, Status>),
    Room,
    Gone,
    Tail,
    Heartbeat,
    Read(Result<Vec<Item>, KeeperError>),
}

impl Stream<'_> {
    async fn converse(
        mut self,
        inbound: &mut Streaming<CorrelatorMessage>,
        heartbeat: Duration,
    ) -> Result<(), StreamEnd> {
        let keeper = self.keeper;
        let mut tail: watch::Receiver<Tail> = keeper.subscribe();
        let mut ticks = tokio::time::interval(heartbeat);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // The contract wants a heartbeat first; the first tick is immediate, but not certain to win.
        self.heartbeat();
        ticks.reset();
        let out = self.out.clone();
        let mut reading = None;
        let mut exhausted = false;
        loop {
            let now = *tail.borrow_and_update();
            let older = now.epoch != self.epoch;
            let more = older || self.next < now.next_seq;
            if !more {
                self.promise(now);
            }
            // The queue holds heartbeats too; they do not hold facts up.
            let wants = more && self.queue.len() <= 1 && self.unacked.len() < self.max_unacked;
            if older && exhausted && self.unacked.is_empty() {
                return Ok(());
            }
            if wants && !exhausted && reading.is_none() {
                reading = Some(keeper.start_read(self.epoch, self.next));
            }
            let event = tokio::select! {
                biased;
                received = inbound.message() => Event::Received(received),
                room = out.reserve(), if !self.queue.is_empty() => match room {
                    Ok(permit) => {
                        if let Some(next) = self.queue.pop_front() {
                            permit.send(message(next));
                        }
                        Event::Room
                    }
                    Err(_closed) => Event::Gone,
                },
                _ = ticks.tick() => Event::Heartbeat,
                read = answer(&mut reading), if reading.is_some() => Event::Read(read),
                _ = tail.changed(), if !more => Event::Tail,
            };
            match event {
                Event::Received(received) => {
                    self.received(received).await?;
                }
                Event::Read(items) => {
                    let items = items?;
                    reading = None;
                    // Of an earlier boot, nothing more will come.
                    exhausted = older && items.is_empty();
                    self.enqueue(items);
                }
                Event::Heartbeat => self.heartbeat(),
                Event::Room | Event::Tail => {}
                Event::Gone => return Err(StreamEnd::new("the stream broke")),
            }
        }
    }

    fn heartbeat(&mut self) {
        let (reply_to, arrived) = self.reply;
        // In front of what waits: time in the queue counts as round trip and widens the error.
        self.queue.push_front(Out::Heartbeat(wire::Heartbeat {
            host_time: Some(Timestamp::now().into()),
            reply_to,
            held_ns: u64::try_from(arrived.elapsed().as_nanos()).unwrap_or(u64::MAX),
        }));
    }

    /// Says the latest promise once everything before it has been queued (UP-1).
    fn promise(&mut self, tail: Tail) {
        if let Some(time) = tail.watermark
            && self.said.is_none_or(|said| said < time)
        {
            self.said = Some(time);
            self.queue.push_back(Out::Watermark(wire::Watermark {
                time: Some(time.into()),
                after_seq: tail.next_seq - 1,
            }));
        }
    }

    fn enqueue(&mut self, items: Vec<Item>) {
        for item in items {
            let end = *item.seqs().end();
            match item {
                Item::Block(stored) => {
                    if let Some(time) = stored
                        .mark
                        .and_then(|us| Timestamp::from_microsecond(us).ok())
                        && self.said.is_none_or(|said| said < time)
                        && stored.first_seq >= self.next
                    {
                        self.said = Some(time);
                        self.queue.push_back(Out::Watermark(wire::Watermark {
                            time: Some(time.into()),
                            after_seq: stored.first_seq - 1,
                        }));
                    }
                    self.queue.push_back(Out::Batch(wire::Batch {
                        first_seq: stored.first_seq,
                        count: stored.count,
                        block_bytes: stored.raw_bytes,
                        block_zstd: stored.zstd.into(),
                    }));
                }
                Item::Lost(lost) => {
                    let time =
                        |us| Timestamp::from_microsecond(us).unwrap_or(Timestamp::UNIX_EPOCH);
                    self.queue.push_back(Out::Lost(wire::Lost {
                        first_seq: lost.first_seq,
                        last_seq: end,
                        from: Some(time(lost.min_stamp).into()),
                        to: Some(time(lost.max_stamp).into()),
                        reason: lost.cause.as_str().to_owned(),
                    }));
                }
            }
            self.unacked.push_back(end);
            self.next = end + 1;
        }
    }

    async fn received(
        &mut self,
        received: Result<Option<CorrelatorMessage>, Status>,
    ) -> Result<(), StreamEnd> {
        let arrived = Instant::now();
        let message = received
            .map_err(|status| StreamEnd::status(&status, self.connection))?
            .ok_or_else(|| StreamEnd::new("the correlator ended the stream"))?;
        match message.message {
            Some(In::Ack(wire::Ack { last_seq })) => {
                if last_seq >= self.next {
                    return Err(StreamEnd::new(
                        "the correlator acknowledged what was not sent",
                    ));
                }
                while self.unacked.front().is_some_and(|last| *last <= last_seq) {
                    self.unacked.pop_front();
                }
                self.keeper.ack(self.epoch, last_seq);
                Ok(())
            }
            Some(In::ClockReply(wire::ClockReply { number })) => {
                self.reply = (number, arrived);
                Ok(())
            }
            Some(In::Reject(reject)) => {
                let epoch = self.epoch;
                Err(refused(self.keeper, epoch, &reject).await)
            }
            Some(In::Welcome(_)) => Err(StreamEnd::new("the correlator said Welcome twice")),
            // A later version may say more.
            None => Ok(()),
        }
    }
}

async fn rejected(keeper: &Keeper, epoch: &Epoch, reject: &wire::Reject) -> StreamEnd {
    refused(keeper, epoch.no, reject).await
}

/// A fact that is refused for ever is given up, or nothing after it would ever arrive.
async fn refused(keeper: &Keeper, epoch: i64, reject: &wire::Reject) -> StreamEnd {
    let text = format!("the correlator rejects {}: {}", reject.field, reject.detail);
    if reject.reason() != Reason::Fact || reject.seq == 0 {
        return StreamEnd {
            fatal: true,
            ..StreamEnd::new(text)
        };
    }
    match keeper.discard(epoch, reject.seq).await {
        Ok(()) => StreamEnd {
            refused: Some(reject.seq),
            ..StreamEnd::new(text)
        },
        Err(error) => StreamEnd::new(format!("{text}; and cannot put it aside: {error}")),
    }
}

fn message(message: Out) -> SensorMessage {
    SensorMessage {
        message: Some(message),
    }
}
