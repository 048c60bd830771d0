//! What a command line starts in the end: wrappers and launchers unwrapped.

use keytrail_model::process::Package;

/// What is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A package by its registry's name (`npx -y pkg@1`, `uvx pkg`, `docker run image:tag`).
    Package(Package),
    /// A script file run by an interpreter (as written; maybe relative).
    Script(String),
    /// `python -m module`.
    Module(String),
    /// Code on the command line (`node -e`, `python -c`).
    Inline,
    /// An executable (as written).
    Program(String),
}

/// A command line, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// What it starts.
    pub target: Target,
    /// The words from the innermost launcher on (`npx -y pkg`, `node server.js`).
    pub words: Vec<String>,
    /// A package launcher is involved.
    pub launcher: bool,
    /// The interpreter, for [`Target::Script`], [`Target::Module`] and [`Target::Inline`].
    pub interpreter: Option<String>,
    /// A shell ran it (`sh -c`).
    pub shell: bool,
}

/// Wrappers inside each other that are followed.
const MAX_DEPTH: usize = 8;

/// Last component of a path.
#[must_use]
pub fn basename(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// A runtime that runs scripts, by the name of its executable.
#[must_use]
pub fn is_interpreter(name: &str) -> bool {
    let plain = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    matches!(
        plain,
        "node" | "nodejs" | "python" | "bun" | "deno" | "ruby" | "perl" | "php" | "tsx"
    ) || name.starts_with("pypy")
}

/// A POSIX shell.
#[must_use]
pub fn is_shell(name: &str) -> bool {
    matches!(
        name,
        "sh" | "bash" | "dash" | "zsh" | "fish" | "ash" | "busybox" | "ksh"
    )
}

/// Takes a command line apart. `None` for an empty one.
#[must_use]
pub fn unwrap(argv: &[String]) -> Option<Launch> {
    let mut words: Vec<String> = argv.to_vec();
    let mut shell = false;
    for _ in 0..MAX_DEPTH {
        let name = basename(words.first()?).to_owned();
        if is_shell(&name)
            && let Some(command) = shell_command(&words)
        {
            shell = true;
            words = split_command(&command);
            if words.first().is_some_and(|w| w == "exec") {
                words.remove(0);
            }
            continue;
        }
        match inner(&name, &words) {
            Some(rest) if !rest.is_empty() => words = rest,
            Some(_) | None => break,
        }
    }
    let (target, interpreter, launcher) = target_of(&words)?;
    Some(Launch {
        target,
        words,
        launcher,
        interpreter,
        shell,
    })
}

/// The text after `-c`.
fn shell_command(words: &[String]) -> Option<String> {
    let at = words
        .iter()
        .position(|w| w.starts_with('-') && !w.starts_with("--") && w.ends_with('c'))?;
    words.get(at + 1).cloned()
}

/// Splits one simple shell command; stops at the first operator.
pub(crate) fn split_command(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote: Option<char> = None;
    let mut started = false;
    let mut chars = command.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some('"') | None, '\\') => word.extend(chars.next()),
            (Some(_), c) => word.push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                started = true;
            }
            (None, ';' | '|' | '&' | '\n') => break,
            (None, c) if c.is_whitespace() => {
                if started || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                    started = false;
                }
            }
            (None, c) => word.push(c),
        }
    }
    if started || !word.is_empty() {
        words.push(word);
    }
    words
}

