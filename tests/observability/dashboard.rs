//! The dashboard on a Prometheus that scrapes both services under load, and a picture of it for the README.

use std::{
    collections::BTreeSet,
    process::Command,
    time::{Duration, Instant},
};

use accord::{
    testing::{self, HeldPort},
    token::v1::GetJsonWebKeySetRequest,
};
use sea_orm::sqlx::{Connection, Executor, SqliteConnection};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::chart::{Panel, Series, page};
use crate::{
    browser::screen::picture,
    harness::{
        browser::Browser,
        document::file,
        partner::{Partner, World, own_grant, refresh_grant},
        process::Process,
        services::Services,
    },
};

tests!(the_dashboard_shows_services_under_load);

/// Panels that may have nothing to show here: of argon2, which runs before the load alone, and of TLS.
const MAY_BE_EMPTY: [&str; 3] = ["argon2: wait, p95", "argon2: rejected", "Certificates expire in"];
/// How long registry-service stands still.
const STANDSTILL: Duration = Duration::from_secs(4);

/// A Prometheus with the alert rules of `deploy/`, which scrapes every second.
struct Prometheus {
    url: String,
    _process: Process,
    _directory: TempDir,
    _port: HeldPort,
}

impl Prometheus {
    async fn start(services: &mut Services) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = HeldPort::reserve();
        let address = port.address().to_string();
        let configuration = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [file("deploy/prometheus/alerts.yml")],
            "scrape_configs": [
                {"job_name": "accord-registry", "static_configs": [
                    {"targets": [services.registry.listening("--admin-listen")]}]},
                {"job_name": "accord-token", "static_configs": [
                    {"targets": [services.token.listening("--admin-listen")]}]},
            ],
        });
        let path = directory.path().join("prometheus.yml");
        std::fs::write(&path, configuration.to_string()).unwrap();
        // It ends with the test, also when that is killed.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig=KILL", "prometheus", "--config.file"])
            .arg(path)
            .arg("--storage.tsdb.path")
            .arg(directory.path().join("data"))
            .args(["--web.listen-address", &address, "--log.level", "warn"]);
        let process = Process::start(command, directory.path(), "prometheus");
        let url = format!("http://{address}");
        let ready = async {
            let is_ready = async || {
                let answer = reqwest::get(format!("{url}/-/ready")).await;
                answer.is_ok_and(|answer| answer.status().is_success())
            };
            while !is_ready().await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let ready = tokio::time::timeout(Duration::from_secs(30), ready).await;
        assert!(ready.is_ok(), "{}", process.stderr());
        Self {
            url,
            _process: process,
            _directory: directory,
            _port: port,
        }
    }

    /// Asks its API. Returns the data.
    async fn ask(&self, path: &str, form: &[(&str, String)]) -> Value {
        let url = format!("{}/api/v1/{path}", self.url);
        let client = reqwest::Client::new();
        let request = match form {
            [] => client.get(url),
            form => client.post(url).form(form),
        };
        let mut answer: Value = request.send().await.unwrap().json().await.unwrap();
        assert_eq!(answer["status"], "success", "{path} {form:?}: {answer}");
        answer["data"].take()
    }

    /// Returns the names of the alerts whose condition has held for five seconds, whether or not that is long enough to fire.
    async fn alerts(&self) -> BTreeSet<String> {
        let mut lasting: Option<BTreeSet<String>> = None;
        for seconds in 0..=5 {
            if seconds > 0 {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            let data = self.ask("alerts", &[]).await;
            let alerts = data["alerts"].as_array().unwrap().iter();
            let names = alerts.map(|alert| alert["labels"]["alertname"].as_str().unwrap().to_owned());
            let names: BTreeSet<_> = names.collect();
            lasting = Some(lasting.map_or(names.clone(), |lasting| &lasting & &names));
        }
        lasting.unwrap_or_default()
    }

    /// Evaluates the targets of a panel of the dashboard over the last seconds.
    async fn panel(&self, panel: &Value, seconds: u64) -> Panel {
        let now = self.ask("query", &[("query", "time()".into())]).await;
        let end = now["result"][0].as_f64().unwrap();
        let mut series = Vec::new();
        for target in panel["targets"].as_array().unwrap() {
            let expr = target["expr"].as_str().unwrap().replace("$__rate_interval", "5s");
            let range = [
                ("query", expr),
                ("start", (end - seconds as f64).to_string()),
                ("end", end.to_string()),
                ("step", "1".into()),
            ];
            let data = self.ask("query_range", &range).await;
            let legend = target["legendFormat"].as_str().unwrap();
            let results = data["result"].as_array().unwrap().iter();
            series.extend(results.map(|result| Series::read(legend, result, end - seconds as f64)));
        }
        Panel {
            title: panel["title"].as_str().unwrap().to_owned(),
            unit: panel["fieldConfig"]["defaults"]["unit"]
                .as_str()
                .unwrap()
                .to_owned(),
            seconds,
            series,
        }
    }
}

