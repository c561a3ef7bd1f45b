//! Hosts on one machine: network namespaces on a bridge, each with an address and a name of its own.
//!
//! A test that needs hosts is listed by `tests_on_hosts!` in place of `tests!`. It runs again in a process with
//! namespaces of its own for network, mounts and process ids, and with `/run` in memory, where its temporary
//! files go. So processes, mounts, links and files end with that process, also when it is killed.
//!
//! ```ignore
//! let mut network = Network::new();
//! let host = network.host("registry-1");
//! let server = Process::start(host.on(command), directory, "registry-1");
//! host.cut();
//! ```
//!
//! The test itself sits on the bridge: it reaches every host at its address or by its name.

use std::{
    ffi::OsStr,
    fs,
    net::Ipv4Addr,
    path::Path,
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
};

use super::{process::wrap, suite::Test};

/// Set in the process that has namespaces of its own.
const ISOLATED: &str = "ACCORD_TEST_ISOLATED";
/// In memory, and private to a test. `ip` keeps its namespaces below.
const PRIVATE: &str = "/run";
/// Every host sees it as `/etc/hosts`.
const HOSTS: &str = "/run/hosts";
const TEMPORARY: &str = "/run/tmp";
/// The address of the test on the bridge.
pub const TEST_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// Defines `tests()` as `tests!` does, for tests that run on hosts.
macro_rules! tests_on_hosts {
    ($($test:ident),+ $(,)?) => {
        pub fn tests() -> Vec<$crate::harness::suite::Test> {
            vec![$((
                concat!(module_path!(), "::", stringify!($test)),
                || $crate::harness::network::isolated(
                    (concat!(module_path!(), "::", stringify!($test)), || {
                        $crate::harness::suite::block_on($test());
                    }),
                ),
            )),+]
        }
    };
}

/// Whether this process has namespaces of its own.
pub fn is_isolated() -> bool {
    std::env::var_os(ISOLATED).is_some()
}

/// Whether this machine lets tests have hosts.
pub fn can_isolate() -> bool {
    let script =
        "mount -t tmpfs tmpfs /run && mkdir /run/netns && ip netns add host && ip link add type bridge";
    let status = isolating()
        .args(["/bin/sh", "-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

/// A command that runs its further arguments as a program in namespaces of its own. The program ends with the thread
/// that starts it.
fn isolating() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid"]);
    command.args(["--fork", "--kill-child", "--mount-proc"]);
    // The first process of the namespace inherits those whose parent has ended, and a shell waits for them. Otherwise a
    // program that waits for the end of one waits for ever.
    command.args(["/bin/sh", "-c", "\"$@\"; exit $?", "init"]);
    command
}

/// Runs a test in a process with namespaces of its own. Called by `tests_on_hosts!`.
///
/// # Panics
/// If the test fails, with what it has written.
pub fn isolated((name, test): Test) {
    if is_isolated() {
        return test();
    }
    let (_, name) = name.split_once("::").unwrap();
    // One at a time: each runs a dozen of processes, and measures what they do within seconds.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let output = isolating()
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--test-threads", "1"])
        .env(ISOLATED, "1")
        .env("TMPDIR", TEMPORARY)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{stdout}\n{stderr}", output.status);
    assert!(stdout.contains("1 passed"), "{stdout}");
}

/// Hosts and the bridge between them. There is one in each isolated process.
pub struct Network {
    hosts: u8,
}

impl Network {
    /// Makes loopback and a bridge for this process.
    ///
    /// # Panics
    /// Outside an isolated process, whose network would change.
    pub fn new() -> Self {
        assert!(is_isolated(), "the test is not listed by tests_on_hosts!");
        run("mount", &["-t", "tmpfs", "-o", "mode=755", "tmpfs", PRIVATE]);
        for directory in ["/run/netns", TEMPORARY] {
            fs::create_dir(directory).unwrap();
        }
        run("chmod", &["1777", TEMPORARY]);
        fs::write(HOSTS, "127.0.0.1 localhost\n").unwrap();
        run("mount", &["--bind", HOSTS, "/etc/hosts"]);
        for arguments in [
            "link set lo up",
            "link add bridge type bridge",
            &format!("address add {TEST_ADDRESS}/16 dev bridge"),
            "link set bridge up",
        ] {
            ip(arguments);
        }
        be_patient("bridge", &mut Command::new("/bin/sh"));
        Self { hosts: 1 }
    }

    /// Adds a host, which every other one finds by its name.
    pub fn host(&mut self, name: &str) -> Host {
        self.hosts += 1;
        let host = Host {
            name: name.to_owned(),
            address: Ipv4Addr::new(10, 77, 0, self.hosts),
            link: format!("host{}", self.hosts),
        };
        let Host { address, link, .. } = &host;
        ip(&format!("netns add {name}"));
        for arguments in [
            &*format!("link add {link} type veth peer name eth0 netns {name}"),
            &format!("link set {link} master bridge up"),
            &format!("-netns {name} address add {address}/16 dev eth0"),
            &format!("-netns {name} link set eth0 up"),
            &format!("-netns {name} link set lo up"),
        ] {
            ip(arguments);
        }
        be_patient("eth0", &mut host.command("/bin/sh"));
        self.name(name, &[&host]);
        host
    }

    /// Lets a further name resolve to the addresses of these hosts.
    pub fn name(&self, name: &str, hosts: &[&Host]) {
        let lines = hosts.iter().map(|host| format!("{} {name}\n", host.address));
        // First: Envoy's resolver knows one address of a name whose addresses have another name before.
        let mut all: String = lines.collect();
        all += &fs::read_to_string(HOSTS).unwrap();
        fs::write(HOSTS, all).unwrap();
    }
}

/// A host.
#[derive(Clone, Debug)]
pub struct Host {
    pub name: String,
    pub address: Ipv4Addr,
    /// Its link to the bridge.
    link: String,
}

impl Host {
    /// A command that runs a program on the host. The id of its process is that of the program.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.on(&Command::new(program))
    }

    /// Moves a command to the host, with its arguments, variables and directory.
    pub fn on(&self, command: &Command) -> Command {
        let mut enter = Command::new("nsenter");
        let namespace = Path::new("/run/netns").join(&self.name);
        enter.arg(format!("--net={}", namespace.display())).arg("--");
        wrap(enter, command)
    }

    /// Cuts the host off: packets vanish, and nobody is told.
    pub fn cut(&self) {
        ip(&format!("link set {} down", self.link));
    }

    /// Ends the cut.
    pub fn join(&self) {
        ip(&format!("link set {} up", self.link));
    }
}

/// Lets packets to a host that is cut off vanish, where an unanswered ARP request would be an error within seconds.
fn be_patient(interface: &str, shell: &mut Command) {
    let script = format!("echo 600 > /proc/sys/net/ipv4/neigh/{interface}/mcast_solicit");
    let status = shell.args(["-c", &script]).status().unwrap();
    assert!(status.success(), "{script}");
}

fn ip(arguments: &str) {
    run("ip", &arguments.split(' ').collect::<Vec<_>>());
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {}: {stderr}",
        arguments.join(" ")
    );
}
