//! What this service provider can do (RFC 7643 sections 5 to 7).

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use super::{MAX_PAGE, answer};

pub(super) async fn provider() -> Response {
    answer(
        StatusCode::OK,
        &json!({
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"],
            "patch": {"supported": true},
            "bulk": {"supported": false, "maxOperations": 0, "maxPayloadSize": 0},
            "filter": {"supported": true, "maxResults": MAX_PAGE},
            "changePassword": {"supported": false},
            "sort": {"supported": false},
            "etag": {"supported": false},
            "authenticationSchemes": [{
                "type": "oauthbearertoken",
                "name": "Bearer token",
                "description": "The content of `<data-dir>/scim-token`",
                "primary": true,
            }],
            "meta": {"resourceType": "ServiceProviderConfig"},
        }),
    )
}

pub(super) async fn resource_types() -> Response {
    let kinds = [("User", "userName"), ("Group", "displayName")].map(|(name, _)| {
        json!({
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ResourceType"],
            "id": name,
            "name": name,
            "endpoint": format!("/{name}s"),
            "schema": format!("urn:ietf:params:scim:schemas:core:2.0:{name}"),
            "meta": {"resourceType": "ResourceType", "location": format!("/scim/v2/ResourceTypes/{name}")},
        })
    });
    answer(StatusCode::OK, &listed(kinds.to_vec()))
}

pub(super) async fn schemas() -> Response {
    let text = |name: &str, required: bool, uniqueness: &str| {
        json!({
            "name": name, "type": "string", "multiValued": false, "required": required,
            "caseExact": false, "mutability": "readWrite", "returned": "default",
            "uniqueness": uniqueness,
        })
    };
    let complex = |name: &str, multi: bool, subs: &[&str]| {
        let subs: Vec<Value> = subs.iter().map(|sub| text(sub, false, "none")).collect();
        json!({
            "name": name, "type": "complex", "multiValued": multi, "required": false,
            "mutability": "readWrite", "returned": "default", "subAttributes": subs,
        })
    };
    let active = json!({
        "name": "active", "type": "boolean", "multiValued": false, "required": false,
        "mutability": "readWrite", "returned": "default",
    });
    let all = vec![
        schema(
            "urn:ietf:params:scim:schemas:core:2.0:User",
            "User",
            vec![
                text("userName", true, "server"),
                text("displayName", false, "none"),
                text("title", false, "none"),
                text("externalId", false, "none"),
                active,
                complex("name", false, &["formatted", "givenName", "familyName"]),
                complex("emails", true, &["value", "type"]),
            ],
        ),
        schema(
            "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User",
            "EnterpriseUser",
            vec![
                text("department", false, "none"),
                complex("manager", false, &["value", "displayName"]),
            ],
        ),
        schema(
            "urn:ietf:params:scim:schemas:core:2.0:Group",
            "Group",
            vec![
                text("displayName", true, "none"),
                complex("members", true, &["value", "display"]),
            ],
        ),
    ];
    answer(StatusCode::OK, &listed(all))
}

fn schema(id: &str, name: &str, attributes: Vec<Value>) -> Value {
    json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:Schema"],
        "id": id,
        "name": name,
        "attributes": attributes,
        "meta": {"resourceType": "Schema", "location": format!("/scim/v2/Schemas/{id}")},
    })
}

fn listed(resources: Vec<Value>) -> Value {
    json!({
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:ListResponse"],
        "totalResults": resources.len(),
        "startIndex": 1,
        "itemsPerPage": resources.len(),
        "Resources": resources,
    })
}
