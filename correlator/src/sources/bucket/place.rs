//! Which bucket, and which part of it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};

/// How far behind the newest change objects are still looked at, when the settings do not say:
/// stores show an upload by the time at which it began, and writers' clocks differ.
pub const OVERLAP: SignedDuration = SignedDuration::from_hours(2);
/// Prefixes listed in one sweep at most: a month of hours.
const MAX_PREFIXES: usize = 24 * 31;

/// `[source.bucket]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BucketConfig {
    /// `s3://BUCKET/PREFIX`, `az://ACCOUNT/CONTAINER/PREFIX` or `gs://BUCKET/PREFIX`. The prefix is
    /// whole folders; `{yyyy}`, `{mm}`, `{dd}` and `{hh}` in it stand for the date (UTC), so that
    /// only the days in question are listed.
    pub url: String,
    /// The region of an S3 bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Another endpoint than the provider's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// A file of `NAME=value` lines with the provider's own variables (`AZURE_STORAGE_ACCOUNT_KEY`,
    /// `GOOGLE_SERVICE_ACCOUNT`, ...), which then win over the correlator's environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_file: Option<PathBuf>,
    /// PEM file with the authorities that sign the endpoint's certificate (default: the system's).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Seconds between two sweeps (default 30, at least 1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_seconds: Option<u64>,
    /// How far back the first sweep goes, hours (default 24).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_hours: Option<u64>,
    /// How far behind the newest change objects are still looked at, hours (default and least: 2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap_hours: Option<u64>,
}

/// Whose bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// S3.
    Aws,
    /// Azure Blob storage.
    Azure,
    /// Google Cloud Storage.
    Google,
}

/// A bucket and the part of it that is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Whose.
    pub provider: Provider,
    /// Azure's storage account; empty elsewhere.
    pub account: String,
    /// The bucket or container.
    pub bucket: String,
    /// The prefix, with its date still open; no slash at either end.
    pub prefix: String,
}

impl BucketConfig {
    /// Checks it.
    ///
    /// # Errors
    /// What is wrong, and how to mend it.
    pub fn check(&self) -> Result<Place, String> {
        let place = Place::parse(&self.url)?;
        let (feature, built) = match place.provider {
            Provider::Aws => ("aws", cfg!(feature = "aws")),
            Provider::Azure => ("azure", cfg!(feature = "azure")),
            Provider::Google => ("gcs", cfg!(feature = "gcs")),
        };
        if !built {
            return Err(format!(
                "this correlator was built without {}: build it with `--features {feature}`, or \
                 sync the bucket into a folder",
                place.scheme()
            ));
        }
        if place.provider == Provider::Aws && self.region.is_none() {
            return Err("`bucket.region` must name the S3 bucket's region".to_owned());
        }
        if place.provider != Provider::Aws && self.region.is_some() {
            return Err("`bucket.region` goes with `s3://` only".to_owned());
        }
        if let Some(endpoint) = &self.endpoint
            && !super::super::poll::is_safe(endpoint)
        {
            return Err(format!(
                "`bucket.endpoint` {endpoint:?}: write `https://...`; plain http only on loopback"
            ));
        }
        if self.overlap_hours.is_some_and(|hours| hours < 2) {
            return Err("`bucket.overlap_hours` must be at least 2".to_owned());
        }
        Ok(place)
    }

    /// See [`OVERLAP`].
    #[must_use]
    pub fn overlap(&self) -> SignedDuration {
        let hours = |hours: u64| SignedDuration::from_hours(i64::try_from(hours).unwrap_or(2));
        self.overlap_hours
            .map_or(OVERLAP, |given| hours(given.min(24 * 31)).max(OVERLAP))
    }
}

