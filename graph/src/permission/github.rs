//! GitHub tokens: scopes or fine-grained permissions, and the repositories they reach.
//!
//! Sources: GitHub REST API, "Organizations: list SAML SSO authorizations" (`login`,
//! `scopes`), "list fine-grained personal access tokens" (`owner`, `permissions`,
//! `repository_selection`), "Repositories: list for the authenticated user" (`full_name`,
//! `private`, `permissions`); "Scopes for OAuth apps". An entry may carry `hashed_token`, as the
//! audit log prints it, and its `repositories`.

use keytrail_model::credential::CredentialId;
use serde_json::Value;

use super::import::{Import, ImportError, ImportKind, list, text, texts};
use super::{Effect, Identity, Patterns, Provider, Statement};

pub(super) fn tokens(file: &Value, about: Option<&str>) -> Result<Import, ImportError> {
    let mut import = Import::new(ImportKind::Github);
    let entries: Vec<&Value> = match file {
        Value::Array(entries) => entries.iter().collect(),
        one if one.get("tokens").is_some() => list(one, "tokens", "file")?.iter().collect(),
        one => vec![one],
    };
    let all_repositories =
        !entries.is_empty() && entries.iter().all(|entry| entry.get("full_name").is_some());
    if all_repositories {
        // A bare repository list: what one login reaches.
        let login = about.ok_or_else(|| {
            ImportError::shape(
                "file",
                "a list of repositories does not say whose it is",
                "name the login: --about LOGIN",
            )
        })?;
        let mut identity = Identity::new(Provider::Github, "user", login);
        for (nr, entry) in entries.iter().enumerate() {
            let at = format!("[{nr}]");
            let repository = Repository::of(entry, &at)?;
            let source = format!("repository access of {login}");
            identity
                .statements
                .extend(repository.statement(&[CLASSIC_ALL.to_owned()], &source));
        }
        import.identities.push(identity);
        return Ok(import);
    }
    for (nr, entry) in entries.iter().enumerate() {
        token(&mut import, entry, &format!("[{nr}]"), nr)?;
    }
    import.note(
        "GitHub rulesets, branch protection and the organisation's token policies are not in a \
         token listing: they may forbid more"
            .to_owned(),
    );
    Ok(import)
}

/// The scope that reads and writes every repository of the user.
const CLASSIC_ALL: &str = "repo";

fn token(import: &mut Import, entry: &Value, at: &str, nr: usize) -> Result<(), ImportError> {
    let login = text(entry, "login")
        .or_else(|| entry.get("owner").and_then(|owner| text(owner, "login")))
        .ok_or_else(|| {
            ImportError::shape(
                at,
                "neither login nor owner.login is there",
                "give a token listing of the organisation, or a list of {login, hashed_token, \
                 scopes, repositories}",
            )
        })?;
    let number = ["token_id", "credential_id", "id"]
        .iter()
        .find_map(|key| entry.get(*key).and_then(Value::as_u64));
    let id = match (text(entry, "hashed_token"), number) {
        (Some(hash), _) => format!("{login}/token {hash}"),
        (None, Some(number)) => format!("{login}/token {number}"),
        (None, None) => format!("{login}/token without a number ({nr})"),
    };
    let mut identity = Identity::new(Provider::Github, "token", &id);
    match text(entry, "hashed_token") {
        Some(hash) => {
            let credential = CredentialId::github_hashed_token(hash).map_err(|e| {
                ImportError::shape(
                    format!("{at}.hashed_token"),
                    e.to_string(),
                    "give base64 of the token's SHA-256, as the audit log prints it",
                )
            })?;
            import.links.push((credential, id.clone()));
        }
        // Without it a use is tied to the login only: any of its tokens may be meant.
        None => identity.names.push(login.to_owned()),
    }
    if let Some(name) = text(entry, "token_name").or_else(|| text(entry, "name")) {
        identity.names.push(format!("{login}/{name}"));
    }
    let repositories = list(entry, "repositories", at)?
        .iter()
        .enumerate()
        .map(|(nr, one)| Repository::of(one, &format!("{at}.repositories[{nr}]")))
        .collect::<Result<Vec<_>, _>>()?;
    match entry.get("scopes") {
        Some(Value::Null) | None => {}
        Some(value) => {
            let scopes = scopes(value, &format!("{at}.scopes"))?;
            classic(import, &mut identity, login, &scopes, &repositories);
        }
    }
    if let Some(permissions) = entry.get("permissions") {
        fine_grained(&mut identity, entry, permissions, &repositories, at)?;
    }
    import.identities.push(identity);
    Ok(())
}

/// A list, or the header's form `repo, read:org`.
fn scopes(value: &Value, at: &str) -> Result<Vec<String>, ImportError> {
    Ok(texts(value, at)?
        .iter()
        .flat_map(|text| text.split(','))
        .map(|scope| scope.trim().to_owned())
        .filter(|scope| !scope.is_empty())
        .collect())
}

