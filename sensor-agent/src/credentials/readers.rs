//! Who is expected to read which credential.
//!
//! "Unexpected" is a hint for the join, never a verdict: the join asks where the reader's unit
//! connected afterwards. A renamed binary passes as a known program here; it does not pass there.

use std::path::Path;

use keytrail_model::credential::{CredentialId, CredentialKind};
use keytrail_model::process::{Package, UnitKind};
use serde::Deserialize;
use thiserror::Error;

use super::formats::FileFormat;
use crate::paths::glob_matches;

/// A catalogue that cannot be used.
#[derive(Debug, Error)]
pub enum ReadersError {
    /// Not the expected form.
    #[error("expected readers {origin}: {source}; see catalogue/readers.toml for the form")]
    Form {
        /// File name or `(built in)`.
        origin: String,
        /// What and where.
        source: toml::de::Error,
    },
    /// A kind that does not exist.
    #[error(
        "expected readers {origin}: `{kind}` is no kind of credential; write a kind or kind:scope, such as aws-access-key or keyed-hash:npm-token"
    )]
    Kind {
        /// File name or `(built in)`.
        origin: String,
        /// What was written.
        kind: String,
    },
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    kinds: Vec<String>,
    #[serde(default)]
    programs: Vec<String>,
    #[serde(default)]
    packages: Vec<String>,
    #[serde(default)]
    formats: Vec<FileFormat>,
    #[serde(default)]
    agents: bool,
    /// Agents hand it to everything that they start.
    #[serde(default)]
    inherited: bool,
    #[serde(rename = "source")]
    _source: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rows {
    #[serde(default)]
    reader: Vec<Row>,
}

/// The rows of `catalogue/readers.toml`, and the user's own.
#[derive(Clone, Debug)]
pub struct Readers {
    rows: Vec<Row>,
}

/// The process that read, as far as this question goes.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    /// Its executable.
    pub exe: &'a Path,
    /// The package of the script that it runs, or that its executable lies in.
    pub package: Option<&'a Package>,
    /// True when it is an interpreter: then only its package counts, not its name.
    pub interpreter: bool,
    /// The kind of unit that it belongs to.
    pub unit: UnitKind,
    /// The package of the MCP server that it is part of.
    pub server: Option<&'a Package>,
    /// Variables that the MCP server's configuration gives it on purpose.
    pub granted: &'a [String],
}

impl Readers {
    /// The rows that come with the sensor.
    ///
    /// # Errors
    /// Never in a released build (a test reads the same text).
    pub fn builtin() -> Result<Self, ReadersError> {
        Self::parse("(built in)", include_str!("../../catalogue/readers.toml"))
    }

    /// Reads rows from text; `origin` names it in errors.
    ///
    /// # Errors
    /// [`ReadersError`] with the line at fault.
    pub fn parse(origin: &str, text: &str) -> Result<Self, ReadersError> {
        let rows: Rows = toml::from_str(text).map_err(|source| ReadersError::Form {
            origin: origin.to_owned(),
            source,
        })?;
        for kind in rows.reader.iter().flat_map(|row| &row.kinds) {
            let name = kind.split(':').next().unwrap_or(kind);
            if CredentialKind::named(name).is_none() {
                return Err(ReadersError::Kind {
                    origin: origin.to_owned(),
                    kind: kind.clone(),
                });
            }
        }
        Ok(Self { rows: rows.reader })
    }

    /// Adds the rows of another catalogue (the user's own).
    pub fn extend(&mut self, other: Self) {
        self.rows.extend(other.rows);
    }

    /// True when the catalogue expects `reader` to read this from a file written as `format`.
    #[must_use]
    pub fn expects_file(
        &self,
        credential: &CredentialId,
        format: FileFormat,
        reader: &Reader<'_>,
    ) -> bool {
        self.rows
            .iter()
            .filter(|row| row.is_about(credential))
            .filter(|row| row.formats.is_empty() || row.formats.contains(&format))
            .any(|row| row.expects(reader))
    }

