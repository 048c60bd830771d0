//! What kind of act an AWS call is.
//!
//! Source: the services' API references; the choice of calls that change who may do what, or how
//! that is logged, follows the techniques that published attack records use.

use keytrail_model::consumption::ActionClass;

/// The class of `event`, recorded under `service` (`iam.amazonaws.com`).
pub(super) fn class(service: &str, event: &str) -> ActionClass {
    let service = service.strip_suffix(".amazonaws.com").unwrap_or(service);
    // S3 and others append a version to an API's name (`GetFunction20150331v2`).
    let event = event.split_once("201").map_or(event, |(name, _)| name);
    if let Some(class) = exact(service, event) {
        return class;
    }
    if is_permission_change(service, event) {
        return ActionClass::PermissionChange;
    }
    if ["List", "Describe"]
        .iter()
        .any(|verb| event.starts_with(verb))
    {
        return ActionClass::List;
    }
    ActionClass::Other
}

fn exact(service: &str, event: &str) -> Option<ActionClass> {
    Some(match (service, event) {
        ("sts", "GetCallerIdentity") | ("iam", "GetUser" | "GetAccountSummary") => {
            ActionClass::IdentityCheck
        }
        ("secretsmanager", "GetSecretValue" | "BatchGetSecretValue")
        | (
            "ssm",
            "GetParameter" | "GetParameters" | "GetParametersByPath" | "GetParameterHistory",
        )
        | ("ec2", "GetPasswordData") => ActionClass::SecretRead,
        (
            "sts",
            "AssumeRole"
            | "AssumeRoleWithSAML"
            | "AssumeRoleWithWebIdentity"
            | "AssumeRoot"
            | "GetSessionToken"
            | "GetFederationToken"
            | "GetWebIdentityToken"
            | "GetDelegatedAccessToken",
        )
        | (
            "iam",
            "CreateAccessKey"
            | "CreateLoginProfile"
            | "UpdateLoginProfile"
            | "CreateServiceSpecificCredential"
            | "ResetServiceSpecificCredential"
            | "UploadSigningCertificate"
            | "UploadSSHPublicKey",
        )
        | (
            "sso" | "sso-oauth" | "sso-oidc",
            "GetRoleCredentials" | "CreateToken" | "CreateTokenWithIAM",
        )
        | ("signin", "GetSigninToken" | "CreateOAuth2Token")
        | ("cognito-identity", "GetCredentialsForIdentity" | "GetOpenIdToken")
        | ("rolesanywhere" | "s3" | "s3express", "CreateSession")
        | ("ecr" | "ecr-public" | "codeartifact", "GetAuthorizationToken")
        | ("redshift" | "redshift-serverless", "GetClusterCredentials" | "GetCredentials")
        | ("eks-auth", "AssumeRoleForPodIdentity")
        | ("ec2", "CreateKeyPair" | "ImportKeyPair")
        | ("ec2-instance-connect", "SendSSHPublicKey" | "SendSerialConsoleSSHPublicKey")
        | ("lightsail", "GetInstanceAccessDetails") => ActionClass::Mint,
        (
            "iam",
            "DeleteAccessKey"
            | "DeleteLoginProfile"
            | "DeleteServiceSpecificCredential"
            | "DeleteSigningCertificate"
            | "DeleteSSHPublicKey",
        )
        | ("sso" | "sso-oidc", "Logout" | "RevokeToken") => ActionClass::Revoke,
        (
            "bedrock" | "bedrock-runtime" | "bedrock-agent-runtime" | "bedrock-agentcore",
            "InvokeModel"
            | "InvokeModelWithResponseStream"
            | "InvokeModelWithBidirectionalStream"
            | "StartAsyncInvoke"
            | "Converse"
            | "ConverseStream"
            | "InvokeAgent"
            | "InvokeInlineAgent"
            | "InvokeFlow"
            | "InvokeAgentRuntime"
            | "Retrieve"
            | "RetrieveAndGenerate"
            | "RetrieveAndGenerateStream"
            | "CreateModelInvocationJob",
        )
        | (
            "sagemaker" | "sagemaker-runtime",
            "InvokeEndpoint" | "InvokeEndpointAsync" | "InvokeEndpointWithResponseStream",
        ) => ActionClass::ModelCall,
        _ => return None,
    })
}

