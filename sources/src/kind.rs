//! The systems whose records are understood.

/// A system that records uses of credentials, in one of its record formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceKind {
    /// AWS CloudTrail: management, data and network activity events; Secrets Manager, Bedrock and
    /// every other AWS service record here.
    AwsCloudTrail,
    /// Amazon Bedrock's model invocation log; prompts and answers are not looked at.
    BedrockInvocation,
    /// Azure Activity log, and resource logs of the same shape (storage).
    AzureActivity,
    /// Azure Key Vault's `AuditEvent`.
    AzureKeyVault,
    /// Entra: the four sign-in categories, and the directory audit.
    EntraSignIn,
    /// Microsoft Graph activity log.
    GraphActivity,
    /// Azure AI Foundry and Azure OpenAI diagnostic logs.
    AzureOpenAi,
    /// Google Cloud Audit Logs: admin activity, data access, policy denied; Secret Manager and
    /// Vertex AI record here.
    GcpAudit,
    /// Okta System Log.
    Okta,
    /// GitHub audit log: web, API requests and git events.
    GithubAudit,
    /// GitLab audit events (stream and `audit_json.log`), `api_json.log`, `production_json.log`.
    GitlabAudit,
    /// HashiCorp Vault and OpenBao audit devices.
    VaultAudit,
    /// CyberArk: PAS syslog (JSON, CEF, LEEF) and Privilege Cloud.
    CyberArk,
    /// Salesforce: EventLogFile (CSV or JSON) and real-time event monitoring.
    Salesforce,
    /// Workday activity logging.
    Workday,
    /// Kubernetes audit, alone or in the wrapping of EKS, AKS or GKE.
    KubernetesAudit,
    /// Any JSON log, by a mapping file.
    Mapped,
}

impl SourceKind {
    /// Every kind.
    pub const ALL: [Self; 17] = [
        Self::AwsCloudTrail,
        Self::BedrockInvocation,
        Self::AzureActivity,
        Self::AzureKeyVault,
        Self::EntraSignIn,
        Self::GraphActivity,
        Self::AzureOpenAi,
        Self::GcpAudit,
        Self::Okta,
        Self::GithubAudit,
        Self::GitlabAudit,
        Self::VaultAudit,
        Self::CyberArk,
        Self::Salesforce,
        Self::Workday,
        Self::KubernetesAudit,
        Self::Mapped,
    ];

    /// Its name in configuration, and the prefix of its record ids.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AwsCloudTrail => "aws.cloudtrail",
            Self::BedrockInvocation => "aws.bedrock-invocation",
            Self::AzureActivity => "azure.activity",
            Self::AzureKeyVault => "azure.key-vault",
            Self::EntraSignIn => "entra.sign-in",
            Self::GraphActivity => "graph.activity",
            Self::AzureOpenAi => "azure.openai",
            Self::GcpAudit => "gcp.audit",
            Self::Okta => "okta.system-log",
            Self::GithubAudit => "github.audit",
            Self::GitlabAudit => "gitlab.audit",
            Self::VaultAudit => "vault.audit",
            Self::CyberArk => "cyberark.audit",
            Self::Salesforce => "salesforce.events",
            Self::Workday => "workday.activity",
            Self::KubernetesAudit => "kubernetes.audit",
            Self::Mapped => "mapped",
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

impl std::fmt::Display for SourceKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
