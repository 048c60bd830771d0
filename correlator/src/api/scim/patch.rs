//! PATCH (RFC 7644 section 3.5.2), with the variants that directories send: operations in any case
//! and `"active": "False"` (Entra), paths as keys of a value without a path.

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::ScimError;
use super::filter::{self, Filter};

/// Operations of one request at most.
const MAX_OPERATIONS: usize = 1_000;
/// Attributes that only the service writes.
const READ_ONLY: [&str; 3] = ["id", "meta", "schemas"];
/// Names as RFC 7643 writes them, for clients that write them otherwise.
const NAMES: [&str; 18] = [
    "userName",
    "displayName",
    "nickName",
    "profileUrl",
    "title",
    "userType",
    "preferredLanguage",
    "locale",
    "timezone",
    "active",
    "emails",
    "phoneNumbers",
    "groups",
    "members",
    "name",
    "externalId",
    "schemas",
    "id",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Add,
    Replace,
    Remove,
}

/// A path: `attr`, `attr.sub`, `attr[filter]`, `attr[filter].sub`, with or without a schema.
struct Target {
    segments: Vec<String>,
    filter: Option<Filter>,
    sub: Option<String>,
}

/// Gives members their names as the standard writes them; texts in `active` become truth values.
pub(super) fn canonical(members: &mut Map<String, Value>) {
    let found: Vec<(String, &str)> = members
        .keys()
        .filter_map(|key| {
            let name = NAMES.iter().find(|name| name.eq_ignore_ascii_case(key))?;
            (*name != key).then(|| (key.clone(), *name))
        })
        .collect();
    for (key, name) in found {
        if let Some(value) = members.remove(&key) {
            members.entry(name).or_insert(value);
        }
    }
    if let Some(active) = members.get_mut("active")
        && let Some(text) = active.as_str()
    {
        *active = json!(text.eq_ignore_ascii_case("true"));
    }
}

/// Applies every operation, or none.
pub(super) fn apply(
    members: &mut Map<String, Value>,
    request: &Map<String, Value>,
) -> Result<(), ScimError> {
    let request = Value::Object(request.clone());
    let operations = filter::member(&request, "Operations")
        .and_then(Value::as_array)
        .ok_or_else(|| ScimError::bad("invalidSyntax", "Operations is missing"))?;
    if operations.len() > MAX_OPERATIONS {
        return Err(ScimError::bad(
            "tooMany",
            format!("more than {MAX_OPERATIONS} operations"),
        ));
    }
    let mut resource = Value::Object(members.clone());
    for (nr, operation) in operations.iter().enumerate() {
        one(&mut resource, operation).map_err(|e| ScimError {
            detail: format!("Operations[{nr}]: {}", e.detail),
            ..e
        })?;
    }
    if let Value::Object(changed) = resource {
        *members = changed;
    }
    Ok(())
}

fn one(resource: &mut Value, operation: &Value) -> Result<(), ScimError> {
    let name = filter::member(operation, "op").and_then(Value::as_str);
    let change = match name.map(str::to_lowercase).as_deref() {
        Some("add") => Change::Add,
        Some("replace") => Change::Replace,
        Some("remove") => Change::Remove,
        _ => {
            return Err(ScimError::bad(
                "invalidSyntax",
                "op is none of add, replace, remove",
            ));
        }
    };
    let value = filter::member(operation, "value");
    let path = filter::member(operation, "path").and_then(Value::as_str);
    match (path.filter(|path| !path.is_empty()), change, value) {
        (Some(path), _, value) => at(resource, path, change, value),
        (None, Change::Remove, _) => Err(ScimError::bad("noTarget", "remove needs a path")),
        (None, _, Some(Value::Object(values))) => {
            for (path, value) in values {
                // What only the service writes comes along in whole resources: passed over.
                let own = READ_ONLY.iter().any(|name| name.eq_ignore_ascii_case(path));
                if !own {
                    at(resource, path, change, Some(value))?;
                }
            }
            Ok(())
        }
        (None, _, _) => Err(ScimError::bad(
            "invalidValue",
            "without a path the value must be an object",
        )),
    }
}

fn target(path: &str) -> Result<Target, ScimError> {
    let bad = |detail: String| ScimError::bad("invalidPath", detail);
    let Some((attribute, rest)) = path.split_once('[') else {
        let segments = filter::path(path);
        if segments.iter().any(String::is_empty) {
            return Err(bad(format!("{path:?} is no path")));
        }
        return Ok(Target {
            segments,
            filter: None,
            sub: None,
        });
    };
    let (inside, after) = rest
        .rsplit_once(']')
        .ok_or_else(|| bad("] is missing".to_owned()))?;
    let filter = filter::parse(inside).map_err(|e| ScimError::bad("invalidPath", e.to_string()))?;
    let sub = match after.strip_prefix('.') {
        Some(sub) if !sub.is_empty() => Some(sub.to_owned()),
        None if after.is_empty() => None,
        _ => return Err(bad("only .name may follow ]".to_owned())),
    };
    Ok(Target {
        segments: filter::path(attribute),
        filter: Some(filter),
        sub,
    })
}

