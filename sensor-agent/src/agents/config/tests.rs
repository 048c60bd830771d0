//! Cases are files: `tests/data/configs/<shape>.<format>` with the expected servers beside it in
//! `<shape>.<format>.expect`, one a line.

use std::fmt::Write as _;
use std::path::Path;

use proptest::prelude::*;

use super::*;

#[test]
fn every_recorded_shape_is_read() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/configs");
    let mut cases = 0;
    for entry in std::fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        let format = match path.extension().and_then(|e| e.to_str()) {
            Some("json") => ConfigFormat::Json,
            Some("toml") => ConfigFormat::Toml,
            Some("yaml") => ConfigFormat::Yaml,
            _ => continue,
        };
        let at: Vec<Vec<String>> = if path.file_stem().is_some_and(|s| s == "claude-user") {
            let path = |keys: &[&str]| keys.iter().map(|k| (*k).to_owned()).collect();
            vec![
                path(&["projects", ".", "mcpServers"]),
                path(&["mcpServers"]),
            ]
        } else {
            Vec::new()
        };
        let listed = servers(format, &std::fs::read(&path).unwrap(), &at).unwrap();
        let mut shown = String::new();
        for server in listed {
            let project = server
                .project
                .map(|p| format!(" in {p}"))
                .unwrap_or_default();
            writeln!(
                shown,
                "{}{project}: {:?} env {:?}",
                server.name, server.command, server.env
            )
            .unwrap();
        }
        let expected = path.with_extension(format!(
            "{}.expect",
            path.extension().unwrap_or_default().to_string_lossy()
        ));
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&expected, &shown).unwrap();
        }
        assert_eq!(
            shown,
            std::fs::read_to_string(&expected).unwrap(),
            "{}",
            path.display()
        );
        assert!(!shown.contains("s3cr3t"), "a value of env is a secret");
        cases += 1;
    }
    assert!(cases >= 7, "{cases} cases in {}", dir.display());
}

#[test]
fn bad_configurations_say_where_and_show_nothing() {
    for (format, text) in [
        (
            ConfigFormat::Json,
            "{\"mcpServers\": {\"a\": {\"env\": {\"T\": \"s3cr3t\"",
        ),
        (
            ConfigFormat::Toml,
            "[mcp_servers.a]\nenv = { T = \"s3cr3t\"\n",
        ),
        (ConfigFormat::Yaml, "extensions:\n  a: s3cr3t\n b: [\n"),
    ] {
        let error = servers(format, text.as_bytes(), &[])
            .unwrap_err()
            .to_string();
        assert!(!error.contains("s3cr3t"), "{error}");
        assert!(error.starts_with("not valid"), "{error}");
    }
    let deep = "[".repeat(5000);
    assert!(matches!(
        servers(ConfigFormat::Json, deep.as_bytes(), &[]),
        Err(ConfigError::Depth)
    ));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "[\\[\\]{}:,\"'a-z \n=#/*&!-]{0,120}") {
        for format in [ConfigFormat::Json, ConfigFormat::Toml, ConfigFormat::Yaml] {
            let _ = servers(format, text.as_bytes(), &[]);
        }
    }
}
