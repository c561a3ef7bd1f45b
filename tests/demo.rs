//! The six steps, on every way of running the services.

use std::sync::Arc;

use accord::{clock::SystemClock, random::SystemRandom, testing};
use accord_cli::{demo, dev_file::DevFile};

use crate::harness::{dev, services::Services};

tests!(
    the_six_steps_work_in_the_development_environment,
    the_six_steps_work_again_after_a_restart,
    the_six_steps_work_on_separate_processes_and_each_database,
);

pub async fn walk(target: &DevFile) -> (demo::Outcome, String) {
    let mut printed = Vec::new();
    let outcome = demo::run(
        target,
        Arc::new(SystemClock),
        Arc::new(SystemRandom),
        &mut printed,
    )
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", String::from_utf8_lossy(&printed)));
    (outcome, String::from_utf8(printed).unwrap())
}

async fn the_six_steps_work_in_the_development_environment() {
    let (_directory, dev) = dev::start().await;
    let (outcome, printed) = walk(&dev.file).await;
    for step in [
        "1. Collect",
        "2. Register",
        "3. Provision",
        "4. Develop",
        "5. Consent",
        "6. Issue",
    ] {
        assert!(printed.contains(step), "{printed}");
    }
    for secret in &outcome.secrets {
        assert!(!printed.contains(secret.as_str()), "a secret is printed");
    }
    assert!(!printed.contains(&dev.file.admin_password));
    assert!(!printed.contains(&dev.file.admin_account_name));
    dev.stop().await.unwrap();
}

async fn the_six_steps_work_again_after_a_restart() {
    let (directory, dev) = dev::start().await;
    let (first, _) = walk(&dev.file).await;
    dev.stop().await.unwrap();
    let dev = dev::start_in(&directory.path().join("accord-data")).await;
    let (second, _) = walk(&dev.file).await;
    assert_ne!(first.client_id, second.client_id);
    dev.stop().await.unwrap();
}

async fn the_six_steps_work_on_separate_processes_and_each_database() {
    let (registry, token) = (testing::databases(), testing::databases());
    for (registry, token) in registry.iter().zip(&token) {
        let services = Services::start(&registry.url, &token.url).await;
        walk(&services.target).await;
    }
}