    /// True unless a credential in the environment reached someone who was not meant to have it.
    ///
    /// Environments are inherited, so holding one says little, except for an MCP server: that gets
    /// its agent's environment unasked. There it is expected only when the configuration grants
    /// the variable, the package is known to use this kind, or the catalogue says that agents hand
    /// it to all their children.
    #[must_use]
    pub fn expects_environment(
        &self,
        credential: &CredentialId,
        variable: &str,
        reader: &Reader<'_>,
    ) -> bool {
        reader.unit != UnitKind::McpServer
            || reader.granted.iter().any(|name| name == variable)
            || self
                .rows
                .iter()
                .filter(|row| row.is_about(credential) && row.formats.is_empty())
                .any(|row| row.inherited || row.expects(reader) || row.has_package(reader.server))
    }
}

impl Row {
    fn is_about(&self, credential: &CredentialId) -> bool {
        self.kinds.iter().any(|known| {
            let (kind, scope) = known.split_once(':').unwrap_or((known, "*"));
            kind == credential.kind().as_str()
                && (scope == "*" || credential.scope().is_some_and(|s| glob_matches(scope, s)))
        })
    }

    fn expects(&self, reader: &Reader<'_>) -> bool {
        (self.agents && reader.unit == UnitKind::Agent)
            || self.has_package(reader.package)
            || (!reader.interpreter && self.has_program(reader.exe))
    }

    fn has_package(&self, package: Option<&Package>) -> bool {
        package.is_some_and(|package| {
            let name = format!("{}:{}", package.ecosystem, package.name);
            self.packages
                .iter()
                .any(|known| match known.strip_suffix('*') {
                    Some(start) => name.starts_with(start),
                    None => *known == name,
                })
        })
    }

    fn has_program(&self, exe: &Path) -> bool {
        let name = exe
            .file_name()
            .map(|n| n.to_string_lossy())
            .unwrap_or_default();
        installed(exe) && self.programs.iter().any(|known| glob_matches(known, &name))
    }
}

