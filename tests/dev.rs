//! `accord dev` and `accord demo` as commands.

use std::os::unix::fs::PermissionsExt;

use accord_cli::dev_file::DevFile;

use crate::harness::process::{Process, accord};

tests!(
    dev_json_is_private_and_is_there_only_while_the_environment_answers,
    a_data_directory_has_one_process_and_is_usable_after_a_kill,
    a_taken_port_is_an_error,
    a_data_directory_may_have_any_name,
    the_environment_listens_on_loopback_only,
);

fn dev(directory: &std::path::Path) -> Process {
    let mut command = accord();
    command
        .current_dir(directory)
        .args(["dev", "--registry-listen", "127.0.0.1:0"]);
    command.args(["--token-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]);
    Process::start(command, directory, "dev")
}

fn ready(process: &mut Process, directory: &std::path::Path) -> DevFile {
    process.wait_for("dev.json", |_| DevFile::read(&directory.join("accord-data")).ok())
}

async fn dev_json_is_private_and_is_there_only_while_the_environment_answers() {
    let directory = tempfile::tempdir().unwrap();
    let path = DevFile::path(&directory.path().join("accord-data"));
    let mut process = dev(directory.path());
    let file = ready(&mut process, directory.path());
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(file.tenant_authority_url.starts_with(&file.http_url));
    assert!(!file.http_url.ends_with('/') && !file.registry_grpc.contains("//"));

    let mut demo = accord();
    demo.current_dir(directory.path()).arg("demo");
    let demo = demo.output().unwrap();
    assert!(demo.status.success(), "{}", String::from_utf8_lossy(&demo.stderr));
    assert!(String::from_utf8_lossy(&demo.stdout).contains("All six steps held."));

    process.signal("TERM");
    assert!(process.wait().success());
    assert!(!path.exists());

    let mut demo = accord();
    demo.current_dir(directory.path()).arg("demo");
    assert!(
        !demo.output().unwrap().status.success(),
        "there is nothing to demonstrate on"
    );
}

async fn a_data_directory_has_one_process_and_is_usable_after_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let mut first = dev(directory.path());
    let before = ready(&mut first, directory.path());
    let second = tempfile::tempdir_in(directory.path()).unwrap();
    let mut command = accord();
    command
        .arg("--data-dir")
        .arg(directory.path().join("accord-data"));
    command.args([
        "--registry-listen",
        "127.0.0.1:0",
        "--token-listen",
        "127.0.0.1:0",
    ]);
    command.args(["--http-listen", "127.0.0.1:0"]);
    let mut rival = Process::start(command, second.path(), "rival");
    assert!(!rival.wait().success());
    assert!(rival.stderr().contains("in use"), "{}", rival.stderr());
    assert!(
        DevFile::path(&directory.path().join("accord-data")).exists(),
        "the owner's file must stay"
    );

    first.signal("KILL");
    first.wait();
    let mut again = dev(directory.path());
    let after = again.wait_for("a new dev.json", |_| {
        let file = DevFile::read(&directory.path().join("accord-data")).ok()?;
        (file.operator_token != before.operator_token).then_some(file)
    });
    assert_eq!(after.tenant_id, before.tenant_id);
}

async fn a_taken_port_is_an_error() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flag in ["--registry-listen", "--token-listen", "--http-listen"] {
        let directory = tempfile::tempdir().unwrap();
        let mut command = accord();
        command.current_dir(directory.path()).arg("dev");
        for other in ["--registry-listen", "--token-listen", "--http-listen"] {
            command.args([other, if other == flag { &address } else { "127.0.0.1:0" }]);
        }
        let mut process = Process::start(command, directory.path(), "dev");
        assert!(!process.wait().success());
        assert!(process.stderr().contains(&address), "{}", process.stderr());
        assert!(!DevFile::path(&directory.path().join("accord-data")).exists());
    }
}

async fn a_data_directory_may_have_any_name() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["a b", "a%20b", "a?b#c", "100%"] {
        let mut command = accord();
        command
            .current_dir(directory.path())
            .args(["dev", "--registry-listen", "127.0.0.1:0", "--data-dir", name])
            .args(["--token-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]);
        let mut process = Process::start(command, directory.path(), "dev");
        let data_dir = directory.path().join(name);
        process.wait_for("dev.json", |_| DevFile::read(&data_dir).ok());
        process.signal("TERM");
        assert!(process.wait().success());
        for database in ["registry.db", "token.db"] {
            assert!(data_dir.join(database).exists(), "{name}/{database}");
        }
    }
}

async fn the_environment_listens_on_loopback_only() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = accord();
    command
        .current_dir(directory.path())
        .args(["dev", "--http-listen", "0.0.0.0:0"]);
    command.args([
        "--registry-listen",
        "127.0.0.1:0",
        "--token-listen",
        "127.0.0.1:0",
    ]);
    let mut process = Process::start(command, directory.path(), "dev");
    assert!(!process.wait().success());
    assert!(
        process
            .stderr()
            .contains("--http-listen must be a loopback address"),
        "{}",
        process.stderr()
    );
}
