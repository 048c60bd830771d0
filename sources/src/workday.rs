//! Workday: activity logging.
//!
//! Source: Workday REST, `privacy/v1/activityLogging`.

use keytrail_model::consumption::ActionClass;

use crate::doc::Doc;
use crate::make::{self, Chain, Context, Found, Outcome, found};
use crate::{Rejection, Skip, SourceKind, text};

pub(crate) fn read(doc: &Doc<'_>, cx: &Context<'_>) -> Outcome {
    let action = doc.get("activityAction").text();
    let task = doc.first(&["taskDisplayName", "taskId"]);
    let Some(name) = action.or(task) else {
        return Err(Rejection::NoEvent);
    };
    let time = make::time_of(doc, &["requestTime", "timestamp", "p_event_time"])
        .ok_or(Rejection::BadTime)?;
    let session = doc.get("sessionId").id();
    let chain = Chain::default()
        .then(session.and_then(|id| make::session("workday", &id)))
        .then(
            doc.get("systemAccount")
                .text()
                .and_then(|who| make::principal("workday", who)),
        );
    let Some(mut usage) = chain.usage(SourceKind::Workday.as_str(), None, time, cx) else {
        return Ok(Found::Skip(Skip::NoCredential));
    };
    let target = doc.get("target");
    usage.caller = make::caller(doc.get("ipAddress").text());
    usage.user_agent = make::kept(doc.first(&["userAgent", "deviceType"]));
    usage.service = "workday.com".to_owned();
    usage.action = text::kept(name);
    usage.resources = make::resources([task, target.text(), target.first(&["descriptor", "id"])]);
    usage.principal = make::kept(doc.get("systemAccount").text());
    usage.account = make::kept(cx.options.tenant.as_deref());
    let lower = task.unwrap_or_default().to_ascii_lowercase();
    usage.class = if lower.contains("security") || lower.contains("domain policy") {
        ActionClass::PermissionChange
    } else {
        ActionClass::Other
    };
    usage.endpoints = make::endpoints(&["workday.com", "myworkday.com"], cx.options);
    Ok(found(usage, false))
}
