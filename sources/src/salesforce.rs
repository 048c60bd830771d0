//! Salesforce: EventLogFile (CSV or JSON, names in capitals) and real-time event monitoring
//! (`LoginEvent`, `ApiEvent`, ...: names in camel case).
//!
//! Session and login keys are opaque: a host cannot tell them from its token, so they join uses to
//! one another, and the account joins them to a host.
//!
//! Source: Object Reference, "EventLogFile supported event types"; "Real-Time Event Monitoring
//! objects".

use keytrail_model::consumption::{ActionClass, Caller, Outcome as Ended};

use crate::doc::Doc;
use crate::make::{self, Chain, Context, Found, Outcome, found};
use crate::{Rejection, Skip, SourceKind, text};

pub(crate) fn read(doc: &Doc<'_>, cx: &Context<'_>) -> Outcome {
    // Streaming, an event relay to EventBridge and the Pub/Sub API put the event below, and name
    // it beside it, if at all (`/event/ApiEventStream`).
    let stream = doc.first(&["channel", "detail-type", "topic_name"]);
    let stream = stream.and_then(|name| name.rsplit('/').next());
    let below = [
        doc.at(&["data", "payload"]),
        doc.at(&["detail", "payload"]),
        doc.get("payload"),
    ];
    let doc = below.into_iter().find(|doc| doc.is_object()).unwrap_or(doc);
    let named = doc.at(&["attributes", "type"]).text();
    let named = named.or(stream.map(|name| name.strip_suffix("Stream").unwrap_or(name)));
    let event = doc.first(&["EVENT_TYPE", "EventType"]).or(named);
    let user = doc.first(&["USER_ID", "USER_ID_DERIVED", "UserId"]);
    let shape = doc.first(&[
        "SESSION_KEY",
        "LOGIN_KEY",
        "SessionKey",
        "LoginKey",
        "EventIdentifier",
        "REQUEST_ID",
    ]);
    if event.is_none() && (user.is_none() || shape.is_none()) {
        return Err(Rejection::NoEvent);
    }
    let time = make::time_of(
        doc,
        &[
            "TIMESTAMP_DERIVED",
            "EventDate",
            "TIMESTAMP",
            "CreatedDate",
            "LoginTime",
            "p_event_time",
        ],
    )
    .ok_or(Rejection::BadTime)?;
    let status = doc.first(&["LOGIN_STATUS", "Status", "LoginStatus"]);
    let refused = status.is_some_and(|s| {
        let s = s.to_ascii_uppercase();
        s.starts_with("LOGIN_") && s != "LOGIN_NO_ERROR"
            || s.starts_with("INVALID")
            || s.starts_with("FAILED")
    });
    let login = event.is_some_and(|e| e.to_ascii_lowercase().starts_with("login"));
    if refused && login {
        return Ok(Found::Skip(Skip::NotAuthenticated));
    }
    let id = doc.first(&["EventIdentifier", "EVENT_IDENTIFIER", "EventUuid"]);
    let session = |names: &[&str]| {
        doc.first(names)
            .and_then(|id| make::session("salesforce", id))
    };
    let account = |names: &[&str]| {
        doc.first(names)
            .map(short_id)
            .and_then(|id| make::principal("salesforce", id))
    };
    let chain = Chain::default()
        .then(session(&["SESSION_KEY", "SessionKey"]))
        .then(session(&["LOGIN_KEY", "LoginKey", "LoginHistoryId"]))
        // An administrator in somebody's place is the one who acts.
        .then(account(&[
            "DELEGATED_USER_ID_DERIVED",
            "DELEGATED_USER_ID",
            "DelegatedUserId",
        ]))
        .then(
            user.map(short_id)
                .and_then(|id| make::principal("salesforce", id)),
        )
        .then(account(&["USER_NAME", "Username", "DELEGATED_USER_NAME"]));
    let Some(mut usage) = chain.usage(SourceKind::Salesforce.as_str(), id, time, cx) else {
        return Ok(Found::Skip(Skip::NoCredential));
    };
    usage.caller = caller(doc);
    usage.user_agent = make::kept(doc.first(&[
        "USER_AGENT",
        "UserAgent",
        "BROWSER_TYPE",
        "Browser",
        "CLIENT_NAME",
        "Client",
    ]));
    usage.service = "salesforce.com".to_owned();
    usage.action = text::kept(event.unwrap_or("event"));
    usage.resources = make::resources([
        doc.first(&["URI", "Uri", "API_RESOURCE", "METHOD_NAME"]),
        doc.first(&["ENTITY_NAME", "QueriedEntities", "EntityName"]),
        doc.first(&["CONNECTED_APP_ID", "ConnectedAppId", "CONNECTED_APP_NAME"]),
    ]);
    let code = doc.first(&["STATUS_CODE", "REQUEST_STATUS", "ERROR_CODE"]);
    let failed = code
        .is_some_and(|c| c.parse::<u16>().is_ok_and(|c| c >= 400) || matches!(c, "F" | "U" | "A"));
    usage.outcome = match code {
        Some(code) if failed => Ended::Failure(text::kept(code)),
        _ => Ended::Success,
    };
    usage.principal = make::kept(doc.first(&[
        "USER_NAME",
        "Username",
        "USER_ID_DERIVED",
        "USER_ID",
        "UserId",
    ]));
    usage.account = make::kept(
        doc.first(&["ORGANIZATION_ID", "OrganizationId"])
            .or(cx.options.tenant.as_deref()),
    );
    usage.class = class(usage.action.as_str());
    usage.endpoints = make::endpoints(
        &["salesforce.com", "force.com", "salesforce-sites.com"],
        cx.options,
    );
    Ok(found(usage, id.is_some()))
}

/// An id of 18 characters is one of 15 with a checksum: both stand for one account.
fn short_id(id: &str) -> &str {
    match id.get(..15) {
        Some(short) if id.len() == 18 && id.bytes().all(|b| b.is_ascii_alphanumeric()) => short,
        _ => id,
    }
}

/// The client's address; where that is Salesforce's own (`Salesforce.com IP`), the login's.
fn caller(doc: &Doc<'_>) -> Caller {
    let names = ["CLIENT_IP", "SourceIp", "SOURCE_IP", "ClientIp", "LoginIp"];
    let mut own = false;
    for name in names {
        let Some(value) = doc.get(name).text() else {
            continue;
        };
        if let Some(address) = text::address(value) {
            return Caller::Address { address };
        }
        own |= value.to_ascii_lowercase().starts_with("salesforce.com");
    }
    if own {
        make::service_caller("salesforce.com")
    } else {
        Caller::Unknown
    }
}

fn class(event: &str) -> ActionClass {
    let event = event.to_ascii_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| event.contains(part));
    if event.starts_with("logout") {
        ActionClass::Revoke
    } else if event.starts_with("login") {
        ActionClass::Mint
    } else if has(&["permissionset", "setupaudit", "permissionsetevent"]) {
        ActionClass::PermissionChange
    } else if has(&["listview"]) {
        ActionClass::List
    } else {
        ActionClass::Other
    }
}
