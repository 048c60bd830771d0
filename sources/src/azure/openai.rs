//! Azure OpenAI and Azure AI Foundry: diagnostic logs.
//!
//! Which of an account's two keys was used is not logged; a request with an Entra token names its
//! holder's object id. Prompts are not in these logs, and would not be looked at.
//!
//! Source: "Azure OpenAI monitoring data reference"; the members of `properties` as published
//! samples show them.

use keytrail_model::consumption::{ActionClass, Outcome as Ended};

use super::{Record, account, claimed, last_part};
use crate::make::{self, Chain, Context, Found, Outcome, found};
use crate::{Rejection, Skip, SourceKind, text};

/// Where these services are reached; an account's own name may differ from its host's first label.
const HOSTS: [&str; 6] = [
    "openai.azure.com",
    "cognitiveservices.azure.com",
    "services.ai.azure.com",
    "api.cognitive.microsoft.com",
    "openai.azure.us",
    "inference.ml.azure.com",
];

pub(super) fn read(record: &Record<'_>, category: &str, cx: &Context<'_>) -> Outcome {
    let Some(operation) = record.operation() else {
        return Err(Rejection::NoEvent);
    };
    let time = record.time().ok_or(Rejection::BadTime)?;
    // Two records for one request: the usage figures add nothing about who called.
    if category.eq_ignore_ascii_case("AzureOpenAIRequestUsage")
        || category.eq_ignore_ascii_case("Trace")
    {
        return Ok(Found::Skip(Skip::HalfOfPair));
    }
    let resource = record.doc.first(&["resourceId", "_ResourceId"]);
    let name = resource.map(last_part).map(str::to_ascii_lowercase);
    let person = ["objectId", "userObjectId"]
        .iter()
        .find_map(|n| record.property(n).text());
    let by_key = name
        .as_deref()
        .and_then(|name| make::principal("azure", &format!("openai-account/{name}")));
    let chain = claimed(Chain::default(), &record.claims()).then(account(person));
    let chain = if chain.is_empty() {
        chain.then(by_key)
    } else {
        chain
    };
    let status = ["resultSignature", "httpStatusCode", "ResultSignature"]
        .iter()
        .find_map(|n| record.property(n).int());
    let status = status.unwrap_or(200);
    if status == 401 {
        return Ok(Found::Skip(Skip::NotAuthenticated));
    }
    let Some(mut usage) = chain.usage(SourceKind::AzureOpenAi.as_str(), None, time, cx) else {
        return Ok(Found::Skip(Skip::NoCredential));
    };
    usage.caller = make::caller(record.address());
    usage.user_agent = make::kept(record.property("userAgent").text());
    usage.service = "openai.azure.com".to_owned();
    usage.region = make::kept(record.doc.get("location").text());
    usage.action = text::kept(operation);
    usage.resources = make::resources([
        resource,
        record.property("modelDeploymentName").text(),
        record.property("modelName").text(),
    ]);
    usage.outcome = if status >= 400 {
        Ended::Failure(status.to_string())
    } else {
        Ended::Success
    };
    usage.principal = make::kept(person);
    usage.account = record.tenant(cx);
    let lower = operation.to_ascii_lowercase();
    usage.class = if lower.contains("list") && lower.contains("key") {
        ActionClass::SecretRead
    } else if [
        "completion",
        "embedding",
        "image",
        "audio",
        "response",
        "create",
        "generate",
    ]
    .iter()
    .any(|word| lower.contains(word))
    {
        ActionClass::ModelCall
    } else if lower.contains("list") {
        ActionClass::List
    } else {
        ActionClass::Other
    };
    usage.endpoints = make::endpoints(&HOSTS, cx.options);
    Ok(found(usage, false))
}