/// What a wrapper runs, or `None` when this is no wrapper.
fn inner(name: &str, words: &[String]) -> Option<Vec<String>> {
    let after_options = |with_value: &[&str]| {
        let at = first_operand(words, 1, with_value)?;
        words.get(at..).map(<[String]>::to_vec)
    };
    let after_dashes = || {
        let at = words.iter().position(|w| w == "--")?;
        words.get(at + 1..).map(<[String]>::to_vec)
    };
    let second = words.get(1).map(String::as_str);
    match name {
        "env" => {
            let rest = after_options(&["-u", "-C", "--unset", "--chdir"])?;
            let start = rest.iter().position(|w| !w.contains('='))?;
            rest.get(start..).map(<[String]>::to_vec)
        }
        "nohup" | "setsid" | "stdbuf" | "ionice" | "chrt" | "catchsegv" | "unbuffer" | "strace"
        | "xvfb-run" | "firejail" => after_options(&["-i", "-o", "-e", "-c", "-n", "-p", "-f"]),
        "nice" => after_options(&["-n", "--adjustment"]),
        "sudo" | "doas" => after_options(&["-u", "-g", "-h", "-p", "-C", "-r", "-t", "-D"]),
        "timeout" => {
            let rest = after_options(&["-s", "-k", "--signal", "--kill-after"])?;
            rest.get(1..).map(<[String]>::to_vec)
        }
        "srt" => after_dashes().or_else(|| after_options(&["-s", "--settings", "-c"])),
        "bwrap" | "op" | "doppler" | "pipelock" | "aws-vault" | "infisical" | "chamber"
        | "mise" | "dotenv" | "dotenvx" | "envchain" | "sops" | "vault" | "systemd-run"
        | "flox" => after_dashes(),
        // Gateways that speak MCP on one side and start a stdio server on the other.
        "mcp-proxy" | "mcpo" | "mcp-gateway" | "mcp-scan" => after_dashes(),
        "supergateway" => split_option(words, &["--stdio"]),
        // `direnv exec DIR command`, `conda run -n env command`.
        "direnv" if second == Some("exec") => words.get(3..).map(<[String]>::to_vec),
        "conda" | "mamba" | "micromamba" if second == Some("run") => {
            let at = first_operand(words, 2, &["-n", "-p", "--name", "--prefix", "--cwd"])?;
            words.get(at..).map(<[String]>::to_vec)
        }
        "poetry" | "pdm" | "hatch" | "pixi" | "pipenv" | "rye" if second == Some("run") => {
            let at = first_operand(words, 2, &["-p", "-e", "--project", "--manifest-path"])?;
            words.get(at..).map(<[String]>::to_vec)
        }
        // `uv run [options] script.py | command`: what it runs, in the project's environment.
        "uv" if second == Some("run") => uv_run(words),
        // These launch npm's own script with node; the words from the script on say the same.
        "node" | "nodejs" => {
            let at = script_index(words)?;
            let script = basename(words.get(at)?);
            let alias = match script {
                "npx" | "npx-cli.js" => "npx",
                "npm" | "npm-cli.js" => "npm",
                "pnpm" | "pnpm.cjs" => "pnpm",
                "yarn" | "yarn.js" => "yarn",
                _ => return None,
            };
            let rest = words.get(at + 1..).unwrap_or_default();
            Some(
                std::iter::once(alias.to_owned())
                    .chain(rest.iter().cloned())
                    .collect(),
            )
        }
        // After `process.title=` npm shows itself as one word.
        _ if name.starts_with("npm exec ") || words.first()?.starts_with("npm exec ") => {
            let title = split_command(words.first()?);
            Some(title)
        }
        _ => None,
    }
}

/// The command in one option's value.
fn split_option(words: &[String], names: &[&str]) -> Option<Vec<String>> {
    option_value(words, words.len(), names).map(split_command)
}

/// Options of `uv run` that take the next word.
const UV_RUN_VALUES: [&str; 16] = [
    "--with",
    "--with-requirements",
    "--with-editable",
    "--python",
    "-p",
    "--project",
    "--directory",
    "--package",
    "--extra",
    "--group",
    "--index",
    "--index-url",
    "--env-file",
    "--cache-dir",
    "--config-file",
    "--only-group",
];

fn uv_run(words: &[String]) -> Option<Vec<String>> {
    let module = words.iter().position(|w| w == "-m" || w == "--module");
    let at = first_operand(words, 2, &UV_RUN_VALUES);
    let python = |rest: &[String]| {
        std::iter::once("python".to_owned())
            .chain(rest.iter().cloned())
            .collect()
    };
    match (module, at) {
        (Some(module), at) if at.is_none_or(|at| at > module) => {
            let rest = words.get(module + 1..)?;
            Some(python(&[&["-m".to_owned()], rest].concat()))
        }
        (_, Some(at)) => {
            let mut rest = words.get(at..)?.to_vec();
            // `--directory D`: a script's path is relative to it.
            let script = rest.first()?.clone();
            let is_script = std::path::Path::new(&script)
                .extension()
                .is_some_and(|e| e.eq_ignore_ascii_case("py"));
            if !is_script {
                return Some(rest);
            }
            if let Some(dir) = option_value(words, at, &["--directory"])
                && !script.starts_with('/')
                && let Some(first) = rest.first_mut()
            {
                *first = format!("{}/{script}", dir.trim_end_matches('/'));
            }
            Some(python(&rest))
        }
        (_, None) => None,
    }
}

/// Index of the first word from `from` on that is no option (nor the value of one).
fn first_operand(words: &[String], from: usize, with_value: &[&str]) -> Option<usize> {
    let mut at = from;
    while let Some(word) = words.get(at) {
        if word == "--" {
            return Some(at + 1);
        }
        if !word.starts_with('-') || word == "-" {
            return Some(at);
        }
        at += if with_value.contains(&word.as_str()) {
            2
        } else {
            1
        };
    }
    None
}

/// Index of the script in an interpreter's command line.
fn script_index(words: &[String]) -> Option<usize> {
    first_operand(words, 1, INTERPRETER_VALUES)
}

