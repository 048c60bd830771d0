//! AWS: account authorization details, access keys, last-accessed reports.
//!
//! Sources: IAM API Reference (`GetAccountAuthorizationDetails`, `ListAccessKeys`,
//! `GetServiceLastAccessedDetails`); IAM User Guide, "IAM JSON policy element reference" and
//! "AWS JSON policy elements: Principal".

use std::collections::BTreeMap;

use keytrail_model::credential::CredentialId;
use serde_json::Value;

use super::import::{Import, ImportError, ImportKind, list, text, texts};
use super::{Effect, Identity, Patterns, Provider, Statement, Trust};

/// Tags that name an owner, in lower case without `-`, `_` and spaces.
const OWNER_TAGS: [&str; 9] = [
    "owner",
    "owneremail",
    "team",
    "contact",
    "createdby",
    "maintainer",
    "manager",
    "costowner",
    "serviceowner",
];

/// The policy variable that stands for the user's own name.
const USER_NAME: &str = "${aws:username}";

/// Policies of an account by ARN, taken apart.
type Managed = BTreeMap<String, Vec<Statement>>;

pub(super) fn authorization_details(file: &Value) -> Result<Import, ImportError> {
    let mut import = Import::new(ImportKind::AwsIam);
    let pages: Vec<&Value> = match file {
        Value::Array(pages) => pages.iter().collect(),
        one => vec![one],
    };
    let known = [
        "UserDetailList",
        "RoleDetailList",
        "GroupDetailList",
        "Policies",
    ];
    for (nr, page) in pages.iter().enumerate() {
        if !known.iter().any(|key| page.get(key).is_some()) {
            return Err(ImportError::shape(
                format!("page {nr}"),
                "none of UserDetailList, RoleDetailList, GroupDetailList, Policies is there",
                "give the whole output of aws iam get-account-authorization-details",
            ));
        }
        if page.get("IsTruncated").and_then(Value::as_bool) == Some(true) {
            import.note(
                "the IAM export ends early (IsTruncated): export it without --no-paginate"
                    .to_owned(),
            );
        }
    }
    let mut managed = Managed::new();
    for page in &pages {
        managed_policies(page, &mut managed)?;
    }
    for page in &pages {
        for (key, kind, inline) in [
            ("UserDetailList", "user", "UserPolicyList"),
            ("GroupDetailList", "group", "GroupPolicyList"),
            ("RoleDetailList", "role", "RolePolicyList"),
        ] {
            for (nr, entry) in list(page, key, "file")?.iter().enumerate() {
                let at = format!("{key}[{nr}]");
                let identity = identity(&mut import, entry, kind, inline, &managed, &at)?;
                import.identities.push(identity);
            }
        }
    }
    import.note(
        "AWS resource policies, session policies and organisation policies (SCP, RCP) are not in \
         an IAM export: they may allow or forbid more"
            .to_owned(),
    );
    Ok(import)
}

fn managed_policies(page: &Value, managed: &mut Managed) -> Result<(), ImportError> {
    for (nr, policy) in list(page, "Policies", "file")?.iter().enumerate() {
        let at = format!("Policies[{nr}]");
        let arn = text(policy, "Arn").ok_or_else(|| missing(&at, "Arn"))?;
        let name = text(policy, "PolicyName").unwrap_or(arn);
        let versions = list(policy, "PolicyVersionList", &at)?;
        let default = versions
            .iter()
            .find(|v| v.get("IsDefaultVersion").and_then(Value::as_bool) == Some(true));
        if let Some(document) = default.and_then(|v| v.get("Document")) {
            let statements = statements(document, &format!("policy {name}"), &at)?;
            managed.insert(arn.to_owned(), statements);
        }
    }
    Ok(())
}

fn missing(at: &str, key: &str) -> ImportError {
    ImportError::shape(
        at,
        format!("{key} is missing"),
        "export the file again, unedited",
    )
}

