//! Partition by partition, batch by batch.

use std::collections::BTreeSet;
use std::time::Duration;

use rskafka::BackoffConfig;
use rskafka::client::error::{Error as KafkaError, ProtocolError};
use rskafka::client::partition::{OffsetAt, PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder, Credentials, SaslConfig};
use rskafka::record::RecordAndOffset;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{KafkaConfig, Mechanism, Start};
use crate::runner::RunnerError;
use crate::sources::intake::{Intake, Progress, Taken};
use crate::sources::pause;
use crate::sources::poll::{RequestError, secret};
use crate::sources::tls::{self, TlsError};
use crate::store::{Cursor, StoreError};

/// Bytes asked for at once.
const FETCH: i32 = 4 << 20;
/// The largest answer taken: one batch may be larger than what was asked for.
const MAX_ANSWER: usize = 64 << 20;
/// How long the broker waits for new records, milliseconds.
const WAIT: i32 = 2000;
/// Partitions that can all be read for so long mean that the topic is read again.
const SOUND: Duration = Duration::from_secs(5);
/// New partitions are looked for so often.
const LOOK: Duration = Duration::from_secs(60);
/// A request is tried again for so long before the failure is told.
const PATIENCE: Duration = Duration::from_secs(15);
/// Empty answers, though the broker says there is more, before a position is passed over.
const EMPTY: u32 = 3;
/// Partitions read at most.
const MAX_PARTITIONS: usize = 1024;

