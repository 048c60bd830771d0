//! Settings of sources: `[[source]]` tables, checked before anything starts.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use keytrail_sources::{Mapping, Options, Parser, SourceKind};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::bucket::BucketConfig;
use super::kafka::KafkaConfig;
use super::poll::PollConfig;
use super::push::OidcConfig;
use super::socket::Endpoint;

/// Largest mapping file read.
const MAX_MAPPING: u64 = 1 << 20;
/// Sources at most.
const MAX_SOURCES: usize = 200;

/// A source cannot be set up as configured.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("source {name:?}: {problem}")]
pub struct SourceError {
    /// Its name, or its number where the name is what is wrong.
    pub name: String,
    /// What is wrong with it, and how to mend it.
    pub problem: String,
}

/// How records arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Via {
    /// Files that appear in a folder, each read once it is whole.
    Folder,
    /// A growing file, followed over its rotations.
    FileTail,
    /// Pushed by HTTP to `listen_push`.
    Http,
    /// Syslog over TCP, TLS or UDP.
    Syslog,
    /// One JSON record a line over a TCP or Unix socket.
    Socket,
    /// Asked of the provider's REST API.
    Poll,
    /// Objects of a bucket that an SQS queue announces.
    S3,
    /// Objects of a bucket, found by listing it.
    Bucket,
    /// Records of a Kafka topic; Azure Event Hubs.
    Kafka,
    /// Lines on standard input.
    Stdin,
}

impl Via {
    /// Its name in the settings and in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Folder => "folder",
            Self::FileTail => "file-tail",
            Self::Http => "http",
            Self::Syslog => "syslog",
            Self::Socket => "socket",
            Self::Poll => "poll",
            Self::S3 => "s3",
            Self::Bucket => "bucket",
            Self::Kafka => "kafka",
            Self::Stdin => "stdin",
        }
    }
}

/// One `[[source]]` table as written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// A name of the user's choice: lower-case letters, digits, `-`, `_`, `.`.
    pub name: String,
    /// What its records are: `aws.cloudtrail`, `github.audit`, ...
    pub kind: String,
    /// How they arrive.
    pub via: Via,
    /// The folder or the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Where to listen: `address:port`, or `unix:/path`; syslog also on `udp:address:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// PEM file with this end's certificate (and chain).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_cert: Option<PathBuf>,
    /// PEM file with its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_key: Option<PathBuf>,
    /// PEM file with the authorities of clients' certificates, which are then required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_client_ca: Option<PathBuf>,
    /// SHA-256 of the token that senders show, hex; `correlator source token` makes one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_sha256: Option<String>,
    /// The identity that senders prove by a signed token, instead (Google Pub/Sub).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oidc: Option<OidcConfig>,
    /// What to poll.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poll: Option<PollConfig>,
    /// The queue that announces objects, and where to find it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Config>,
    /// The bucket to list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<BucketConfig>,
    /// The topic to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kafka: Option<KafkaConfig>,
    /// Server names under which a self-hosted service is reached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<String>,
    /// The organisation that principals belong to, where records do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The mapping file of a source of kind `mapped`, or the name of one that comes with Keytrail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapping: Option<PathBuf>,
}

/// Where S3 objects are announced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3Config {
    /// The queue's URL.
    pub queue_url: String,
    /// The region of queue and bucket.
    pub region: String,
    /// Another S3 endpoint than AWS's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
}

/// How records arrive, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// See [`Via::Folder`].
    Folder(PathBuf),
    /// See [`Via::FileTail`].
    FileTail(PathBuf),
    /// See [`Via::Http`].
    Http(Proof),
    /// See [`Via::Syslog`].
    Syslog(SocketAddr, Option<TlsFiles>),
    /// See [`Via::Syslog`]: datagrams.
    SyslogUdp(SocketAddr),
    /// See [`Via::Socket`].
    Socket(Endpoint),
    /// See [`Via::Poll`].
    Poll(PollConfig),
    /// See [`Via::S3`].
    S3(S3Config),
    /// See [`Via::Bucket`].
    Bucket(BucketConfig),
    /// See [`Via::Kafka`].
    Kafka(KafkaConfig),
    /// See [`Via::Stdin`].
    Stdin,
}

