use super::super::launch;
use super::*;

struct Tree(tempfile::TempDir);

impl Tree {
    fn new(files: &[(&str, &str)]) -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        for (path, text) in files {
            let path = tree.path(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        tree
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join(relative)
    }

    fn identify(&self, line: &str, exe: &str) -> Identified {
        let root = self.path("");
        let line = line.replace("ROOT", root.to_str().unwrap().trim_end_matches('/'));
        let argv: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let launch = launch::unwrap(&argv).unwrap();
        identify(&FsView::host(), &launch, Path::new(exe), Some(&root))
    }
}

fn shown(identified: &Identified) -> String {
    let package = identified.package.as_ref();
    package.map_or("-".to_owned(), |p| format!("{}:{p}", p.ecosystem))
}

#[test]
fn an_npm_script_is_found_behind_its_link() {
    let tree = Tree::new(&[
        (
            "n/node_modules/@a/srv/package.json",
            r#"{"name":"@a/srv","version":"1.2.3","bin":{"srv":"dist/i.js"},"dependencies":{"@modelcontextprotocol/sdk":"^1"}}"#,
        ),
        (
            "n/node_modules/@a/srv/dist/package.json",
            r#"{"type":"module"}"#,
        ),
        ("n/node_modules/@a/srv/dist/i.js", ""),
        ("n/node_modules/.bin/x", ""),
        ("loose/script.js", ""),
    ]);
    std::fs::remove_file(tree.path("n/node_modules/.bin/x")).unwrap();
    std::os::unix::fs::symlink("../@a/srv/dist/i.js", tree.path("n/node_modules/.bin/srv"))
        .unwrap();
    for line in [
        "node ROOT/n/node_modules/.bin/srv",
        "node n/node_modules/@a/srv/dist/i.js",
    ] {
        let identified = tree.identify(line, "/usr/bin/node");
        assert_eq!(shown(&identified), "npm:@a/srv@1.2.3", "{line}");
        assert!(identified.mcp);
        assert_eq!(
            identified.script,
            Some(tree.path("n/node_modules/@a/srv/dist/i.js"))
        );
    }
    assert_eq!(
        shown(&tree.identify("node ROOT/loose/script.js", "/usr/bin/node")),
        "-"
    );
    assert_eq!(
        shown(&tree.identify("node ROOT/gone.js", "/usr/bin/node")),
        "-"
    );
}

#[test]
fn python_scripts_and_modules_are_found_in_their_environment() {
    let site = "env/lib/python3.12/site-packages";
    let tree = Tree::new(&[
        ("env/bin/mcp-server-time", ""),
        ("env/bin/aws", ""),
        ("env/bin/python", ""),
        (
            &format!("{site}/mcp_server_time-2026.10.19.dist-info/entry_points.txt"),
            "[console_scripts]\nmcp-server-time = mcp_server_time:main\n",
        ),
        (
            &format!("{site}/awscli-2.1.0.dist-info/RECORD"),
            "../../../bin/aws,sha256=x,1\n",
        ),
        (
            &format!("{site}/Odd_Name-0.1.dist-info/RECORD"),
            "odd_module/__init__.py,,\n",
        ),
    ]);
    for (line, expected) in [
        (
            "ROOT/env/bin/python ROOT/env/bin/mcp-server-time",
            "pypi:mcp-server-time@2026.10.19",
        ),
        ("python3 ROOT/env/bin/aws s3 ls", "pypi:awscli@2.1.0"),
        (
            "ROOT/env/bin/python -m mcp_server_time",
            "pypi:mcp-server-time@2026.10.19",
        ),
        (
            "ROOT/env/bin/python -m odd_module.server",
            "pypi:odd-name@0.1",
        ),
        ("ROOT/env/bin/python -m nothing_here", "-"),
    ] {
        assert_eq!(
            shown(&tree.identify(line, "/usr/bin/python3.12")),
            expected,
            "{line}"
        );
    }
}

#[test]
fn hostile_manifests_do_no_harm() {
    let tree = Tree::new(&[
        ("a/package.json", "{\"name\":7}"),
        ("a/i.js", ""),
        ("b/package.json", "{"),
        ("b/i.js", ""),
    ]);
    nix::unistd::mkfifo(&tree.path("b/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(shown(&tree.identify("node a/i.js", "/usr/bin/node")), "-");
    assert_eq!(shown(&tree.identify("node b/i.js", "/usr/bin/node")), "-");
    let long = format!("{{\"name\":\"{}\"}}", "x".repeat(5000));
    let tree = Tree::new(&[("c/package.json", &long), ("c/i.js", "")]);
    assert_eq!(
        tree.identify("node c/i.js", "/usr/bin/node")
            .package
            .unwrap()
            .name
            .len(),
        214
    );
}

#[test]
fn names_are_read_as_words() {
    for (name, expected) in [
        ("mcp-server-time", true),
        ("@modelcontextprotocol/server-everything", true),
        ("awslabs.cost_mcp", true),
        ("mcpherson", false),
        ("esbuild", false),
    ] {
        assert_eq!(names_mcp(name), expected, "{name}");
    }
}