fn identity(
    import: &mut Import,
    entry: &Value,
    kind: &str,
    inline: &str,
    managed: &Managed,
    at: &str,
) -> Result<Identity, ImportError> {
    let arn = text(entry, "Arn").ok_or_else(|| missing(at, "Arn"))?;
    let mut identity = Identity::new(Provider::Aws, kind, arn);
    let name = ["UserName", "RoleName", "GroupName"]
        .iter()
        .find_map(|key| text(entry, key));
    for (nr, policy) in list(entry, inline, at)?.iter().enumerate() {
        let at = format!("{at}.{inline}[{nr}]");
        let label = format!(
            "inline policy {} of {kind} {}",
            text(policy, "PolicyName").unwrap_or("without a name"),
            name.unwrap_or(arn)
        );
        let document = policy
            .get("PolicyDocument")
            .ok_or_else(|| missing(&at, "PolicyDocument"))?;
        identity
            .statements
            .extend(statements(document, &label, &at)?);
    }
    for policy in list(entry, "AttachedManagedPolicies", at)? {
        let policy_arn = text(policy, "PolicyArn").unwrap_or_default();
        match managed.get(policy_arn) {
            Some(statements) => identity.statements.extend(statements.iter().cloned()),
            None => import.note(format!(
                "{arn} has {policy_arn} attached, which the export does not contain: export \
                 without --filter"
            )),
        }
    }
    if let Some(bound) = entry
        .get("PermissionsBoundary")
        .and_then(|b| text(b, "PermissionsBoundaryArn"))
    {
        if !managed.contains_key(bound) {
            import.note(format!(
                "the boundary {bound} of {arn} is not in the export: everything counts as outside it"
            ));
        }
        identity.boundary = Some(managed.get(bound).cloned().unwrap_or_default());
    }
    let (account, _) = arn.split_once(&format!(":{kind}/")).unwrap_or((arn, ""));
    if kind == "user" {
        for (nr, one) in list(entry, "GroupList", at)?.iter().enumerate() {
            let one = one
                .as_str()
                .ok_or_else(|| missing(&format!("{at}.GroupList[{nr}]"), "the name"))?;
            identity.inherits.push(format!("{account}:group/{one}"));
        }
    }
    // A group's statements are its users': the variable is put in when they are looked at.
    if kind != "group" {
        personalise(&mut identity.statements, name.filter(|_| kind == "user"));
    }
    if let Some(name) = name {
        // Groups and access keys name their users, and users their groups, without the path.
        identity.names.push(format!("{account}:{kind}/{name}"));
    }
    if let Some(document) = entry.get("AssumeRolePolicyDocument") {
        identity.trusts = trusts(document, arn, &format!("{at}.AssumeRolePolicyDocument"))?;
        if let (Some(name), Some(account)) = (name, account_of(arn)) {
            let names = &mut identity.names;
            names.push(format!("arn:aws:sts::{account}:assumed-role/{name}"));
        }
    }
    for tag in list(entry, "Tags", at)? {
        if let (Some(key), Some(value)) = (text(tag, "Key"), text(tag, "Value")) {
            let plain = key.to_lowercase().replace(['-', '_', ' ', ':'], "");
            if OWNER_TAGS.contains(&plain.as_str()) {
                identity.owner_tags.insert(plain, value.to_owned());
            }
        }
    }
    Ok(identity)
}

/// Puts the user's name in for `${aws:username}`; a role has none, so there it may be anything.
fn personalise(statements: &mut [Statement], user: Option<&str>) {
    for resource in statements.iter_mut().flat_map(|s| &mut s.resources.list) {
        *resource = resource.replace(USER_NAME, user.unwrap_or("*"));
    }
}

/// A policy document: an object, or the API's URL-encoded text.
fn document(value: &Value, at: &str) -> Result<Value, ImportError> {
    match value {
        Value::String(encoded) => {
            let decoded = percent_decoded(encoded);
            serde_json::from_slice(&decoded).map_err(|_| {
                ImportError::shape(
                    at,
                    "the policy document is neither JSON nor URL-encoded JSON",
                    "export it with the AWS CLI",
                )
            })
        }
        other => Ok(other.clone()),
    }
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let hex = |b: Option<u8>| char::from(b.unwrap_or(0)).to_digit(16);
        if let (Some(high), Some(low)) = (hex(bytes.next()), hex(bytes.next())) {
            out.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
        }
    }
    out
}

fn statement_list(document: &Value, at: &str) -> Result<Vec<Value>, ImportError> {
    match document.get("Statement") {
        Some(Value::Array(list)) => Ok(list.clone()),
        Some(one @ Value::Object(_)) => Ok(vec![one.clone()]),
        _ => Err(ImportError::shape(
            at,
            "the policy has no Statement",
            "correct the policy or export it again",
        )),
    }
}

