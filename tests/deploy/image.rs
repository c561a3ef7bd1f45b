//! The image: built by `deploy/Containerfile` on a root of Debian, and run as a container with a root that is read-only.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
};

use accord::testing::HeldPort;
use serde_json::Value;
use tempfile::TempDir;

use super::{run, write};
use crate::harness::{
    document::file,
    process::Process,
    suite::{image_root, service_binaries},
};

tests!(the_image_serves_from_a_read_only_root_without_rights,);

/// The user of the image.
const USER: u32 = 65532;

/// An image with the files of its one container.
struct Image {
    directory: TempDir,
    configuration: Value,
    root: PathBuf,
}

impl Image {
    fn build() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |path: &str| directory.path().join(path);
        let buildah = |arguments: &[&str]| {
            let mut command = Command::new("buildah");
            command
                .args(["--storage-driver", "vfs", "--root"])
                .arg(at("storage"))
                .arg("--runroot")
                .arg(at("run"))
                .args(arguments);
            command
        };
        let last_line = |command: &mut Command| run(command).trim().lines().last().unwrap().to_owned();

        let base = last_line(&mut buildah(&["from", "scratch"]));
        run(buildah(&["add", "--quiet", &base]).arg(image_root()).arg("/"));
        run(&mut buildah(&[
            "commit",
            "--quiet",
            "--rm",
            &base,
            "localhost/root",
        ]));

        // The first stage would compile everything again, without a network.
        for binary in ["accord", "registry-service", "token-service"] {
            fs::create_dir_all(at("build/out")).unwrap();
            run(Command::new("strip")
                .arg("-o")
                .arg(at("build/out").join(binary))
                .arg(service_binaries().join(binary)));
        }
        let containerfile = fs::read_to_string(file("deploy/Containerfile")).unwrap();
        let (_, runtime) = containerfile.split_once("\nFROM ${RUNTIME_IMAGE}\n").unwrap();
        let text = format!(
            "ARG RUNTIME_IMAGE\nFROM scratch AS build\nCOPY out /out\nFROM ${{RUNTIME_IMAGE}}\n{runtime}"
        );
        write(&at("Containerfile"), text);
        let mut build = buildah(&["build", "--quiet", "--isolation", "chroot", "--pull-never"]);
        build.args([
            "--build-arg",
            "RUNTIME_IMAGE=localhost/root",
            "--tag",
            "localhost/accord",
            "--file",
        ]);
        run(build.arg(at("Containerfile")).arg(at("build")));

        let inspected = run(&mut buildah(&["inspect", "--type", "image", "localhost/accord"]));
        let inspected: Value = serde_json::from_str(&inspected).unwrap();
        let container = last_line(&mut buildah(&["from", "--pull-never", "localhost/accord"]));
        // A plain directory: the driver copies instead of mounting.
        let root = last_line(&mut buildah(&["mount", &container]));
        Self {
            configuration: inspected["OCIv1"]["config"].clone(),
            root: root.into(),
            directory,
        }
    }

    /// Returns a command in the container, as a runtime starts it: the image's user, no capabilities, no new privileges, a
    /// root that nobody writes, and `files` at /tmp.
    fn command(&self, files: &Path, arguments: &[&str]) -> Command {
        // The mounts go with the process.
        const START: &str = "mount --bind \"$1\" \"$1\" && mount --bind \"$2\" \"$1/tmp\" && \
            mount -o remount,bind,ro \"$1\" && root=$1 && shift 2 && \
            exec setpriv --no-new-privs --bounding-set=-all,+setuid,+setgid,+sys_chroot --inh-caps=-all \
            unshare --root=\"$root\" --wd=/ --setgid=65532 --setuid=65532 \"$@\"";
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-c", START, "start"])
            .arg(&self.root)
            .arg(files)
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin");
        command
    }
}

async fn the_image_serves_from_a_read_only_root_without_rights() {
    let image = Image::build();
    assert_eq!(image.configuration["User"], "65532:65532");
    for shell in ["bin/sh", "bin/bash", "usr/bin/sh"] {
        assert!(!image.root.join(shell).exists(), "{shell}");
    }

    // Owned by the container's user, as a volume would be.
    let files = image.directory.path().join("files");
    write(&files.join("master.key"), (0..32).collect::<Vec<u8>>());
    fs::set_permissions(files.join("master.key"), PermissionsExt::from_mode(0o400)).unwrap();
    for path in [&files, &files.join("master.key")] {
        chown(path, Some(USER), Some(USER)).unwrap();
    }
    let admin = HeldPort::reserve();
    let registry = |arguments: &[&str]| {
        let mut command = image.command(&files, &[&["registry-service"], arguments].concat());
        command
            .env("ACCORD_REGISTRY_DATABASE_URL", "sqlite:///tmp/registry.db")
            .env("ACCORD_REGISTRY_MASTER_KEY_FILE", "/tmp/master.key")
            .env("ACCORD_REGISTRY_PUBLIC_BASE_URL", "https://auth.example")
            .env("ACCORD_REGISTRY_ADMIN_LISTEN", admin.address().to_string())
            .env("ACCORD_REGISTRY_LISTEN", "127.0.0.1:0");
        command
    };
    run(&mut registry(&["migrate"]));
    let token = run(&mut registry(&["operator", "create", "ada", "--role", "admin"]));
    assert!(token.starts_with("aco_"));
    let contract = run(&mut image.command(&files, &["accord", "descriptors", "--out", "/tmp/accord.bin"]));
    assert_eq!(contract, "");
    let version = run(&mut image.command(&files, &["token-service", "--version"]));
    assert!(version.starts_with("token-service "), "{version}");

    // What the health check of compose.yaml runs, in the container.
    assert!(!registry(&["health"]).output().unwrap().status.success());
    let mut serving = Process::start(registry(&["serve"]), image.directory.path(), "registry");
    let address = serving.listening("--listen");
    serving.wait_for("readiness", |process| {
        process.stderr().contains("\"message\":\"ready\"").then_some(())
    });
    run(&mut registry(&["health"]));
    let channel = accord_cli::call::open(&address).unwrap();
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    let checked = health
        .check(tonic_health::pb::HealthCheckRequest::default())
        .await
        .unwrap();
    assert_eq!(
        checked.into_inner().status(),
        tonic_health::pb::health_check_response::ServingStatus::Serving
    );

    let proc = |name: &str| fs::read_to_string(format!("/proc/{}/{name}", serving.id())).unwrap();
    let status = proc("status");
    for line in [
        "Uid:\t65532\t65532\t65532\t65532",
        "Gid:\t65532\t65532\t65532\t65532",
        "CapEff:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "NoNewPrivs:\t1",
    ] {
        assert!(status.lines().any(|found| found == line), "{line}: {status}");
    }
    let mounts = proc("mounts");
    let root = mounts
        .lines()
        .find(|line| line.split(' ').nth(1) == Some("/"))
        .unwrap();
    assert!(
        root.split(' ')
            .nth(3)
            .unwrap()
            .split(',')
            .any(|option| option == "ro"),
        "{root}"
    );
    // Nothing of the container's own file system changed.
    let written = Command::new("find")
        .arg(&image.root)
        .args(["-xdev", "-newer"])
        .arg(files.join("master.key"))
        .output()
        .unwrap();
    let written = String::from_utf8(written.stdout).unwrap();
    assert_eq!(
        written.lines().filter(|path| !path.contains("/tmp")).count(),
        0,
        "{written}"
    );

    serving.signal("TERM");
    assert!(serving.wait().success());
}
