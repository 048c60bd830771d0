//! Settings: defaults, then a TOML file, then `KEYTRAIL_*` variables, then flags; later ones win.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Env, Format as _, Serialized, Toml};
use keytrail_join::Settings;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::networks::NetworksConfig;
use crate::sources::config::{SourceConfig, SourceError};

/// Prefix of the environment variables; `KEYTRAIL_JOIN__RETENTION_DAYS` is `join.retention_days`.
const PREFIX: &str = "KEYTRAIL_";
/// Top-level settings: other `KEYTRAIL_*` variables belong to other programs.
const KEYS: [&str; 17] = [
    "data_dir",
    "listen_ingest",
    "listen_api",
    "listen_push",
    "push_tls_cert",
    "push_tls_key",
    "cloudtrail_dir",
    "source",
    "api_hosts",
    "ingest_names",
    "tenant",
    "rescan_seconds",
    "stuck_minutes",
    "heartbeat_ms",
    "log_days",
    "join",
    "networks",
];

/// Why there are no settings.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The named file does not exist.
    #[error("configuration file {0} does not exist")]
    Missing(PathBuf),
    /// A setting is wrong.
    #[error("configuration: {0}")]
    Wrong(#[from] Box<figment::Error>),
    /// A source is set up wrongly.
    #[error("configuration: {0}")]
    Source(#[from] SourceError),
    /// Half of a pair is missing.
    #[error("configuration: push_tls_cert and push_tls_key go together; give both or none")]
    PushTls,
    /// Retention would lose what the join still needs.
    #[error(
        "configuration: log_days ({log}) is less than join.retention_days ({join}); a restart would forget facts that verdicts need"
    )]
    Retention {
        /// `log_days`.
        log: u32,
        /// `join.retention_days`.
        join: u32,
    },
}

/// Settings of `correlator serve`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Where sensors connect.
    pub listen_ingest: SocketAddr,
    /// Where the API is served; plain HTTP, so keep it on loopback or behind a TLS proxy.
    pub listen_api: SocketAddr,
    /// Where records are pushed to (sources with `via = "http"`).
    pub listen_push: SocketAddr,
    /// PEM file with that listener's certificate and chain; plain HTTP without.
    pub push_tls_cert: Option<PathBuf>,
    /// PEM file with its key.
    pub push_tls_key: Option<PathBuf>,
    /// Where cloud-side uses come from.
    pub source: Vec<SourceConfig>,
    /// The folder that receives CloudTrail files: short for a source "cloudtrail" of that kind.
    pub cloudtrail_dir: Option<PathBuf>,
    /// Names, besides loopback's, under which the API may be addressed.
    pub api_hosts: Vec<String>,
    /// Names and addresses, besides loopback, under which sensors reach this correlator.
    pub ingest_names: Vec<String>,
    /// The tenant that enrolled hosts belong to.
    pub tenant: String,
    /// Seconds between complete scans of the folder.
    pub rescan_seconds: u64,
    /// After how many minutes an unfinished file counts as stuck.
    pub stuck_minutes: u64,
    /// How often a sensor is asked for a sign of life, milliseconds.
    pub heartbeat_ms: u64,
    /// How long inputs stay in the log, days.
    pub log_days: u32,
    /// The join's settings.
    pub join: Settings,
    /// Files that say whose network an address belongs to.
    pub networks: NetworksConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("keytrail-data"),
            listen_ingest: SocketAddr::from(([127, 0, 0, 1], 7443)),
            listen_api: SocketAddr::from(([127, 0, 0, 1], 7480)),
            listen_push: SocketAddr::from(([127, 0, 0, 1], 7481)),
            push_tls_cert: None,
            push_tls_key: None,
            source: Vec::new(),
            cloudtrail_dir: None,
            api_hosts: Vec::new(),
            ingest_names: Vec::new(),
            tenant: "default".to_owned(),
            rescan_seconds: 10,
            stuck_minutes: 15,
            heartbeat_ms: 5000,
            log_days: 46,
            join: Settings::default(),
            networks: NetworksConfig::default(),
        }
    }
}

/// What the command line says.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Flags {
    /// See [`Config::data_dir`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// See [`Config::listen_ingest`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen_ingest: Option<SocketAddr>,
    /// See [`Config::listen_api`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen_api: Option<SocketAddr>,
    /// See [`Config::cloudtrail_dir`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cloudtrail_dir: Option<PathBuf>,
}

impl Config {
    /// Puts the settings together.
    ///
    /// # Errors
    /// When the file does not exist, or a setting is unknown or wrong.
    pub fn load(file: Option<&Path>, flags: &Flags) -> Result<Self, ConfigError> {
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        if let Some(file) = file {
            if !file.exists() {
                return Err(ConfigError::Missing(file.to_owned()));
            }
            figment = figment.merge(Toml::file_exact(file));
        }
        let ours = |key: &figment::value::UncasedStr| {
            let top = key.as_str().split("__").next().unwrap_or_default();
            KEYS.iter().any(|known| top.eq_ignore_ascii_case(known))
        };
        let config: Self = figment
            .merge(Env::prefixed(PREFIX).filter(ours).split("__"))
            .merge(Serialized::defaults(flags))
            .extract()
            .map_err(Box::new)?;
        if config.log_days < config.join.retention_days {
            return Err(ConfigError::Retention {
                log: config.log_days,
                join: config.join.retention_days,
            });
        }
        if config.push_tls_cert.is_some() != config.push_tls_key.is_some() {
            return Err(ConfigError::PushTls);
        }
        crate::sources::config::prepare(&config.all_sources())?;
        Ok(config)
    }

