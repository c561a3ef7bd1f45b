//! The documents' lines for operators, run unchanged.

use std::os::unix::fs::symlink;

use crate::harness::{
    dev,
    document::{file, run_lines},
    services::Services,
};

tests!(
    the_commands_of_an_operators_day_run,
    the_first_calls_of_two_operators_run,
);

async fn the_commands_of_an_operators_day_run() {
    let directory = tempfile::tempdir().unwrap();
    let dev = dev::start_in(&directory.path().join("accord-data")).await;
    symlink(file("examples"), directory.path().join("examples")).unwrap();
    let programs = [
        ("README.md", "first-token"),
        ("docs/OPERATIONS.md", "operators-day"),
    ];
    let stdout = run_lines(&programs, directory.path(), &[]).await;
    for sign in [
        "\"clientId\"",
        "accessToken",
        "\"active\": true",
        "CONSENT_STATE_REVOKED",
        "auditEvents",
    ] {
        assert!(stdout.contains(sign), "{sign} is not in\n{stdout}");
    }
    dev.stop().await.unwrap();
}

async fn the_first_calls_of_two_operators_run() {
    let databases = [accord::testing::sqlite(), accord::testing::sqlite()];
    let services = Services::start(&databases[0].url, &databases[1].url).await;
    let (_registry, address) = services.registry_with_second_operator();
    let directory = tempfile::tempdir().unwrap();
    for (name, role, person) in [
        ("grace", "registrar", "Grace Hopper"),
        ("alan", "approver", "Alan Turing"),
    ] {
        let create = ["operator", "create", name, "--role", role, "--person", person];
        let token = services.run_registry(&create);
        std::fs::write(directory.path().join(format!("{name}.token")), token).unwrap();
    }
    let program = [("docs/OPERATIONS.md", "two-operators")];
    run_lines(&program, directory.path(), &[("REGISTRY", &address)]).await;
    for (file, sign) in [
        ("enrolment.json", "enrolmentToken"),
        ("enrolment-code.json", "releaseCode"),
        ("delivery.json", "claimToken"),
        ("delivery-code.json", "releaseCode"),
    ] {
        let text = std::fs::read_to_string(directory.path().join(file)).unwrap();
        assert!(text.contains(sign), "{sign} is not in {file}\n{text}");
    }
}
