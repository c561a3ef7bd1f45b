//! After the six steps, databases, logs, metrics, traces and the audit record contain no secret.

pub mod planted;

use std::{
    collections::BTreeSet,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use accord::{
    audit::v1::{ListAuditEventsRequest, audit_service_client::AuditServiceClient},
    testing::{calls::ok, durable_postgres},
};
use accord_cli::call::with_token;

use crate::{
    demo::walk,
    harness::{collector::Collector, services::Services},
    observability::scrape::scrapes,
};

tests!(nothing_secret_is_stored_or_logged);

/// Returns the parts of a secret that would reveal it: the random part without prefix and checksum.
fn needles(secret: &str) -> Vec<String> {
    let mut needles = vec![secret.to_owned()];
    let random_part = secret.rsplit('_').next().unwrap();
    if random_part.len() >= 43 && !secret.contains('.') {
        needles.push(random_part[..43].to_owned());
    }
    if let Some((signed, signature)) = secret.rsplit_once('.') {
        needles.extend([signed.to_owned(), signature.to_owned()]);
    }
    needles
}

/// Returns which files below a directory contain which of these texts, as lines `file:text`.
fn found_below(directory: &Path, texts: &[String]) -> BTreeSet<String> {
    let mut grep = Command::new("grep")
        .args(["-sraoF", "-f", "-"])
        .arg(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    grep.stdin
        .take()
        .unwrap()
        .write_all(texts.join("\n").as_bytes())
        .unwrap();
    let output = grep.wait_with_output().unwrap().stdout;
    String::from_utf8_lossy(&output)
        .lines()
        .map(str::to_owned)
        .collect()
}

async fn nothing_secret_is_stored_or_logged() {
    let data = tempfile::tempdir().unwrap();
    let [registry, token] = ["registry.db", "token.db"].map(|name| data.path().join(name));
    let url = |path: &Path| format!("sqlite://{}", path.display());
    walk_leaves_nothing(&url(&registry), &url(&token), data.path()).await;
    if let Some(server) = durable_postgres(&[&std::env::temp_dir()]) {
        let [registry, token] = [(); 2].map(|()| server.database());
        walk_leaves_nothing(&registry.url, &token.url, server.directory()).await;
    }
}

/// Takes the six steps, then looks into the whole of what is on disk, write-ahead logs included, and into what
/// the services say.
async fn walk_leaves_nothing(registry_url: &str, token_url: &str, directory: &Path) {
    let (collector, collector_url) = Collector::start().await;
    let settings = [
        ("RUST_LOG", "trace"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector_url.as_str()),
    ];
    let mut services = Services::start_with(registry_url, token_url, &settings).await;
    let (outcome, _) = walk(&services.target).await;
    let target = services.target.clone();
    let mut said = scrapes(&mut services).await.concat();
    for address in [&target.registry_grpc, &target.token_grpc] {
        let mut events = AuditServiceClient::new(with_token(address, &target.operator_token).unwrap());
        let request = ListAuditEventsRequest {
            page_size: 500,
            ..Default::default()
        };
        let answered = ok(events.list_audit_events(request).await);
        assert!(answered.next_page_token.is_empty());
        assert!(answered.audit_events.len() >= 4, "{answered:?}");
        said.push_str(&format!("{answered:?}"));
    }

    let mut secrets: Vec<_> = outcome
        .secrets
        .iter()
        .flat_map(|secret| needles(secret))
        .collect();
    for token in [&target.operator_token, &target.workload_token] {
        secrets.extend(needles(token));
    }
    for name in [&target.admin_account_name, &target.api_user_account_name] {
        secrets.extend([name.clone(), name.split('@').next().unwrap().to_owned()]);
    }
    secrets.push(target.admin_password);
    let known = [outcome.client_id, outcome.grant_id];
    // With the services running and stopped.
    for process in [None, Some(&mut services.token), Some(&mut services.registry)] {
        if let Some(process) = process {
            process.signal("TERM");
            assert!(process.wait().success());
            assert!(!process.stderr().is_empty());
            said.push_str(&process.stderr());
            said.push_str(&process.stdout());
        }
        let found = found_below(directory, &secrets);
        assert!(
            found.is_empty(),
            "{:?}",
            found
                .iter()
                .map(|line| line.split(':').next())
                .collect::<Vec<_>>()
        );
        // The search finds a text that is there.
        for id in &known {
            assert!(
                !found_below(directory, std::slice::from_ref(id)).is_empty(),
                "{id} below {directory:?}"
            );
        }
    }
    assert!(collector.spans().len() > 20, "{:?}", collector.spans());
    said.push_str(&format!("{:?}", collector.spans()));
    for secret in &secrets {
        assert!(
            !said.contains(secret.as_str()),
            "a secret beginning with {secret:.8} is said"
        );
    }
    assert!(known.iter().all(|id| said.contains(id)));
}