/// Options of node, python, bun and deno that take the next word.
const INTERPRETER_VALUES: &[&str] = &[
    "-r",
    "--require",
    "--import",
    "--loader",
    "--experimental-loader",
    "-C",
    "--conditions",
    "-W",
    "-X",
    "--env-file",
    "--input-type",
    "--title",
    "--config",
    "--preload",
    "--import-map",
];

fn target_of(words: &[String]) -> Option<(Target, Option<String>, bool)> {
    let first = words.first()?;
    let name = basename(first);
    if let Some(package) = launched_package(name, words) {
        return Some((Target::Package(package), None, true));
    }
    if !is_interpreter(name) {
        return Some((Target::Program(first.clone()), None, false));
    }
    let interpreter = Some(first.clone());
    let inline = |flags: &[&str]| words.iter().skip(1).any(|w| flags.contains(&w.as_str()));
    let python = name.starts_with("python") || name.starts_with("pypy");
    let script_at = match (name, words.get(1).map(String::as_str)) {
        ("bun" | "deno", Some("run")) => first_operand(words, 2, INTERPRETER_VALUES),
        _ => script_index(words),
    };
    // `-m`, `-c`, `-e` count only before the script: after it they are the script's own.
    let options = words
        .get(1..script_at.unwrap_or(words.len()))
        .unwrap_or_default();
    if python && let Some(at) = options.iter().position(|w| w == "-m") {
        let module = words.get(at + 2).cloned().unwrap_or_default();
        return Some((Target::Module(module), interpreter, false));
    }
    let code = if python {
        &["-c"][..]
    } else {
        &["-e", "--eval", "-p", "--print"][..]
    };
    if options.iter().any(|w| code.contains(&w.as_str())) || (script_at.is_none() && inline(code)) {
        return Some((Target::Inline, interpreter, false));
    }
    match script_at.and_then(|at| words.get(at)) {
        Some(script) => Some((Target::Script(script.clone()), interpreter, false)),
        None => Some((Target::Program(first.clone()), interpreter, false)),
    }
}

/// The package that a launcher fetches and runs.
fn launched_package(name: &str, words: &[String]) -> Option<Package> {
    let second = words.get(1).map(String::as_str);
    let third = words.get(2).map(String::as_str);
    let npx_values = [
        "-p",
        "--package",
        "-c",
        "--call",
        "--registry",
        "--cache",
        "-w",
    ];
    let uv_values = [
        "--python",
        "-p",
        "--with",
        "--index-url",
        "--index",
        "--directory",
        "--cache-dir",
    ];
    match (name, second, third) {
        ("npx" | "bunx" | "pnpx", ..) => npm(words, 1, &npx_values),
        ("npm", Some("exec" | "x"), _)
        | ("pnpm" | "yarn", Some("dlx"), _)
        | ("bun", Some("x"), _) => npm(words, 2, &npx_values),
        ("uvx", ..) => pypi(words, 1, &uv_values, "--from"),
        ("uv", Some("tool"), Some("run" | "uvx")) => pypi(words, 3, &uv_values, "--from"),
        ("pipx", Some("run"), _) => pypi(
            words,
            2,
            &["--python", "--pip-args", "--index-url"],
            "--spec",
        ),
        ("docker" | "podman" | "nerdctl", Some("run"), _) => image(words, 2),
        ("docker" | "podman", Some("container"), Some("run")) => image(words, 3),
        ("deno", Some("run" | "x"), _) => {
            let at = first_operand(words, 2, &[])?;
            let spec = words.get(at)?;
            match spec.strip_prefix("jsr:") {
                Some(jsr) => npm_spec(jsr).map(|p| Package {
                    ecosystem: "jsr".to_owned(),
                    ..p
                }),
                None => npm_spec(spec.strip_prefix("npm:")?),
            }
        }
        ("dnx", ..) => nuget(words, 1),
        ("dotnet", Some("tool"), Some("exec")) => nuget(words, 3),
        ("go", Some("run"), _) => go(words),
        _ => None,
    }
}

fn option_value<'a>(words: &'a [String], until: usize, names: &[&str]) -> Option<&'a str> {
    let head = words.get(..until).unwrap_or(words);
    head.iter().enumerate().find_map(|(at, word)| {
        if names.contains(&word.as_str()) {
            return words.get(at + 1).map(String::as_str);
        }
        names
            .iter()
            .find_map(|name| word.strip_prefix(name)?.strip_prefix('='))
    })
}

fn npm(words: &[String], from: usize, with_value: &[&str]) -> Option<Package> {
    let operand = first_operand(words, from, with_value);
    let until = operand.unwrap_or(words.len());
    let spec = option_value(words, until, &["-p", "--package"])
        .or_else(|| words.get(operand?).map(String::as_str))?;
    npm_spec(spec)
}

