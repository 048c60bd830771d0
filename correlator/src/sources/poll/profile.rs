//! How each provider's log is asked for, as data.

use jiff::Timestamp;
use keytrail_sources::SourceKind;

/// One provider's log.
#[derive(Debug)]
pub(super) struct Profile {
    pub(super) kind: SourceKind,
    /// Behind the base URL; `{scope}` is the setting's.
    pub(super) path: &'static str,
    /// What stands for `{scope}` when the settings have none; `None` when they must.
    pub(super) scope: Option<&'static str>,
    /// Parameters of the first page. `{since}`, `{until}` are times, `{size}` is the page size.
    pub(super) query: &'static [(&'static str, &'static str)],
    /// The parameter that narrows to the scope, added when there is one.
    pub(super) narrow: Option<(&'static str, &'static str)>,
    pub(super) headers: &'static [(&'static str, &'static str)],
    pub(super) auth: Auth,
    pub(super) paging: Paging,
    /// The member that holds the records; `None` when the page is an array.
    pub(super) items: Option<&'static str>,
    /// The member of a record that holds its time.
    pub(super) time: &'static str,
    /// Items are files with records: the member that holds a file's path.
    pub(super) files: Option<&'static str>,
    /// Read again behind the newest event, seconds: what the provider delivers late.
    pub(super) overlap: u64,
    pub(super) page_size: u32,
}

