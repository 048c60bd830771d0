use jiff::Timestamp;
use keytrail_model::ids::ProcessKey;
use keytrail_model::process::{AgentIdentity, Confidence, ProcessSummary};

use super::*;

struct Home {
    dir: tempfile::TempDir,
    drift: Drift,
    agents: Catalogue,
}

impl Home {
    fn new(files: &[(&str, &str)]) -> Self {
        let home = Self {
            dir: tempfile::tempdir().unwrap(),
            drift: Drift::default(),
            agents: Catalogue::builtin().unwrap(),
        };
        for (path, text) in files {
            home.write(path, text);
        }
        home
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(relative)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        // As an editor does: the new file replaces the old one, so that its stamp differs.
        let new = path.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, &path).unwrap();
    }

    fn look(&mut self) -> Vec<String> {
        let vars = Vars::home(self.path("").to_string_lossy().trim_end_matches('/'));
        let project = self.path("work");
        let view = FsView::host();
        let places = [
            (Where::Home(&vars), &view),
            (Where::Project(&project), &view),
        ];
        let changes = self.drift.look(&self.agents, places.into_iter());
        let root = self.path("");
        changes
            .iter()
            .map(|c| {
                let path = Path::new(&c.path)
                    .strip_prefix(&root)
                    .unwrap()
                    .display()
                    .to_string();
                let who = c.actor.as_ref().map_or("?".to_owned(), Actor::label);
                let own = if c.by_agent { " (itself)" } else { "" };
                format!("{path}: {} {} by {who}{own}", c.change, c.entry)
            })
            .collect()
    }
}

fn actor(product: &str, kind: UnitKind) -> Actor {
    let key = ProcessKey {
        pid: 7,
        start_ns: 1,
    };
    Actor {
        unit: key,
        unit_kind: kind,
        agent: Some(AgentIdentity {
            product: product.to_owned(),
            name: product.to_owned(),
            version: None,
            root: key,
            method: String::new(),
            confidence: Confidence::High,
        }),
        mcp_server: None,
        user: None,
        lineage: vec![ProcessSummary {
            key,
            exe: "/usr/bin/node".to_owned(),
            argv: Vec::new(),
            started: Timestamp::UNIX_EPOCH,
        }],
    }
}

const SERVERS: &str =
    r#"{"mcpServers":{"files":{"command":"npx","env":{"K":"s3cr3t"}}},"numStartups":3}"#;

#[test]
fn the_first_look_takes_notes_and_the_next_tells_what_is_new() {
    let mut home = Home::new(&[(".claude.json", SERVERS), (".cursor/mcp.json", "{}")]);
    assert_eq!(home.look(), [""; 0]);
    assert_eq!(home.look(), [""; 0]);
    home.write(
        ".claude.json",
        &SERVERS.replace("\"numStartups\":3", "\"numStartups\":4"),
    );
    assert_eq!(home.look(), [""; 0], "what is no entry does not count");

    let rogue = r#"{"mcpServers":{"index_project":{"command":"node","args":["/tmp/x.js"]}}}"#;
    home.write(".cursor/mcp.json", rogue);
    home.drift.wrote(
        &home.path(".cursor/mcp.json"),
        actor("codex-cli", UnitKind::McpServer),
    );
    assert_eq!(
        home.look(),
        [".cursor/mcp.json: mcp-server-added index_project by node of codex-cli"]
    );
    assert!(!home.drift.has_writers(), "a writer answers for one change");
    home.write(".cursor/mcp.json", &rogue.replace("x.js", "y.js"));
    assert_eq!(
        home.look(),
        [".cursor/mcp.json: mcp-server-changed index_project by ?"]
    );
    std::fs::remove_file(home.path(".cursor/mcp.json")).unwrap();
    assert_eq!(
        home.look(),
        [".cursor/mcp.json: mcp-server-removed index_project by ?"]
    );
    // A file that was not there at the first look is new in all its entries.
    home.write(".gemini/settings.json", SERVERS);
    assert_eq!(
        home.look(),
        [".gemini/settings.json: mcp-server-added files by ?"]
    );
}

#[test]
fn hooks_and_marks_of_trust_count_and_the_agents_own_writing_is_said() {
    let mut home = Home::new(&[
        (".claude/settings.json", "{}"),
        (".codex/config.toml", "model='x'\n"),
    ]);
    assert_eq!(home.look(), [""; 0]);
    home.write(
        ".claude/settings.json",
        r#"{"hooks":{"SessionStart":[{"hooks":[{"type":"command","command":"/tmp/.x"}]}]},"permissions":{"allow":["Bash(*)"]}}"#,
    );
    home.drift.wrote(
        &home.path(".claude/settings.json"),
        actor("claude-code", UnitKind::Agent),
    );
    assert_eq!(
        home.look(),
        [
            ".claude/settings.json: hook-added SessionStart by claude-code (itself)",
            ".claude/settings.json: trust-changed permissions: allow: Bash(*) by claude-code (itself)",
        ]
    );
    home.write(
        ".codex/config.toml",
        "model='x'\nnotify=['/tmp/.x']\n[projects.\"/work\"]\ntrust_level='trusted'\n[mcp_servers.x]\nurl='https://x.example'\n",
    );
    assert_eq!(
        home.look(),
        [
            ".codex/config.toml: mcp-server-added x by ?",
            ".codex/config.toml: hook-added /tmp/.x by ?",
            ".codex/config.toml: trust-changed projects: /work: trust_level by ?",
        ]
    );
    home.write("work/.mcp.json", r#"{"mcpServers":{"p":{"command":"x"}}}"#);
    assert_eq!(home.look(), ["work/.mcp.json: mcp-server-added p by ?"]);
}

#[test]
fn what_cannot_be_parsed_is_counted_and_compared_when_it_can() {
    let mut home = Home::new(&[(".claude.json", SERVERS)]);
    home.look();
    home.write(".claude.json", "{\"mcpServers\": {\"fi");
    assert_eq!(home.look(), [""; 0]);
    assert_eq!(home.drift.counters().0, 1);
    home.write(".claude.json", &SERVERS.replace("files", "other"));
    let root = ".claude.json";
    assert_eq!(
        home.look(),
        [
            format!("{root}: mcp-server-added other by ?"),
            format!("{root}: mcp-server-removed files by ?"),
        ]
    );
    assert!(!format!("{:?}", home.drift).contains("s3cr3t"));
}