fn effect(statement: &Value, at: &str) -> Result<Effect, ImportError> {
    match text(statement, "Effect") {
        Some("Allow") => Ok(Effect::Allow),
        Some("Deny") => Ok(Effect::Deny),
        _ => Err(ImportError::shape(
            at,
            "Effect is neither Allow nor Deny",
            "correct the policy or export it again",
        )),
    }
}

fn label(statement: &Value, policy: &str, nr: usize) -> String {
    match text(statement, "Sid").filter(|sid| !sid.is_empty()) {
        Some(sid) => format!("{policy}, statement {sid}"),
        None => format!("{policy}, statement {}", nr + 1),
    }
}

fn statements(value: &Value, policy: &str, at: &str) -> Result<Vec<Statement>, ImportError> {
    let document = document(value, at)?;
    let mut all = Vec::new();
    for (nr, statement) in statement_list(&document, at)?.iter().enumerate() {
        let at = format!("{at} {policy} Statement[{nr}]");
        let mut actions = patterns(statement, "Action", "NotAction", &at)?;
        for action in &mut actions.list {
            // Action names do not distinguish case.
            *action = action.to_lowercase();
        }
        let mut resources = patterns(statement, "Resource", "NotResource", &at)?;
        let mut conditions = conditions(statement);
        for resource in &mut resources.list {
            if let Some(general) = without_variables(resource) {
                conditions.push("a policy variable in Resource".to_owned());
                *resource = general;
            }
        }
        all.push(Statement {
            effect: effect(statement, &at)?,
            actions,
            resources,
            conditions,
            source: label(statement, policy, nr),
        });
    }
    Ok(all)
}

/// `${aws:username}` stays for the user's name; any other variable becomes `*`.
fn without_variables(resource: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = resource;
    let mut replaced = false;
    while let Some(start) = rest.find("${") {
        let (before, from) = rest.split_at(start);
        let Some(end) = from.find('}') else { break };
        let (variable, after) = from.split_at(end + 1);
        out.push_str(before);
        match variable {
            USER_NAME => out.push_str(variable),
            // Escapes for the signs themselves: as wide as the pattern can say.
            _ => {
                out.push('*');
                replaced = true;
            }
        }
        rest = after;
    }
    out.push_str(rest);
    replaced.then_some(out)
}

fn patterns(statement: &Value, key: &str, not: &str, at: &str) -> Result<Patterns, ImportError> {
    match (statement.get(key), statement.get(not)) {
        (Some(value), None) => Ok(Patterns {
            list: texts(value, &format!("{at}.{key}"))?,
            negated: false,
        }),
        (None, Some(value)) => Ok(Patterns {
            list: texts(value, &format!("{at}.{not}"))?,
            negated: true,
        }),
        _ => Err(ImportError::shape(
            at,
            format!("exactly one of {key} and {not} must be there"),
            "correct the policy or export it again",
        )),
    }
}

/// Operators and keys; the values may be anything and are not kept.
fn conditions(statement: &Value) -> Vec<String> {
    let Some(Value::Object(operators)) = statement.get("Condition") else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for (operator, keys) in operators {
        for key in keys.as_object().into_iter().flatten().map(|(key, _)| key) {
            all.push(format!("{operator} {key}"));
        }
    }
    all
}

/// The account number in an ARN.
pub(super) fn account_of(arn: &str) -> Option<&str> {
    arn.split(':').nth(4).filter(|account| !account.is_empty())
}

fn trusts(value: &Value, role: &str, at: &str) -> Result<Vec<Trust>, ImportError> {
    let document = document(value, at)?;
    let mut all = Vec::new();
    for (nr, statement) in statement_list(&document, at)?.iter().enumerate() {
        let at = format!("{at} Statement[{nr}]");
        let actions = match statement.get("Action") {
            Some(actions) => texts(actions, &format!("{at}.Action"))?,
            None => continue,
        };
        let assumes = actions
            .iter()
            .any(|a| super::pattern::matches(&a.to_lowercase(), "sts:assumerole"));
        let effect = effect(statement, &at)?;
        for principal in principals(statement, &at)? {
            // Federated and service principals are no identities of this export.
            if !assumes {
                continue;
            }
            let root = principal
                .strip_prefix("arn:aws:iam::")
                .and_then(|rest| rest.strip_suffix(":root"));
            let account = root.or_else(|| {
                let number = principal.len() == 12 && principal.bytes().all(|b| b.is_ascii_digit());
                number.then_some(principal.as_str())
            });
            let (pattern, whole_account) = match account {
                Some(account) => (format!("arn:aws:*::{account}:*"), true),
                None => (principal.clone(), false),
            };
            let foreign = principal != "*" && account_of(&principal) != account_of(role);
            all.push(Trust {
                effect,
                principals: vec![pattern],
                needs_own: whole_account || foreign || principal == "*",
                conditions: conditions(statement),
                source: format!("trust policy of {role}, statement {}", nr + 1),
            });
        }
    }
    Ok(all)
}