/// How a sender of pushed records proves that it may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// By a token with this SHA-256.
    Token([u8; 32]),
    /// By an identity that its provider signs.
    Oidc(OidcConfig),
}

/// Files of a TLS server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate and chain.
    pub cert: PathBuf,
    /// Key.
    pub key: PathBuf,
    /// Authorities of clients' certificates.
    pub client_ca: Option<PathBuf>,
}

/// A source ready to be started.
#[derive(Debug)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// What its records are.
    pub kind: SourceKind,
    /// Understands them.
    pub parser: Parser,
    /// How they arrive.
    pub delivery: Delivery,
    /// The same in one word.
    pub via: Via,
    /// Where they come from, for people.
    pub place: String,
}

impl SourceConfig {
    /// The folder of `--cloudtrail-dir`.
    #[must_use]
    pub fn cloudtrail(folder: &Path) -> Self {
        Self {
            path: Some(folder.to_owned()),
            ..Self::of(
                "cloudtrail",
                SourceKind::AwsCloudTrail.as_str(),
                Via::Folder,
            )
        }
    }

    /// A source without any further setting.
    #[must_use]
    pub fn of(name: &str, kind: &str, via: Via) -> Self {
        Self {
            name: name.to_owned(),
            kind: kind.to_owned(),
            via,
            path: None,
            listen: None,
            tls_cert: None,
            tls_key: None,
            tls_client_ca: None,
            token_sha256: None,
            oidc: None,
            poll: None,
            s3: None,
            bucket: None,
            kafka: None,
            endpoints: Vec::new(),
            tenant: None,
            mapping: None,
        }
    }

