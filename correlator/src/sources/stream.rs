//! From a connected sender to the store: cut, take, commit, in order.
//!
//! These senders (Vault's socket device, syslog, a pipe) hear no acknowledgement, so what is in
//! flight when the correlator dies is lost with it; only bounded batches are ever in flight, and a
//! slow store slows the sender down instead of filling memory.

use std::time::Duration;

use keytrail_sources::framing::Cut;
use keytrail_sources::{Rejection, SourceKind};
use tokio::io::AsyncRead;
use tokio_util::sync::CancellationToken;

use super::frames::{Frame, Frames, Framing};
use super::intake::{BATCH, Intake, Origin, Progress, Taken};
use super::syslog;
use crate::runner::RunnerError;

/// Pause before uses that the store did not take are offered again.
const AGAIN: Duration = Duration::from_secs(1);

/// Takes everything that a sender sends until it closes the stream or `stop`.
///
/// # Errors
/// When reading fails; what was read before is committed.
pub(super) async fn pump(
    intake: &Intake,
    place: &str,
    input: impl AsyncRead + Unpin,
    framing: Framing,
    stop: &CancellationToken,
) -> std::io::Result<Taken> {
    let mut frames = Frames::new(input, framing);
    let mut taken = Taken::default();
    let mut uses = Vec::new();
    let mut index = 0;
    let ended = loop {
        let frame = tokio::select! {
            frame = frames.next() => frame,
            () = stop.cancelled() => break Ok(()),
        };
        let origin = Origin { place, index };
        index += 1;
        match frame {
            Ok(Frame::Message(message)) => {
                intake.take_line(
                    origin,
                    body(intake, framing, message),
                    &mut uses,
                    &mut taken,
                );
            }
            Ok(Frame::TooLarge) => intake.take(origin, &Cut::TooLarge, &mut uses, &mut taken),
            Ok(Frame::End) => break Ok(()),
            // A last line without its line feed is whole more often than not; its parser decides.
            Ok(Frame::Torn(message)) => {
                let message = body(intake, framing, message);
                if message.is_empty() {
                    intake.refuse(origin, Rejection::BadJson, message, &mut taken);
                } else {
                    intake.take_line(origin, message, &mut uses, &mut taken);
                }
                break Ok(());
            }
            Err(error) => break Err(error),
        }
        if uses.len() >= BATCH || (!uses.is_empty() && !frames.has_more()) {
            let batch = std::mem::take(&mut uses);
            if !commit(intake, batch, stop).await {
                return Ok(taken);
            }
        }
    };
    commit(intake, uses, stop).await;
    ended.map(|()| taken)
}

/// The record in a message.
pub(super) fn body<'a>(intake: &Intake, framing: Framing, message: &'a [u8]) -> &'a [u8] {
    match framing {
        // CyberArk's records have no other time than their header's.
        Framing::Syslog if intake.kind() != SourceKind::CyberArk => syslog::body(message),
        Framing::Syslog | Framing::Lines => message,
    }
}

/// Commits, as often as it takes; false when the correlator stops before it succeeds.
pub(super) async fn commit(
    intake: &Intake,
    uses: Vec<keytrail_model::consumption::Consumption>,
    stop: &CancellationToken,
) -> bool {
    loop {
        match intake.commit(uses.clone(), Progress::default()).await {
            Ok(_) => return true,
            Err(RunnerError::Stopping) => return false,
            Err(error) => {
                let problem = format!("{error}; senders wait until it does");
                if intake.status().fails(&problem) {
                    tracing::error!(source = intake.name(), %error, "records wait");
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = stop.cancelled() => return false,
        }
        intake.status().works();
    }
}
