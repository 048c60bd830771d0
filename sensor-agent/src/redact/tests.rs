use proptest::prelude::*;

use super::*;

fn line(args: &[&str]) -> String {
    let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
    redact_argv(&args).join(" ")
}

#[test]
fn secrets_are_masked_and_the_rest_stays_readable() {
    for (args, expected) in [
        (
            &["npx", "-y", "@modelcontextprotocol/server-everything"][..],
            "npx -y @modelcontextprotocol/server-everything",
        ),
        (
            &["mysql", "--password", "hunter2", "-h", "db"],
            "mysql --password [masked] -h db",
        ),
        (
            &["mysql", "--password=hunter2"],
            "mysql --password=[masked]",
        ),
        (
            &["curl", "-H", "Authorization: Bearer abc.def", "https://x/y"],
            "curl -H Authorization: Bearer [masked] https://x/y",
        ),
        (
            &["git", "clone", "https://ada:pw@example.com/r.git"],
            "git clone https://[masked]@example.com/r.git",
        ),
        (
            &[
                "env",
                "API_KEY=12345",
                "LANG=C",
                "node",
                "/srv/app/server.js",
            ],
            "env API_KEY=[masked] LANG=C node /srv/app/server.js",
        ),
        (
            &["sh", "-c", "TOKEN=abc npm publish --tag next"],
            "sh -c TOKEN=[masked] npm publish --tag next",
        ),
        (
            &[
                "aws",
                "configure",
                "set",
                "aws_secret_access_key",
                "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            ],
            "aws configure set aws_secret_access_key [masked]",
        ),
        (
            &[
                "node",
                "/home/ada/.npm/_npx/5b2dd62b9d0bddd4/node_modules/.bin/mcp-server",
            ],
            "node /home/ada/.npm/_npx/5b2dd62b9d0bddd4/node_modules/.bin/mcp-server",
        ),
        (
            &[
                "python3",
                "-m",
                "mcp_server_time",
                "--local-timezone",
                "Europe/Berlin",
            ],
            "python3 -m mcp_server_time --local-timezone Europe/Berlin",
        ),
        (
            &["cat", "/root/.aws/credentials"],
            "cat /root/.aws/credentials",
        ),
        (
            &[
                "aws",
                "s3",
                "ls",
                "--profile",
                "dev",
                "--region",
                "eu-central-1",
            ],
            "aws s3 ls --profile dev --region eu-central-1",
        ),
    ] {
        assert_eq!(line(args), expected);
    }
}

#[test]
fn a_long_line_is_cut() {
    let many = vec!["x".to_owned(); 100];
    assert_eq!(redact_argv(&many).len(), MAX_ARGS + 1);
    assert_eq!(redact_text(&"a ".repeat(2000)).chars().count(), MAX_ARG + 1);
}

fn token() -> impl Strategy<Value = String> {
    prop_oneof![
        "(ghp|gho|ghu|ghr|ghs)_[A-Za-z0-9]{36}",
        "github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}",
        "ghs_[a-zA-Z0-9]{36}\\.[a-zA-Z0-9]{100}\\.[a-zA-Z0-9]{43}",
        "(AKIA|ASIA)[A-Z2-7]{16}",
        "glpat-[A-Za-z0-9_-]{19}[A-Z]",
        "npm_[A-Za-z0-9]{35}[0-9]",
        "sk-ant-api03-[A-Za-z0-9]{80}AA",
        "sk-proj-[A-Za-z0-9]{40}7",
        "xoxb-[0-9]{11}-[0-9]{12}-[A-Za-z0-9]{24}",
        "hvs\\.[A-Za-z0-9]{24}",
        "eyJ[A-Za-z0-9]{30}\\.eyJ[A-Za-z0-9]{40}\\.[A-Za-z0-9]{43}",
        "AIza[A-Za-z0-9]{34}9",
        "dop_v1_[0-9a-f]{64}",
    ]
}

fn carrier() -> impl Strategy<Value = (String, String)> {
    prop::sample::select(vec![
        ("", ""),
        ("-H 'X: ", "'"),
        ("https://x:", "@host/path"),
        ("https://host/?q=", "&b=c"),
        ("{\"a\":\"", "\"}"),
        ("echo ", " | curl -d @- http://c"),
        ("FOO=", ""),
        ("FOO=\"", "\""),
        ("--x=", ""),
        ("(", ")"),
        ("/tmp/", "/file"),
    ])
    .prop_map(|(a, b)| (a.to_owned(), b.to_owned()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_known_token_survives(token in token(), (before, after) in carrier()) {
        let masked = redact_text(&format!("{before}{token}{after}"));
        prop_assert!(!masked.contains(&token), "{}", masked);
        let shorter = token.get(token.len() - 12..).unwrap_or_default();
        prop_assert!(!masked.contains(shorter), "{}", masked);
    }

    #[test]
    fn an_aws_secret_does_not_survive(secret in "[A-Za-z0-9+/]{36}[A-Z][a-z][0-9]{2}") {
        for text in [secret.clone(), format!("AWS_SECRET_ACCESS_KEY={secret}"), format!("x {secret} y")] {
            prop_assert!(!redact_text(&text).contains(&secret));
        }
    }

    #[test]
    fn what_stands_after_a_secret_flag_is_masked(secret in "[a-z0-9]{4,20}", flag in "--(api-key|password|token|client-secret)") {
        let args = ["tool".to_owned(), flag.clone(), secret.clone()];
        let masked = redact_argv(&args);
        prop_assert_eq!(masked[2].as_str(), MASK);
        let masked = redact_text(&format!("tool {flag} {secret}"));
        prop_assert!(masked.ends_with(MASK), "{}", masked);
    }

    #[test]
    fn any_text_is_redacted(text in "\\PC{0,200}") {
        let _ = redact_text(&text);
    }
}
