//! The `SensorIngest` service: one task a stream, which reads, hands to the store and acknowledges.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use keytrail_model::fact::{HostEvent, Watermark};
use keytrail_model::ids::{BootId, HostId};
use keytrail_pki::identity::PeerIdentity;
use keytrail_proto::wire::correlator_message::Message as Out;
use keytrail_proto::wire::sensor_ingest_server::SensorIngest;
use keytrail_proto::wire::{self, CorrelatorMessage, SensorMessage};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

use super::Shared;
use super::acceptor::PeerInfo;
use super::counters::add;
use super::registry::{CloseReason, Closer, Place};
use super::session::{self, Greeting, Rejection, Session, Step};
use super::sink::{IngestBatch, IngestSink, SinkError};

/// How long a stream may take to say Hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// A stream is ended after so many heartbeats' time of silence.
const SILENT_HEARTBEATS: u32 = 4;
/// Steps between reader and store.
const QUEUE: usize = 8;
/// Messages to the sensor.
const OUT_QUEUE: usize = 64;
/// Facts that are handed to the store in one go at most.
const MAX_SUBMIT: usize = 32_768;

type OutResult = Result<CorrelatorMessage, Status>;

/// The service.
pub(super) struct Ingestor<S> {
    pub(super) shared: Arc<Shared>,
    pub(super) sink: Arc<S>,
}

#[tonic::async_trait]
impl<S: IngestSink> SensorIngest for Ingestor<S> {
    type StreamStream = ReceiverStream<OutResult>;

