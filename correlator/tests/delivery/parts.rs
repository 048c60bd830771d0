//! The real and independent parts that deliveries are tested against: servers that others wrote,
//! filled by clients that others wrote. `cargo xtask test --only deliveries` installs them
//! (`parts/`); a test whose part is absent says `SKIPPED`.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to start.
const START: Duration = Duration::from_secs(60);

/// Where the parts are: `$KEYTRAIL_PARTS`, else `target/keytrail/parts` of the checkout.
fn folder() -> PathBuf {
    match std::env::var_os("KEYTRAIL_PARTS") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/keytrail/parts"),
    }
}

/// The Python that has the parts; says that the test `name` is skipped when there is none.
pub fn python(name: &str) -> Option<Python> {
    let program = folder().join("python/bin/python");
    if program.exists() {
        return Some(Python(program));
    }
    println!(
        "SKIPPED {name}: no {}: run `cargo xtask test --only deliveries`",
        program.display()
    );
    None
}

/// A Python with the clients and servers of `parts/requirements.txt`.
pub struct Python(PathBuf);

impl Python {
    /// Runs a script to its end; its output.
    pub fn run(&self, script: &str, arguments: &[&str]) -> String {
        let output = Command::new(&self.0)
            .arg("-c")
            .arg(script)
            .args(arguments)
            .env("AWS_ACCESS_KEY_ID", "made-up")
            .env("AWS_SECRET_ACCESS_KEY", "made-up")
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// A file that a package brings, by a path below `site-packages`.
    pub fn brought(&self, path: &str) -> PathBuf {
        let site = self.run(
            "import sysconfig; print(sysconfig.get_path('purelib'))",
            &[],
        );
        Path::new(&site).join(path)
    }

    /// The same program, to be started.
    pub fn command(&self) -> Command {
        Command::new(&self.0)
    }
}

/// A program of the npm parts.
pub fn npm(name: &str, program: &str) -> Option<PathBuf> {
    let path = folder().join("npm/node_modules/.bin").join(program);
    if path.exists() {
        return Some(path);
    }
    println!(
        "SKIPPED {name}: no {}: run `cargo xtask test --only deliveries`",
        path.display()
    );
    None
}

/// A port of loopback that was free a moment ago.
pub fn port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A running server, ended when dropped.
pub struct Part(Child);

impl Drop for Part {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Part {
    /// Starts a server and waits until it listens.
    pub fn start(command: &mut Command, port: u16) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let mut part = Self(child);
        let start = Instant::now();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        while TcpStream::connect(address).is_err() {
            assert!(start.elapsed() < START, "{command:?} does not listen");
            let ended = part.0.try_wait().unwrap();
            assert!(ended.is_none(), "{command:?} ended: {ended:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
        part
    }
}
