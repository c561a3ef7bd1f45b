//! The drill of `deploy/backup`: copies of both databases, made under load, are restored and serve again. What was taken away after
//! the copies is named by `accord audit lost`, from an export of the record.

use std::{
    fs,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use accord::{
    audit::v1::{GetCheckpointRequest, audit_service_client::AuditServiceClient},
    registry::v1 as reg,
    testing::calls::ok,
};

use crate::{
    audit_record::{audit, output, said},
    harness::{
        document::file,
        partner::{Partner, World, own_grant, refresh_grant},
        process::ACCORD,
        refusal::{CONSENT_REQUIRED, INVALID_CLIENT, INVALID_GRANT, within},
        services::Services,
    },
};

tests!(
    restored_databases_serve_within_five_minutes_and_nothing_revoked_lives,
    what_was_taken_away_after_the_copy_is_named_until_it_is_done_again,
);

/// How long the whole drill may take.
const WITHIN: Duration = Duration::from_secs(300);

fn script(name: &str, arguments: [&str; 3]) {
    run(
        name,
        Command::new(file("deploy/backup").join(name)).args(arguments),
    );
}

fn run(name: &str, command: &mut Command) {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {stderr}");
}

async fn restored_databases_serve_within_five_minutes_and_nothing_revoked_lives() {
    let databases = [(); 4].map(|()| accord::testing::postgres());
    let [Some(registry), Some(token), Some(new_registry), Some(new_token)] = databases else {
        return;
    };
    let mut services = Services::start(&registry.url, &token.url).await;
    let world = World::new(&services.target);
    let (partner, other) = (world.partner().await, world.partner().await);
    let tokens = world.first_tokens(&partner).await;
    let ended = world.first_tokens(&other).await;
    world.revoke_consent(&ended.grant_id).await;

    let stop = Arc::new(AtomicBool::new(false));
    let load = {
        let (stop, partner) = (stop.clone(), partner.clone());
        let world = World::new(&services.target);
        tokio::spawn(async move {
            let mut last = None;
            while !stop.load(Ordering::Relaxed) {
                // No call fails while the copies are made.
                let issued = world.issue(&partner, own_grant()).await.unwrap();
                last = Some(issued.access_token);
            }
            last.unwrap()
        })
    };
    let directory = tempfile::tempdir().unwrap();
    let copies = directory.path().join("copies").to_str().unwrap().to_owned();
    tokio::task::spawn_blocking({
        let (registry, token, copies) = (registry.url.clone(), token.url.clone(), copies.clone());
        move || script("backup.sh", [&registry, &token, &copies])
    })
    .await
    .unwrap();
    stop.store(true, Ordering::Relaxed);
    let last = load.await.unwrap();

    let lost_at = Instant::now();
    services.stop();
    script("restore.sh", [&copies, &new_registry.url, &new_token.url]);
    services.start_restored(&new_registry.url, &new_token.url);
    let world = World::new(&services.target);
    for token in [&tokens.access_token, &ended.access_token, &last] {
        assert!(!world.active(token).await);
    }
    world
        .is_refused(&partner, refresh_grant(&tokens.refresh_token), INVALID_GRANT)
        .await;
    world.is_refused(&other, own_grant(), CONSENT_REQUIRED).await;
    // Standing consents work by client credentials, and by a new setup.
    let own = world.is_issued(&partner, own_grant()).await;
    assert!(world.active(&own.access_token).await);
    let again = world.first_tokens(&partner).await;
    assert!(world.active(&again.access_token).await);
    assert!(lost_at.elapsed() < WITHIN, "{:?}", lost_at.elapsed());
}

/// What `accord audit lost` says must be done again: the action and its subject, from the top.
fn to_do_again(said: &str) -> Vec<(String, String)> {
    let lines = said.lines().take_while(|line| !line.contains("gave something"));
    let named = lines.filter_map(|line| {
        let (head, rest) = line.split_once(": ")?;
        let action = head.split_once(' ')?.1;
        let subject = rest.split_once(" subject=")?.1.split(' ').next()?;
        Some((action.to_owned(), subject.to_owned()))
    });
    named.collect()
}

/// Does what was lost again, as the output tells it.
async fn do_again(world: &World, lost: &[(String, String)]) {
    let (reason, tenant_id) = ("lost by a restore".to_owned(), world.target.tenant_id.clone());
    for (action, subject) in lost {
        let id = subject.clone();
        match action.as_str() {
            "consent.revoke" | "consent.supersede" => world.revoke_consent(subject).await,
            "client.suspend" => {
                let request = reg::SuspendClientRequest {
                    client_id: id,
                    reason: reason.clone(),
                };
                ok(world.clients().suspend_client(request).await);
            }
            "client.update" => {
                let partner = Partner {
                    client_id: id,
                    client_secret: String::new(),
                };
                narrow(world, &partner).await;
            }
            "user.deactivate" => deactivate(world, id).await,
            other => panic!("{other} of {tenant_id}"),
        }
    }
}

async fn narrow(world: &World, partner: &Partner) {
    let scopes = vec![reg::RequestedScope {
        name: "contacts.read".into(),
        reason: "because of contacts.read".into(),
    }];
    let client = reg::Client {
        scopes,
        ..Default::default()
    };
    world.update_client(partner, client, &["scopes"]).await;
}

async fn deactivate(world: &World, user_id: String) {
    let request = reg::DeactivateUserRequest {
        tenant_id: world.target.tenant_id.clone(),
        user_id,
        reason: "left".into(),
    };
    ok(world.users().deactivate_user(request).await);
}

/// Exports the record of a database to a file, again and again until it has an event of the action on the subject.
async fn exported(url: &str, path: &Path, action: &str, subject: &str) -> String {
    let directory = Path::new(ACCORD).parent().unwrap().to_str().unwrap();
    let search = format!("{directory}:{}", std::env::var("PATH").unwrap());
    let script = file("deploy/backup/export.sh");
    // An earlier export was cut by a full disk.
    fs::write(path, "{\"position\":\"1/0/").unwrap();
    within(Duration::from_secs(30), action, async || {
        let mut command = Command::new(&script);
        command.arg(path).env("PATH", &search);
        tokio::task::block_in_place(|| run("export.sh", command.env("ACCORD_AUDIT_DATABASE_URL", url)));
        let lines = fs::read_to_string(path).unwrap();
        let action = format!("\"action\":\"{action}\"");
        lines
            .lines()
            .any(|line| line.contains(&action) && line.contains(subject))
    })
    .await;
    path.to_str().unwrap().to_owned()
}

async fn what_was_taken_away_after_the_copy_is_named_until_it_is_done_again() {
    let databases = [(); 4].map(|()| accord::testing::postgres());
    let [Some(registry), Some(token), Some(new_registry), Some(new_token)] = databases else {
        return;
    };
    let mut services = Services::start(&registry.url, &token.url).await;
    let world = World::new(&services.target);
    let (stays, revoked, suspended) = (
        world.partner().await,
        world.partner().await,
        world.partner().await,
    );
    let (narrowed, left, writer) = (
        world.partner().await,
        world.partner().await,
        world.partner().await,
    );
    for partner in [&stays, &suspended, &narrowed, &left, &writer] {
        world.first_tokens(partner).await;
    }
    let consent = world.first_tokens(&revoked).await.grant_id;
    let leaver = world.user("leaver@firm.example").await;
    let [of_leaver] = &world.consent_ids(&left).await[..] else {
        panic!("one consent");
    };
    world
        .change_designated_user(of_leaver, "leaver@firm.example")
        .await;

    // Consents come and go, and tokens leave, before, during and after the copies.
    let stop = Arc::new(AtomicBool::new(false));
    let load = {
        let (stop, stays, writer) = (stop.clone(), stays.clone(), writer.clone());
        let world = World::new(&services.target);
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                world.first_tokens(&writer).await;
                world.issue(&stays, own_grant()).await.unwrap();
            }
        })
    };
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let copies = at("copies").to_str().unwrap().to_owned();
    tokio::task::spawn_blocking({
        let (registry, token, copies) = (registry.url.clone(), token.url.clone(), copies.clone());
        move || script("backup.sh", [&registry, &token, &copies])
    })
    .await
    .unwrap();
    world.revoke_consent(&consent).await;
    let suspend = ("client.suspend".to_owned(), suspended.client_id.clone());
    do_again(&world, &[suspend]).await;
    narrow(&world, &narrowed).await;
    deactivate(&world, leaver.clone()).await;
    stop.store(true, Ordering::Relaxed);
    load.await.unwrap();
    world.first_tokens(&writer).await;

    // What is kept elsewhere: the records, and a checkpoint.
    let of_registry = exported(&registry.url, &at("registry.jsonl"), "user.deactivate", &leaver).await;
    let of_token = exported(&token.url, &at("token.jsonl"), "consent.revoke", &consent).await;
    let mut log = AuditServiceClient::new(world.token_operator.clone());
    let head = ok(log.get_checkpoint(GetCheckpointRequest {}).await);
    fs::write(at("key"), &head.verifier_key).unwrap();
    let (key, checkpoint) = (at("key"), at("token.jsonl.checkpoints"));
    let verify = [
        "verify",
        "--key",
        key.to_str().unwrap(),
        "--checkpoint",
        checkpoint.to_str().unwrap(),
    ];
    output(&token.url, &verify).await;

    services.stop();
    script("restore.sh", [&copies, &new_registry.url, &new_token.url]);
    services.start_restored(&new_registry.url, &new_token.url);
    let world = World::new(&services.target);
    let (is_whole, error) = said(&audit(&new_token.url, &verify).await);
    assert!(!is_whole && error.contains("the checkpoint of"), "{error}");
    // They live again, which nobody but the record tells.
    for partner in [&revoked, &suspended, &narrowed, &left] {
        world.is_issued(partner, own_grant()).await;
    }

    let lost = ["lost", "--record", &of_registry];
    let (is_done, told) = said(&audit(&new_registry.url, &lost).await);
    let mut of_clients = to_do_again(&told);
    assert!(!is_done, "{told}");
    let expected = [
        ("client.suspend".to_owned(), suspended.client_id.clone()),
        ("client.update".to_owned(), narrowed.client_id.clone()),
        ("user.deactivate".to_owned(), leaver),
    ];
    assert_eq!(of_clients, expected, "{told}");
    let lost = ["lost", "--record", &of_token];
    let (is_done, told) = said(&audit(&new_token.url, &lost).await);
    let of_consents = to_do_again(&told);
    assert!(
        !is_done && of_consents.contains(&("consent.revoke".to_owned(), consent)),
        "{told}"
    );
    // The writer's consent in the copy, and one that may have waited for its code then, were superseded by what is lost.
    let superseded = of_consents
        .iter()
        .filter(|(action, _)| action == "consent.supersede");
    let superseded = superseded.count();
    assert!(
        [1, 2].contains(&superseded) && of_consents.len() == superseded + 1,
        "{told}"
    );

    // All but one, which it then still names.
    let last = of_clients.pop().unwrap();
    do_again(&world, &of_clients).await;
    do_again(&world, &of_consents).await;
    let lost = ["lost", "--record", &of_registry];
    let (is_done, told) = said(&audit(&new_registry.url, &lost).await);
    assert!(!is_done, "{told}");
    assert_eq!(to_do_again(&told), std::slice::from_ref(&last), "{told}");
    do_again(&world, &[last]).await;
    for (url, record) in [(&new_registry.url, &of_registry), (&new_token.url, &of_token)] {
        output(url, &["lost", "--record", record]).await;
    }
    for partner in [&revoked, &left, &writer] {
        world.is_refused(partner, own_grant(), CONSENT_REQUIRED).await;
    }
    world.is_refused(&suspended, own_grant(), INVALID_CLIENT).await;
    within(Duration::from_secs(1), "a scope ends", async || {
        let issued = world.issue(&narrowed, own_grant()).await.unwrap();
        issued.scope == "contacts.read"
    })
    .await;
    world.is_issued(&stays, own_grant()).await;
}