/// `AWS` principals of a trust policy.
fn principals(statement: &Value, at: &str) -> Result<Vec<String>, ImportError> {
    match statement.get("Principal") {
        Some(Value::String(all)) => Ok(vec![all.clone()]),
        Some(Value::Object(kinds)) => match kinds.get("AWS") {
            Some(aws) => texts(aws, &format!("{at}.Principal.AWS")),
            None => Ok(Vec::new()),
        },
        _ => Ok(Vec::new()),
    }
}

/// Names under which an identity may be looked up when a log calls it `name`: an assumed role's
/// session is the role.
pub(super) fn log_names(name: &str) -> Vec<String> {
    let mut names = vec![name.to_owned()];
    if let Some((account, session)) = name.split_once(":assumed-role/")
        && let Some((role, _)) = session.split_once('/')
    {
        // Other partitions differ in the second field only.
        let account = account
            .replacen("aws-cn", "aws", 1)
            .replacen("aws-us-gov", "aws", 1);
        names.push(format!("{account}:assumed-role/{role}"));
    }
    for prefix in ["serviceAccount:", "user:"] {
        names.push(format!("{prefix}{name}"));
    }
    names
}

pub(super) fn access_keys(file: &Value) -> Result<Import, ImportError> {
    let mut import = Import::new(ImportKind::AwsAccessKeys);
    let pages: Vec<&Value> = match file {
        Value::Array(pages) => pages.iter().collect(),
        one => vec![one],
    };
    for (page_nr, page) in pages.iter().enumerate() {
        if page.get("AccessKeyMetadata").is_none() {
            return Err(ImportError::shape(
                format!("page {page_nr}"),
                "AccessKeyMetadata is missing",
                "give the output of aws iam list-access-keys, or a list of several",
            ));
        }
        for (nr, key) in list(page, "AccessKeyMetadata", "file")?.iter().enumerate() {
            let at = format!("AccessKeyMetadata[{nr}]");
            let id = text(key, "AccessKeyId").ok_or_else(|| missing(&at, "AccessKeyId"))?;
            let user = text(key, "UserName").ok_or_else(|| missing(&at, "UserName"))?;
            let id = CredentialId::aws_access_key(id).map_err(|e| {
                ImportError::shape(&at, e.to_string(), "export the file again, unedited")
            })?;
            match id.aws_account() {
                Some(account) => {
                    let arn = format!("arn:aws:iam::{account}:user/{user}");
                    import.links.push((id, arn));
                }
                None => import.note(format!(
                    "the id {id} does not tell its account (made before 2018): it is tied to its \
                     user by its first use"
                )),
            }
        }
    }
    Ok(import)
}

pub(super) fn last_accessed(file: &Value, about: Option<&str>) -> Result<Import, ImportError> {
    let mut import = Import::new(ImportKind::AwsLastAccessed);
    let Some(arn) = about else {
        return Err(ImportError::shape(
            "file",
            "the report does not say whose it is",
            "name the identity: --about ARN",
        ));
    };
    if file.get("ServicesLastAccessed").is_none() {
        return Err(ImportError::shape(
            "file",
            "ServicesLastAccessed is missing",
            "give the output of aws iam get-service-last-accessed-details",
        ));
    }
    let kind = if arn.contains(":role/") {
        "role"
    } else {
        "user"
    };
    let mut identity = Identity::new(Provider::Aws, kind, arn);
    for service in list(file, "ServicesLastAccessed", "file")? {
        if text(service, "LastAuthenticated").is_none()
            && let Some(namespace) = text(service, "ServiceNamespace")
        {
            identity.never_used.push(namespace.to_owned());
        }
    }
    import.identities.push(identity);
    Ok(import)
}