impl Place {
    fn parse(url: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`bucket.url` {url:?}: write `s3://BUCKET/PREFIX`, `az://ACCOUNT/CONTAINER/PREFIX` \
                 or `gs://BUCKET/PREFIX`"
            )
        };
        let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
        let provider = match scheme {
            "s3" => Provider::Aws,
            "az" => Provider::Azure,
            "gs" => Provider::Google,
            _ => return Err(wrong()),
        };
        let (account, rest) = match provider {
            Provider::Azure => rest.split_once('/').ok_or_else(wrong)?,
            Provider::Aws | Provider::Google => ("", rest),
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let named = |text: &str| {
            text.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.$".contains(&b))
        };
        if bucket.is_empty()
            || !named(bucket)
            || !named(account)
            || (provider == Provider::Azure && account.is_empty())
        {
            return Err(wrong());
        }
        let place = Self {
            provider,
            account: account.to_owned(),
            bucket: bucket.to_owned(),
            prefix: prefix.trim_matches('/').to_owned(),
        };
        place.check_date()?;
        Ok(place)
    }

    /// A smaller unit means nothing without the larger ones.
    fn check_date(&self) -> Result<(), String> {
        let mut rest = self.prefix.as_str();
        while let Some((_, tail)) = rest.split_once('{') {
            match tail.split_once('}') {
                Some(("yyyy" | "mm" | "dd" | "hh", tail)) => rest = tail,
                _ => {
                    return Err(
                        "`bucket.url`: only `{yyyy}`, `{mm}`, `{dd}` and `{hh}` go in braces"
                            .to_owned(),
                    );
                }
            }
        }
        let has = |name: &str| self.prefix.contains(name);
        let complete = (!has("{hh}") || has("{dd}"))
            && (!has("{dd}") || has("{mm}"))
            && (!has("{mm}") || has("{yyyy}"));
        if complete {
            Ok(())
        } else {
            Err("`bucket.url`: a date needs its larger units too: `{yyyy}/{mm}/{dd}`".to_owned())
        }
    }

    /// `s3`, `az` or `gs`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        match self.provider {
            Provider::Aws => "s3",
            Provider::Azure => "az",
            Provider::Google => "gs",
        }
    }

    /// How an object is called for people.
    #[must_use]
    pub fn object(&self, key: &str) -> String {
        let account = match self.provider {
            Provider::Azure => format!("{}/", self.account),
            Provider::Aws | Provider::Google => String::new(),
        };
        format!("{}://{account}{}/{key}", self.scheme(), self.bucket)
    }

    /// The prefixes of everything from `from` to `until`, in their order; of a longer time than
    /// [`MAX_PREFIXES`] the last.
    #[must_use]
    pub fn prefixes(&self, from: Timestamp, until: Timestamp) -> Vec<String> {
        if !self.prefix.contains('{') {
            return vec![self.prefix.clone()];
        }
        // Hours in steps of an hour; days, months and years by their days, each once.
        let hourly = self.prefix.contains("{hh}");
        let step = SignedDuration::from_hours(if hourly { 1 } else { 24 });
        let mut seen = BTreeSet::new();
        let mut all = Vec::new();
        let mut at = until;
        while all.len() < MAX_PREFIXES {
            let prefix = self.dated(at);
            if seen.insert(prefix.clone()) {
                all.push(prefix);
            }
            if at <= from {
                break;
            }
            match at.checked_sub(step) {
                // The last step ends in the unit of `from`.
                Ok(earlier) => at = earlier.max(from),
                Err(_) => break,
            }
        }
        all.reverse();
        all
    }

    fn dated(&self, at: Timestamp) -> String {
        let at = at.to_zoned(TimeZone::UTC);
        self.prefix
            .replace("{yyyy}", &format!("{:04}", at.year()))
            .replace("{mm}", &format!("{:02}", at.month()))
            .replace("{dd}", &format!("{:02}", at.day()))
            .replace("{hh}", &format!("{:02}", at.hour()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(url: &str) -> Place {
        Place::parse(url).unwrap()
    }

    #[test]
    fn urls_name_bucket_and_prefix() {
        for (url, expected) in [
            ("s3://trail", "s3 trail "),
            ("s3://trail/AWSLogs/1/", "s3 trail AWSLogs/1"),
            ("gs://logs/a/{yyyy}/{mm}", "gs logs a/{yyyy}/{mm}"),
            (
                "az://acct/insights-logs-auditevent/resourceId=/SUBSCRIPTIONS/X",
                "az acct/insights-logs-auditevent resourceId=/SUBSCRIPTIONS/X",
            ),
            ("az://acct/$logs", "az acct/$logs "),
        ] {
            let place = place(url);
            let account = if place.account.is_empty() {
                String::new()
            } else {
                format!("{}/", place.account)
            };
            let told = format!(
                "{} {account}{} {}",
                place.scheme(),
                place.bucket,
                place.prefix
            );
            assert_eq!(told, expected, "{url}");
        }
        for url in [
            "trail",
            "https://trail",
            "s3://",
            "az://acct",
            "az:///c",
            "s3://a b/",
            "s3://b/{day}",
            "s3://b/{dd}",
            "s3://b/{yyyy}/{hh}",
            "s3://b/{yyyy",
        ] {
            assert!(Place::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_date_gives_a_prefix_for_each_unit_in_question() {
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        for (prefix, from, until, expected) in [
            (
                "a",
                "2026-11-24T10:00:00Z",
                "2026-11-24T12:00:00Z",
                vec!["a"],
            ),
            (
                "{yyyy}/{mm}/{dd}",
                "2026-11-30T23:00:00Z",
                "2026-12-01T00:30:00Z",
                vec!["2026/11/30", "2026/12/01"],
            ),
            (
                "{yyyy}/{mm}/{dd}",
                "2026-11-24T23:59:00Z",
                "2026-11-24T23:59:30Z",
                vec!["2026/11/24"],
            ),
            (
                "y={yyyy}/m={mm}/d={dd}/h={hh}",
                "2026-11-24T22:59:00Z",
                "2026-11-25T00:01:00Z",
                vec![
                    "y=2026/m=11/d=24/h=22",
                    "y=2026/m=11/d=24/h=23",
                    "y=2026/m=11/d=25/h=00",
                ],
            ),
            (
                "{yyyy}/{mm}",
                "2026-09-30T12:00:00Z",
                "2026-11-01T01:00:00Z",
                vec!["2026/09", "2026/10", "2026/11"],
            ),
        ] {
            let place = place(&format!("s3://b/{prefix}"));
            assert_eq!(
                place.prefixes(time(from), time(until)),
                expected,
                "{prefix}"
            );
        }
        let years = place("s3://b/{yyyy}/{mm}/{dd}/{hh}")
            .prefixes(time("2020-01-01T00:00:00Z"), time("2026-01-01T00:00:00Z"));
        assert_eq!(years.len(), MAX_PREFIXES);
        assert_eq!(years.last().unwrap(), "2026/01/01/00");
    }
}
