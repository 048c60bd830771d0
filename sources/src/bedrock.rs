//! Amazon Bedrock's model invocation log.
//!
//! It names the caller by ARN only, without key or address; prompts and answers are not looked at.
//!
//! Source: "Monitor model invocation using CloudWatch Logs and Amazon S3".

use keytrail_model::consumption::{ActionClass, Outcome as Ended};

use crate::doc::Doc;
use crate::make::{self, Chain, Context, Found, Outcome, found};
use crate::{Rejection, Skip, SourceKind, aws, text};

pub(crate) fn read(doc: &Doc<'_>, cx: &Context<'_>) -> Outcome {
    let (Some(operation), Some(model)) = (doc.get("operation").text(), doc.get("modelId").text())
    else {
        return Err(Rejection::NoEvent);
    };
    let time = make::time_of(doc, &["timestamp", "p_event_time"]).ok_or(Rejection::BadTime)?;
    let arn = doc.at(&["identity", "arn"]).text();
    let id = doc.get("requestId").text();
    let chain = arn.map_or_else(Chain::default, aws::arn_chain);
    let Some(mut usage) = chain.usage(SourceKind::BedrockInvocation.as_str(), id, time, cx) else {
        return Ok(Found::Skip(Skip::NoCredential));
    };
    usage.service = "bedrock.amazonaws.com".to_owned();
    usage.region = make::kept(doc.get("region").text());
    usage.action = text::kept(operation);
    usage.resources = make::resources([Some(model)]);
    usage.outcome = match doc.get("errorCode").text() {
        Some(code) => Ended::Failure(text::kept(code)),
        None => Ended::Success,
    };
    usage.principal = make::kept(arn);
    usage.account = make::kept(doc.get("accountId").id().as_deref());
    usage.class = if operation.starts_with("List") {
        ActionClass::List
    } else {
        ActionClass::ModelCall
    };
    Ok(found(usage, id.is_some()))
}