/// `name`, `@scope/name`, with `@version` behind. Paths, URLs and git specs are no package names.
fn npm_spec(spec: &str) -> Option<Package> {
    let at = spec
        .char_indices()
        .skip(1)
        .find(|(_, c)| *c == '@')
        .map(|(at, _)| at);
    let (name, version) = match at {
        Some(at) => (spec.get(..at)?, spec.get(at + 1..)),
        None => (spec, None),
    };
    let scoped = name.starts_with('@');
    let slashes = name.matches('/').count();
    let named = name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"@/-_.~".contains(&b));
    if name.is_empty()
        || !named
        || name.starts_with(['.', '/', '~'])
        || slashes != usize::from(scoped)
    {
        return None;
    }
    // A range or a tag is not a version: what was installed says it.
    let version = version.filter(|v| v.starts_with(|c: char| c.is_ascii_digit()));
    Some(package("npm", name, version))
}

/// `dnx Package@1.2.3 --yes`.
fn nuget(words: &[String], from: usize) -> Option<Package> {
    let at = first_operand(words, from, &["--version", "--source", "--add-source"])?;
    let spec = words.get(at)?;
    let (name, version) = match spec.split_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (
            spec.as_str(),
            option_value(words, words.len(), &["--version"]),
        ),
    };
    let named = name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    (named && !name.is_empty()).then(|| package("nuget", name, version))
}

/// `go run example.com/mod/cmd@v1.2.3`; a path or a file is no module.
fn go(words: &[String]) -> Option<Package> {
    let spec = words.get(first_operand(
        words,
        2,
        &["-exec", "-mod", "-modfile", "-tags"],
    )?)?;
    let (module, version) = spec.split_once('@')?;
    let host = module.split('/').next()?;
    let named = host.contains('.') && !module.starts_with(['.', '/']);
    let version = Some(version).filter(|v| v.starts_with('v'));
    named.then(|| package("golang", module, version))
}

fn pypi(words: &[String], from: usize, with_value: &[&str], spec_flag: &str) -> Option<Package> {
    let mut values = with_value.to_vec();
    values.push(spec_flag);
    let operand = first_operand(words, from, &values);
    let until = operand.unwrap_or(words.len());
    let spec = option_value(words, until, &[spec_flag])
        .or_else(|| words.get(operand?).map(String::as_str))?;
    let end = spec
        .find(['=', '<', '>', '!', '~', '@', '[', ' '])
        .unwrap_or(spec.len());
    let (name, rest) = spec.split_at_checked(end)?;
    if name.is_empty() || name.contains(['/', ':']) || name.starts_with('.') {
        return None;
    }
    let version = rest.strip_prefix("==").or_else(|| rest.strip_prefix('@'));
    let version = version.filter(|v| v.starts_with(|c: char| c.is_ascii_digit()));
    Some(package("pypi", name, version))
}

/// `docker run [options] IMAGE`: of the options, these take no value.
fn image(words: &[String], from: usize) -> Option<Package> {
    const FLAGS: [&str; 13] = [
        "--rm",
        "--init",
        "--privileged",
        "--detach",
        "--interactive",
        "--tty",
        "--read-only",
        "--no-healthcheck",
        "--oom-kill-disable",
        "--publish-all",
        "--quiet",
        "--sig-proxy",
        "--help",
    ];
    let mut at = from;
    loop {
        let word = words.get(at)?;
        if !word.starts_with('-') {
            return image_ref(word);
        }
        let alone = word.contains('=')
            || FLAGS.contains(&word.as_str())
            || (!word.starts_with("--") && word.chars().skip(1).all(|c| "itdPq".contains(c)))
            // `-eNAME`: the value is in the same word.
            || (!word.starts_with("--") && word.len() > 2);
        at += if alone { 1 } else { 2 };
    }
}

fn image_ref(text: &str) -> Option<Package> {
    if let Some((name, digest)) = text.split_once('@') {
        let name = name
            .rsplit_once(':')
            .filter(|(_, t)| !t.contains('/'))
            .map_or(name, |(n, _)| n);
        return Some(package("docker", name, Some(digest)));
    }
    match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => Some(package("docker", name, Some(tag))),
        _ => Some(package("docker", text, None)),
    }
}

fn package(ecosystem: &str, name: &str, version: Option<&str>) -> Package {
    let cap = |text: &str| text.chars().take(214).collect();
    Package {
        ecosystem: ecosystem.to_owned(),
        name: cap(name),
        version: version.map(cap),
    }
}

#[cfg(test)]
mod tests;
