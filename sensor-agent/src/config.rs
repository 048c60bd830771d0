//! Settings of the agent: defaults, then the file, then `KEYTRAIL_AGENT_*`, then flags.

use std::path::PathBuf;

use figment::Figment;
use figment::providers::{Env, Format as _, Serialized, Toml};
use keytrail_model::credential::CredentialId;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Everything that can be set. In a file: TOML with these names.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the correlator takes facts in, `https://host:port`.
    pub correlator: String,
    /// The CA that the correlator's certificate must come from (PEM).
    pub ca: PathBuf,
    /// File with the join token, for the first enrolment.
    pub join_token_file: Option<PathBuf>,
    /// Where the certificate and the outbox are kept; created with mode 0700.
    pub state_dir: PathBuf,
    /// `cgroup:PATH` of a cgroup v2 directory: watch nothing outside it. Unset: the whole machine.
    pub scope: Option<String>,
    /// `a` (LSM) or `b` (tracepoints); unset: the best that this kernel proves to support.
    pub plan: Option<String>,
    /// Folder in a BPF file system (`/sys/fs/bpf/keytrail`) in which the kernel side is kept while no
    /// agent runs, so that a restart or an upgrade loses nothing. Unset: nothing outlives the agent.
    pub pin_dir: Option<PathBuf>,
    /// Seconds between two canaries, which show that the main programs still report; 0: none, nor
    /// a look at the pins.
    pub canary_seconds: u32,
    /// File with the tenant's key for hashing secrets that have no identifier (32 bytes or more,
    /// the same on every host). Unset: a key of this host's own, in `state_dir`; the same secret
    /// on two hosts then looks like two.
    pub tenant_key_file: Option<PathBuf>,
    /// Identifiers (`aws-access-key:AKIA...`) of credentials that were laid out as bait: whoever
    /// reads one is unexpected, its provider's own tools included. Tell the correlator too.
    pub decoys: Vec<CredentialId>,
    /// More catalogue files (TOML) beside the built-in ones.
    pub catalogues: Catalogues,
    /// Most disk that the outbox may take, bytes. Beyond it the oldest facts are dropped, counted
    /// and reported as a gap.
    pub outbox_max_bytes: u64,
}

/// The user's own catalogue files.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Catalogues {
    /// Agents, as in `catalogue/agents.toml`.
    pub agents: Vec<PathBuf>,
    /// Credential files, as in `catalogue/watch.toml`.
    pub watch: Vec<PathBuf>,
    /// Expected readers, as in `catalogue/readers.toml`.
    pub readers: Vec<PathBuf>,
    /// Forms of tokens, variables and patterns, as in `catalogue/tokens.toml`.
    pub tokens: Vec<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            correlator: "https://127.0.0.1:7443".to_owned(),
            ca: PathBuf::from("/etc/keytrail/ca.pem"),
            join_token_file: None,
            state_dir: PathBuf::from("/var/lib/keytrail-sensor"),
            scope: None,
            plan: None,
            pin_dir: None,
            canary_seconds: 30,
            tenant_key_file: None,
            decoys: Vec::new(),
            catalogues: Catalogues::default(),
            outbox_max_bytes: 512 * 1024 * 1024,
        }
    }
}

/// Settings that cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file or a variable does not parse.
    #[error("cannot read the settings: {0}; see `sensor-agent run --help` for the names")]
    Parse(#[from] Box<figment::Error>),
    /// The scope is not of the form that is understood.
    #[error("scope `{0}`: write cgroup:PATH with PATH a cgroup v2 directory")]
    Scope(String),
    /// The plan is not one of two.
    #[error("plan `{0}`: write a (LSM hooks) or b (tracepoints), or leave it out")]
    Plan(String),
}

impl Config {
    /// Reads the settings; `flags` are those given on the command line, by name.
    ///
    /// # Errors
    /// [`ConfigError::Parse`], naming file and setting.
    pub fn read(file: Option<&PathBuf>, flags: impl Serialize) -> Result<Self, ConfigError> {
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        if let Some(file) = file {
            figment = figment.merge(Toml::file_exact(file));
        }
        figment
            .merge(Env::prefixed("KEYTRAIL_AGENT_").split("__"))
            .merge(Serialized::defaults(flags))
            .extract()
            .map_err(|error| ConfigError::Parse(Box::new(error)))
    }

    /// The cgroup directory of the scope.
    ///
    /// # Errors
    /// [`ConfigError::Scope`].
    pub fn scope_path(&self) -> Result<Option<PathBuf>, ConfigError> {
        match &self.scope {
            None => Ok(None),
            Some(scope) => match scope.strip_prefix("cgroup:") {
                Some(path) if path.starts_with('/') => Ok(Some(PathBuf::from(path))),
                _ => Err(ConfigError::Scope(scope.clone())),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Write as _;

    use super::*;

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(
            file,
            "correlator = \"https://central:7443\"\nplan = \"b\"\n"
        )
        .unwrap();
        let flags = BTreeMap::from([("plan", "a")]);
        let config = Config::read(Some(&file.path().to_owned()), flags).unwrap();
        assert_eq!(config.correlator, "https://central:7443");
        assert_eq!(config.plan.as_deref(), Some("a"));
        assert_eq!(config.outbox_max_bytes, 512 * 1024 * 1024);
    }

    /// The packaged file, and what it shows as defaults once that is no comment any more.
    #[test]
    fn the_packaged_settings_are_understood() {
        let text = include_str!("../../packaging/etc/sensor.toml");
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
            let mut file = tempfile::NamedTempFile::new().unwrap();
            write!(file, "{text}").unwrap();
            let none: BTreeMap<&str, &str> = BTreeMap::new();
            let config = Config::read(Some(&file.path().to_owned()), none).unwrap();
            assert_eq!(config.state_dir, Config::default().state_dir);
            assert_eq!(config.outbox_max_bytes, Config::default().outbox_max_bytes);
        }
    }

    #[test]
    fn a_wrong_name_is_told() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "corelator = \"x\"").unwrap();
        let none: BTreeMap<&str, &str> = BTreeMap::new();
        let error = Config::read(Some(&file.path().to_owned()), none).unwrap_err();
        assert!(error.to_string().contains("corelator"), "{error}");
    }

    #[test]
    fn scopes() {
        for (scope, expected) in [
            ("cgroup:/sys/fs/cgroup/x", Some("/sys/fs/cgroup/x")),
            ("cgroup:relative", None),
            ("/sys/fs/cgroup/x", None),
        ] {
            let config = Config {
                scope: Some(scope.to_owned()),
                ..Config::default()
            };
            let found = config.scope_path().ok().flatten();
            assert_eq!(found, expected.map(PathBuf::from), "{scope}");
        }
    }
}
