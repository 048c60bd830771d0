//! Builds the BPF object that the agent embeds.
//!
//! Rust for the BPF target needs a compiler with the source of `core`. Two are accepted, whichever
//! is there: Debian's `rustc-web` + `rust-web-src`, or a rustup nightly with `rust-src`; both with
//! `bpf-linker`. `KEYTRAIL_BPF_OBJECT=path` takes an object built elsewhere instead.
#![allow(
    clippy::print_stdout,
    reason = "this is how a build script talks to cargo"
)]

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A compiler that can build for the BPF target.
struct Toolchain {
    cargo: Vec<String>,
    rustc: Option<PathBuf>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("..");
    for path in [
        "sensor-ebpf/src",
        "sensor-ebpf/Cargo.toml",
        "sensor-ebpf/Cargo.lock",
        "sensor-abi/src",
    ] {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    println!("cargo::rerun-if-env-changed=KEYTRAIL_BPF_OBJECT");
    let object = match env::var_os("KEYTRAIL_BPF_OBJECT") {
        Some(path) => {
            println!("cargo::rerun-if-changed={}", Path::new(&path).display());
            PathBuf::from(path)
        }
        None => build(&root.join("sensor-ebpf"), &out.join("bpf"))?,
    };
    fs::copy(&object, out.join("keytrail.bpf.o"))
        .map_err(|e| format!("cannot copy the BPF object {}: {e}", object.display()))?;
    Ok(())
}

fn build(source: &Path, target: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let linker = find_linker();
    let (Some(toolchain), Some(linker)) = (find_toolchain(), linker) else {
        return Err("the BPF programs need a compiler with the source of `core`, and bpf-linker.\n\
             Run `cargo xtask setup` (Debian: rustc-web cargo-web rust-web-src llvm-22-dev, then \
             `cargo install bpf-linker`), or install a rustup nightly with rust-src and bpf-linker, \
             or name a finished object in KEYTRAIL_BPF_OBJECT."
            .into());
    };
    let arch = env::var("CARGO_CFG_TARGET_ARCH")?;
    let mut parts = toolchain.cargo.iter();
    let mut command = Command::new(parts.next().ok_or("empty command")?);
    command.args(parts);
    // What this build's cargo put into the environment is about the agent, not about the object.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO", "RUST", "TARGET", "PROFILE"]
            .iter()
            .any(|p| text.starts_with(p))
            && !["CARGO_HOME", "RUSTUP_HOME"].contains(&text.as_ref())
        {
            command.env_remove(&name);
        }
    }
    if let Some(rustc) = toolchain.rustc {
        command.env("RUSTC", rustc);
    }
    let dir = linker.parent().map(Path::to_path_buf).unwrap_or_default();
    let mut search = vec![dir];
    search.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    let status = command
        .current_dir(source)
        .env("PATH", env::join_paths(search)?)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_DIR", target)
        .env(
            "RUSTFLAGS",
            format!("-C debuginfo=2 -C link-arg=--btf --cfg=bpf_target_arch=\"{arch}\""),
        )
        .args([
            "build",
            "--quiet",
            "--release",
            "--locked",
            "-Zbuild-std=core",
        ])
        .args(["--target", "bpfel-unknown-none"])
        .status()
        .map_err(|e| format!("cannot start {}: {e}", toolchain.cargo.join(" ")))?;
    if !status.success() {
        return Err("the BPF programs did not compile; the compiler's messages are above".into());
    }
    Ok(target.join("bpfel-unknown-none/release/keytrail-ebpf"))
}

fn find_linker() -> Option<PathBuf> {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    let mut dirs: Vec<PathBuf> =
        env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
    dirs.extend(home.map(|home| home.join("bin")));
    dirs.into_iter()
        .map(|dir| dir.join("bpf-linker"))
        .find(|path| path.is_file())
}

fn find_toolchain() -> Option<Toolchain> {
    let has_core = |sysroot: &Path| sysroot.join("lib/rustlib/src/rust/library/core").is_dir();
    let (rustc, cargo) = (Path::new("/usr/bin/rustc"), Path::new("/usr/bin/cargo"));
    if rustc.is_file() && cargo.is_file() && has_core(Path::new("/usr")) {
        return Some(Toolchain {
            cargo: vec![cargo.display().to_string()],
            rustc: Some(rustc.to_path_buf()),
        });
    }
    let sysroot = Command::new("rustup")
        .args(["run", "nightly", "rustc", "--print", "sysroot"])
        .output()
        .ok()
        .filter(|out| out.status.success())
        .and_then(|out| String::from_utf8(out.stdout).ok())?;
    has_core(Path::new(sysroot.trim())).then(|| Toolchain {
        cargo: ["rustup", "run", "nightly", "cargo"]
            .map(String::from)
            .to_vec(),
        rustc: None,
    })
}