/// How the token is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Auth {
    /// `Authorization: <scheme> <token>`.
    Scheme(&'static str),
    /// A header that holds nothing else.
    Header(&'static str),
}

/// How the next page is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paging {
    /// `Link: <url>; rel="next"` (RFC 8288).
    Link,
    /// A member of the page: a URL, or a path of the same server.
    Member(&'static str),
    /// A parameter that counts records; the last page is not full.
    Offset(&'static str),
}

/// Every log that can be polled.
const PROFILES: [Profile; 7] = [
    // Okta, "System Log API": bounded and polling requests, rate limits.
    Profile {
        kind: SourceKind::Okta,
        path: "/api/v1/logs",
        scope: Some(""),
        query: &[
            ("since", "{since}"),
            ("sortOrder", "ASCENDING"),
            ("limit", "{size}"),
        ],
        narrow: None,
        headers: &[("accept", "application/json")],
        auth: Auth::Scheme("SSWS"),
        paging: Paging::Link,
        items: None,
        time: "published",
        files: None,
        overlap: 300,
        page_size: 1000,
    },
    // GitHub REST, "Get the audit log for an organization" / "... an enterprise".
    Profile {
        kind: SourceKind::GithubAudit,
        path: "/{scope}/audit-log",
        scope: None,
        query: &[
            ("phrase", "created:>={since}"),
            ("include", "all"),
            ("order", "asc"),
            ("per_page", "{size}"),
        ],
        narrow: None,
        headers: &[
            // The second is what GitHub's own description calls the first.
            ("accept", "application/vnd.github+json, application/json"),
            ("x-github-api-version", "2022-11-28"),
        ],
        auth: Auth::Scheme("Bearer"),
        paging: Paging::Link,
        items: None,
        time: "@timestamp",
        files: None,
        overlap: 600,
        page_size: 100,
    },
    // GitLab REST, "Audit events API": keyset pagination, newest first.
    Profile {
        kind: SourceKind::GitlabAudit,
        path: "/api/v4/{scope}audit_events",
        scope: Some(""),
        query: &[
            ("created_after", "{since}"),
            ("pagination", "keyset"),
            ("order_by", "id"),
            ("per_page", "{size}"),
        ],
        narrow: None,
        headers: &[],
        auth: Auth::Header("private-token"),
        paging: Paging::Link,
        items: None,
        time: "created_at",
        files: None,
        overlap: 120,
        page_size: 100,
    },
    // Microsoft Graph, "List signIns" / "List directoryAudits".
    Profile {
        kind: SourceKind::EntraSignIn,
        path: "/v1.0/{scope}",
        scope: Some("auditLogs/signIns"),
        query: &[
            ("$filter", "createdDateTime ge {since}"),
            ("$orderby", "createdDateTime"),
            ("$top", "{size}"),
        ],
        narrow: None,
        headers: &[],
        auth: Auth::Scheme("Bearer"),
        paging: Paging::Member("@odata.nextLink"),
        items: Some("value"),
        time: "createdDateTime",
        files: None,
        overlap: 900,
        page_size: 1000,
    },
    Profile {
        kind: SourceKind::EntraSignIn,
        path: "/v1.0/{scope}",
        scope: Some("auditLogs/directoryAudits"),
        query: &[
            ("$filter", "activityDateTime ge {since}"),
            ("$orderby", "activityDateTime"),
            ("$top", "{size}"),
        ],
        narrow: None,
        headers: &[],
        auth: Auth::Scheme("Bearer"),
        paging: Paging::Member("@odata.nextLink"),
        items: Some("value"),
        time: "activityDateTime",
        files: None,
        overlap: 900,
        page_size: 1000,
    },
    // Salesforce REST, "Query Event Monitoring Data with SOQL"; each row names a file of records.
    Profile {
        kind: SourceKind::Salesforce,
        path: "/services/data/v60.0/query",
        scope: Some(""),
        query: &[(
            "q",
            "SELECT Id, EventType, CreatedDate, LogFile FROM EventLogFile \
             WHERE CreatedDate > {since} ORDER BY CreatedDate",
        )],
        narrow: Some((
            "q",
            "SELECT Id, EventType, CreatedDate, LogFile FROM EventLogFile \
             WHERE CreatedDate > {since} AND EventType = '{scope}' ORDER BY CreatedDate",
        )),
        headers: &[],
        auth: Auth::Scheme("Bearer"),
        paging: Paging::Member("nextRecordsUrl"),
        items: Some("records"),
        time: "CreatedDate",
        files: Some("LogFile"),
        overlap: 0,
        page_size: 2000,
    },
    // Workday REST, "Privacy": GET /activityLogging.
    Profile {
        kind: SourceKind::Workday,
        path: "/ccx/api/privacy/v1/{scope}/activityLogging",
        scope: None,
        query: &[("from", "{since}"), ("to", "{until}"), ("limit", "{size}")],
        narrow: None,
        headers: &[],
        auth: Auth::Scheme("Bearer"),
        paging: Paging::Offset("offset"),
        items: Some("data"),
        time: "requestTime",
        files: None,
        overlap: 600,
        page_size: 1000,
    },
];

/// The profile of a kind that can be polled; of several, the one made for this scope.
pub(super) fn of(kind: SourceKind, scope: Option<&str>) -> Option<&'static Profile> {
    let mut all = PROFILES.iter().filter(|profile| profile.kind == kind);
    let first = all.clone().next();
    all.find(|profile| scope.is_some() && profile.scope == scope)
        .or(first)
}

/// Kinds that can be polled, for people.
pub(super) fn known() -> String {
    let mut all: Vec<&str> = PROFILES
        .iter()
        .map(|profile| profile.kind.as_str())
        .collect();
    all.dedup();
    all.join(", ")
}

impl Profile {
    /// The URL of the first page.
    pub(super) fn first(
        &self,
        base: &str,
        scope: Option<&str>,
        (since, until): (Timestamp, Timestamp),
        size: u32,
    ) -> String {
        let base = base.trim_end_matches('/');
        // A scope is a path of its own; GitLab's needs its slash.
        let scope_path = match scope {
            Some(scope) if self.path.contains("{scope}audit_events") => format!("{scope}/"),
            Some(scope) => scope.to_owned(),
            None => self.scope.unwrap_or_default().to_owned(),
        };
        let path = self.path.replace("{scope}", &scope_path);
        let fill = |text: &str| {
            text.replace("{since}", &whole_seconds(since))
                .replace("{until}", &whole_seconds(until))
                .replace("{size}", &size.to_string())
                .replace("{scope}", scope.unwrap_or_default())
        };
        let narrow = self.narrow.filter(|_| scope.is_some());
        let mut url = format!("{base}{path}");
        let mut mark = '?';
        for (name, value) in self.query {
            let value = match narrow {
                Some((narrowed, instead)) if narrowed == *name => instead,
                _ => value,
            };
            url.push(mark);
            url.push_str(&escaped(name));
            url.push('=');
            url.push_str(&escaped(&fill(value)));
            mark = '&';
        }
        url
    }
}

/// `2026-11-24T10:00:00Z`: every one of these providers takes it.
fn whole_seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Percent-encodes everything but unreserved characters (RFC 3986).
pub(in crate::sources) fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_pages() {
        let since: Timestamp = "2026-11-24T10:00:00.7Z".parse().unwrap();
        let until: Timestamp = "2026-11-24T11:00:00Z".parse().unwrap();
        for (kind, scope, expected) in [
            (
                SourceKind::Okta,
                None,
                "/api/v1/logs?since=2026-11-24T10%3A00%3A00Z&sortOrder=ASCENDING&limit=5",
            ),
            (
                SourceKind::GithubAudit,
                Some("orgs/acme"),
                "/orgs/acme/audit-log?phrase=created%3A%3E%3D2026-11-24T10%3A00%3A00Z&include=all&order=asc&per_page=5",
            ),
            (
                SourceKind::GitlabAudit,
                None,
                "/api/v4/audit_events?created_after=2026-11-24T10%3A00%3A00Z&pagination=keyset&order_by=id&per_page=5",
            ),
            (
                SourceKind::GitlabAudit,
                Some("groups/12"),
                "/api/v4/groups/12/audit_events?created_after=2026-11-24T10%3A00%3A00Z&pagination=keyset&order_by=id&per_page=5",
            ),
            (
                SourceKind::EntraSignIn,
                None,
                "/v1.0/auditLogs/signIns?%24filter=createdDateTime%20ge%202026-11-24T10%3A00%3A00Z&%24orderby=createdDateTime&%24top=5",
            ),
            (
                SourceKind::EntraSignIn,
                Some("auditLogs/directoryAudits"),
                "/v1.0/auditLogs/directoryAudits?%24filter=activityDateTime%20ge%202026-11-24T10%3A00%3A00Z&%24orderby=activityDateTime&%24top=5",
            ),
            (
                SourceKind::Workday,
                Some("acme"),
                "/ccx/api/privacy/v1/acme/activityLogging?from=2026-11-24T10%3A00%3A00Z&to=2026-11-24T11%3A00%3A00Z&limit=5",
            ),
        ] {
            let url = of(kind, scope)
                .unwrap()
                .first("https://x/", scope, (since, until), 5);
            assert_eq!(url, format!("https://x{expected}"), "{kind}");
        }
        let soql = of(SourceKind::Salesforce, None).unwrap().first(
            "https://x",
            Some("ApiEvent"),
            (since, until),
            5,
        );
        assert!(soql.contains("EventType%20%3D%20%27ApiEvent%27"), "{soql}");
    }
}
