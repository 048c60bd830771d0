//! Asking the API.

use std::io::{BufRead as _, BufReader};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::de::DeserializeOwned;

use super::Client;
use crate::api::{Problem, token};

/// An answer larger than this is not read.
const MAX_ANSWER: u64 = 256 << 20;
/// A line of the stream (one alert) is not longer than this.
const MAX_LINE: u64 = 16 << 20;

/// A client with its token.
pub(super) struct Api {
    base: String,
    token: String,
}

impl Api {
    pub(super) fn new(client: &Client) -> Result<Self> {
        let file = client
            .token_file
            .clone()
            .unwrap_or_else(|| client.data_dir.join(token::FILE_NAME));
        let token = token::read(&file)
            .context("give --token-file, or --data-dir of the running correlator")?;
        Ok(Self {
            base: client.api.trim_end_matches('/').to_owned(),
            token,
        })
    }

    fn agent(timeout: Option<Duration>) -> ureq::Agent {
        ureq::Agent::config_builder()
            .timeout_connect(Some(Duration::from_secs(5)))
            .timeout_global(timeout)
            .http_status_as_error(false)
            .build()
            .into()
    }

    fn call(
        &self,
        path: &str,
        timeout: Option<Duration>,
        last_event: Option<u64>,
    ) -> Result<ureq::http::Response<ureq::Body>> {
        let url = format!("{}{path}", self.base);
        let mut request = Self::agent(timeout)
            .get(&url)
            .header("authorization", format!("Bearer {}", self.token));
        if let Some(last) = last_event {
            request = request.header("last-event-id", last.to_string());
        }
        let response = request
            .call()
            .with_context(|| format!("{url}: no answer; is the correlator running there?"))?;
        Self::good(&url, response)
    }

    /// The response, unless it tells of a problem.
    fn good(
        url: &str,
        mut response: ureq::http::Response<ureq::Body>,
    ) -> Result<ureq::http::Response<ureq::Body>> {
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        match response.body_mut().read_json::<Problem>() {
            Ok(problem) => bail!("{}: {}", problem.title, problem.detail),
            Err(_) => bail!("{url} answered {status}"),
        }
    }

    /// Sends records; the answer.
    pub(super) fn post<T: DeserializeOwned>(&self, path: &str, body: &[u8]) -> Result<T> {
        let url = format!("{}{path}", self.base);
        let response = Self::agent(Some(Duration::from_secs(60)))
            .post(&url)
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/x-ndjson")
            .send(body)
            .with_context(|| format!("{url}: no answer; is the correlator running there?"))?;
        Self::good(&url, response)?
            .body_mut()
            .read_json()
            .with_context(|| format!("{path}: an answer of another version?"))
    }

    /// One answer.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let mut response = self.call(path, Some(Duration::from_secs(30)), None)?;
        response
            .body_mut()
            .with_config()
            .limit(MAX_ANSWER)
            .read_json()
            .with_context(|| format!("{path}: an answer of another version?"))
    }

    /// Sends a body in place of what `path` names.
    pub(super) fn put<T: DeserializeOwned>(&self, path: &str, body: &[u8]) -> Result<T> {
        let url = format!("{}{path}", self.base);
        let mut response = Self::agent(Some(Duration::from_secs(120)))
            .put(&url)
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/octet-stream")
            .send(body)
            .with_context(|| format!("{url}: no answer; is the correlator running there?"))?;
        let status = response.status();
        if status.is_success() {
            return response
                .body_mut()
                .read_json()
                .with_context(|| format!("{path}: an answer of another version?"));
        }
        match response.body_mut().read_json::<Problem>() {
            Ok(problem) => bail!("{}", problem.detail),
            Err(_) => bail!("{url} answered {status}"),
        }
    }

    /// Every event of the stream, until it ends; returns the last id.
    pub(super) fn stream(
        &self,
        last: Option<u64>,
        mut each: impl FnMut(&str) -> Result<()>,
    ) -> Result<Option<u64>> {
        use std::io::Read as _;
        let response = self.call("/v1/alerts/stream", None, last)?;
        let mut reader = BufReader::new(response.into_body().into_reader());
        let mut last = last;
        let mut line = String::new();
        loop {
            line.clear();
            let read = reader.by_ref().take(MAX_LINE).read_line(&mut line);
            match read {
                Ok(0) | Err(_) => return Ok(last),
                Ok(_) => {}
            }
            let line = line.trim_end_matches(['\r', '\n']);
            if let Some(data) = line.strip_prefix("data:") {
                each(data.trim_start())?;
            } else if let Some(id) = line.strip_prefix("id:") {
                last = id.trim().parse().ok().or(last);
            }
        }
    }
}