fn classic(
    import: &mut Import,
    identity: &mut Identity,
    login: &str,
    scopes: &[String],
    repositories: &[Repository],
) {
    let source = "the token's scopes".to_owned();
    let own: Vec<String> = scopes
        .iter()
        .filter(|scope| !matches!(scope.as_str(), "repo" | "public_repo"))
        .flat_map(|scope| {
            // A wider scope contains the narrower ones.
            let mut all = vec![scope.clone()];
            if let Some(what) = scope.strip_prefix("admin:") {
                all.extend([format!("write:{what}"), format!("read:{what}")]);
            } else if let Some(what) = scope.strip_prefix("write:") {
                all.push(format!("read:{what}"));
            }
            all
        })
        .collect();
    if !own.is_empty() {
        identity.statements.push(Statement {
            effect: Effect::Allow,
            actions: Patterns::of(own),
            resources: Patterns::of([format!("everything of {login}")]),
            conditions: Vec::new(),
            source: source.clone(),
        });
    }
    for repository in repositories {
        let why = format!("scopes and {login}'s access to {}", repository.name);
        identity
            .statements
            .extend(repository.statement(scopes, &why));
    }
    let wide = scopes.iter().any(|s| s == "repo" || s == "public_repo");
    if wide && repositories.is_empty() {
        let (what, actions) = if scopes.iter().any(|s| s == "repo") {
            ("*", Patterns::of(REPOSITORY_WRITE))
        } else {
            ("every public repository", Patterns::of(REPOSITORY_WRITE))
        };
        identity.statements.push(Statement {
            effect: Effect::Allow,
            actions,
            resources: Patterns::of([what]),
            conditions: vec![format!("only where {login} has access")],
            source,
        });
        import.note(format!(
            "no repository list for {login}: its scope reaches every repository that the login \
             reaches; add \"repositories\" or import the login's repository list"
        ));
    }
}

const REPOSITORY_READ: [&str; 2] = ["metadata:read", "contents:read"];
const REPOSITORY_WRITE: [&str; 6] = [
    "metadata:read",
    "contents:read",
    "contents:write",
    "pull_requests:write",
    "statuses:write",
    "deployments:write",
];
const REPOSITORY_ADMIN: [&str; 4] = [
    "administration:write",
    "secrets:write",
    "environments:write",
    "repository_hooks:write",
];

fn fine_grained(
    identity: &mut Identity,
    entry: &Value,
    permissions: &Value,
    repositories: &[Repository],
    at: &str,
) -> Result<(), ImportError> {
    let selected = text(entry, "repository_selection").unwrap_or("subset");
    for (part, on) in [
        ("repository", None),
        ("organization", Some("the organisation")),
        ("other", Some("the account")),
    ] {
        let Some(granted) = permissions.get(part).and_then(Value::as_object) else {
            continue;
        };
        let mut actions = Vec::new();
        for (name, level) in granted {
            let level = level.as_str().ok_or_else(|| {
                ImportError::shape(
                    format!("{at}.permissions.{part}.{name}"),
                    "the level is no text",
                    "export the listing again",
                )
            })?;
            actions.push(format!("{name}:read"));
            if level != "read" {
                actions.push(format!("{name}:{level}"));
                actions.push(format!("{name}:write"));
            }
        }
        actions.sort();
        actions.dedup();
        let resources: Vec<String> = match on {
            Some(on) => vec![on.to_owned()],
            None if selected == "all" => vec!["*".to_owned()],
            None if !repositories.is_empty() => {
                repositories.iter().map(|r| r.name.clone()).collect()
            }
            None if selected == "none" => vec!["every public repository".to_owned()],
            None => vec!["a selection of repositories that the listing does not name".to_owned()],
        };
        if !actions.is_empty() {
            identity.statements.push(Statement {
                effect: Effect::Allow,
                actions: Patterns::of(actions),
                resources: Patterns::of(resources),
                conditions: Vec::new(),
                source: format!("{part} permissions of the fine-grained token"),
            });
        }
    }
    Ok(())
}

/// A repository and what its reader may do there.
struct Repository {
    name: String,
    public: bool,
    /// `admin`, `write`, `read`.
    level: &'static str,
}

impl Repository {
    fn of(value: &Value, at: &str) -> Result<Self, ImportError> {
        if let Some(name) = value.as_str() {
            return Ok(Self {
                name: name.to_owned(),
                public: false,
                level: "write",
            });
        }
        let name = text(value, "full_name").ok_or_else(|| {
            ImportError::shape(
                at,
                "full_name is missing",
                "give repositories as the REST API lists them, or their names",
            )
        })?;
        let may = |what: &str| {
            let permissions = value.get("permissions");
            permissions
                .and_then(|p| p.get(what))
                .and_then(Value::as_bool)
                == Some(true)
        };
        let level = if may("admin") {
            "admin"
        } else if may("push") || may("maintain") || value.get("permissions").is_none() {
            "write"
        } else {
            "read"
        };
        Ok(Self {
            name: name.to_owned(),
            public: value.get("private").and_then(Value::as_bool) == Some(false),
            level,
        })
    }

    /// What a token with these scopes may do here: the lesser of scope and access.
    fn statement(&self, scopes: &[String], source: &str) -> Option<Statement> {
        let has = |scope: &str| scopes.iter().any(|s| s == scope);
        let whole = has("repo") || (has("public_repo") && self.public);
        let mut actions: Vec<&str> = Vec::new();
        if whole && self.level != "read" {
            actions.extend(REPOSITORY_WRITE);
        } else if whole || self.public {
            actions.extend(REPOSITORY_READ);
        }
        if whole && self.level == "admin" {
            actions.extend(REPOSITORY_ADMIN);
        }
        if whole && self.level != "read" && has("workflow") {
            actions.push("workflows:write");
        }
        if self.level == "admin" && has("delete_repo") {
            actions.push("delete_repo");
        }
        (!actions.is_empty()).then(|| Statement {
            effect: Effect::Allow,
            actions: Patterns::of(actions),
            resources: Patterns::of([self.name.clone()]),
            conditions: Vec::new(),
            source: source.to_owned(),
        })
    }
}
