//! Real scrapes of both services.

use std::{collections::BTreeSet, time::Duration};

use accord::{
    clock::{Clock, SystemClock},
    metrics, testing,
    token::v1::IssueTokenRequest,
};
use sea_orm::sqlx::{Connection, Executor, SqliteConnection};

use crate::{
    demo::walk,
    harness::{
        document::file,
        partner::{World, own_grant},
        process::Process,
        secured::Secured,
        services::Services,
    },
};

tests!(
    every_metric_that_is_named_anywhere_is_in_a_scrape,
    quantiles_of_a_real_scrape_are_those_that_clients_see,
    readiness_and_liveness_tell_the_truth_while_the_database_can_not_be_written,
    a_taken_port_and_a_malformed_address_are_named,
);

/// Fetches a path of a process's admin listener. Returns status and body.
pub async fn fetch(process: &mut Process, path: &str) -> (u16, String) {
    let address = process.listening("--admin-listen");
    let response = reqwest::get(format!("http://{address}{path}")).await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

/// Fetches the metrics of both services, after gauges were recorded.
pub async fn scrapes(services: &mut Services) -> [String; 2] {
    loop {
        let registry = fetch(&mut services.registry, "/metrics").await;
        let token = fetch(&mut services.token, "/metrics").await;
        assert_eq!((registry.0, token.0), (200, 200));
        let are_ready = |scrape: &str| scrape.lines().any(|line| line == "accord_ready 1");
        if are_ready(&registry.1) && are_ready(&token.1) && token.1.contains(metrics::SIGNING_KEY_ACTIVATED) {
            return [registry.1, token.1];
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Returns the names of metrics in a text: whole words that begin as ours do, without the suffixes of histograms.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names = words.filter(|word| word.starts_with("accord_") || word.starts_with("process_"));
    let names = names.map(|name| {
        let suffixes = ["_bucket", "_count", "_sum"];
        let base = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix));
        base.unwrap_or(name).to_owned()
    });
    names.collect()
}

/// Returns the names of the series of a scrape.
fn series(scrape: &str) -> BTreeSet<String> {
    let lines = scrape.lines().filter(|line| !line.starts_with('#'));
    lines
        .flat_map(|line| names(line.split(['{', ' ']).next().unwrap()))
        .collect()
}

/// Returns the values that the selectors of expressions of PromQL demand: metric, label, value. Of a regular expression each
/// alternative is one.
fn selected(text: &str) -> BTreeSet<(String, String, String)> {
    // In the dashboard's JSON, the quotes of an expression are escaped.
    let text = match text.contains("\\\"") {
        true => text.replace("\\\"", "'"),
        false => text.replace('"', "'"),
    };
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices('{') {
        let before = text[..at].rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let metric = before.take(1).flat_map(names).next();
        let Some(metric) = metric else { continue };
        // What is outside of quotes, and what is inside.
        let mut parts = text[at + 1..].split('\'');
        while let (Some(outside), Some(values)) = (parts.next(), parts.next()) {
            if outside.contains('}') {
                break;
            }
            let label = outside.trim_matches(|c: char| !c.is_ascii_alphanumeric());
            for value in values.split('|').filter(|value| !value.starts_with('$')) {
                found.insert((metric.clone(), label.to_owned(), value.to_owned()));
            }
        }
    }
    found
}

/// Label values that appear only when something fails, or that Prometheus adds.
fn may_be_absent(label: &str, value: &str) -> bool {
    let codes = [
        "Unavailable",
        "DeadlineExceeded",
        "Internal",
        "Unknown",
        "500",
        "503",
        "504",
    ];
    label == "job" || label == "instance" || codes.contains(&value)
}

async fn every_metric_that_is_named_anywhere_is_in_a_scrape() {
    let (registry, token) = (testing::sqlite(), testing::sqlite());
    let mut services = Services::start(&registry.url, &token.url).await;
    walk(&services.target).await;
    let form = [("grant_type", "client_credentials")];
    let url = format!("{}/oauth2/token", services.target.tenant_authority_url);
    let rejected = reqwest::Client::new().post(url).form(&form).send().await.unwrap();
    assert_eq!(rejected.status(), 401);
    let nothing = World::new(&services.target)
        .tokens()
        .issue_token(IssueTokenRequest::default())
        .await;
    nothing.unwrap_err();
    let [registry, token] = scrapes(&mut services).await;
    let mut scraped = series(&registry);
    scraped.extend(series(&token));
    scraped.extend(scraped_over_tls().await);

    let operations = std::fs::read_to_string(file("docs/OPERATIONS.md")).unwrap();
    let (_, runbook) = operations
        .split_once("\n## Metrics, traces and alerts\n")
        .unwrap();
    let (runbook, _) = runbook.split_once("\n## ").unwrap_or((runbook, ""));
    let used = ["deploy/grafana/accord.json", "deploy/prometheus/alerts.yml"];
    let used = used.map(|path| names(&std::fs::read_to_string(file(path)).unwrap()));
    let used: BTreeSet<String> = used.into_iter().flatten().collect();
    let mut named = names(runbook);
    named.extend(used.clone());
    let missing: Vec<_> = named.difference(&scraped).collect();
    assert!(
        missing.is_empty(),
        "named, and in no scrape: {missing:?}\n{scraped:?}"
    );
    // The runbook has a row for each metric, and the dashboard or an alert uses it.
    for metric in metrics::ALL {
        assert!(runbook.contains(&format!("`{}`", metric.name)), "{}", metric.name);
        assert!(used.contains(metric.name), "{}", metric.name);
    }
    assert!(
        token.contains(r#"accord_tokens_issued_total{grant_type="authorization_code"} 1"#),
        "{token}"
    );
    assert!(token.contains(r#"reason="INVALID_CLIENT"} 1"#), "{token}");
    assert!(
        token.contains(r#"accord_build_info{service="token-service""#),
        "{token}"
    );
    for path in ["deploy/grafana/accord.json", "deploy/prometheus/alerts.yml"] {
        let demanded = selected(&std::fs::read_to_string(file(path)).unwrap());
        assert!(demanded.len() >= 3, "{path}: {demanded:?}");
        for (metric, label, value) in demanded {
            let pair = format!("{label}=\"{value}\"");
            let is_scraped = |line: &str| line.starts_with(&metric) && line.contains(&pair);
            let mut lines = registry.lines().chain(token.lines());
            assert!(
                may_be_absent(&label, &value) || lines.any(is_scraped),
                "{path}: no series of {metric} has {pair}"
            );
        }
    }
    let target = &services.target;
    for scrape in [&registry, &token] {
        assert!(
            !scrape.contains(&target.tenant_id),
            "a tenant is a label: {scrape}"
        );
    }
}

/// Returns the names of the series of services that have certificates. Each tells when those expire that it needs.
async fn scraped_over_tls() -> BTreeSet<String> {
    let mut secured = Secured::start().await;
    let mut names = BTreeSet::new();
    let listener = &["listeners", "client-ca"][..];
    let both = &["listeners", "client-ca", "registry-client", "registry-ca"][..];
    for (process, certificates) in [
        (&mut secured.registries[0].process, listener),
        (&mut secured.token, both),
    ] {
        let expiries = async {
            loop {
                let (_, scrape) = fetch(process, "/metrics").await;
                names.extend(series(&scrape));
                let value = |certificate: &&str| {
                    let series = format!(
                        "{}{{certificate=\"{certificate}\"}} ",
                        metrics::CERTIFICATE_EXPIRY
                    );
                    let mut lines = scrape.lines();
                    lines.find_map(|line| line.strip_prefix(&series)?.parse::<f64>().ok())
                };
                if let Some(expiries) = certificates.iter().map(value).collect::<Option<Vec<_>>>() {
                    break expiries;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let expiries = tokio::time::timeout(Duration::from_secs(20), expiries)
            .await
            .unwrap();
        let now = SystemClock.now().as_secs() as f64;
        assert!(expiries.iter().all(|expiry| *expiry > now), "{expiries:?}");
    }
    names
}

async fn quantiles_of_a_real_scrape_are_those_that_clients_see() {
    let (registry, token) = (testing::sqlite(), testing::sqlite());
    let mut services = Services::start(&registry.url, &token.url).await;
    let world = World::new(&services.target);
    let partner = world.partner().await;
    world.first_tokens(&partner).await;
    let mut seen = Vec::new();
    for _ in 0..100 {
        let began = std::time::Instant::now();
        world.issue(&partner, own_grant()).await.unwrap();
        seen.push(began.elapsed().as_secs_f64());
    }
    seen.sort_by(f64::total_cmp);
    let [_, scrape] = scrapes(&mut services).await;
    let buckets: Vec<(f64, f64)> = scrape
        .lines()
        .filter(|line| line.starts_with("accord_call_duration_seconds_bucket"))
        .filter(|line| line.contains("accord.token.v1.TokenService/IssueToken"))
        .map(|line| {
            let bound = line.split("le=\"").nth(1).unwrap().split('"').next().unwrap();
            let count = line.rsplit(' ').next().unwrap();
            (bound.parse().unwrap_or(f64::INFINITY), count.parse().unwrap())
        })
        .collect();
    let all = buckets.last().unwrap().1;
    assert!(all >= 100.0, "{scrape}");
    // A quantile by the buckets is at most what clients have measured from outside, and at least a tenth of that: most of the
    // time of a call passes inside.
    for q in [0.5, 0.9, 0.95] {
        let at = buckets.iter().position(|(_, count)| *count >= q * all).unwrap();
        let below = if at == 0 { 0.0 } else { buckets[at - 1].0 };
        let rank = (q * 100.0) as usize;
        let (least, most) = (seen[rank - 5], seen[rank + 3]);
        assert!(below < most, "{q}: above {below}, seen {most}\n{scrape}");
        assert!(
            buckets[at].0 > least / 10.0 && buckets[at].0.is_finite(),
            "{q}: {buckets:?}, seen {least}"
        );
    }
    // No call is in a bucket that it does not belong to, or the buckets would contradict the sum.
    let total = scrape
        .lines()
        .find(|line| {
            line.starts_with("accord_call_duration_seconds_sum")
                && line.contains("accord.token.v1.TokenService/IssueToken")
        })
        .and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .unwrap();
    let (mut least, mut most, mut before, mut bound) = (0.0, 0.0, 0.0, 0.0);
    for (above, count) in &buckets {
        least += (count - before) * bound;
        most += (count - before) * above.min(30.0);
        (before, bound) = (*count, *above);
    }
    assert!(least < total && total <= most, "{least} < {total} <= {most}");
}

/// Another program holds the lock of a SQLite file.
async fn readiness_and_liveness_tell_the_truth_while_the_database_can_not_be_written() {
    let (registry, token) = (testing::sqlite(), testing::sqlite());
    let mut services = Services::start(&registry.url, &token.url).await;
    let [_, fresh] = scrapes(&mut services).await;
    let nothing_issued = "accord_tokens_issued_total{grant_type=\"client_credentials\"} 0\n";
    assert!(fresh.contains(nothing_issued), "{fresh}");
    for (process, url) in [
        (&mut services.registry, &registry.url),
        (&mut services.token, &token.url),
    ] {
        let mut other = SqliteConnection::connect(url).await.unwrap();
        assert_eq!(fetch(process, "/readyz").await, (200, "ready\n".to_owned()));
        other.execute("BEGIN IMMEDIATE").await.unwrap();
        let began = std::time::Instant::now();
        let body = loop {
            let (status, body) = fetch(process, "/readyz").await;
            assert!(began.elapsed() < Duration::from_secs(10), "still ready");
            if status == 503 {
                break body;
            }
        };
        // Two seconds, and what a busy machine takes.
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
        assert_eq!(body, "the database can't be written\n");
        assert_eq!(fetch(process, "/livez").await, (200, "alive\n".to_owned()));
        assert!(fetch(process, "/metrics").await.1.contains("\naccord_ready 0\n"));
        other.execute("ROLLBACK").await.unwrap();
        while fetch(process, "/readyz").await.0 != 200 {}
    }
}

async fn a_taken_port_and_a_malformed_address_are_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    std::fs::write(&key, std::array::from_fn::<_, 32, _>(|n| n as u8)).unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    for (address, expected) in [
        (taken.as_str(), "--admin-listen 127.0.0.1:"),
        (
            "localhost:9464",
            "--admin-listen must be an IP address and a port, such as 127.0.0.1:9464, or off",
        ),
        ("off", "run `migrate` first"),
        ("0.0.0.0:0", "run `migrate` first"),
    ] {
        let mut serve = crate::harness::process::accord();
        serve
            .args(["registry", "serve", "--public-base-url", "https://auth.example"])
            .args(["--admin-listen", address, "--master-key-file"])
            .arg(&key)
            .env(
                "ACCORD_REGISTRY_DATABASE_URL",
                format!("sqlite://{}/none.db", directory.path().display()),
            );
        let output = serve.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && stderr.contains(expected),
            "{address}: {stderr}"
        );
    }
}