/// False for places where anyone may put a file under any name, or where a package brings it along.
pub(super) fn installed(exe: &Path) -> bool {
    let temporary = ["/tmp", "/var/tmp", "/dev/shm"]
        .iter()
        .any(|dir| exe.starts_with(dir));
    let packaged = exe.components().any(|c| c.as_os_str() == "node_modules");
    exe.is_absolute() && !temporary && !packaged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader<'a>(exe: &'a str, package: Option<&'a Package>, unit: UnitKind) -> Reader<'a> {
        let interpreter = ["node", "python3"].iter().any(|name| exe.ends_with(name));
        let server = package.filter(|_| unit == UnitKind::McpServer);
        Reader {
            exe: Path::new(exe),
            package,
            interpreter,
            unit,
            server,
            granted: &[],
        }
    }

    fn package(text: &str) -> Package {
        let (ecosystem, name) = text.split_once(':').unwrap();
        Package {
            ecosystem: ecosystem.to_owned(),
            name: name.to_owned(),
            version: None,
        }
    }

    fn sample(kind: CredentialKind) -> CredentialId {
        match kind {
            CredentialKind::AwsAccessKey => {
                CredentialId::aws_access_key("AKIAIOSFODNN7EXAMPLE").unwrap()
            }
            _ => CredentialId::github_token(b"x"),
        }
    }

    #[test]
    fn kinds_may_have_a_scope() {
        let text =
            "[[reader]]\nkinds=['keyed-hash:npm-*','ssh-key']\nprograms=['npm']\nsource=''\n";
        let readers = Readers::parse("own.toml", text).unwrap();
        let who = reader("/usr/bin/npm", None, UnitKind::ShellTool);
        for (id, expected) in [
            ("keyed-hash:npm-token/00", true),
            ("keyed-hash:pypi-token/00", false),
            ("ssh-key:SHA256:x", true),
        ] {
            let id: CredentialId = id.parse().unwrap();
            assert_eq!(
                readers.expects_file(&id, FileFormat::Npmrc, &who),
                expected,
                "{id}"
            );
        }
        let error = Readers::parse("own.toml", &text.replace("ssh-key", "shh-key")).unwrap_err();
        assert!(error.to_string().contains("shh-key"), "{error}");
    }

    #[test]
    fn the_providers_own_tools_are_expected_and_others_are_not() {
        use CredentialKind::{AwsAccessKey, GithubToken};
        use FileFormat::{AwsIni, Dotenv, GhHosts, Npmrc};
        use UnitKind::{Agent, McpServer, ShellTool};
        let readers = Readers::builtin().unwrap();
        for (kind, format, exe, pkg, unit, expected) in [
            (AwsAccessKey, AwsIni, "/usr/bin/aws", "", ShellTool, true),
            (AwsAccessKey, AwsIni, "/tmp/aws", "", ShellTool, false),
            (
                AwsAccessKey,
                AwsIni,
                "/h/node_modules/x/aws",
                "",
                McpServer,
                false,
            ),
            (
                AwsAccessKey,
                AwsIni,
                "/usr/bin/python3",
                "",
                ShellTool,
                false,
            ),
            (
                AwsAccessKey,
                AwsIni,
                "/usr/bin/python3",
                "pypi:awscli",
                ShellTool,
                true,
            ),
            (
                AwsAccessKey,
                AwsIni,
                "/usr/bin/python3",
                "pypi:awslabs.cost",
                McpServer,
                true,
            ),
            (
                AwsAccessKey,
                AwsIni,
                "/usr/bin/node",
                "npm:mcp-server-x",
                McpServer,
                false,
            ),
            (
                AwsAccessKey,
                AwsIni,
                "/usr/bin/node",
                "npm:@google/gemini-cli",
                Agent,
                false,
            ),
            (
                AwsAccessKey,
                Dotenv,
                "/usr/bin/node",
                "npm:@google/gemini-cli",
                Agent,
                true,
            ),
            (AwsAccessKey, AwsIni, "/usr/bin/gh", "", ShellTool, false),
            (GithubToken, GhHosts, "/usr/bin/gh", "", ShellTool, true),
            (
                GithubToken,
                Npmrc,
                "/usr/bin/node",
                "npm:npm",
                McpServer,
                true,
            ),
            (
                GithubToken,
                GhHosts,
                "/usr/bin/node",
                "npm:npm",
                McpServer,
                false,
            ),
        ] {
            let pkg = (!pkg.is_empty()).then(|| package(pkg));
            let who = reader(exe, pkg.as_ref(), unit);
            assert_eq!(
                readers.expects_file(&sample(kind), format, &who),
                expected,
                "{kind} {who:?}"
            );
        }
    }

    #[test]
    fn an_mcp_server_holds_only_what_it_was_given() {
        let readers = Readers::builtin().unwrap();
        let kind = &sample(CredentialKind::GithubToken);
        let evil = package("npm:mcp-server-evil");
        let official = package("npm:@modelcontextprotocol/server-github");
        let who = reader("/usr/bin/node", Some(&evil), UnitKind::McpServer);
        assert!(!readers.expects_environment(kind, "GITHUB_TOKEN", &who));
        let granted = ["GITHUB_TOKEN".to_owned()];
        let given = Reader {
            granted: &granted,
            ..who
        };
        assert!(readers.expects_environment(kind, "GITHUB_TOKEN", &given));
        let known = reader("/usr/bin/node", Some(&official), UnitKind::McpServer);
        assert!(readers.expects_environment(kind, "GITHUB_TOKEN", &known));
        let shell = reader("/bin/bash", None, UnitKind::ShellTool);
        assert!(readers.expects_environment(kind, "GITHUB_TOKEN", &shell));
    }
}
