//! From page to page.
//!
//! A *sweep* reads everything from a time on, page by page, whatever the provider's order; the
//! position after each page is committed with its uses. The next sweep begins at the newest event
//! less the overlap, since providers deliver late; what comes again is recognised by its record id.
//! A position that the provider no longer knows costs at most the sweep.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use keytrail_model::consumption::Consumption;
use keytrail_sources::framing::Cut;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use super::PollConfig;
use super::client::{Answer, Client, RequestError};
use super::profile::{self, Paging, Profile};
use crate::clock;
use crate::runner::RunnerError;
use crate::sources::config::seconds;
use crate::sources::intake::{Intake, Origin, Progress, Taken};
use crate::sources::pause;
use crate::store::{Cursor, StoreError};

/// Records of one page at most.
const MAX_ITEMS: usize = 100_000;

/// How far a source is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    /// The sweep's beginning and end.
    since: Timestamp,
    until: Timestamp,
    /// The next page of the sweep; none before its first.
    next: Option<String>,
    /// Records of the sweep so far, for providers that page by number.
    count: u64,
    /// Event time of the newest record in the sweep.
    newest: Option<Timestamp>,
}

impl Position {
    fn sweep(since: Timestamp) -> Self {
        Self {
            since,
            until: clock::now(),
            next: None,
            count: 0,
            newest: None,
        }
    }
}