fn at(
    resource: &mut Value,
    path: &str,
    change: Change,
    value: Option<&Value>,
) -> Result<(), ScimError> {
    let target = target(path)?;
    let first = target.segments.first().map_or("", String::as_str);
    if READ_ONLY
        .iter()
        .any(|name| name.eq_ignore_ascii_case(first))
    {
        return Err(ScimError::bad(
            "mutability",
            format!("{first} cannot be changed"),
        ));
    }
    if first.eq_ignore_ascii_case("password") {
        // Nothing here is signed in to with a password: it is not kept.
        return Ok(());
    }
    if change != Change::Remove && value.is_none() {
        return Err(ScimError::bad("invalidValue", "value is missing"));
    }
    let Some((last, above)) = target.segments.split_last() else {
        return Err(ScimError::bad("invalidPath", "the path is empty"));
    };
    let mut holder = resource;
    for name in above {
        holder = entry(holder, name, json!({}))
            .ok_or_else(|| ScimError::bad("invalidPath", format!("{name} holds no attributes")))?;
    }
    match &target.filter {
        Some(filter) => elements(holder, last, filter, target.sub.as_deref(), change, value),
        None => plain(holder, last, change, value),
    }
}

/// A member by its name in any case, made when it is absent.
fn entry<'v>(value: &'v mut Value, name: &str, fresh: Value) -> Option<&'v mut Value> {
    let members = value.as_object_mut()?;
    let key = members
        .keys()
        .find(|key| key.eq_ignore_ascii_case(name))
        .cloned()
        .or_else(|| {
            let known = NAMES.iter().find(|known| known.eq_ignore_ascii_case(name));
            known.map(|known| (*known).to_owned())
        })
        .unwrap_or_else(|| name.to_owned());
    Some(members.entry(key).or_insert(fresh))
}

fn plain(
    holder: &mut Value,
    name: &str,
    change: Change,
    value: Option<&Value>,
) -> Result<(), ScimError> {
    let no_place = || ScimError::bad("invalidPath", format!("{name} has no place there"));
    if change == Change::Remove {
        remove(holder, name, value);
        return Ok(());
    }
    let value = value.cloned().unwrap_or(Value::Null);
    let place = entry(holder, name, Value::Null).ok_or_else(no_place)?;
    match (change, &mut *place, value) {
        (Change::Add, Value::Array(list), Value::Array(more)) => {
            more.into_iter().for_each(|one| insert(list, one))
        }
        (Change::Add, Value::Array(list), one) => insert(list, one),
        (Change::Add, Value::Object(members), Value::Object(more)) => members.extend(more),
        (_, place, value) => *place = value,
    }
    Ok(())
}

/// An element that is there already (by its `value`, or whole) is not added again.
fn insert(list: &mut Vec<Value>, one: Value) {
    let id = filter::member(&one, "value").cloned();
    let known = list.iter().any(|known| match &id {
        Some(id) => filter::member(known, "value") == Some(id),
        None => *known == one,
    });
    if !known {
        list.push(one);
    }
}

fn remove(holder: &mut Value, name: &str, value: Option<&Value>) {
    let Some(members) = holder.as_object_mut() else {
        return;
    };
    let key = members
        .keys()
        .find(|key| key.eq_ignore_ascii_case(name))
        .cloned();
    let Some(key) = key else { return };
    // `"path": "members", "value": [{"value": id}]` takes out these only (Entra).
    if let (Some(Value::Array(list)), Some(Value::Array(gone))) = (members.get_mut(&key), value) {
        let ids: Vec<&Value> = gone
            .iter()
            .filter_map(|g| filter::member(g, "value"))
            .collect();
        list.retain(|one| {
            !filter::member(one, "value").is_some_and(|id| ids.contains(&id)) && !gone.contains(one)
        });
        return;
    }
    members.remove(&key);
}

