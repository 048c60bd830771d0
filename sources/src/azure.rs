//! Azure Monitor's logs: Activity, Key Vault, storage, Azure AI, and Entra's own.
//!
//! An Event Hub mixes categories, so each record says by its category which it is; the source's
//! kind decides only where it says nothing. Wrapped (`records`), in an array or a line each, with
//! names in any case, and with the columns of Log Analytics at top level: all the same.
//!
//! Source: Azure Monitor resource log schema; Microsoft Entra sign-in and audit log schemas; the
//! claims are those of Entra's access tokens (`uti`, `sid`, `oid`, `appid`).

mod activity;
mod entra;
mod graph;
mod openai;
mod vault;

use jiff::Timestamp;
use keytrail_model::credential::CredentialKind;

use crate::doc::Doc;
use crate::make::{self, Chain, Context, Outcome};
use crate::{Rejection, SourceKind, kubernetes};

/// Where tokens are had.
const LOGIN: [&str; 6] = [
    "login.microsoftonline.com",
    "login.microsoft.com",
    "login.windows.net",
    "sts.windows.net",
    "login.microsoftonline.us",
    "login.partner.microsoftonline.cn",
];

/// Reads a record of any category.
pub(crate) fn read(kind: SourceKind, doc: &Doc<'_>, cx: &Context<'_>) -> Outcome {
    let record = Record::new(doc);
    let category = doc.first(&["category", "Type"]).unwrap_or_default();
    let is = |name: &str| category.eq_ignore_ascii_case(name);
    let resource = doc
        .first(&["resourceId", "_ResourceId"])
        .unwrap_or_default();
    let of = |provider: &str| {
        let upper = resource.to_ascii_uppercase();
        upper.contains(provider)
    };
    if category.to_ascii_lowercase().contains("signinlogs") {
        return entra::sign_in(&record, category, cx);
    }
    if is("MicrosoftGraphActivityLogs") {
        return graph::read(&record, cx);
    }
    if is("AuditLogs") || record.property("initiatedBy").is_object() {
        return entra::directory(&record, cx);
    }
    if of("MICROSOFT.COGNITIVESERVICES") || is("AzureOpenAIRequestUsage") || is("RequestResponse") {
        return openai::read(&record, category, cx);
    }
    if is("AuditEvent")
        || of("MICROSOFT.KEYVAULT") && record.property("requestUri").text().is_some()
    {
        return vault::read(&record, cx);
    }
    if is("kube-audit") || is("kube-audit-admin") {
        let log = record.property("log").embedded();
        return log.map_or(Err(Rejection::NoEvent), |log| kubernetes::read(&log, cx));
    }
    match kind {
        SourceKind::EntraSignIn if record.property("createdDateTime").text().is_some() => {
            entra::sign_in(&record, category, cx)
        }
        SourceKind::GraphActivity if record.property("requestUri").text().is_some() => {
            graph::read(&record, cx)
        }
        SourceKind::AzureKeyVault if record.operation().is_some() => vault::read(&record, cx),
        SourceKind::AzureOpenAi if record.operation().is_some() => {
            openai::read(&record, category, cx)
        }
        _ => activity::read(&record, category, cx),
    }
}

/// A record and its properties, which may come as text.
struct Record<'d> {
    doc: &'d Doc<'d>,
    properties: Option<Doc<'d>>,
    identity: Option<Doc<'d>>,
    /// Log Analytics' column of the Activity log.
    claims: Option<Doc<'d>>,
}

impl<'d> Record<'d> {
    fn new(doc: &'d Doc<'d>) -> Self {
        Self {
            doc,
            properties: doc.get("properties").embedded(),
            identity: doc.get("identity").embedded(),
            claims: doc.get("claims").embedded(),
        }
    }

