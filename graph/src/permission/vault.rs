//! Vault and OpenBao: policies as HCL or JSON, token look-ups.
//!
//! Source: Vault documentation, "Policies": capabilities of paths; `+` stands for one segment, `*`
//! only at the end for any rest; `deny` takes everything; a token has the sum of its policies.
//! Where several paths fit, Vault takes the most specific one. Here all of them are listed, and a
//! `deny` takes away what it surely covers: an answer may be a little too wide, never too narrow.

use std::collections::BTreeMap;

use keytrail_model::credential::{CredentialId, CredentialKind};
use serde_json::Value;

use super::import::{Import, ImportError, ImportKind, text, texts};
use super::{Effect, Identity, Patterns, Provider, Statement, hcl};

/// Path -> capabilities.
pub(super) type Paths = BTreeMap<String, Vec<String>>;

pub(super) fn policies(file: &[u8], about: Option<&str>) -> Result<Import, ImportError> {
    let mut import = Import::new(ImportKind::Vault);
    let Ok(json) = serde_json::from_slice::<Value>(file) else {
        let source = std::str::from_utf8(file)
            .map_err(|_| ImportError::shape("file", "not UTF-8", "give a policy as HCL or JSON"))?;
        let name = about.ok_or_else(unnamed)?;
        import.identities.push(policy(name, &hcl::paths(source)?));
        return Ok(import);
    };
    let entries = match &json {
        Value::Array(entries) => entries.clone(),
        one => vec![one.clone()],
    };
    for (nr, entry) in entries.iter().enumerate() {
        one(&mut import, entry, about, &format!("[{nr}]"))?;
    }
    Ok(import)
}

fn unnamed() -> ImportError {
    ImportError::shape(
        "file",
        "the policy does not say its name",
        "name it: --about NAME",
    )
}

fn one(
    import: &mut Import,
    entry: &Value,
    about: Option<&str>,
    at: &str,
) -> Result<(), ImportError> {
    let data = entry.get("data").unwrap_or(entry);
    if data.get("accessor").is_some() {
        return token(import, data, at);
    }
    if let Some(path) = data.get("path") {
        let name = text(data, "name").or(about).ok_or_else(unnamed)?;
        import.identities.push(policy(name, &json_paths(path, at)?));
        return Ok(());
    }
    // `vault policy read -format=json`, the policy API: {"name", "policy": "<HCL>"}.
    if let Some(source) = text(data, "policy").or_else(|| text(data, "rules")) {
        let name = text(data, "name").or(about).ok_or_else(unnamed)?;
        import.identities.push(policy(name, &hcl::paths(source)?));
        return Ok(());
    }
    // {"<name>": "<HCL>" or {"path": ...}}
    let named = data.as_object().filter(|policies| {
        !policies.is_empty()
            && policies
                .values()
                .all(|p| p.is_string() || p.get("path").is_some())
    });
    let Some(named) = named else {
        return Err(ImportError::shape(
            at,
            "neither a policy nor a token look-up",
            "give a policy (HCL or JSON), an object of policies by name, or vault token lookup \
             -format=json",
        ));
    };
    for (name, body) in named {
        let paths = match (body.as_str(), body.get("path")) {
            (Some(source), _) => hcl::paths(source)?,
            (None, path) => json_paths(path.unwrap_or(&Value::Null), &format!("{at}.{name}"))?,
        };
        import.identities.push(policy(name, &paths));
    }
    Ok(())
}

fn json_paths(value: &Value, at: &str) -> Result<Paths, ImportError> {
    // One object, or the list that HCL's JSON form allows.
    let blocks: Vec<&Value> = match value {
        Value::Array(blocks) => blocks.iter().collect(),
        one => vec![one],
    };
    let mut paths = Paths::new();
    for block in blocks {
        let block = block.as_object().ok_or_else(|| {
            ImportError::shape(
                format!("{at}.path"),
                "not an object of paths",
                "correct the policy",
            )
        })?;
        for (path, rule) in block {
            let at = format!("{at}.path.{path}.capabilities");
            let capabilities = rule.get("capabilities").ok_or_else(|| {
                ImportError::shape(&at, "there are no capabilities", "correct the policy")
            })?;
            paths.insert(path.clone(), texts(capabilities, &at)?);
        }
    }
    Ok(paths)
}

fn policy(name: &str, paths: &Paths) -> Identity {
    let mut identity = Identity::new(Provider::Vault, "policy", &policy_id(name));
    for (path, capabilities) in paths {
        let denied = capabilities.iter().any(|c| c == "deny");
        let (effect, actions) = if denied {
            (Effect::Deny, Patterns::of(["*"]))
        } else {
            (Effect::Allow, Patterns::of(capabilities.clone()))
        };
        identity.statements.push(Statement {
            effect,
            actions,
            // A `+` crosses no slash; as `*` it is a little wider.
            resources: Patterns::of([path.replace('+', "*")]),
            conditions: Vec::new(),
            source: format!("policy {name}, path {path}"),
        });
    }
    // The root policy has no rules and may do everything.
    if name == "root" {
        identity.statements.push(Statement {
            effect: Effect::Allow,
            actions: Patterns::of(["*"]),
            resources: Patterns::of(["*"]),
            conditions: Vec::new(),
            source: "the root policy".to_owned(),
        });
    }
    identity
}

fn policy_id(name: &str) -> String {
    format!("policy {name}")
}

/// `vault token lookup -format=json`: the accessor and the policies. The token itself (`id`) is
/// not looked at.
fn token(import: &mut Import, data: &Value, at: &str) -> Result<(), ImportError> {
    let accessor = text(data, "accessor").unwrap_or_default();
    let credential = CredentialId::new(CredentialKind::VaultToken, accessor).map_err(|e| {
        ImportError::shape(
            format!("{at}.accessor"),
            e.to_string(),
            "give vault token lookup -format=json",
        )
    })?;
    let id = format!("token {accessor}");
    let mut identity = Identity::new(Provider::Vault, "token", &id);
    for key in ["policies", "identity_policies"] {
        if let Some(value) = data.get(key).filter(|v| !v.is_null()) {
            for name in texts(value, &format!("{at}.{key}"))? {
                if name == "root" {
                    import.identities.push(policy("root", &Paths::new()));
                }
                identity.inherits.push(policy_id(&name));
            }
        }
    }
    for key in ["display_name", "entity_id"] {
        identity
            .names
            .extend(text(data, key).filter(|n| !n.is_empty()).map(str::to_owned));
    }
    import.links.push((credential, id));
    import.identities.push(identity);
    Ok(())
}
