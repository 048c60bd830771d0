//! A directory provisions people over SCIM, and alerts name them at once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    missing_docs,
    dead_code,
    reason = "test code: it fails by panicking and has no public interface"
)]

mod common;

use common::{KEY, Rig, minutes_ago};
use serde_json::{Value, json};

struct Directory<'r> {
    rig: &'r Rig,
    bearer: String,
}

impl Directory<'_> {
    async fn call(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let text = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let path = format!("/scim/v2{path}");
        let (status, said) = self
            .rig
            .send_as(&self.bearer, method, &path, text.as_bytes())
            .await;
        (status, serde_json::from_str(&said).unwrap_or(Value::Null))
    }
}

fn user(name: &str, display: &str) -> Value {
    json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
        "userName": name, "displayName": display, "password": "SECRET-VALUE", "active": true,
        "emails": [{"type": "work", "value": name, "primary": true}],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn people_come_change_and_leave() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path()).await;
    rig.holder("laptop", minutes_ago(10)).await;
    let devices = b"host,owner\nlaptop,ana@acme.example\n";
    assert_eq!(
        rig.send("PUT", "/v1/owners/imports/d?kind=devices", devices)
            .await
            .0,
        200
    );
    let token = std::fs::read_to_string(rig.data.join("scim-token")).unwrap();
    let scim = Directory {
        rig: &rig,
        bearer: format!("Bearer {token}"),
    };

    let (status, boss) = scim
        .call("POST", "/Users", &user("bo@acme.example", "Bo"))
        .await;
    assert_eq!(status, 201, "{boss}");
    let (status, ana) = scim
        .call("POST", "/Users", &user("ana@acme.example", "Ana"))
        .await;
    assert_eq!(status, 201);
    assert!(
        ana["password"].is_null() && ana["meta"]["location"].is_string(),
        "{ana}"
    );
    let at = format!("/Users/{}", ana["id"].as_str().unwrap());

    let of = format!("/v1/owners/of/aws-access-key:{KEY}");
    let owner = rig.get(&of).await["ownership"]["endpoint"][0].clone();
    assert_eq!(owner["person"]["name"], "Ana");

    let (status, said) = scim
        .call("POST", "/Users", &user("ANA@acme.example", "x"))
        .await;
    assert_eq!(
        (status, said["scimType"].as_str()),
        (409, Some("uniqueness"))
    );
    let patch = json!({"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": [
        {"op": "Replace", "path": "active", "value": "False"},
        {"op": "Add", "path": "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:manager",
         "value": {"value": boss["id"]}},
    ]});
    let (status, changed) = scim.call("PATCH", &at, &patch).await;
    assert_eq!(
        (status, &changed["active"]),
        (200, &json!(false)),
        "{changed}"
    );
    assert_eq!(changed["meta"]["created"], ana["meta"]["created"]);
    let owner = rig.get(&of).await["ownership"]["endpoint"][0].clone();
    assert_eq!(owner["person"]["active"], false);
    assert_eq!(owner["manager"]["name"], "Bo");

    let filter = "/Users?filter=userName%20eq%20%22ana@acme.example%22&attributes=userName";
    let (status, list) = scim.call("GET", filter, &Value::Null).await;
    assert_eq!((status, &list["totalResults"]), (200, &json!(1)));
    let first = &list["Resources"][0];
    assert!(first["displayName"].is_null() && first["id"].is_string());
    let (_, page) = scim
        .call("GET", "/Users?startIndex=2&count=1", &Value::Null)
        .await;
    assert_eq!(
        (&page["totalResults"], &page["itemsPerPage"]),
        (&json!(2), &json!(1))
    );
    let (_, none) = scim.call("GET", "/Users?count=0", &Value::Null).await;
    assert_eq!(
        (&none["totalResults"], &none["itemsPerPage"]),
        (&json!(2), &json!(0))
    );

    let group = json!({"displayName": "payments", "members": [{"value": ana["id"]}]});
    let (status, group) = scim.call("POST", "/Groups", &group).await;
    assert_eq!(status, 201);
    let path = format!("members[value eq {}]", ana["id"]);
    let members = json!({"Operations": [{"op": "remove", "path": path}]});
    let path = format!("/Groups/{}", group["id"].as_str().unwrap());
    let (status, group) = scim.call("PATCH", &path, &members).await;
    assert_eq!(
        (status, group["members"].as_array().unwrap().len()),
        (200, 0)
    );

    assert_eq!(scim.call("DELETE", &at, &Value::Null).await.0, 204);
    let (status, gone) = scim.call("GET", &at, &Value::Null).await;
    assert_eq!((status, gone["status"].as_str()), (404, Some("404")));
    let owner = rig.get(&of).await["ownership"]["endpoint"][0].clone();
    assert_eq!(owner["in_directory"], false);

    rig.server.crash().await;
    let rig = Rig::start(dir.path()).await;
    let scim = Directory {
        rig: &rig,
        bearer: format!("Bearer {token}"),
    };
    let (_, list) = scim.call("GET", "/Users", &Value::Null).await;
    assert_eq!(
        list["totalResults"], 1,
        "what was acknowledged is there after a kill"
    );
    rig.server.stop().await;
    let store = std::fs::read(dir.path().join("data/keytrail.db")).unwrap();
    assert!(store.windows(3).any(|bytes| bytes == b"bo@"));
    assert!(!store.windows(12).any(|bytes| bytes == b"SECRET-VALUE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_speak_the_protocol() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::start(dir.path()).await;
    let token = std::fs::read_to_string(rig.data.join("scim-token")).unwrap();
    let good = Directory {
        rig: &rig,
        bearer: format!("Bearer {token}"),
    };
    // The API's own token is another one, and this one is none of the API's.
    let api = Directory {
        rig: &rig,
        bearer: rig.bearer(),
    };
    let (status, said) = api.call("GET", "/Users", &Value::Null).await;
    let error = "urn:ietf:params:scim:api:messages:2.0:Error";
    assert_eq!((status, said["schemas"][0].as_str()), (401, Some(error)));
    let (status, _) = rig.send_as(&good.bearer, "GET", "/v1/alerts", b"").await;
    assert_eq!(status, 401);
    for (method, path, body, status, scim_type) in [
        (
            "POST",
            "/Users",
            json!({"displayName": "x"}),
            400,
            Some("invalidValue"),
        ),
        ("POST", "/Users", json!([1]), 400, Some("invalidSyntax")),
        ("POST", "/Things", json!({}), 404, None),
        ("GET", "/Users/none", Value::Null, 404, None),
        (
            "GET",
            "/Users?filter=userName",
            Value::Null,
            400,
            Some("invalidFilter"),
        ),
        (
            "GET",
            "/Users?startIndex=x",
            Value::Null,
            400,
            Some("invalidValue"),
        ),
        ("PATCH", "/Users/none", json!({"Operations": []}), 404, None),
    ] {
        let (got, said) = good.call(method, path, &body).await;
        assert_eq!(
            (got, said["scimType"].as_str()),
            (status, scim_type),
            "{method} {path}: {said}"
        );
        assert!(said["detail"].is_string(), "{said}");
    }
    for path in ["/ServiceProviderConfig", "/ResourceTypes", "/Schemas"] {
        assert_eq!(good.call("GET", path, &Value::Null).await.0, 200, "{path}");
    }
    rig.server.stop().await;
}
