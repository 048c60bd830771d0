use proptest::prelude::*;

use super::*;

fn words(line: &str) -> Vec<String> {
    split_command(line)
}

fn shown(line: &str) -> String {
    let launch = unwrap(&words(line)).unwrap();
    match launch.target {
        Target::Package(p) => format!("{}:{p}", p.ecosystem),
        Target::Script(s) => format!("script {s}"),
        Target::Module(m) => format!("module {m}"),
        Target::Inline => "inline".to_owned(),
        Target::Program(p) => format!("program {p}"),
    }
}

#[test]
fn command_lines_are_unwrapped() {
    for (line, expected) in [
        ("npx -y @scope/pkg@1.2.3 /data", "npm:@scope/pkg@1.2.3"),
        ("npx -y pkg@latest", "npm:pkg"),
        ("npx --package @scope/pkg cmd", "npm:@scope/pkg"),
        ("/usr/bin/env node /usr/bin/npx -y pkg", "npm:pkg"),
        (
            "node /usr/lib/node_modules/npm/bin/npx-cli.js -y pkg",
            "npm:pkg",
        ),
        ("npm exec -y -- pkg", "npm:pkg"),
        ("sh -c 'npx -y pkg --flag'", "npm:pkg"),
        ("pnpm dlx pkg", "npm:pkg"),
        ("bunx pkg", "npm:pkg"),
        ("deno run -A npm:@scope/pkg@2.0.0", "npm:@scope/pkg@2.0.0"),
        ("npx ./local", "program npx"),
        (
            "uvx mcp-server-time@2026.1.1 --tz x",
            "pypi:mcp-server-time@2026.1.1",
        ),
        ("uvx --from 'git-mcp==0.3' serve", "pypi:git-mcp@0.3"),
        ("uv tool uvx mcp-server-time", "pypi:mcp-server-time"),
        ("pipx run --spec pkg==2.0 cmd", "pypi:pkg@2.0"),
        (
            "docker run -i --rm -e TOKEN ghcr.io/github/github-mcp-server:v1",
            "docker:ghcr.io/github/github-mcp-server@v1",
        ),
        (
            "docker run --rm -it --network=host -v /a:/b localhost:5000/x",
            "docker:localhost:5000/x",
        ),
        ("podman run -i img@sha256:abc", "docker:img@sha256:abc"),
        (
            "node --max-old-space-size=4096 /x/.bin/gemini -p hi",
            "script /x/.bin/gemini",
        ),
        ("node -r ./hook.js server.js -e", "script server.js"),
        ("node -e 'code'", "inline"),
        (
            "python3 -m mcp_server_git --repo .",
            "module mcp_server_git",
        ),
        ("python3 -u server.py -m x", "script server.py"),
        ("python3 -c 'import os' arg", "inline"),
        (
            "/opt/env/bin/python3.12 /opt/env/bin/tool",
            "script /opt/env/bin/tool",
        ),
        ("bash -lc 'exec node server.js'", "script server.js"),
        ("env A=b C=d timeout 5 nice -n 3 uvx pkg", "pypi:pkg"),
        ("op run --env-file x -- npx -y pkg", "npm:pkg"),
        ("srt node server.js", "script server.js"),
        ("bwrap --ro-bind / / -- node server.js", "script server.js"),
        ("/usr/bin/git status", "program /usr/bin/git"),
        (
            "uv run --directory /srv/x server.py --stdio",
            "script /srv/x/server.py",
        ),
        ("uv run --with mcp -m pkg.server", "module pkg.server"),
        ("uv run mcp-server-git", "program mcp-server-git"),
        (
            "uv run --with fastmcp fastmcp run server.py",
            "program fastmcp",
        ),
        ("poetry run python server.py", "script server.py"),
        ("conda run -n env python -m srv", "module srv"),
        ("mcp-proxy --port 8080 -- npx -y pkg", "npm:pkg"),
        (
            "supergateway --stdio 'npx -y @m/files /x' --port 8000",
            "npm:@m/files",
        ),
        (
            "npx -y mcp-remote https://mcp.example.com/sse",
            "npm:mcp-remote",
        ),
        ("doppler run --config dev -- uvx pkg", "pypi:pkg"),
        ("mise exec -- npx -y pkg", "npm:pkg"),
        ("deno run -A jsr:@scope/pkg@1.0.0", "jsr:@scope/pkg@1.0.0"),
        ("yarn dlx pkg", "npm:pkg"),
        ("bun x pkg@1.2.3", "npm:pkg@1.2.3"),
        ("dnx Company.Mcp@1.2.3 --yes", "nuget:Company.Mcp@1.2.3"),
        (
            "go run example.com/mcp/cmd@v1.2.3",
            "golang:example.com/mcp/cmd@v1.2.3",
        ),
        ("go run ./cmd", "program go"),
        ("direnv exec /srv node server.js", "script server.js"),
    ] {
        assert_eq!(shown(line), expected, "{line}");
    }
}

#[test]
fn npms_own_title_is_understood() {
    let title = ["npm exec @modelcontextprotocol/server-everything".to_owned()];
    let Target::Package(package) = unwrap(&title).unwrap().target else {
        panic!()
    };
    assert_eq!(package.name, "@modelcontextprotocol/server-everything");
}

proptest! {
    #[test]
    fn any_command_line_is_unwrapped(argv in proptest::collection::vec(
        prop_oneof![
            prop::sample::select(vec!["npx", "-y", "--", "sh", "-c", "env", "node", "docker", "run",
                "uv", "tool", "deno", "python3", "-m", "-", "A=b", "npm", "exec", "timeout"])
                .prop_map(str::to_owned),
            "\\PC{0,12}",
        ], 0..10)
    ) {
        let launch = unwrap(&argv);
        prop_assert!(argv.is_empty() || launch.is_some() || argv.iter().all(|w| w.len() < 40));
    }
}
