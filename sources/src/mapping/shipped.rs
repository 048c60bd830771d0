//! The mappings that come with Keytrail: their `source`, their text.

pub(super) const FILES: [(&str, &str); 12] = [
    (
        "anthropic.compliance",
        include_str!("../../mappings/anthropic.toml"),
    ),
    (
        "atlassian.audit",
        include_str!("../../mappings/atlassian.toml"),
    ),
    ("auth0.tenant", include_str!("../../mappings/auth0.toml")),
    (
        "cloudflare.audit",
        include_str!("../../mappings/cloudflare.toml"),
    ),
    (
        "databricks.audit",
        include_str!("../../mappings/databricks.toml"),
    ),
    (
        "docker-hub.audit",
        include_str!("../../mappings/docker-hub.toml"),
    ),
    (
        "google-workspace.reports",
        include_str!("../../mappings/google-workspace.toml"),
    ),
    ("npm.audit", include_str!("../../mappings/npm.toml")),
    (
        "onelogin.events",
        include_str!("../../mappings/onelogin.toml"),
    ),
    ("openai.audit", include_str!("../../mappings/openai.toml")),
    ("slack.audit", include_str!("../../mappings/slack.toml")),
    (
        "snowflake.login-history",
        include_str!("../../mappings/snowflake.toml"),
    ),
];