/// Why a step brought nothing.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("{0}")]
    Page(String),
    #[error(transparent)]
    Runner(#[from] RunnerError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What to do next.
enum Next {
    /// The next page, not before this much time has passed.
    Page(Duration),
    /// The sweep is done.
    Rest,
}

struct Worker {
    config: PollConfig,
    profile: &'static Profile,
    intake: Intake,
    client: Option<Client>,
    position: Option<Position>,
    overlap: SignedDuration,
}

/// Polls until `stop`.
pub async fn run(config: PollConfig, intake: Intake, stop: CancellationToken) {
    // `PollConfig::check` has seen to it that there is one.
    let Some(profile) = profile::of(intake.kind(), config.scope.as_deref()) else {
        return;
    };
    let interval = seconds(config.interval_seconds, 30, 1);
    let overlap = config
        .overlap_seconds
        .unwrap_or(profile.overlap)
        .min(86_400);
    let mut worker = Some(Worker {
        overlap: SignedDuration::from_secs(i64::try_from(overlap).unwrap_or(0)),
        config,
        profile,
        intake: intake.clone(),
        client: None,
        position: None,
    });
    let mut failures = 0_u32;
    while !stop.is_cancelled() {
        let Some(mut mine) = worker.take() else {
            return;
        };
        let stepped = tokio::task::spawn_blocking(move || {
            let stepped = mine.step();
            (mine, stepped)
        })
        .await;
        let Ok((mine, stepped)) = stepped else {
            let fault = "polling panicked: a fault of the correlator's; see its log";
            if intake.status().fails(fault) {
                tracing::error!(source = intake.name(), fault);
            }
            return;
        };
        worker = Some(mine);
        let pause = match stepped {
            Ok(next) => {
                failures = 0;
                intake.status().works();
                match next {
                    Next::Page(wait) => wait,
                    Next::Rest => interval,
                }
            }
            Err(StepError::Runner(RunnerError::Stopping)) => return,
            Err(error) => {
                failures = failures.saturating_add(1);
                tell(&intake, &error);
                pause_after(&error, failures)
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// Counts a failure, and says it once.
fn tell(intake: &Intake, error: &StepError) {
    if matches!(error, StepError::Request(RequestError::Limited(_))) {
        // Obeying a limit is no failure; the status says it all the same.
        intake.tally().rate_limited.one();
        intake
            .status()
            .update(|status| status.problem = Some(error.to_string()));
        return;
    }
    intake.tally().requests_failed.one();
    if intake.status().fails(&error.to_string()) {
        tracing::warn!(source = intake.name(), %error, "polling failed; it is tried again");
    }
}

/// How long to wait: as the provider says, or doubling.
fn pause_after(error: &StepError, failures: u32) -> Duration {
    if let StepError::Request(RequestError::Limited(wait)) = error {
        return *wait + pause::jitter(Duration::from_secs(1));
    }
    pause::after(failures)
}

impl Worker {
    /// Asks for one page and takes it in. Blocks.
    fn step(&mut self) -> Result<Next, StepError> {
        let mut position = match self.position.clone() {
            Some(position) => position,
            None => self.restore()?,
        };
        let first = self.profile.first(
            &self.config.url,
            self.config.scope.as_deref(),
            (position.since, position.until),
            self.page_size(),
        );
        let url = position.next.clone().unwrap_or_else(|| first.clone());
        let answer = match self.get(&url) {
            Err(StepError::Request(RequestError::Refused(status))) if position.next.is_some() => {
                self.intake.tally().cursor_expired.one();
                tracing::warn!(
                    source = self.intake.name(), %status,
                    "the provider no longer knows the position; reading again from {}",
                    position.since
                );
                self.position = Some(Position::sweep(position.since));
                return Err(StepError::Request(RequestError::Refused(status)));
            }
            answer => answer?,
        };
        let (mut uses, mut taken) = (Vec::new(), Taken::default());
        let page = Page::read(&answer.body, self.profile).map_err(StepError::Page)?;
        for (index, item) in page.items.iter().enumerate() {
            position.newest = position.newest.max(event_time(item, self.profile.time));
            match self.profile.files {
                None => self.intake.take(
                    Origin {
                        place: &self.config.url,
                        index: position.count + index as u64,
                    },
                    &Cut::Record(item.get().as_bytes()),
                    &mut uses,
                    &mut taken,
                ),
                Some(member) => self.file(item, member, &mut uses, &mut taken)?,
            }
        }
        position.count += page.items.len() as u64;
        let next = self.next_page(&page, &answer, &first, &position);
        // A page that names itself as the next would be read for ever.
        let done = page.items.is_empty() || next.as_ref().is_none_or(|next| *next == url);
        position = if done {
            self.rest(&position)
        } else {
            Position { next, ..position }
        };
        self.commit(uses, &position)?;
        self.position = Some(position);
        Ok(if done {
            self.position = None;
            Next::Rest
        } else {
            Next::Page(answer.wait.unwrap_or(Duration::ZERO))
        })
    }

    fn page_size(&self) -> u32 {
        self.config.page_size.unwrap_or(self.profile.page_size)
    }

    fn get(&mut self, url: &str) -> Result<Answer, StepError> {
        let client = match self.client.take() {
            Some(client) => client,
            None => Client::new(self.config.clone(), self.profile)?,
        };
        self.intake.tally().requests.one();
        Ok(self.client.insert(client).get(url)?)
    }

    /// Fetches a file that a page names, and takes its records in.
    fn file(
        &mut self,
        item: &RawValue,
        member: &str,
        uses: &mut Vec<Consumption>,
        taken: &mut Taken,
    ) -> Result<(), StepError> {
        let path = member_text(item, member)
            .ok_or_else(|| StepError::Page(format!("a file without `{member}`")))?;
        let url = self.absolute(&path);
        let answer = self.get(&url)?;
        // Damage is counted and noted; the other files are read all the same.
        if let Err(error) = self
            .intake
            .take_body(&url, answer.body.as_slice(), uses, taken)
        {
            tracing::warn!(source = self.intake.name(), %error, url, "a file is damaged");
        }
        Ok(())
    }

    fn absolute(&self, path: &str) -> String {
        if path.starts_with('/') {
            format!("{}{path}", self.config.url.trim_end_matches('/'))
        } else {
            path.to_owned()
        }
    }

    fn next_page(
        &self,
        page: &Page<'_>,
        answer: &Answer,
        first: &str,
        position: &Position,
    ) -> Option<String> {
        match self.profile.paging {
            Paging::Link => answer.next.clone(),
            Paging::Member(_) => page.next.as_deref().map(|next| self.absolute(next)),
            Paging::Offset(parameter) => {
                let full = page.items.len() >= self.page_size() as usize;
                full.then(|| format!("{first}&{parameter}={}", position.count))
            }
        }
    }

    /// Where the next sweep begins.
    fn rest(&self, position: &Position) -> Position {
        let newest = position
            .newest
            // A clock that is ahead must not make us skip what comes until then.
            .map(|newest| newest.min(clock::now()))
            .and_then(|newest| newest.checked_sub(self.overlap).ok());
        Position::sweep(newest.map_or(position.since, |newest| newest.max(position.since)))
    }

    fn stream(&self) -> String {
        self.config.scope.clone().unwrap_or_default()
    }

    /// The committed position; at the first start, some hours back.
    fn restore(&self) -> Result<Position, StepError> {
        let known = self
            .intake
            .reader()
            .cursor(self.intake.name(), &self.stream())?
            .and_then(|text| serde_json::from_str::<Position>(&text).ok());
        Ok(match known {
            // Between two sweeps: the next ends now.
            Some(known) if known.next.is_none() => Position::sweep(known.since),
            Some(known) => known,
            None => {
                let hours = i64::try_from(self.config.start_hours.unwrap_or(24)).unwrap_or(24);
                let back = SignedDuration::from_hours(hours.min(24 * 365));
                let now = clock::now();
                Position::sweep(now.checked_sub(back).unwrap_or(now))
            }
        })
    }

    fn commit(&self, uses: Vec<Consumption>, position: &Position) -> Result<(), StepError> {
        let cursor = Cursor {
            source: self.intake.name().to_owned(),
            stream: self.stream(),
            position: serde_json::to_string(position)
                .map_err(|e| StepError::Page(format!("the position has no JSON form: {e}")))?,
        };
        self.intake
            .commit_blocking(uses, Progress::cursor(cursor))?;
        Ok(())
    }
}

/// A page of records.
struct Page<'a> {
    items: Vec<&'a RawValue>,
    next: Option<String>,
}

impl<'a> Page<'a> {
    fn read(body: &'a [u8], profile: &Profile) -> Result<Self, String> {
        let wrong = |e: serde_json::Error| format!("the provider's page is damaged: {e}");
        let Some(member) = profile.items else {
            return Self::bounded(serde_json::from_slice(body).map_err(wrong)?, None);
        };
        let page: BTreeMap<String, &RawValue> = serde_json::from_slice(body).map_err(wrong)?;
        let items = page
            .get(member)
            .ok_or_else(|| format!("the provider's page has no `{member}`"))?;
        let next = match profile.paging {
            Paging::Member(name) => page.get(name).and_then(|next| {
                serde_json::from_str::<Option<String>>(next.get())
                    .ok()
                    .flatten()
            }),
            Paging::Link | Paging::Offset(_) => None,
        };
        Self::bounded(serde_json::from_str(items.get()).map_err(wrong)?, next)
    }

    fn bounded(items: Vec<&'a RawValue>, next: Option<String>) -> Result<Self, String> {
        if items.len() > MAX_ITEMS {
            return Err(format!(
                "{} records on one page; at most {MAX_ITEMS} are taken",
                items.len()
            ));
        }
        Ok(Self { items, next })
    }
}

fn member_text(item: &RawValue, name: &str) -> Option<String> {
    let members: BTreeMap<String, &RawValue> = serde_json::from_str(item.get()).ok()?;
    serde_json::from_str(members.get(name)?.get()).ok()
}

/// A record's time: text, or milliseconds since 1970.
fn event_time(item: &RawValue, member: &str) -> Option<Timestamp> {
    let members: BTreeMap<String, &RawValue> = serde_json::from_str(item.get()).ok()?;
    let time = members.get(member)?.get();
    if let Ok(ms) = time.parse::<i64>() {
        return Timestamp::from_millisecond(ms).ok();
    }
    let text: String = serde_json::from_str(time).ok()?;
    text.parse().ok().or_else(|| {
        // Salesforce writes its zone as `+0000`.
        let text = text.strip_suffix("+0000")?;
        format!("{text}Z").parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_every_provider_are_read() {
        for (record, member, expected) in [
            (
                r#"{"published":"2026-11-24T10:00:00.123Z"}"#,
                "published",
                Some(1_795_514_400_123),
            ),
            (
                r#"{"@timestamp":1795514400123}"#,
                "@timestamp",
                Some(1_795_514_400_123),
            ),
            (
                r#"{"created_at":"2026-11-24T11:00:00.000+01:00"}"#,
                "created_at",
                Some(1_795_514_400_000),
            ),
            (
                r#"{"CreatedDate":"2026-11-24T10:00:00.000+0000"}"#,
                "CreatedDate",
                Some(1_795_514_400_000),
            ),
            (r#"{"published":"soon"}"#, "published", None),
            (r#"{"published":null}"#, "published", None),
            ("{}", "published", None),
            ("7", "published", None),
        ] {
            let item: &RawValue = serde_json::from_str(record).unwrap();
            let time = event_time(item, member).map(|t| t.as_millisecond());
            assert_eq!(time, expected, "{record}");
        }
    }
}