/// Why nothing is read.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error("{0}")]
    Password(#[from] RequestError),
    #[error("the topic has {0} partitions; at most {MAX_PARTITIONS} are read")]
    Partitions(usize),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("{}", told(.0))]
    Kafka(#[from] KafkaError),
    #[error("the broker has no topic {0:?}, or does not show it to this user")]
    NoTopic(String),
    #[error(transparent)]
    Runner(#[from] RunnerError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a fault of the correlator's: {0}")]
    Fault(String),
}

/// The client's own words are long; they name no secret.
fn told(error: &KafkaError) -> String {
    let text = error.to_string();
    let short: String = text.chars().take(400).collect();
    format!("Kafka: {short}")
}

/// Reads the topic until `stop`.
pub(in crate::sources) async fn run(config: KafkaConfig, intake: Intake, stop: CancellationToken) {
    let mut failures = 0_u32;
    while !stop.is_cancelled() {
        let pause = match topic(&config, &intake, &stop, &mut failures).await {
            Ok(()) | Err(StepError::Runner(RunnerError::Stopping)) => return,
            Err(error) => {
                failures = failures.saturating_add(1);
                intake.tally().requests_failed.one();
                if intake.status().fails(&error.to_string()) {
                    tracing::warn!(
                        source = intake.name(), %error,
                        "reading the topic failed; it is tried again"
                    );
                }
                pause::after(failures)
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// Reads every partition until one of them fails; then all are opened anew.
async fn topic(
    config: &KafkaConfig,
    intake: &Intake,
    stop: &CancellationToken,
    failures: &mut u32,
) -> Result<(), StepError> {
    let client = connect(config).await?;
    let mut readers = JoinSet::new();
    let mut known = BTreeSet::new();
    let mut start = start(config, intake).await?;
    let mut look = SOUND;
    loop {
        let all = partitions(&client, config).await?;
        if all.len() > MAX_PARTITIONS {
            return Err(StepError::Partitions(all.len()));
        }
        for number in all {
            if known.insert(number) {
                let partition = client
                    .partition_client(&config.topic, number, UnknownTopicHandling::Error)
                    .await?;
                let reader = Reader::open(config, intake, partition, start).await?;
                readers.spawn(reader.run(stop.clone()));
            }
        }
        // A partition that comes later is read from its beginning.
        start = Start::Oldest;
        tokio::select! {
            ended = readers.join_next() => match ended {
                Some(Ok(ended)) => ended?,
                Some(Err(panic)) => return Err(StepError::Fault(panic.to_string())),
                None => return Err(StepError::NoTopic(config.topic.clone())),
            },
            () = tokio::time::sleep(look) => {
                *failures = 0;
                intake.status().works();
                look = LOOK;
            }
            () = stop.cancelled() => {}
        }
        if stop.is_cancelled() {
            // What is being committed is finished first.
            while readers.join_next().await.is_some() {}
            return Ok(());
        }
    }
}

/// Where partitions without a position begin: the setting is for a topic that was never read.
async fn start(config: &KafkaConfig, intake: &Intake) -> Result<Start, StepError> {
    let (reader, name) = (intake.reader().clone(), intake.name().to_owned());
    let known = tokio::task::spawn_blocking(move || reader.cursors(&name))
        .await
        .map_err(|e| StepError::Fault(e.to_string()))??;
    Ok(if known.is_empty() {
        config.start.unwrap_or(Start::Oldest)
    } else {
        Start::Oldest
    })
}

async fn connect(config: &KafkaConfig) -> Result<Client, StepError> {
    let mut builder = ClientBuilder::new(config.brokers.clone())
        .client_id("keytrail")
        .max_message_size(MAX_ANSWER)
        .backoff_config(BackoffConfig {
            deadline: Some(PATIENCE),
            max_backoff: Duration::from_secs(5),
            ..BackoffConfig::default()
        });
    if config.tls.unwrap_or(true) {
        builder = builder.tls_config(tls::client(config.ca_file.as_deref())?);
    }
    if let (Some(user), Some(file)) = (&config.username, &config.password_file) {
        let credentials = Credentials::new(user.clone(), secret(file)?);
        builder = builder.sasl_config(match config.mechanism.unwrap_or(Mechanism::Plain) {
            Mechanism::Plain => SaslConfig::Plain(credentials),
            Mechanism::ScramSha256 => SaslConfig::ScramSha256(credentials),
            Mechanism::ScramSha512 => SaslConfig::ScramSha512(credentials),
        });
    }
    Ok(builder.build().await?)
}

async fn partitions(client: &Client, config: &KafkaConfig) -> Result<Vec<i32>, StepError> {
    let topics = client.list_topics().await?;
    topics
        .into_iter()
        .find(|topic| topic.name == config.topic)
        .map(|topic| topic.partitions.into_iter().collect())
        .ok_or_else(|| StepError::NoTopic(config.topic.clone()))
}

/// One partition being read.
struct Reader {
    intake: Intake,
    partition: PartitionClient,
    stream: String,
    /// The next record's offset.
    next: i64,
    /// How often nothing came from there, though there is more.
    empty: u32,
}

impl Reader {
    /// Begins at the committed position.
    async fn open(
        config: &KafkaConfig,
        intake: &Intake,
        partition: PartitionClient,
        start: Start,
    ) -> Result<Self, StepError> {
        let stream = format!("{}/{}", config.topic, partition.partition());
        let (reader, name, of) = (
            intake.reader().clone(),
            intake.name().to_owned(),
            stream.clone(),
        );
        let known = tokio::task::spawn_blocking(move || reader.cursor(&name, &of))
            .await
            .map_err(|e| StepError::Fault(e.to_string()))??
            .and_then(|text| text.parse().ok());
        let next = match (known, start) {
            (Some(next), _) => next,
            (None, Start::Oldest) => partition.get_offset(OffsetAt::Earliest).await?,
            (None, Start::Newest) => {
                let next = partition.get_offset(OffsetAt::Latest).await?;
                // Committed now: what comes before the first record is taken must not be passed.
                let progress = Progress::cursor(cursor(intake, &stream, next));
                intake.commit(Vec::new(), progress).await?;
                next
            }
        };
        Ok(Self {
            intake: intake.clone(),
            partition,
            stream,
            next,
            empty: 0,
        })
    }

    async fn run(mut self, stop: CancellationToken) -> Result<(), StepError> {
        loop {
            // Dropping a fetch loses nothing: the position is ours.
            let fetched = tokio::select! {
                fetched = self.partition.fetch_records(self.next, 1..FETCH, WAIT) => fetched,
                () = stop.cancelled() => return Ok(()),
            };
            self.intake.tally().requests.one();
            match fetched {
                Ok((records, end)) if records.is_empty() => self.nothing(end).await?,
                Ok((records, _)) => self.take(records).await?,
                Err(KafkaError::ServerError {
                    protocol_error: ProtocolError::OffsetOutOfRange,
                    ..
                }) => self.reposition().await?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Marks of transactions take positions and hold no record: one at which the broker has
    /// nothing, though it has more behind it, is passed over. Committed with the next record. Behind
    /// the end of what is committed nothing is passed over: an open transaction's records still come.
    async fn nothing(&mut self, end: i64) -> Result<(), StepError> {
        if self.next >= end {
            self.empty = 0;
            return Ok(());
        }
        self.empty += 1;
        if self.empty >= EMPTY {
            self.empty = 0;
            if self.next < self.partition.get_offset(OffsetAt::Latest).await? {
                self.next += 1;
                self.intake.tally().offsets_empty.one();
            }
        }
        Ok(())
    }

    /// The broker's retention has passed the position, or the topic was made anew.
    async fn reposition(&mut self) -> Result<(), StepError> {
        let oldest = self.partition.get_offset(OffsetAt::Earliest).await?;
        self.intake.tally().offsets_lost.one();
        tracing::warn!(
            source = self.intake.name(),
            partition = self.stream,
            position = self.next,
            oldest,
            "the broker no longer has the records at the position: records may be missing"
        );
        self.next = oldest;
        let progress = Progress::cursor(cursor(&self.intake, &self.stream, oldest));
        self.intake.commit(Vec::new(), progress).await?;
        Ok(())
    }

    async fn take(&mut self, records: Vec<RecordAndOffset>) -> Result<(), StepError> {
        self.empty = 0;
        let next = records.iter().map(|record| record.offset + 1).max();
        let (intake, stream) = (self.intake.clone(), self.stream.clone());
        let uses = tokio::task::spawn_blocking(move || {
            let (mut uses, mut taken) = (Vec::new(), Taken::default());
            for one in records {
                // A record without a value is a deletion's mark.
                let Some(value) = one.record.value else {
                    continue;
                };
                let place = format!("{stream}@{}", one.offset);
                // Damage is counted and noted; the broker would give the same again.
                if let Err(error) =
                    intake.take_body(&place, value.as_slice(), &mut uses, &mut taken)
                {
                    tracing::warn!(source = intake.name(), place, %error, "a message is damaged");
                }
            }
            uses
        })
        .await
        .map_err(|e| StepError::Fault(e.to_string()))?;
        let next = next.unwrap_or(self.next).max(self.next);
        let progress = Progress::cursor(cursor(&self.intake, &self.stream, next));
        self.intake.commit(uses, progress).await?;
        self.next = next;
        Ok(())
    }
}

fn cursor(intake: &Intake, stream: &str, next: i64) -> Cursor {
    Cursor {
        source: intake.name().to_owned(),
        stream: stream.to_owned(),
        position: next.to_string(),
    }
}
