//! Code that runs because a package is being installed: nobody asked for it by name.

use keytrail_model::process::{Actor, ProcessSummary};

/// Package managers and the words after which they run scripts of packages.
/// Sources: the managers' own manuals (`npm help 7 scripts`, `pip install`, ...).
const MANAGERS: &[(&str, &[&str])] = &[
    (
        "npm",
        &[
            "install",
            "i",
            "in",
            "add",
            "ci",
            "clean-install",
            "install-test",
            "it",
            "cit",
            "update",
            "up",
            "upgrade",
            "rebuild",
            "rb",
        ],
    ),
    (
        "pnpm",
        &["install", "i", "add", "update", "up", "rebuild", "rb"],
    ),
    ("yarn", &["install", "add", "up", "upgrade", "rebuild"]),
    ("bun", &["install", "i", "add", "a", "update"]),
    ("pip", &["install", "wheel", "download"]),
    ("pip3", &["install", "wheel", "download"]),
    ("uv", &["sync", "add", "pip", "lock"]),
    ("poetry", &["install", "add", "update"]),
    ("gem", &["install", "update"]),
    ("bundle", &["install", "update", "add"]),
    ("composer", &["install", "update", "require"]),
    ("cargo", &["build", "install"]),
];

/// The package manager's command above `actor`, if its processes are part of an installation.
pub(crate) fn of(actor: &Actor) -> Option<String> {
    // The process itself does the reading; what matters is what is above it, or that it is the
    // manager of a script run inside it.
    actor.lineage.iter().skip(1).find_map(command)
}

fn command(process: &ProcessSummary) -> Option<String> {
    let base = |word: &str| {
        let name = word.rsplit('/').next().unwrap_or(word);
        let name = name
            .strip_suffix(".js")
            .or_else(|| name.strip_suffix(".cjs"));
        name.or_else(|| word.rsplit('/').next())
            .map(|name| name.strip_suffix("-cli").unwrap_or(name).to_owned())
    };
    let words: Vec<String> = process
        .argv
        .iter()
        .take(8)
        .filter_map(|w| base(w))
        .collect();
    // Some managers set their title to the whole command (`npm install x`), one word to the kernel.
    let words: Vec<&str> = match words.as_slice() {
        [title] => title.split_whitespace().collect(),
        all => all.iter().map(String::as_str).collect(),
    };
    // The manager is the program, or the script or module that its interpreter runs.
    let (at, verbs) = words.iter().take(4).enumerate().find_map(|(at, word)| {
        let (_, verbs) = MANAGERS.iter().find(|(name, _)| name == word)?;
        Some((at, *verbs))
    })?;
    let manager = words.get(at)?;
    let verb = words
        .iter()
        .skip(at + 1)
        .find(|word| !word.starts_with('-'));
    match verb {
        Some(verb) if verbs.contains(verb) => Some(format!("{manager} {verb}")),
        None if *manager == "yarn" => Some("yarn install".to_owned()),
        Some(_) | None => None,
    }
}

#[cfg(test)]
mod tests {
    use keytrail_model::ids::ProcessKey;

    use super::*;

    #[test]
    fn installations() {
        for (argv, expected) in [
            (&["npm", "install"] as &[&str], Some("npm install")),
            (&["node", "/usr/bin/npm", "ci"], Some("npm ci")),
            (
                &[
                    "node",
                    "/usr/lib/node_modules/npm/bin/npm-cli.js",
                    "i",
                    "nx",
                ],
                Some("npm i"),
            ),
            (&["npm install nx"], Some("npm install")),
            (&["yarn"], Some("yarn install")),
            (
                &["python3", "-m", "pip", "install", "x"],
                Some("pip install"),
            ),
            (&["npm", "exec", "mcp-server"], None),
            (&["npm", "run", "build"], None),
            (&["node", "server.js"], None),
            (&["bash", "-c", "make"], None),
        ] {
            let process = ProcessSummary {
                key: ProcessKey::default(),
                exe: "/usr/bin/node".to_owned(),
                argv: argv.iter().map(|word| (*word).to_owned()).collect(),
                started: jiff::Timestamp::UNIX_EPOCH,
            };
            assert_eq!(command(&process).as_deref(), expected, "{argv:?}");
        }
    }
}
