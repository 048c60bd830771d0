//! What a fuzzer does to SCIM: filters and PATCH bodies.

use serde_json::{Map, Value, json};

use super::filter;
use super::patch;

fn person() -> Map<String, Value> {
    let person = json!({
        "userName": "ana@corp.example", "active": true,
        "name": {"givenName": "Ana", "familyName": "Berg"},
        "emails": [{"type": "work", "value": "ana@corp.example", "primary": true}],
        "groups": [{"value": "eng", "display": "Engineering"}],
    });
    person.as_object().cloned().unwrap_or_default()
}

/// A filter: refused, or applied, twice the same.
///
/// # Panics
/// When it is not.
pub fn filter(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let read = filter::parse(text);
    assert!(
        read == filter::parse(text),
        "read otherwise the second time"
    );
    let _path = filter::path(text);
    if let Ok(filter) = read {
        let person = Value::Object(person());
        assert!(
            filter.holds(&person) == filter.holds(&person),
            "another answer the second time"
        );
        let _name = filter.user_name();
    }
}

/// A PATCH body: applied as a whole, or refused without a trace.
///
/// # Panics
/// When a refused one changed the person.
pub fn patch(data: &[u8]) {
    let Ok(Value::Object(request)) = serde_json::from_slice(data) else {
        return;
    };
    let mut members = person();
    if patch::apply(&mut members, &request).is_err() {
        assert!(members == person(), "a refused patch changed the person");
    }
    patch::canonical(&mut members);
    let once = members.clone();
    patch::canonical(&mut members);
    assert!(members == once, "canonical names are made canonical again");
}