/// Calls that change who may do what, or how that is recorded.
fn is_permission_change(service: &str, event: &str) -> bool {
    let one_of = |names: &[&str]| names.contains(&event);
    let begins = |verbs: &[&str]| verbs.iter().any(|verb| event.starts_with(verb));
    match service {
        "iam" => begins(&[
            "Put",
            "Attach",
            "Detach",
            "Create",
            "Delete",
            "Add",
            "Remove",
            "Update",
            "Set",
            "Enable",
            "Deactivate",
            "Upload",
        ]),
        "organizations" | "sso-directory" | "identitystore" | "rolesanywhere" => {
            !begins(&["List", "Describe", "Get", "Search"])
        }
        "sso" => begins(&[
            "Create",
            "Put",
            "Attach",
            "Detach",
            "Delete",
            "Update",
            "Provision",
        ]),
        "cloudtrail" => begins(&["Stop", "Delete", "Update", "Put", "Start", "Create"]),
        "config" => begins(&["Stop", "Delete", "Put"]),
        "guardduty" | "securityhub" | "macie2" | "access-analyzer" | "detective" | "inspector2" => {
            begins(&[
                "Delete",
                "Disable",
                "Disassociate",
                "Update",
                "Create",
                "Archive",
                "Stop",
            ])
        }
        "kms" => one_of(&[
            "PutKeyPolicy",
            "CreateGrant",
            "ScheduleKeyDeletion",
            "DisableKey",
        ]),
        "s3" => {
            event.ends_with("Policy") && begins(&["Put", "Delete"])
                || one_of(&[
                    "PutBucketAcl",
                    "PutObjectAcl",
                    "PutBucketPublicAccessBlock",
                    "DeletePublicAccessBlock",
                    "PutAccountPublicAccessBlock",
                    "PutBucketLogging",
                    "PutBucketReplication",
                ])
        }
        "lambda" => begins(&[
            "AddPermission",
            "RemovePermission",
            "AddLayerVersionPermission",
            "CreateFunctionUrlConfig",
            "UpdateFunctionUrlConfig",
        ]),
        "ec2" => one_of(&[
            "ModifySnapshotAttribute",
            "ModifyImageAttribute",
            "AuthorizeSecurityGroupIngress",
            "AuthorizeSecurityGroupEgress",
            "DeleteFlowLogs",
            "DisableEbsEncryptionByDefault",
            "AssociateIamInstanceProfile",
            "ReplaceIamInstanceProfileAssociation",
            "EnableSerialConsoleAccess",
        ]),
        "rds" => one_of(&[
            "ModifyDBSnapshotAttribute",
            "ModifyDBClusterSnapshotAttribute",
            "AuthorizeDBSecurityGroupIngress",
        ]),
        "logs" => one_of(&["DeleteLogGroup", "DeleteLogStream", "PutResourcePolicy"]),
        "eks" => one_of(&[
            "CreateAccessEntry",
            "AssociateAccessPolicy",
            "UpdateAccessEntry",
        ]),
        _ => event.ends_with("ResourcePolicy") && begins(&["Put", "Delete"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_have_their_class() {
        for (service, event, expected) in [
            (
                "sts.amazonaws.com",
                "GetCallerIdentity",
                ActionClass::IdentityCheck,
            ),
            ("sts.amazonaws.com", "AssumeRole", ActionClass::Mint),
            ("iam.amazonaws.com", "CreateAccessKey", ActionClass::Mint),
            (
                "iam.amazonaws.com",
                "CreateUser",
                ActionClass::PermissionChange,
            ),
            ("iam.amazonaws.com", "DeleteAccessKey", ActionClass::Revoke),
            ("iam.amazonaws.com", "ListUsers", ActionClass::List),
            (
                "secretsmanager.amazonaws.com",
                "GetSecretValue",
                ActionClass::SecretRead,
            ),
            (
                "secretsmanager.amazonaws.com",
                "PutResourcePolicy",
                ActionClass::PermissionChange,
            ),
            (
                "bedrock.amazonaws.com",
                "InvokeModel",
                ActionClass::ModelCall,
            ),
            (
                "lambda.amazonaws.com",
                "AddPermission20150331v2",
                ActionClass::PermissionChange,
            ),
            (
                "lambda.amazonaws.com",
                "ListFunctions20150331",
                ActionClass::List,
            ),
            (
                "cloudtrail.amazonaws.com",
                "StopLogging",
                ActionClass::PermissionChange,
            ),
            ("s3.amazonaws.com", "GetObject", ActionClass::Other),
            ("ec2.amazonaws.com", "DescribeInstances", ActionClass::List),
        ] {
            assert_eq!(class(service, event), expected, "{service} {event}");
        }
    }
}
