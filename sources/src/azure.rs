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
    // Event Grid's own schema has the time, and the id, outside.
    let data = doc.get("data");
    let grid = (data.get("operationName").text().is_some()
        && doc.get("eventTime").text().is_some())
    .then_some(doc);
    let doc = if grid.is_some() { data } else { doc };
    let record = Record {
        grid,
        ..Record::new(doc)
    };
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
    /// It is a row of the table AzureDiagnostics: members of properties and identity are columns, with
    /// the type at the end of the name (`requestUri_s`, `identity_claim_oid_g`).
    columns: bool,
    /// The event that it came in, from Event Grid.
    grid: Option<&'d Doc<'d>>,
}

/// JSON in the text of the first of these members that has any.
fn embedded<'d>(doc: &'d Doc<'d>, names: &[&str]) -> Option<Doc<'d>> {
    names.iter().find_map(|name| doc.get(name).embedded())
}

/// Ends of the names of AzureDiagnostics' columns: text, GUID, number, truth.
const ENDS: [&str; 4] = ["_s", "_g", "_d", "_b"];

/// The claims of the token that was presented.
enum Claims<'r> {
    /// An object with a member each.
    Members(&'r Doc<'r>),
    /// Columns of AzureDiagnostics.
    Columns(&'r Doc<'r>),
}

impl<'r> Claims<'r> {
    /// A claim by its short name, or by the long ones that older tokens have.
    fn get(&self, name: &str) -> Option<&'r str> {
        const SCHEMAS: [&str; 2] = [
            "http://schemas.microsoft.com/identity/claims/",
            "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/",
        ];
        const COLUMNS: [&str; 3] = [
            "identity_claim_",
            "identity_claim_http_schemas_microsoft_com_identity_claims_",
            "identity_claim_http_schemas_xmlsoap_org_ws_2005_05_identity_claims_",
        ];
        match self {
            Self::Members(claims) => {
                let short = claims.get(name).text();
                short.or_else(|| claims.between(&SCHEMAS, name, &[""]).text())
            }
            Self::Columns(doc) => doc.between(&COLUMNS, name, &ENDS).text(),
        }
    }
}

impl<'d> Record<'d> {
    fn new(doc: &'d Doc<'d>) -> Self {
        Self {
            doc,
            properties: embedded(doc, &["properties", "properties_s"]),
            identity: embedded(doc, &["identity", "identity_s"]),
            claims: embedded(doc, &["claims"]),
            columns: doc.get("ResourceProvider").text().is_some()
                || doc.get("Type").text() == Some("AzureDiagnostics"),
            grid: None,
        }
    }

    /// A member of `properties`, or of the record itself (Log Analytics, Microsoft Graph).
    fn property(&self, name: &str) -> &Doc<'d> {
        let own = self.doc.get("properties");
        let properties = self.properties.as_ref().unwrap_or(own);
        match (properties.get(name), self.columns) {
            (Doc::Null, false) => self.doc.get(name),
            (Doc::Null, true) => match self.doc.get(name) {
                Doc::Null => self.doc.between(&[""], name, &ENDS),
                found => found,
            },
            (found, _) => found,
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
        .or_else(|| make::time_of(self.grid?, &["eventTime"]))
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
    fn claims(&self) -> Claims<'_> {
        let identity = self.identity();
        let members = [
            identity.get("claims"),
            identity.get("claim"),
            self.doc.get("claims"),
        ];
        let found = members
            .into_iter()
            .chain(&self.claims)
            .find(|claims| claims.is_object());
        match found {
            Some(claims) => Claims::Members(claims),
            None if self.columns => Claims::Columns(self.doc),
            None => Claims::Members(&Doc::Null),
        }
    }
}

/// Token, session and account, by a token's claims.
fn claimed(chain: Chain, claims: &Claims<'_>) -> Chain {
    let claim = |names: &[&str]| names.iter().find_map(|name| claims.get(name));
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
