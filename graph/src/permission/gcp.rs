//! Google Cloud: IAM policies, asset exports, custom roles.
//!
//! Sources: Cloud IAM REST reference, `Policy` (`bindings[].role`, `.members`, `.condition`) and
//! `Role` (`includedPermissions`); Cloud Asset Inventory, `Asset` (`iamPolicy`, `ancestors`) and
//! `IamPolicySearchResult` (`resource`, `policy`).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::import::{Import, ImportError, ImportKind, list, text, texts};
use super::{Effect, Identity, Patterns, Provider, Statement};

pub(super) fn policies(files: &[Value], about: Option<&str>) -> Result<Import, ImportError> {
    let mut import = Import::new(ImportKind::GcpIam);
    let mut found: BTreeMap<String, Identity> = BTreeMap::new();
    let mut ancestors: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let entries = files.iter().flat_map(|file| match file {
        Value::Array(entries) => entries.iter().collect(),
        one => vec![one],
    });
    for (nr, entry) in entries.enumerate() {
        let at = format!("[{nr}]");
        if let Some(permissions) = entry.get("includedPermissions") {
            let name = text(entry, "name").ok_or_else(|| {
                ImportError::shape(&at, "the role has no name", "export the roles again")
            })?;
            let permissions = texts(permissions, &format!("{at}.includedPermissions"))?;
            import.roles.insert(name.to_owned(), permissions);
            continue;
        }
        let policy = ["policy", "iamPolicy", "iam_policy"]
            .iter()
            .find_map(|key| entry.get(*key))
            .or_else(|| entry.get("bindings").map(|_| entry));
        let Some(policy) = policy else {
            // A role or an asset without anything in it is normal; something else is not.
            if text(entry, "name").is_some() || entry.get("etag").is_some() {
                continue;
            }
            return Err(ImportError::shape(
                at,
                "neither a policy with bindings, nor an asset, nor a role",
                "give gcloud's output as JSON",
            ));
        };
        let resource = text(entry, "resource")
            .or_else(|| text(entry, "name"))
            .or(about)
            .ok_or_else(|| {
                ImportError::shape(
                    &at,
                    "the policy does not say which resource it is on",
                    "name it: --about //cloudresourcemanager.googleapis.com/projects/PROJECT",
                )
            })?;
        let resource = full_name(resource);
        let above = list(entry, "ancestors", &at)?
            .iter()
            .filter_map(Value::as_str);
        ancestors
            .entry(resource.clone())
            .or_default()
            .extend(above.map(full_name));
        bindings(&mut found, policy, &resource, &at)?;
    }
    for identity in found.values_mut() {
        within(identity, &ancestors);
    }
    import.identities = found.into_values().collect();
    import.note(
        "Google Cloud deny policies, principal access boundaries and group memberships are not in \
         these exports"
            .to_owned(),
    );
    Ok(import)
}

/// `projects/p` as the asset inventory writes it.
fn full_name(resource: &str) -> String {
    let short = ["projects/", "folders/", "organizations/"]
        .iter()
        .any(|kind| resource.starts_with(kind) && resource.matches('/').count() == 1);
    if short {
        format!("//cloudresourcemanager.googleapis.com/{resource}")
    } else {
        resource.to_owned()
    }
}

fn bindings(
    found: &mut BTreeMap<String, Identity>,
    policy: &Value,
    resource: &str,
    at: &str,
) -> Result<(), ImportError> {
    for (nr, binding) in list(policy, "bindings", at)?.iter().enumerate() {
        let at = format!("{at}.bindings[{nr}]");
        let role = text(binding, "role").ok_or_else(|| {
            ImportError::shape(&at, "the binding has no role", "export the policy again")
        })?;
        let members = texts(
            binding.get("members").unwrap_or(&Value::Array(Vec::new())),
            &format!("{at}.members"),
        )?;
        let conditions = match binding.get("condition") {
            Some(Value::Object(condition)) => vec![format!(
                "condition {}",
                condition
                    .get("title")
                    .and_then(Value::as_str)
                    .unwrap_or("without a title")
            )],
            _ => Vec::new(),
        };
        for member in members {
            let identity = found
                .entry(member.clone())
                .or_insert_with(|| identity(&member));
            identity.statements.push(Statement {
                effect: Effect::Allow,
                actions: Patterns::of([role]),
                resources: Patterns::of([resource, &format!("{resource}/*")]),
                conditions: conditions.clone(),
                source: format!("binding of {role} on {resource}"),
            });
        }
    }
    Ok(())
}

fn identity(member: &str) -> Identity {
    let (kind, name) = member.split_once(':').unwrap_or(("group", member));
    let kind = match kind {
        "serviceAccount" => "service-account",
        "user" => "user",
        _ => "group",
    };
    let mut identity = Identity::new(Provider::Gcp, kind, member);
    identity.names.push(name.to_owned());
    if !matches!(member, "allUsers" | "allAuthenticatedUsers") {
        identity.inherits = vec!["allUsers".to_owned(), "allAuthenticatedUsers".to_owned()];
        if let Some((_, domain)) = name.split_once('@') {
            identity.inherits.push(format!("domain:{domain}"));
        }
    }
    identity
}

/// A service account is a resource of its project, and lies in what that lies in.
fn within(identity: &mut Identity, ancestors: &BTreeMap<String, BTreeSet<String>>) {
    let Some(email) = identity.id.strip_prefix("serviceAccount:") else {
        return;
    };
    let Some(project) = email
        .split_once('@')
        .and_then(|(_, domain)| domain.strip_suffix(".iam.gserviceaccount.com"))
    else {
        return;
    };
    let project_name = full_name(&format!("projects/{project}"));
    identity.within = vec![
        format!("//iam.googleapis.com/projects/{project}/serviceAccounts/{email}"),
        project_name.clone(),
    ];
    let above = ancestors.get(&project_name).into_iter().flatten();
    identity.within.extend(above.cloned());
}