/// Issues, renews, reads keys and fails for some time, more and less busily in turn. registry-service stands still in
/// the middle of it.
async fn load(services: &Services, prometheus: &Prometheus, partner: &Partner, seconds: u64) {
    let first = World::new(&services.target).first_tokens(partner).await;
    let began = Instant::now();
    let mut callers = JoinSet::new();
    for caller in 0..10 {
        let world = World::new(&services.target);
        let mut partner = partner.clone();
        let mut refresh_token = first.refresh_token.clone();
        if caller == 9 {
            // A secret that Accord never issued.
            partner.client_secret = "acs_guessed".to_owned();
        }
        callers.spawn(async move {
            while began.elapsed().as_secs() < seconds {
                match caller {
                    0 => {
                        let renewed = world.issue(&partner, refresh_grant(&refresh_token)).await;
                        if let Ok(renewed) = renewed {
                            refresh_token = renewed.refresh_token;
                        }
                    }
                    1 => drop(
                        world
                            .tokens()
                            .get_json_web_key_set(GetJsonWebKeySetRequest::default())
                            .await,
                    ),
                    _ => drop(world.issue(&partner, own_grant()).await),
                }
                let wave = 1.0 + (began.elapsed().as_secs_f64() / 8.0).sin();
                let pause = 4.0 + wave * 12.0 + if caller < 8 { 0.0 } else { 200.0 };
                tokio::time::sleep(Duration::from_secs_f64(pause / 1000.0)).await;
            }
        });
    }
    // The alerts take five seconds.
    tokio::time::sleep(Duration::from_secs(seconds / 2 - 5)).await;
    let mut alerts = prometheus.alerts().await;
    // The machine may be busy.
    alerts.remove("AccordIssuingSlow");
    assert!(alerts.is_empty(), "while all is well: {alerts:?}");
    services.registry.signal("STOP");
    tokio::time::sleep(STANDSTILL).await;
    services.registry.signal("CONT");
    callers.join_all().await;
}

async fn the_dashboard_shows_services_under_load() {
    let keep = std::env::var("ACCORD_TEST_KEEP_SCREENSHOTS").is_ok_and(|value| value == "1");
    let seconds = if keep { 150 } else { 20 };
    let (registry, token) = (testing::sqlite(), testing::sqlite());
    let mut services = Services::start(&registry.url, &token.url).await;
    let prometheus = Prometheus::start(&mut services).await;
    let partner = World::new(&services.target).partner().await;
    load(&services, &prometheus, &partner, seconds).await;

    let dashboard = std::fs::read_to_string(file("deploy/grafana/accord.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let mut panels = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        if panel["type"] != "row" {
            panels.push(prometheus.panel(panel, seconds).await);
        }
    }
    let empty: Vec<_> = panels
        .iter()
        .filter(|panel| panel.series.iter().all(|series| series.points.is_empty()))
        .map(|panel| panel.title.as_str())
        .collect();
    assert!(
        empty.iter().all(|title| MAY_BE_EMPTY.contains(title)),
        "{empty:?}"
    );
    let named = |title: &str| panels.iter().find(|panel| panel.title == title).unwrap();
    // What an engineer on call must see: the registry stood still, so the lease grew old, and calls failed.
    let oldest = named("Age of the lease").highest();
    assert!(oldest > 1.0 && oldest < 20.0, "{oldest}");
    let failed = &named("Calls that failed").series;
    assert!(
        failed.iter().any(|series| series.name.contains("Unavailable")),
        "{failed:?}"
    );
    let rejected = &named("Token requests rejected").series;
    assert!(
        rejected.iter().any(|series| series.name == "INVALID_CLIENT"),
        "{rejected:?}"
    );
    let (p99, issued) = (
        named("Time to issue a token").highest(),
        named("Tokens issued").highest(),
    );
    assert!(p99 > 0.000_05 && p99 < 30.0, "{p99}");
    assert!(issued > 1.0, "{issued}");
    let rules = prometheus.ask("rules", &[]).await.to_string();
    assert!(
        rules.contains("AccordLeaseLost") && !rules.contains(r#""state":"firing""#),
        "{rules}"
    );

    // Another program holds the lock of the registry's database.
    let mut other = SqliteConnection::connect(&registry.url).await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let noticed = async {
        while !prometheus.alerts().await.contains("AccordNotReady") {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let noticed = tokio::time::timeout(Duration::from_secs(60), noticed).await;
    assert!(noticed.is_ok(), "no alert of a database that can't be written");
    other.execute("ROLLBACK").await.unwrap();

    let browser = Browser::start().await;
    let html = browser.directory().join("dashboard.html");
    std::fs::write(&html, page(&panels)).unwrap();
    browser.open(&format!("file://{}", html.display())).await;
    let metrics = json!({"width": 1320, "height": 900, "deviceScaleFactor": 1, "mobile": false});
    browser.cdp("Emulation.setDeviceMetricsOverride", metrics).await;
    let mut directories = vec![file("target/screenshots")];
    directories.extend(keep.then(|| file("docs/screenshots")));
    for directory in directories {
        std::fs::create_dir_all(&directory).unwrap();
        picture(&browser, None, &directory.join("dashboard.png")).await;
    }
    browser.quit().await;
}
