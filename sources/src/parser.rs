//! One parser for every kind.

use keytrail_model::consumption::Consumption;

use crate::doc::Doc;
use crate::envelope::{self, Inside};
use crate::framing::{Cut, Framing, Records, Shape};
use crate::make::{Context, Outcome};
use crate::mapping::Mapping;
use crate::{
    Parsed, Rejection, Skip, SourceKind, aws, azure, bedrock, cyberark, gcp, github, gitlab,
    kubernetes, okta, salesforce, vault, workday,
};

/// Envelopes within envelopes (a CloudWatch batch in Firehose in Pub/Sub).
const MAX_ENVELOPES: usize = 4;

/// What a source's settings say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Server names under which a self-hosted service is reached (`vault.corp.example`), as
    /// suffixes on a label boundary.
    pub endpoints: Vec<String>,
    /// The tenant, organisation or site that the records belong to, where they do not say it.
    pub tenant: Option<String>,
    /// The mapping of a [`SourceKind::Mapped`].
    pub mapping: Option<Mapping>,
}

/// Makes uses of records of one source. Cheap to share between threads.
#[derive(Clone, Debug)]
pub struct Parser {
    kind: SourceKind,
    options: Options,
}

impl Parser {
    /// A parser of `kind`.
    #[must_use]
    pub fn new(kind: SourceKind, options: Options) -> Self {
        Self { kind, options }
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> SourceKind {
        self.kind
    }

    /// Its settings.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The prefix of its record ids: the kind's name, or the mapping's.
    #[must_use]
    pub fn source_name(&self) -> &str {
        match (&self.options.mapping, self.kind) {
            (Some(mapping), SourceKind::Mapped) => mapping.source(),
            _ => self.kind.as_str(),
        }
    }

    /// How its files are cut.
    #[must_use]
    pub fn framing(&self) -> Framing {
        match self.kind {
            SourceKind::Salesforce => Framing::shaped(Shape::JsonOrCsv),
            // Lines with a syslog header before the JSON, or CEF.
            SourceKind::CyberArk
            | SourceKind::VaultAudit
            | SourceKind::GitlabAudit
            | SourceKind::KubernetesAudit => Framing::shaped(Shape::JsonOrLines),
            SourceKind::Workday => Framing::wrapped_in(["data".to_owned(), "records".to_owned()]),
            SourceKind::Mapped => match &self.options.mapping {
                Some(mapping) => mapping.framing(),
                None => Framing::default(),
            },
            _ => Framing::default(),
        }
    }

    /// Appends the uses in one record to `out`.
    ///
    /// A record that came in an envelope (EventBridge, Pub/Sub, Firehose, CloudWatch Logs, ...) is
    /// taken out of it; an envelope of several gives the uses of all.
    ///
    /// # Errors
    /// The reason, when the record is refused; `out` is then as it was.
    pub fn parse(&self, record: &[u8], out: &mut Vec<Consumption>) -> Result<Parsed, Rejection> {
        self.parse_within(record, out, 0)
    }

    fn parse_within(
        &self,
        record: &[u8],
        out: &mut Vec<Consumption>,
        depth: usize,
    ) -> Result<Parsed, Rejection> {
        let record = record.trim_ascii();
        let record = match self.kind {
            SourceKind::CyberArk => record,
            _ => without_header(record),
        };
        match self.direct(record, out) {
            // Not this source's own shape, then perhaps an envelope of it.
            Err(why @ Rejection::NoEvent) if depth < MAX_ENVELOPES => {
                let text = String::from_utf8_lossy(record);
                let Ok(doc) = Doc::read(text.as_bytes()) else {
                    return Err(why);
                };
                match envelope::open(&doc) {
                    None => Err(why),
                    Some(Err(why)) => Err(why),
                    Some(Ok(Inside::Control)) => Ok(Parsed::skip(Skip::Control)),
                    Some(Ok(Inside::Records(bytes))) => self.all_within(&bytes, out, depth + 1),
                }
            }
            other => other,
        }
    }

    /// Every record of an envelope's payload.
    fn all_within(
        &self,
        bytes: &[u8],
        out: &mut Vec<Consumption>,
        depth: usize,
    ) -> Result<Parsed, Rejection> {
        let mut sum = Parsed::default();
        let mut first_refusal = None;
        let mut records = Records::framed(bytes, self.framing());
        loop {
            let parsed = match records.next_record() {
                Ok(None) => break,
                Ok(Some(Cut::Record(record))) => self.parse_within(record, out, depth),
                Ok(Some(Cut::NotObject)) => Err(Rejection::NotObject),
                Ok(Some(Cut::TooLarge)) => Err(Rejection::TooLarge),
                Err(_) => {
                    first_refusal.get_or_insert(Rejection::BadEnvelope);
                    sum.refused_inside += 1;
                    break;
                }
            };
            match parsed {
                Ok(parsed) => {
                    sum.uses += parsed.uses;
                    sum.skipped = sum.skipped.or(parsed.skipped);
                    sum.derived_id |= parsed.derived_id;
                    sum.masked_id |= parsed.masked_id;
                    sum.unknown_version |= parsed.unknown_version;
                    sum.refused_inside += parsed.refused_inside;
                }
                Err(why) => {
                    first_refusal.get_or_insert(why);
                    sum.refused_inside += 1;
                }
            }
        }
        match (sum.uses, sum.skipped, first_refusal) {
            (0, None, Some(why)) => Err(why),
            (0, None, None) => Ok(Parsed::skip(Skip::Control)),
            (0, Some(_), _) => Ok(sum),
            _ => {
                sum.skipped = None;
                Ok(sum)
            }
        }
    }

    /// A record in its source's own shape.
    fn direct(&self, record: &[u8], out: &mut Vec<Consumption>) -> Result<Parsed, Rejection> {
        if self.kind == SourceKind::AwsCloudTrail {
            return aws::parse(record, &self.options, out);
        }
        if self.kind == SourceKind::CyberArk && !record.starts_with(b"{") {
            let cx = self.context(record);
            return cyberark::line(record, &cx).map(|found| found.take(out));
        }
        let lossy;
        let doc = match Doc::read(record) {
            Err(Rejection::BadJson) if std::str::from_utf8(record).is_err() => {
                lossy = String::from_utf8_lossy(record).into_owned();
                Doc::read(lossy.as_bytes())?
            }
            read => read?,
        };
        let cx = self.context(record);
        self.read(&doc, &cx).map(|found| found.take(out))
    }

    fn context<'a>(&'a self, bytes: &'a [u8]) -> Context<'a> {
        Context {
            bytes,
            options: &self.options,
        }
    }

    fn read(&self, doc: &Doc<'_>, cx: &Context<'_>) -> Outcome {
        match self.kind {
            // read above, without a document
            SourceKind::AwsCloudTrail => Err(Rejection::NoEvent),
            SourceKind::BedrockInvocation => bedrock::read(doc, cx),
            SourceKind::AzureActivity
            | SourceKind::AzureKeyVault
            | SourceKind::EntraSignIn
            | SourceKind::GraphActivity
            | SourceKind::AzureOpenAi => azure::read(self.kind, doc, cx),
            SourceKind::GcpAudit => gcp::read(doc, cx),
            SourceKind::Okta => okta::read(doc, cx),
            SourceKind::GithubAudit => github::read(doc, cx),
            SourceKind::GitlabAudit => gitlab::read(doc, cx),
            SourceKind::VaultAudit => vault::read(doc, cx),
            SourceKind::CyberArk => cyberark::read(doc, cx),
            SourceKind::Salesforce => salesforce::read(doc, cx),
            SourceKind::Workday => workday::read(doc, cx),
            SourceKind::KubernetesAudit => kubernetes::read(doc, cx),
            SourceKind::Mapped => match &cx.options.mapping {
                Some(mapping) => mapping.read(doc, cx),
                None => Err(Rejection::NoMapping),
            },
        }
    }
}

/// A record without the syslog header before it (RFC 5424, RFC 3164): from the first bracket on.
fn without_header(record: &[u8]) -> &[u8] {
    if matches!(record.first(), None | Some(b'{' | b'[')) {
        return record;
    }
    let front = record.get(..record.len().min(1024)).unwrap_or_default();
    match front.iter().position(|b| *b == b'{') {
        Some(at) => record.get(at..).unwrap_or_default(),
        None => record,
    }
}
