//! Objects of S3 buckets, announced by an SQS queue (Cargo feature `aws`).
//!
//! A message is deleted only after the uses of every object that it names are durable; until then
//! the queue delivers it again. What announces an object: S3 event notifications, alone or through
//! SNS; EventBridge's `Object Created`; CloudTrail's own SNS notifications.
//!
//! Keys come from where AWS's own tools look for them (`bucket/open/profile.rs`). Requests are signed by AWS's own `aws-sigv4`.

mod announced;
mod request;

use std::time::Duration;

use keytrail_sources::Rejection;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::config::S3Config;
use super::intake::{Intake, Origin, Progress, Taken};
use crate::runner::RunnerError;
use announced::{Announced, Object};
use request::{Aws, AwsError};

/// Seconds that the queue waits for a message before it says that there is none.
const WAIT: u32 = 5;
/// Pause after a failure.
const AGAIN: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error(transparent)]
    Aws(#[from] AwsError),
    #[error(transparent)]
    Runner(#[from] RunnerError),
}

#[derive(Deserialize)]
struct Received {
    #[serde(rename = "Messages", default)]
    messages: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(rename = "Body")]
    body: String,
    #[serde(rename = "ReceiptHandle")]
    receipt: String,
}

/// Takes objects in until `stop`.
pub(super) async fn run(config: S3Config, intake: Intake, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let (of, config) = (intake.clone(), config.clone());
        let stepped = tokio::task::spawn_blocking(move || step(&config, &of)).await;
        let problem = match stepped {
            Ok(Ok(())) => {
                intake.status().works();
                continue;
            }
            Ok(Err(StepError::Runner(RunnerError::Stopping))) => return,
            Ok(Err(error)) => error.to_string(),
            Err(panic) => panic.to_string(),
        };
        intake.tally().requests_failed.one();
        if intake.status().fails(&problem) {
            tracing::warn!(
                source = intake.name(),
                problem,
                "S3 failed; it is tried again"
            );
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// Receives some messages and takes in what they announce. Blocks.
fn step(config: &S3Config, intake: &Intake) -> Result<(), StepError> {
    let aws = Aws::new(config)?;
    let received: Received = aws.queue(
        "ReceiveMessage",
        &serde_json::json!({
            "QueueUrl": config.queue_url, "MaxNumberOfMessages": 10, "WaitTimeSeconds": WAIT,
        }),
    )?;
    for (index, message) in (0..).zip(&received.messages) {
        intake.tally().requests.one();
        match announced::read(&message.body) {
            Announced::Objects(objects) => {
                for object in objects {
                    take(&aws, intake, &object)?;
                }
            }
            Announced::Nothing => {}
            // It would come again for ever.
            Announced::Unknown => {
                let origin = Origin {
                    place: &config.queue_url,
                    index,
                };
                let bytes = message.body.as_bytes();
                intake.refuse(origin, Rejection::BadEnvelope, bytes, &mut Taken::default());
            }
        }
        let _: serde_json::Value = aws.queue(
            "DeleteMessage",
            &serde_json::json!({"QueueUrl": config.queue_url, "ReceiptHandle": message.receipt}),
        )?;
    }
    Ok(())
}

fn take(aws: &Aws<'_>, intake: &Intake, object: &Object) -> Result<(), StepError> {
    // Digests lie in the same bucket and hold no records.
    if object.key.contains("/CloudTrail-Digest/") {
        return Ok(());
    }
    let place = format!("s3://{}/{}", object.bucket, object.key);
    let Some(body) = aws.object(object)? else {
        tracing::warn!(
            source = intake.name(),
            place,
            "an announced object is not there"
        );
        let origin = Origin {
            place: &place,
            index: 0,
        };
        intake.refuse(origin, Rejection::BadEnvelope, &[], &mut Taken::default());
        return Ok(());
    };
    let (mut uses, mut taken) = (Vec::new(), Taken::default());
    // Damage is counted and noted; fetched again, the object would be the same.
    if let Err(error) = intake.take_body(&place, body.as_slice(), &mut uses, &mut taken) {
        tracing::warn!(source = intake.name(), place, %error, "an object is damaged");
    }
    intake.commit_blocking(uses, Progress::default())?;
    Ok(())
}
