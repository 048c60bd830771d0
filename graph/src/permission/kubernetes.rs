//! Kubernetes RBAC.
//!
//! Source: Kubernetes, "Using RBAC Authorization". An action is written
//! `<api group>/<resource>:<verb>` (`core` for the group without a name), a resource
//! `<namespace>/<name>`; RBAC only adds, it never denies.

use std::collections::BTreeMap;

use serde_json::Value;

use super::import::{Import, ImportError, ImportKind, list, text, texts};
use super::{Effect, Identity, Patterns, Provider, Statement};

/// A rule's actions and names.
struct Rule {
    actions: Vec<String>,
    names: Vec<String>,
}

/// Roles by (namespace, name); cluster roles have no namespace.
type Roles = BTreeMap<(Option<String>, String), Vec<Rule>>;

pub(super) fn rbac(file: &Value) -> Result<Import, ImportError> {
    let mut import = Import::new(ImportKind::Kubernetes);
    let items: Vec<&Value> = match file {
        Value::Array(items) => items.iter().collect(),
        one if one.get("items").is_some() => list(one, "items", "file")?.iter().collect(),
        one => vec![one],
    };
    let mut roles = Roles::new();
    for (nr, item) in items.iter().enumerate() {
        if matches!(text(item, "kind"), Some("Role" | "ClusterRole")) {
            let at = format!("items[{nr}]");
            let (namespace, name) = name_of(item, &at)?;
            let rules = rules(item, &at)?;
            roles.insert((namespace, name), rules);
        }
    }
    let mut found: BTreeMap<String, Identity> = BTreeMap::new();
    let mut bindings = 0;
    for (nr, item) in items.iter().enumerate() {
        if matches!(
            text(item, "kind"),
            Some("RoleBinding" | "ClusterRoleBinding")
        ) {
            bindings += 1;
            binding(
                &mut import,
                &mut found,
                &roles,
                item,
                &format!("items[{nr}]"),
            )?;
        }
    }
    if roles.is_empty() && bindings == 0 {
        return Err(ImportError::shape(
            "file",
            "no role and no binding is in it",
            "kubectl get clusterroles,clusterrolebindings,roles,rolebindings -A -o json",
        ));
    }
    import.identities = found.into_values().collect();
    import.note(
        "other authorisers of the cluster (webhook, node) and admission are not in RBAC objects"
            .to_owned(),
    );
    Ok(import)
}

fn name_of(item: &Value, at: &str) -> Result<(Option<String>, String), ImportError> {
    let metadata = item.get("metadata").unwrap_or(&Value::Null);
    let name = text(metadata, "name").ok_or_else(|| {
        ImportError::shape(at, "metadata.name is missing", "export the objects again")
    })?;
    let cluster = text(item, "kind").is_some_and(|kind| kind.starts_with("Cluster"));
    let namespace = text(metadata, "namespace").filter(|_| !cluster);
    Ok((namespace.map(str::to_owned), name.to_owned()))
}

fn rules(item: &Value, at: &str) -> Result<Vec<Rule>, ImportError> {
    let member = |rule: &Value, key: &str, at: &str| match rule.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(value) => texts(value, &format!("{at}.{key}")),
    };
    let mut all = Vec::new();
    for (nr, rule) in list(item, "rules", at)?.iter().enumerate() {
        let at = format!("{at}.rules[{nr}]");
        let (groups, resources, verbs) = (
            member(rule, "apiGroups", &at)?,
            member(rule, "resources", &at)?,
            member(rule, "verbs", &at)?,
        );
        let mut actions = Vec::new();
        for group in &groups {
            let group = if group.is_empty() { "core" } else { group };
            for resource in &resources {
                for verb in &verbs {
                    actions.push(if [group, resource, verb] == ["*"; 3] {
                        "*".to_owned()
                    } else {
                        format!("{group}/{resource}:{verb}")
                    });
                }
            }
        }
        for url in member(rule, "nonResourceURLs", &at)? {
            actions.extend(verbs.iter().map(|verb| format!("url{url}:{verb}")));
        }
        all.push(Rule {
            actions,
            names: member(rule, "resourceNames", &at)?,
        });
    }
    Ok(all)
}

fn binding(
    import: &mut Import,
    found: &mut BTreeMap<String, Identity>,
    roles: &Roles,
    item: &Value,
    at: &str,
) -> Result<(), ImportError> {
    let (namespace, name) = name_of(item, at)?;
    let role_ref = item.get("roleRef").unwrap_or(&Value::Null);
    let role = text(role_ref, "name").ok_or_else(|| {
        ImportError::shape(at, "roleRef.name is missing", "export the objects again")
    })?;
    let of_cluster = text(role_ref, "kind") == Some("ClusterRole");
    let key = (namespace.clone().filter(|_| !of_cluster), role.to_owned());
    let Some(rules) = roles.get(&key) else {
        import.note(format!(
            "binding {name} names the role {role}, which the export does not contain: export all \
             four kinds"
        ));
        return Ok(());
    };
    let scope = namespace.as_deref().unwrap_or("*");
    let source = match &namespace {
        Some(namespace) => format!("RoleBinding {namespace}/{name} to {role}"),
        None => format!("ClusterRoleBinding {name} to {role}"),
    };
    for subject in list(item, "subjects", at)? {
        let Some(identity) = subject_of(subject, namespace.as_deref()) else {
            continue;
        };
        let identity = found.entry(identity.id.clone()).or_insert(identity);
        for rule in rules {
            let resources: Vec<String> = if scope == "*" && rule.names.is_empty() {
                vec!["*".to_owned()]
            } else if rule.names.is_empty() {
                vec![format!("{scope}/*")]
            } else {
                rule.names.iter().map(|n| format!("{scope}/{n}")).collect()
            };
            identity.statements.push(Statement {
                effect: Effect::Allow,
                actions: Patterns::of(rule.actions.clone()),
                resources: Patterns::of(resources),
                conditions: Vec::new(),
                source: source.clone(),
            });
        }
    }
    Ok(())
}

/// Subjects by the names that the audit log gives them.
fn subject_of(subject: &Value, namespace: Option<&str>) -> Option<Identity> {
    let name = text(subject, "name")?;
    let identity = match text(subject, "kind")? {
        "ServiceAccount" => {
            let namespace = text(subject, "namespace").or(namespace)?;
            let id = format!("system:serviceaccount:{namespace}:{name}");
            let mut identity = Identity::new(Provider::Kubernetes, "service-account", &id);
            identity.inherits = vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated".to_owned(),
            ];
            identity.within = vec![format!("{namespace}/{name}")];
            identity
        }
        "Group" => Identity::new(Provider::Kubernetes, "group", name),
        _ => {
            let mut identity = Identity::new(Provider::Kubernetes, "user", name);
            identity.inherits = vec!["system:authenticated".to_owned()];
            identity
        }
    };
    Some(identity)
}