    /// A member of `properties`, or of the record itself (Log Analytics, Microsoft Graph).
    fn property(&self, name: &str) -> &Doc<'d> {
        let own = self.doc.get("properties");
        let properties = self.properties.as_ref().unwrap_or(own);
        match properties.get(name) {
            Doc::Null => self.doc.get(name),
            found => found,
        }
    }

    fn identity(&self) -> &Doc<'d> {
        self.identity
            .as_ref()
            .unwrap_or_else(|| self.doc.get("identity"))
    }

    /// The operation's name: a text, or `{value, localizedValue}` as the REST API has it.
    fn operation(&self) -> Option<&str> {
        let name = self.doc.get("operationName");
        name.text()
            .or_else(|| name.get("value").text())
            .or_else(|| self.doc.get("OperationNameValue").text())
    }

    fn time(&self) -> Option<Timestamp> {
        make::time_of(
            self.doc,
            &[
                "time",
                "eventTimestamp",
                "TimeGenerated",
                "timeStamp",
                "p_event_time",
            ],
        )
    }

    fn tenant(&self, cx: &Context<'_>) -> Option<String> {
        let own = self.doc.get("tenantId").text();
        let own = own.or_else(|| self.property("tenantId").text());
        make::kept(own.or(cx.options.tenant.as_deref()))
    }

    fn address(&self) -> Option<&str> {
        let own = self
            .doc
            .first(&["callerIpAddress", "clientIpAddress", "clientIP"]);
        own.or_else(|| self.property("ipAddress").text())
            .or_else(|| self.doc.at(&["httpRequest", "clientIpAddress"]).text())
    }

    /// The claims of the token that was presented.
    fn claims(&self) -> Option<&Doc<'d>> {
        let identity = self.identity();
        [
            identity.get("claims"),
            identity.get("claim"),
            self.doc.get("claims"),
        ]
        .into_iter()
        .chain(&self.claims)
        .find(|claims| claims.is_object())
    }
}

/// Token, session and account, by a token's claims.
fn claimed(chain: Chain, claims: &Doc<'_>) -> Chain {
    const SCHEMAS: [&str; 2] = [
        "http://schemas.microsoft.com/identity/claims/",
        "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/",
    ];
    let claim = |names: &[&str]| {
        names.iter().find_map(|name| {
            let long = || {
                SCHEMAS
                    .iter()
                    .find_map(|schema| claims.get(&format!("{schema}{name}")).text())
            };
            claims.get(name).text().or_else(long)
        })
    };
    let object = claim(&["oid", "objectidentifier"]);
    let name = claim(&["name"]).filter(|name| name.contains('@'));
    let person = claim(&["upn", "emailaddress", "unique_name"]).or(name);
    let chain = chain
        .then(claim(&["uti"]).and_then(|id| make::exact(CredentialKind::EntraToken, id)))
        .then(claim(&["sid"]).and_then(|id| make::exact(CredentialKind::EntraSession, id)))
        .then(account(object))
        .then(account(person));
    // An application that acts for a person is the same for everybody (the Azure CLI's id): it is
    // an account only where it acts for itself, or where there is nothing else.
    let for_itself = match claim(&["idtyp"]) {
        Some(kind) => kind == "app",
        None => person.is_none() && object.is_some() && claim(&["appidacr"]) != Some("0"),
    };
    let application = claim(&["appid", "azp"]).filter(|_| for_itself || chain.is_empty());
    chain.then(account(application))
}

/// Microsoft's own programs, through which everybody signs in: Azure CLI, Azure PowerShell, Visual
/// Studio Code, the portal, Microsoft Office.
const EVERYBODYS: [&str; 5] = [
    "04b07795-8ddb-461a-bbee-02f9e1bf7b46",
    "1950a258-227b-4e31-a9cf-717495945fc2",
    "aebc6443-996d-45c2-90f0-388ff96faa56",
    "c44b4083-3bb0-49c1-b47d-974e53cbdf3c",
    "d3590ed6-52b3-4102-aeff-aad2292ab01c",
];

/// An account in Entra, unless it is the placeholder for none, or a program of everybody's.
fn account(id: Option<&str>) -> Option<keytrail_model::credential::CredentialId> {
    let nobody = |id: &&str| *id == "00000000-0000-0000-0000-000000000000";
    let id = id.filter(|id| !nobody(id) && !EVERYBODYS.contains(id))?;
    make::principal("entra", id)
}

/// The last part of a resource's path.
fn last_part(resource: &str) -> &str {
    resource
        .trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or(resource)
}