/// `attr[filter]` and `attr[filter].sub`.
fn elements(
    holder: &mut Value,
    name: &str,
    filter: &Filter,
    sub: Option<&str>,
    change: Change,
    value: Option<&Value>,
) -> Result<(), ScimError> {
    let list = entry(holder, name, json!([]))
        .and_then(Value::as_array_mut)
        .ok_or_else(|| ScimError::bad("invalidPath", format!("{name} is no list")))?;
    if change == Change::Remove {
        match sub {
            None => list.retain(|element| !filter.holds(element)),
            Some(sub) => list
                .iter_mut()
                .filter(|element| filter.holds(element))
                .for_each(|element| remove(element, sub, None)),
        }
        return Ok(());
    }
    let value = value.cloned().unwrap_or(Value::Null);
    let mut hit = false;
    for element in list.iter_mut().filter(|element| filter.holds(element)) {
        hit = true;
        match sub {
            Some(sub) => plain(element, sub, Change::Replace, Some(&value))?,
            None => match (element.as_object_mut(), &value) {
                (Some(members), Value::Object(more)) => members.extend(more.clone()),
                _ => *element = value.clone(),
            },
        }
    }
    if hit {
        return Ok(());
    }
    // Nothing fits. Directories expect that `emails[type eq "work"].value` then makes the element.
    let (Filter::Compare(path, filter::Operator::Eq, wanted), Some(sub)) = (filter, sub) else {
        return Err(ScimError::new(
            StatusCode::BAD_REQUEST,
            Some("noTarget"),
            format!("no element of {name} fits"),
        ));
    };
    let mut element = Map::new();
    element.insert(path.join("."), wanted.clone());
    element.insert(sub.to_owned(), value);
    list.push(Value::Object(element));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patched(operations: Value) -> Result<Value, String> {
        let user = json!({
            "id": "1", "userName": "ana", "active": true, "name": {"givenName": "Ana"},
            "emails": [{"type": "work", "value": "a@x"}],
            "members": [{"value": "u1"}, {"value": "u2"}],
        });
        let Value::Object(mut members) = user else {
            unreachable!()
        };
        let request = json!({"schemas": [], "Operations": operations});
        apply(&mut members, request.as_object().unwrap())
            .map_err(|e| format!("{} {}", e.scim_type.unwrap_or(""), e.detail))?;
        canonical(&mut members);
        Ok(Value::Object(members))
    }

    #[test]
    fn operations() {
        for (operation, pointer, expected) in [
            (
                json!({"op": "replace", "path": "active", "value": false}),
                "/active",
                json!(false),
            ),
            (
                json!({"op": "Replace", "path": "active", "value": "False"}),
                "/active",
                json!(false),
            ),
            (
                json!({"op": "replace", "value": {"active": false, "id": "9"}}),
                "/active",
                json!(false),
            ),
            (
                json!({"op": "add", "path": "name.familyName", "value": "R"}),
                "/name/familyName",
                json!("R"),
            ),
            (
                json!({"op": "replace", "value": {"name.givenName": "B"}}),
                "/name/givenName",
                json!("B"),
            ),
            (
                json!({"op": "replace", "path": "emails[type eq \"work\"].value", "value": "b@x"}),
                "/emails/0/value",
                json!("b@x"),
            ),
            (
                json!({"op": "add", "path": "emails[type eq \"home\"].value", "value": "c@x"}),
                "/emails/1/value",
                json!("c@x"),
            ),
            (
                json!({"op": "add", "path": "emails", "value": [{"type": "work", "value": "a@x"}]}),
                "/emails/1",
                Value::Null,
            ),
            (
                json!({"op": "add", "path": "members", "value": [{"value": "u2"}, {"value": "u3"}]}),
                "/members/2/value",
                json!("u3"),
            ),
            (
                json!({"op": "remove", "path": "members[value eq \"u1\"]"}),
                "/members/0/value",
                json!("u2"),
            ),
            (
                json!({"op": "Remove", "path": "members", "value": [{"value": "u1"}]}),
                "/members/0/value",
                json!("u2"),
            ),
            (
                json!({"op": "remove", "path": "members"}),
                "/members",
                Value::Null,
            ),
            (
                json!({"op": "remove", "path": "name.givenName"}),
                "/name/givenName",
                Value::Null,
            ),
            (
                json!({"op": "add", "path": "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:department", "value": "Pay"}),
                "/urn:ietf:params:scim:schemas:extension:enterprise:2.0:User/department",
                json!("Pay"),
            ),
            (
                json!({"op": "replace", "path": "USERNAME", "value": "bo"}),
                "/userName",
                json!("bo"),
            ),
            (
                json!({"op": "add", "path": "password", "value": "SECRET-VALUE"}),
                "/password",
                Value::Null,
            ),
        ] {
            let said = operation.to_string();
            let result = patched(json!([operation])).unwrap();
            let found = result.pointer(pointer).cloned().unwrap_or(Value::Null);
            assert_eq!(found, expected, "{said}: {result}");
            assert_eq!(result["id"], "1");
            assert!(!result.to_string().contains("SECRET-VALUE"));
        }
    }

    #[test]
    fn refusals() {
        for (operation, words) in [
            (
                json!({"op": "move"}),
                "invalidSyntax Operations[0]: op is none of",
            ),
            (json!({"op": "remove"}), "noTarget"),
            (
                json!({"op": "replace", "path": "id", "value": "2"}),
                "mutability",
            ),
            (
                json!({"op": "replace", "path": "emails[type", "value": "2"}),
                "invalidPath",
            ),
            (
                json!({"op": "replace", "path": "emails[value pr and type eq \"x\"]", "value": {}}),
                "noTarget",
            ),
            (json!({"op": "add", "path": "title"}), "invalidValue"),
            (json!({"op": "add", "value": "x"}), "invalidValue"),
            (
                json!({"op": "add", "path": "userName.x", "value": "x"}),
                "invalidPath",
            ),
        ] {
            let error = patched(json!([operation.clone()])).unwrap_err();
            assert!(error.contains(words), "{operation}: {error}");
        }
    }
}