    async fn stream(
        &self,
        request: Request<Streaming<SensorMessage>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let (peer, info) = self.admit(&request)?;
        let slot = Arc::clone(&self.shared.streams).try_acquire_owned();
        let slot = slot.map_err(|_none_left| {
            self.refuse(&info, "too-many-streams", "too many open streams");
            Status::resource_exhausted("too many open streams: try again later")
        })?;
        let (out, receiver) = mpsc::channel(OUT_QUEUE);
        let stream = Stream {
            shared: Arc::clone(&self.shared),
            sink: Arc::clone(&self.sink),
            peer,
            info,
            out,
        };
        let inbound = request.into_inner();
        self.shared.tracker.spawn(async move {
            stream.run(inbound).await;
            drop(slot);
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

impl<S> Ingestor<S> {
    fn refuse(&self, info: &PeerInfo, kind: &'static str, what: &str) {
        add(&self.shared.counters.streams_refused, 1);
        self.shared.reporter.refused(info.address.ip(), kind, what);
    }

    fn admit<T>(&self, request: &Request<T>) -> Result<(PeerIdentity, PeerInfo), Status> {
        let info = super::acceptor::peer_info(request)?;
        let admitted = self.shared.admit(&info);
        match admitted {
            Ok(peer) => Ok((peer, info)),
            Err(refusal) => {
                self.refuse(&info, refusal.kind(), &refusal.to_string());
                Err(refusal.status())
            }
        }
    }
}

/// Why a stream ended.
enum End {
    /// The sensor closed it.
    Done,
    /// The transport broke.
    Broken(Status),
    /// The sensor did not keep the contract.
    Rejected(Rejection),
    /// We closed it.
    Closed(CloseReason),
    /// Nothing came for too long.
    Silent,
    /// The store did not take a batch.
    Sink(SinkError),
}

/// What goes to the store.
enum Work {
    Facts {
        events: Vec<HostEvent>,
        last_seq: u64,
    },
    Watermark(Watermark),
    AckAgain,
}

struct Stream<S> {
    shared: Arc<Shared>,
    sink: Arc<S>,
    peer: PeerIdentity,
    info: PeerInfo,
    out: mpsc::Sender<OutResult>,
}

impl<S: IngestSink> Stream<S> {
    async fn run(self, mut inbound: Streaming<SensorMessage>) {
        let place = self.shared.registry.enter(&self.peer, self.info.address);
        let end = match place.await {
            None => End::Closed(CloseReason::Stopping),
            Some(place) => {
                let end = self.converse(&mut inbound, &place).await;
                drop(place);
                end
            }
        };
        self.finish(end).await;
    }

    /// Hello to the end; everything received is with the store, or given up, when it returns.
    async fn converse(&self, inbound: &mut Streaming<SensorMessage>, place: &Place) -> End {
        let host = HostId(self.peer.host.host.clone());
        let (greeting, last_seq) = match self.hello(inbound, &place.closer, &host).await {
            Ok(started) => started,
            Err(end) => return end,
        };
        add(&self.shared.counters.streams_opened, 1);
        info!(
            %host, peer = %self.info.address, boot = %greeting.boot, last_seq,
            agent = greeting.agent_version, "sensor connected"
        );
        let mut session = Session::new(host.clone(), &greeting, self.info.address.ip(), last_seq);
        let welcome = session.welcome(Instant::now(), self.shared.heartbeat);
        if self.send(Out::Welcome(welcome)).await.is_err() {
            return End::Done;
        }
        let (work, queue) = mpsc::channel(QUEUE);
        let reading = self.read(inbound, &mut session, work, &place.closer);
        let keeping = self.commit(queue, host, greeting.boot, last_seq);
        let (end, kept) = tokio::join!(reading, keeping);
        match kept {
            Ok(()) => end,
            Err(error) => End::Sink(error),
        }
    }

    async fn hello(
        &self,
        inbound: &mut Streaming<SensorMessage>,
        closer: &Closer,
        host: &HostId,
    ) -> Result<(Greeting, u64), End> {
        let first = tokio::select! {
            reason = closer.closed() => return Err(End::Closed(reason)),
            first = tokio::time::timeout(HELLO_TIMEOUT, inbound.message()) => first,
        };
        let message = match first {
            Err(_elapsed) => return Err(End::Silent),
            Ok(Err(status)) => return Err(End::Broken(status)),
            Ok(Ok(None)) => return Err(End::Done),
            Ok(Ok(Some(SensorMessage { message }))) => message,
        };
        let greeting = session::greeting(message).map_err(End::Rejected)?;
        let last_seq = self.sink.last_seq(host, greeting.boot).await;
        Ok((greeting, last_seq.map_err(End::Sink)?))
    }

    /// Reads until the stream ends; dropping `work` tells the committer to finish.
    async fn read(
        &self,
        inbound: &mut Streaming<SensorMessage>,
        session: &mut Session,
        work: mpsc::Sender<Work>,
        closer: &Closer,
    ) -> End {
        let patience = self.shared.heartbeat * SILENT_HEARTBEATS;
        loop {
            let received = tokio::select! {
                reason = closer.closed() => return End::Closed(reason),
                // The store refused a batch. A sensor that waits for its acknowledgement sends
                // heartbeats only, which never meet the committer: ask whether it is still there.
                () = work.closed() => return End::Done,
                received = tokio::time::timeout(patience, inbound.message()) => received,
            };
            let message = match received {
                Err(_elapsed) => return End::Silent,
                Ok(Err(status)) => return End::Broken(status),
                Ok(Ok(None)) => return End::Done,
                Ok(Ok(Some(SensorMessage { message }))) => message,
            };
            let step = match session.take(message, Instant::now(), Timestamp::now()) {
                Ok(step) => step,
                Err(rejection) => return End::Rejected(rejection),
            };
            let sent = match self.count(step) {
                Next::Work(item) => work.send(item).await.is_ok(),
                Next::Say(message) => self.send(message).await.is_ok(),
                Next::Nothing => true,
            };
            if !sent {
                return End::Done;
            }
        }
    }

    fn count(&self, step: Step) -> Next {
        let counters = &self.shared.counters;
        match step {
            Step::Facts {
                events,
                last_seq,
                duplicates,
                lost,
            } => {
                add(&counters.duplicates, duplicates);
                add(&counters.lost, lost);
                Next::Work(Work::Facts { events, last_seq })
            }
            Step::Duplicate { count } => {
                add(&counters.duplicates, count);
                Next::Work(Work::AckAgain)
            }
            Step::Watermark(watermark) => {
                add(&counters.watermarks, 1);
                Next::Work(Work::Watermark(watermark))
            }
            Step::WatermarkIgnored => {
                add(&counters.watermarks_ignored, 1);
                Next::Nothing
            }
            Step::ClockReply(number) => Next::Say(Out::ClockReply(wire::ClockReply { number })),
        }
    }

    /// Hands work to the store, as much at a time as is there, and acknowledges what is durable.
    async fn commit(
        &self,
        mut queue: mpsc::Receiver<Work>,
        host: HostId,
        boot: BootId,
        last_seq: u64,
    ) -> Result<(), SinkError> {
        let mut durable = last_seq;
        let mut waiting = Vec::with_capacity(QUEUE);
        while queue.recv_many(&mut waiting, QUEUE).await > 0 {
            let mut rest = std::mem::take(&mut waiting).into_iter().peekable();
            while rest.peek().is_some() {
                let mut batch = IngestBatch {
                    host: host.clone(),
                    boot,
                    events: Vec::new(),
                    last_seq: durable,
                    watermark: None,
                };
                let ack = fill(&mut batch, &mut rest);
                let count = batch.events.len() as u64;
                let reached = batch.last_seq;
                if count > 0 || batch.watermark.is_some() {
                    self.sink.submit(batch).await?;
                }
                durable = reached;
                add(&self.shared.counters.events, count);
                if ack {
                    // A sensor that is gone needs no Ack; what is queued is made durable anyway.
                    drop(self.send(Out::Ack(wire::Ack { last_seq: durable })).await);
                }
            }
        }
        Ok(())
    }

    async fn send(&self, message: Out) -> Result<(), Gone> {
        let message = CorrelatorMessage {
            message: Some(message),
        };
        self.out.send(Ok(message)).await.map_err(|_closed| Gone)
    }

    async fn finish(self, end: End) {
        let host = &self.peer.host.host;
        let status = match end {
            End::Done => {
                info!(host, "sensor disconnected");
                return;
            }
            End::Broken(status) => {
                info!(host, reason = status.message(), "sensor connection broke");
                return;
            }
            End::Rejected(rejection) => {
                add(&self.shared.counters.rejected, 1);
                let total = self.shared.counters.rejected.load(Ordering::Relaxed);
                warn!(
                    host,
                    seq = rejection.seq,
                    total,
                    "message rejected: {rejection}"
                );
                drop(self.send(Out::Reject(rejection.message())).await);
                Status::invalid_argument(rejection.to_string())
            }
            End::Closed(CloseReason::Replaced) => {
                Status::aborted("replaced by a newer stream of this host")
            }
            End::Closed(CloseReason::Revoked) => {
                warn!(host, serial = %self.peer.serial, "stream closed: certificate revoked");
                Status::permission_denied("the certificate was revoked: enrol again")
            }
            End::Closed(CloseReason::Stopping) => Status::unavailable("the correlator is stopping"),
            End::Silent => {
                warn!(host, "stream closed: nothing came for too long");
                Status::deadline_exceeded("nothing came for too long")
            }
            End::Sink(error) => {
                warn!(host, "stream closed: {error}");
                Status::unavailable(error.to_string())
            }
        };
        // The sensor may be gone already.
        drop(self.out.send(Err(status)).await);
    }
}

/// The sensor no longer listens.
struct Gone;

enum Next {
    Work(Work),
    Say(Out),
    Nothing,
}

/// Moves work into a batch: facts up to the limit, then at most one watermark, which must come after
/// the facts it promises. Returns whether the sensor is to be told.
fn fill(batch: &mut IngestBatch, rest: &mut std::iter::Peekable<std::vec::IntoIter<Work>>) -> bool {
    let mut ack = false;
    while batch.events.len() < MAX_SUBMIT {
        match rest.next() {
            None => break,
            Some(Work::Facts {
                mut events,
                last_seq,
            }) => {
                batch.events.append(&mut events);
                batch.last_seq = last_seq;
                ack = true;
            }
            Some(Work::AckAgain) => ack = true,
            // A later watermark says more, and promises hold for later facts too.
            Some(Work::Watermark(watermark)) => batch.watermark = Some(watermark),
        }
    }
    ack
}
