#![allow(clippy::unwrap_used, clippy::panic)]

use axum::{Router, body::Body, http::Request, http::Response, routing::any};
use tokio::time::sleep;
use tower::ServiceExt;

use super::*;
use crate::{
    clock::{Clock, SystemClock},
    rpc::{
        http::Http,
        middleware::{Cutoff, Shared},
    },
};

/// Returns what a scrape shows after `work`, whose handles are made and used with a recorder of this thread.
fn scraped(work: impl FnOnce()) -> String {
    let recorder = builder().unwrap().build_recorder();
    let handle = recorder.handle();
    ::metrics::with_local_recorder(&recorder, || {
        describe();
        work();
    });
    handle.render()
}

/// Calls HTTP routes through the middleware, as `times` says: path, and how long the handler takes.
fn call(times: &[(&str, Duration)]) {
    let took = |request: Request<Body>| async move {
        let text = request.uri().query().unwrap_or_default();
        sleep(Duration::from_micros(text.parse().unwrap_or_default())).await;
    };
    let routes = Http {
        ends_with_caller: &[],
        router: Router::new()
            .route("/{tenant}/oauth2/token", any(took))
            .route("/claim/{token}", any(took)),
        error: |_| Response::default(),
    };
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true);
    runtime.build().unwrap().block_on(async {
        let routes = routes.into_routes(Shared::for_test(Cutoff::default()));
        for (path, took) in times {
            let uri = format!("{path}?{}", took.as_micros());
            let request = Request::builder().uri(uri).method("BREW").header("host", "a");
            routes
                .clone()
                .oneshot(request.body(Body::empty()).unwrap())
                .await
                .unwrap();
        }
    });
}

/// Returns a quantile of the calls of a route, as `histogram_quantile` computes it from the buckets of a scrape.
fn quantile(scrape: &str, q: f64, route: &str) -> f64 {
    let marker = format!("method=\"{route}\"");
    let buckets: Vec<(f64, f64)> = scrape
        .lines()
        .filter(|line| line.starts_with("accord_call_duration_seconds_bucket") && line.contains(&marker))
        .map(|line| {
            let bound = line.split("le=\"").nth(1).unwrap().split('"').next().unwrap();
            let count = line.rsplit(' ').next().unwrap();
            (bound.parse().unwrap_or(f64::INFINITY), count.parse().unwrap())
        })
        .collect();
    let rank = q * buckets.last().unwrap().1;
    let at = buckets.iter().position(|(_, count)| *count >= rank).unwrap();
    let (low, before) = if at == 0 { (0.0, 0.0) } else { buckets[at - 1] };
    let (high, count) = buckets[at];
    low + (high - low) * (rank - before) / (count - before)
}

#[test]
fn quantiles_of_a_scrape_are_those_of_the_calls() {
    let token = "/firm/oauth2/token";
    let mut times = vec![(token, Duration::from_millis(3)); 90];
    times.extend([(token, Duration::from_millis(300)); 9]);
    times.push((token, Duration::from_secs(7)));
    let scrape = scraped(|| call(&times));
    let quantile = |q| quantile(&scrape, q, "/{tenant}/oauth2/token");
    for (q, low, high) in [(0.5, 0.002_5, 0.005), (0.95, 0.25, 0.5), (0.995, 5.0, 10.0)] {
        assert!(
            (low..=high).contains(&quantile(q)),
            "{q}: {}\n{scrape}",
            quantile(q)
        );
    }
}

#[test]
fn whatever_scanners_send_makes_one_series() {
    let paths: Vec<_> = (0..1_000).map(|n| format!("/admin-{n}/.env")).collect();
    let mut times: Vec<_> = paths.iter().map(|path| (path.as_str(), Duration::ZERO)).collect();
    let few = scraped(|| call(&times[..1]));
    let many = scraped(|| call(&times));
    let series = |scrape: &str| scrape.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(series(&few), series(&many));
    assert!(many.contains(r#"method="unknown",code="404""#), "{many}");
    assert!(!many.contains("admin-") && !many.contains("BREW"), "{many}");
    times.push(("/claim/acl_secret", Duration::ZERO));
    let claimed = scraped(|| call(&times));
    assert!(
        claimed.contains(r#"method="/claim/{token}""#) && !claimed.contains("acl_secret"),
        "{claimed}"
    );
}

#[test]
fn calls_in_flight_end_with_their_calls() {
    let scrape = scraped(|| {
        let calls = Calls::new("grpc");
        for _ in 0..3 {
            calls.begin();
        }
        calls.end("a.A/B", Duration::ZERO, Some("Cancelled"));
    });
    assert!(
        scrape.contains("accord_calls_in_flight{protocol=\"grpc\"} 2"),
        "{scrape}"
    );
    assert!(
        scrape.contains("# TYPE accord_call_duration_seconds histogram"),
        "{scrape}"
    );
    assert!(
        scrape.contains("# HELP accord_call_duration_seconds How long calls took"),
        "{scrape}"
    );
}

#[test]
fn the_process_is_measured() {
    let files = fs::read_dir("/proc/self/fd").unwrap().count();
    let scrape = scraped(|| {
        record_start();
        record_process();
    });
    let value = |name: &str| -> f64 {
        let line = scrape
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")))
            .unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let now = SystemClock.now().as_millis() as f64 / 1e3;
    assert!(
        (now - 60.0..=now).contains(&value(names::PROCESS_START)),
        "{scrape}"
    );
    assert_eq!(value(names::READY), 0.0, "{scrape}");
    assert!(value(names::PROCESS_MEMORY) > 1e6, "{scrape}");
    assert!(value(names::PROCESS_FILES) > 2.0 && files > 2, "{scrape}");
    assert!(value(names::PROCESS_FILES_MAX) >= 256.0, "{scrape}");
}

#[test]
fn an_internal_error_is_a_rise_from_zero() {
    let count = |codes: &[&str]| {
        scraped(|| {
            let calls = Calls::new("grpc");
            for code in codes {
                calls.begin();
                calls.end("a.A/B", Duration::ZERO, Some(code));
            }
        })
    };
    for (codes, expected) in [
        (&[][..], 0),
        (&["Unavailable", "503", "Cancelled"], 0),
        (&["Internal", "Unknown", "500"], 3),
    ] {
        let line = format!("accord_internal_errors_total{{protocol=\"grpc\"}} {expected}\n");
        assert!(count(codes).contains(&line), "{codes:?}");
    }
}

#[test]
fn values_are_sorted_into_buckets_without_a_scrape() {
    let recorder = builder().unwrap().build_recorder();
    let handle = recorder.handle();
    ::metrics::with_local_recorder(&recorder, || {
        let durations = histogram!(names::CALL_DURATION, "protocol" => "grpc", "method" => "a.A/B");
        for _ in 0..1_000 {
            durations.record(Duration::from_millis(3));
        }
        handle.run_upkeep();
        durations.record(Duration::from_millis(3));
    });
    assert!(
        handle
            .render()
            .contains("_count{protocol=\"grpc\",method=\"a.A/B\"} 1001")
    );
}

#[test]
fn the_expiry_of_a_certificate_is_seconds_since_1970() {
    let when = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let scrape = scraped(|| certificate_expires("grpc", when));
    let expected = "accord_certificate_expiry_timestamp_seconds{certificate=\"grpc\"} 1800000000";
    assert!(scrape.contains(expected), "{scrape}");
}
