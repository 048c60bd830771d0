use super::super::Catalogue;
use super::*;

fn words(line: &str) -> Vec<String> {
    launch::split_command(line)
}

fn configured(name: &str, line: &str) -> Configured {
    let listed = Listed {
        name: name.to_owned(),
        command: words(line),
        env: vec![],
        project: None,
    };
    Configured {
        listed,
        config: "c".to_owned(),
        scope: "user".to_owned(),
    }
}

#[test]
fn command_lines_are_matched_with_what_is_listed() {
    let all = [
        configured("files", "npx -y @m/server-files ${HOME}/work"),
        configured("time", "uvx mcp-server-time --tz ${TZ_NAME}"),
        configured("local", "/opt/srv/server --stdio"),
        configured("node", "node /srv/index.js"),
        configured("image", "docker run -i --rm img:1"),
    ];
    let session = Session {
        vars: Vars::home("/home/ada"),
        ..Session::default()
    };
    for (line, expected) in [
        (
            "node /usr/bin/npx -y @m/server-files /home/ada/work",
            Some("files"),
        ),
        (
            "/usr/bin/env node /usr/bin/npx -y @m/server-files /home/ada/work",
            Some("files"),
        ),
        (
            "sh -c 'npx -y @m/server-files /home/ada/work'",
            Some("files"),
        ),
        ("node /usr/bin/npx -y @m/server-files /home/eve", None),
        ("npx -y @m/other /home/ada/work", None),
        (
            "/usr/bin/uvx mcp-server-time --tz Europe/Berlin",
            Some("time"),
        ),
        ("/opt/srv/server --stdio", Some("local")),
        ("/tmp/server --stdio", None),
        ("/usr/bin/node /srv/index.js", Some("node")),
        ("/usr/bin/node /srv/index.js --more", None),
        ("/usr/bin/docker run -i --rm img:1", Some("image")),
        ("/usr/bin/git status", None),
    ] {
        let found = find(&all, &words(line), Path::new("/usr/bin/x"), &session);
        assert_eq!(found.map(|c| c.listed.name.as_str()), expected, "{line}");
    }
}

#[test]
fn configurations_are_found_for_home_project_and_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let (home, project) = (root.join("home"), root.join("work/shop"));
    for dir in [&home, &project.join("src")] {
        std::fs::create_dir_all(dir).unwrap();
    }
    let json = |name: &str| format!("{{\"mcpServers\":{{\"{name}\":{{\"command\":\"{name}\"}}}}}}");
    let user = format!(
        "{{\"mcpServers\":{{\"user\":{{\"command\":\"u\"}}}},\"projects\":{{\
         \"{}\":{{\"mcpServers\":{{\"local\":{{\"command\":\"l\"}}}}}},\
         \"/elsewhere\":{{\"mcpServers\":{{\"no\":{{\"command\":\"n\"}}}}}}}}}}",
        project.display()
    );
    std::fs::write(home.join(".claude.json"), user).unwrap();
    std::fs::write(project.join(".mcp.json"), json("project")).unwrap();
    std::fs::write(root.join("extra.json"), json("flag")).unwrap();
    let catalogue = Catalogue::builtin().unwrap();
    let row = catalogue.get("claude-code").unwrap();
    let mut session = Session {
        vars: Vars::home(home.to_string_lossy()),
        cwd: Some(project.join("src")),
        ..Session::default()
    };
    let argv = words("claude --mcp-config ../../../extra.json -p hi");
    from_argv(row, &argv, &mut session);
    let inline = "{\"mcpServers\":{\"inline\":{\"command\":\"i\"}}}".to_owned();
    let argv = ["claude".to_owned(), "--mcp-config".to_owned(), inline];
    from_argv(row, &argv, &mut session);

    let mut reader = ConfigReader::default();
    let shown = |all: Vec<Configured>| -> Vec<String> {
        all.iter()
            .map(|c| format!("{} {}", c.scope, c.listed.name))
            .collect()
    };
    let expected = [
        "argv inline",
        "argv flag",
        "project local",
        "user user",
        "project project",
    ];
    assert_eq!(shown(reader.configured(row, &session)), expected);
    // A changed file is read again; a broken one is counted and stops nothing else.
    std::fs::write(project.join(".mcp.json"), "{\"mcpServers\": {").unwrap();
    assert_eq!(shown(reader.configured(row, &session)), &expected[..4]);
    assert_eq!(reader.unreadable(), 1);
}

#[test]
fn codex_takes_servers_on_its_command_line() {
    let catalogue = Catalogue::builtin().unwrap();
    let mut session = Session::default();
    let argv: Vec<String> = [
        "codex",
        "-c",
        "mcp_servers.x.command=npx",
        "-c",
        "mcp_servers.x.args=[\"-y\",\"pkg\"]",
        "-c",
        "model=gpt-5",
        "exec",
        "hi",
    ]
    .map(str::to_owned)
    .to_vec();
    from_argv(catalogue.get("codex-cli").unwrap(), &argv, &mut session);
    assert_eq!(session.inline.len(), 1);
    assert_eq!(session.inline[0].command, ["npx", "-y", "pkg"]);
}