    /// Checks it and reads the files that it names.
    ///
    /// # Errors
    /// When a setting is missing, wrong, or means nothing for this kind of delivery.
    pub fn prepare(&self) -> Result<Source, SourceError> {
        let wrong = |problem: String| SourceError {
            name: self.name.clone(),
            problem,
        };
        let good_name = (1..=40).contains(&self.name.len())
            && self
                .name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b))
            && !self.name.starts_with('.');
        if !good_name {
            return Err(wrong(
                "`name` must be 1 to 40 lower-case letters, digits, `-`, `_` or `.`".to_owned(),
            ));
        }
        let kind = SourceKind::named(&self.kind).ok_or_else(|| {
            let known: Vec<&str> = SourceKind::ALL.iter().map(|k| k.as_str()).collect();
            wrong(format!(
                "`kind` {:?} is not one of {}",
                self.kind,
                known.join(", ")
            ))
        })?;
        let mapping = self.mapping(kind).map_err(wrong)?;
        self.only_what_matters().map_err(wrong)?;
        let (delivery, place) = self.delivery().map_err(wrong)?;
        let options = Options {
            endpoints: self.endpoints.clone(),
            tenant: self.tenant.clone(),
            mapping,
        };
        Ok(Source {
            name: self.name.clone(),
            kind,
            parser: Parser::new(kind, options),
            delivery,
            via: self.via,
            place,
        })
    }

    fn mapping(&self, kind: SourceKind) -> Result<Option<Mapping>, String> {
        let given = match (&self.mapping, kind) {
            (Some(given), SourceKind::Mapped) => given,
            (None, SourceKind::Mapped) => {
                return Err(format!(
                    "`mapping` must name a mapping file, or one of {}",
                    shipped()
                ));
            }
            (None, _) => return Ok(None),
            (Some(_), _) => {
                return Err("`mapping` goes with kind = \"mapped\" only".to_owned());
            }
        };
        if let Some(mapping) = given.to_str().and_then(Mapping::shipped) {
            return Ok(Some(mapping));
        }
        let path = given.display();
        let wrong = |e: std::io::Error| {
            format!(
                "`mapping` {path}: {e}; it is a file, or one of {}",
                shipped()
            )
        };
        if std::fs::metadata(given).map_err(wrong)?.len() > MAX_MAPPING {
            return Err(format!("`mapping` {path}: larger than {MAX_MAPPING} bytes"));
        }
        let text = std::fs::read_to_string(given).map_err(wrong)?;
        Mapping::from_toml(&text)
            .map(Some)
            .map_err(|e| format!("`mapping` {path}: {e}"))
    }

    /// Settings given, and those that this delivery knows.
    fn only_what_matters(&self) -> Result<(), String> {
        let given = [
            ("path", self.path.is_some()),
            ("listen", self.listen.is_some()),
            ("tls_cert", self.tls_cert.is_some()),
            ("tls_key", self.tls_key.is_some()),
            ("tls_client_ca", self.tls_client_ca.is_some()),
            ("token_sha256", self.token_sha256.is_some()),
            ("poll", self.poll.is_some()),
            ("s3", self.s3.is_some()),
            ("oidc", self.oidc.is_some()),
            ("bucket", self.bucket.is_some()),
            ("kafka", self.kafka.is_some()),
        ];
        let known: &[&str] = match self.via {
            Via::Folder | Via::FileTail => &["path"],
            Via::Http => &["token_sha256", "oidc"],
            Via::Syslog => &["listen", "tls_cert", "tls_key", "tls_client_ca"],
            Via::Socket => &["listen"],
            Via::Poll => &["poll"],
            Via::S3 => &["s3"],
            Via::Bucket => &["bucket"],
            Via::Kafka => &["kafka"],
            Via::Stdin => &[],
        };
        match given.iter().find(|(name, is)| *is && !known.contains(name)) {
            Some((name, _)) => Err(format!(
                "`{name}` means nothing with via = \"{}\"",
                self.via.as_str()
            )),
            None => Ok(()),
        }
    }

    fn delivery(&self) -> Result<(Delivery, String), String> {
        let via = self.via.as_str();
        let needs = |name: &str, what: &str| format!("via = \"{via}\" needs `{name}`: {what}");
        Ok(match self.via {
            Via::Folder | Via::FileTail => {
                let path = self
                    .path
                    .clone()
                    .ok_or_else(|| needs("path", "what to read"))?;
                let place = path.display().to_string();
                if self.via == Via::Folder {
                    (Delivery::Folder(path), place)
                } else {
                    (Delivery::FileTail(path), place)
                }
            }
            Via::Http => {
                let proof = self.proof(needs)?;
                (Delivery::Http(proof), format!("/v1/push/{}", self.name))
            }
            Via::Syslog => {
                let listen = self
                    .listen
                    .as_deref()
                    .ok_or_else(|| needs("listen", "`address:port`"))?;
                let (udp, plain) = match listen.strip_prefix("udp:") {
                    Some(plain) => (true, plain),
                    None => (false, listen),
                };
                let address = plain
                    .parse()
                    .map_err(|e| format!("`listen` {listen:?}: {e}; write `address:port`"))?;
                let tls = self.tls()?;
                if udp {
                    return if tls.is_some() {
                        Err("TLS goes over TCP: leave `udp:` or the TLS files out".to_owned())
                    } else {
                        Ok((Delivery::SyslogUdp(address), listen.to_owned()))
                    };
                }
                let scheme = if tls.is_some() { "tls" } else { "tcp" };
                (Delivery::Syslog(address, tls), format!("{scheme}:{listen}"))
            }
            Via::Socket => {
                let listen = self
                    .listen
                    .as_deref()
                    .ok_or_else(|| needs("listen", "`address:port` or `unix:/path`"))?;
                let endpoint = listen
                    .parse()
                    .map_err(|e| format!("`listen` {listen:?}: {e}"))?;
                (Delivery::Socket(endpoint), listen.to_owned())
            }
            Via::Poll => {
                let poll = self
                    .poll
                    .clone()
                    .ok_or_else(|| needs("poll", "a table `[source.poll]` with the URL"))?;
                let place = poll.check(&self.kind)?;
                (Delivery::Poll(poll), place)
            }
            Via::S3 => {
                let s3 = self
                    .s3
                    .clone()
                    .ok_or_else(|| needs("s3", "a table `[source.s3]` with `queue_url`"))?;
                if !cfg!(feature = "aws") {
                    return Err("this correlator was built without S3: build it with \
                                `--features aws`, or sync the bucket into a folder"
                        .to_owned());
                }
                let place = s3.queue_url.clone();
                (Delivery::S3(s3), place)
            }
            Via::Bucket => {
                let bucket = self
                    .bucket
                    .clone()
                    .ok_or_else(|| needs("bucket", "a table `[source.bucket]` with `url`"))?;
                let place = bucket.check()?;
                (Delivery::Bucket(bucket), place.object(&place.prefix))
            }
            Via::Kafka => {
                let kafka = self.kafka.clone().ok_or_else(|| {
                    needs(
                        "kafka",
                        "a table `[source.kafka]` with `brokers` and `topic`",
                    )
                })?;
                let place = kafka.check()?;
                (Delivery::Kafka(kafka), place)
            }
            Via::Stdin => (Delivery::Stdin, "standard input".to_owned()),
        })
    }

    fn proof(&self, needs: impl Fn(&str, &str) -> String) -> Result<Proof, String> {
        match (&self.token_sha256, &self.oidc) {
            (Some(token), None) => {
                crate::hex::decode_32(token)
                    .map(Proof::Token)
                    .ok_or_else(|| {
                        "`token_sha256` must be 64 hexadecimal digits: the SHA-256 of the token"
                            .to_owned()
                    })
            }
            (None, Some(oidc)) => {
                oidc.check()?;
                Ok(Proof::Oidc(oidc.clone()))
            }
            (Some(_), Some(_)) => {
                Err("give either `token_sha256` or a table `[source.oidc]`".to_owned())
            }
            (None, None) => Err(needs(
                "token_sha256",
                "`correlator source token` makes a token and its hash",
            )),
        }
    }

    fn tls(&self) -> Result<Option<TlsFiles>, String> {
        match (&self.tls_cert, &self.tls_key) {
            (Some(cert), Some(key)) => Ok(Some(TlsFiles {
                cert: cert.clone(),
                key: key.clone(),
                client_ca: self.tls_client_ca.clone(),
            })),
            (None, None) if self.tls_client_ca.is_none() => Ok(None),
            _ => Err("TLS needs both `tls_cert` and `tls_key`".to_owned()),
        }
    }
}

/// Mappings that come with Keytrail, for people.
fn shipped() -> String {
    Mapping::shipped_names().collect::<Vec<_>>().join(", ")
}

/// Prepares all sources of a configuration.
///
/// # Errors
/// At the first that is wrong, or when two have the same name.
pub fn prepare(configured: &[SourceConfig]) -> Result<Vec<Source>, SourceError> {
    let mut names = BTreeSet::new();
    let mut stdin = false;
    let mut all = Vec::new();
    for one in configured {
        let wrong = |problem: &str| SourceError {
            name: one.name.clone(),
            problem: problem.to_owned(),
        };
        let source = one.prepare()?;
        if !names.insert(one.name.clone()) {
            return Err(wrong(
                "another source has the same name; positions are kept by name",
            ));
        }
        if names.len() > MAX_SOURCES {
            return Err(wrong("one source too many: at most 200"));
        }
        if one.via == Via::Stdin && std::mem::replace(&mut stdin, true) {
            return Err(wrong("another source reads standard input already"));
        }
        all.push(source);
    }
    Ok(all)
}

/// A number of seconds, with a floor.
pub(super) fn seconds(given: Option<u64>, default: u64, least: u64) -> Duration {
    Duration::from_secs(given.unwrap_or(default).max(least))
}