    /// Where notes of refused records go.
    #[must_use]
    pub fn dead_letters(&self) -> PathBuf {
        self.data_dir.join("dead-letters")
    }

    /// What the runner needs to know.
    #[must_use]
    pub fn runner_options(&self) -> crate::runner::Options {
        crate::runner::Options {
            settings: self.join.clone(),
            log_days: self.log_days,
        }
    }

    /// The sources, with the one that `cloudtrail_dir` is short for.
    #[must_use]
    pub fn all_sources(&self) -> Vec<SourceConfig> {
        let short = self.cloudtrail_dir.as_deref().map(SourceConfig::cloudtrail);
        short
            .into_iter()
            .chain(self.source.iter().cloned())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(toml: &str) -> Result<Config, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), toml).unwrap();
        let flags = Flags {
            data_dir: Some(PathBuf::from("elsewhere")),
            ..Flags::default()
        };
        Config::load(Some(file.path()), &flags).map_err(|e| e.to_string())
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let config = load(
            "data_dir = \"here\"\nlog_days = 90\n[join]\ndeclared_egress = [\"192.0.2.0/24\"]",
        )
        .unwrap();
        assert_eq!(config.data_dir, Path::new("elsewhere"));
        assert_eq!(config.log_days, 90);
        assert_eq!(config.join.declared_egress.len(), 1);
        assert_eq!(config.listen_api, Config::default().listen_api);
    }

    /// The packaged file, and what it shows as defaults once that is no comment any more.
    #[test]
    fn the_packaged_settings_are_understood() {
        let text = include_str!("../../packaging/etc/correlator.toml");
        let shown: String = text
            .lines()
            .map(|line| {
                line.strip_prefix("# ")
                    .filter(|l| l.contains(" = ") || l.starts_with('['))
            })
            .zip(text.lines())
            .map(|(shown, line)| format!("{}\n", shown.unwrap_or(line)))
            .collect();
        for text in [text, &shown] {
            let config = load(text).unwrap();
            assert_eq!(config.listen_api, Config::default().listen_api);
            assert_eq!(config.join.undecided_hours, 24);
        }
    }

    #[test]
    fn wrong_settings_are_named() {
        for (toml, word) in [
            ("rescan_second = 3", "rescan_second"),
            ("listen_api = \"here\"", "listen_api"),
            ("[join]\nretention = 3", "retention"),
            ("log_days = 1", "log_days"),
            ("x = [", "TOML"),
        ] {
            let error = load(toml).unwrap_err();
            assert!(error.contains(word), "{toml}: {error}");
        }
    }

    #[test]
    fn wrong_sources_are_named_with_what_to_do() {
        let source = |rest: &str| format!("[[source]]\nname = \"one\"\n{rest}");
        let okta = "kind = \"okta.system-log\"\nvia = \"poll\"\n";
        for (toml, word) in [
            (source("via = \"stdin\""), "kind"),
            (source("kind = \"okta.system-log\""), "via"),
            (
                source("kind = \"octa\"\nvia = \"stdin\""),
                "okta.system-log",
            ),
            (
                source("kind = \"okta.system-log\"\nvia = \"ftp\""),
                "file-tail",
            ),
            (
                source("kind = \"okta.system-log\"\nvia = \"stdin\"\npth = \"x\""),
                "pth",
            ),
            (
                source("kind = \"okta.system-log\"\nvia = \"folder\""),
                "needs `path`",
            ),
            (
                source("kind = \"okta.system-log\"\nvia = \"http\"\npath = \"x\""),
                "`path` means nothing",
            ),
            (
                source("kind = \"okta.system-log\"\nvia = \"http\""),
                "source token",
            ),
            (
                source("kind = \"okta.system-log\"\nvia = \"http\"\ntoken_sha256 = \"ab\""),
                "64 hexadecimal",
            ),
            (
                source("kind = \"vault.audit\"\nvia = \"socket\"\nlisten = \"unix:x\""),
                "absolute path",
            ),
            (
                source("kind = \"cyberark.audit\"\nvia = \"syslog\"\nlisten = \"514\""),
                "address:port",
            ),
            (
                source(
                    "kind = \"cyberark.audit\"\nvia = \"syslog\"\nlisten = \"127.0.0.1:0\"\ntls_cert = \"x\"",
                ),
                "tls_key",
            ),
            (source(okta), "[source.poll]"),
            (
                source(&format!(
                    "{okta}[source.poll]\nurl = \"http://acme.okta.com\""
                )),
                "in the clear",
            ),
            (
                source(&format!(
                    "{okta}[source.poll]\nurl = \"https://acme.okta.com\""
                )),
                "token_file",
            ),
            (
                source(
                    "kind = \"vault.audit\"\nvia = \"poll\"\n[source.poll]\nurl = \"https://x\"",
                ),
                "cannot be polled",
            ),
            (source("kind = \"mapped\"\nvia = \"stdin\""), "slack"),
            (
                source("kind = \"mapped\"\nvia = \"stdin\"\nmapping = \"/nowhere\""),
                "/nowhere",
            ),
            (
                format!(
                    "{}\n{}",
                    source("kind = \"vault.audit\"\nvia = \"stdin\""),
                    source("kind = \"vault.audit\"\nvia = \"stdin\"")
                ),
                "same name",
            ),
            (
                "[[source]]\nname = \"A b\"\nkind = \"vault.audit\"\nvia = \"stdin\"".to_owned(),
                "lower-case",
            ),
            ("push_tls_cert = \"x\"".to_owned(), "push_tls_key"),
        ] {
            let error = load(&toml).unwrap_err();
            assert!(error.contains(word), "{toml}: {error}");
        }
    }
}
