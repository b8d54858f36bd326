//! Network namespaces that go when the test ends, well or badly, with all that runs inside.

use std::fs::{self, File};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ctl::lab::converge::{KernelRoute, kernel_routes};
use ctl::lab::namespace;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait::eventually;

/// A number that no other test on this machine uses now.
fn unique() -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("{:x}-{count:x}", std::process::id())
}

/// A network namespace of a test, with `lo` up and forwarding on.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes one. The purpose is part of its name, for who looks at a test that hangs.
    ///
    /// # Panics
    /// When it cannot be made: tests need root.
    pub fn new(purpose: &str) -> Self {
        let name = format!("rt-{}-{purpose}", unique());
        namespace::ip_batch(None, None, &[format!("netns add {name}")])
            .expect("tests make network namespaces and must run as root");
        let namespace = Self { name };
        namespace.sysctl(&[
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv6/conf/default/accept_dad", "0"),
            ("ipv6/conf/default/dad_transmits", "0"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
        ]);
        namespace.ip(&["link set lo up"]);
        namespace
    }

    /// Its name, for `ip -n`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` commands inside.
    ///
    /// # Panics
    /// When one fails.
    pub fn ip(&self, lines: &[&str]) {
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        namespace::ip_batch(None, Some(&self.name), &lines).expect("ip");
    }

    /// Sets sysctls, named below `net/`.
    ///
    /// # Panics
    /// When one cannot be set.
    pub fn sysctl(&self, settings: &[(&str, &str)]) {
        namespace::sysctl(&self.name, settings).expect("sysctl");
    }

    /// Runs `work` on a thread inside.
    ///
    /// # Panics
    /// When the namespace is gone.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        namespace::within(&self.name, work).expect("enter the namespace")
    }

    /// Runs a program inside to its end and returns what it printed, whatever its exit code.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn output(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.within(|| Command::new(program).args(arguments).output());
        let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Starts a program inside; its output goes to `log`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(&self, program: &Path, arguments: &[&str], log: &Path) -> Daemon {
        let output = File::options().create(true).append(true).open(log).expect("log file");
        let errors = output.try_clone().expect("log file");
        let child = self.within(|| {
            Command::new(program)
                .args(arguments)
                .stdin(Stdio::null())
                .stdout(output)
                .stderr(errors)
                .spawn()
        });
        Daemon {
            child: child.unwrap_or_else(|error| panic!("{}: {error}", program.display())),
            log: log.to_owned(),
        }
    }

    /// Kernel routes of both families.
    ///
    /// # Panics
    /// When they cannot be listed.
    pub fn routes(&self) -> Vec<KernelRoute> {
        let mut routes = kernel_routes(&self.name, "-4").expect("IPv4 routes");
        routes.extend(kernel_routes(&self.name, "-6").expect("IPv6 routes"));
        routes
    }

    /// Whether the kernel routes `prefix` to exactly this gateway.
    pub fn routes_via(&self, prefix: &str, gateway: IpAddr) -> bool {
        self.routes()
            .iter()
            .any(|route| route.dst == prefix && route.gateways() == [gateway.to_string()].into())
    }

    /// Whether the kernel has a route to `prefix` that has a gateway.
    pub fn reaches(&self, prefix: &str) -> bool {
        self.routes().iter().any(|route| route.dst == prefix && !route.gateways().is_empty())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let removed = namespace::ip_batch(None, None, &[format!("netns del {}", self.name)]);
        if let Err(error) = removed
            && !std::thread::panicking()
        {
            panic!("namespace {} stays: {error}", self.name);
        }
    }
}

/// Connects two namespaces; both ends are up.
///
/// # Panics
/// When `ip` fails.
pub fn connect(a: &Namespace, name_a: &str, b: &Namespace, name_b: &str) {
    let lines = [format!(
        "link add {name_a} netns {} type veth peer name {name_b} netns {}",
        a.name, b.name
    )];
    namespace::ip_batch(None, None, &lines).expect("ip link add");
    a.ip(&[&format!("link set {name_a} up")]);
    b.ip(&[&format!("link set {name_b} up")]);
}

/// A program that ends with the test.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("the process is there");
    }

    /// Kills it (SIGKILL) and waits for its end.
    ///
    /// # Panics
    /// When the kernel does not let us.
    pub fn kill(mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }

    /// Asks it to end (SIGTERM) and waits.
    ///
    /// # Panics
    /// When it does not end within 5 s.
    pub fn terminate(mut self) {
        self.signal(Signal::SIGTERM);
        eventually(Duration::from_secs(5), "it ends on SIGTERM", || {
            matches!(self.child.try_wait(), Ok(Some(_)))
        });
    }

    /// Everything it wrote so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Already ended, or ended by this: both are fine.
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(30).collect();
            eprintln!("--- end of {}", self.log.display());
            for line in tail.iter().rev() {
                eprintln!("{line}");
            }
        }
    }
}

/// A directory that goes with the test.
#[derive(Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// Makes one.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn new(purpose: &str) -> Self {
        let path = std::env::temp_dir().join(format!("rt-{}-{purpose}", unique()));
        fs::create_dir_all(&path).expect("a temporary directory");
        Self(path)
    }

    /// Path of an entry.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes an entry.
    ///
    /// # Panics
    /// When that fails.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.join(name);
        fs::write(&path, text).expect("write a file");
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}
