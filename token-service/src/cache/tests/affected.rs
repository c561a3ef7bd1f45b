//! What each change removes from memory.

use accord::{
    rpc::auth::{Caller, WorkloadKind},
    testing::TEST_START,
    text::id::{GrantId, UserId, WorkloadId},
};

use super::*;
use crate::model::signing_key::{Algorithm, Keys, NewKey};

fn grant(random: &SeededRandom) -> Grant {
    let clock = test_clock();
    Grant {
        grant_id: GrantId::generate(&*clock, random),
        tenant_id: tenant_id(0),
        client_id: ClientId::generate(&*clock, random),
        display: DisplayInfo::default(),
        scopes: Vec::new(),
        designated_user_id: UserId::generate(&*clock, random),
        granted_by: UserId::generate(&*clock, random),
        state: StoredState::Active,
        client_version: 1,
        created_at: TEST_START,
        family_id: None,
        redeem_until: TEST_START,
        allowed_networks: Default::default(),
        activated_at: None,
        expires_at: None,
        ended_at: None,
    }
}

#[test]
fn a_change_removes_what_it_affects_and_nothing_else() {
    let random = SeededRandom::new(3);
    let (client, grant) = (client(&random), grant(&random));
    let user = User {
        user_id: UserId::generate(&*test_clock(), &random),
        label: "API user".into(),
        tenant_admin: false,
        active: true,
        tokens_ended_seq: 0,
        sessions_ended_seq: 0,
    };
    let caller = Caller::Workload {
        id: WorkloadId::generate(&*test_clock(), &random),
        kind: WorkloadKind::InternalService,
    };
    let key = NewKey::generate(Algorithm::EdDsa).unwrap();
    let signer = Arc::new(Signer::new(key.kid, key.algorithm, &key.pkcs8).unwrap());
    let revocation = |kind, id: &str| {
        let (id, seq) = (id.to_owned(), 6);
        Change::Revocation(Revocation { kind, id, seq })
    };
    let other = Change::Client(ClientId::generate(&*test_clock(), &random));
    let elsewhere = Change::User(tenant_id(1), user.user_id.clone());
    for (change, removed) in [
        (Change::Client(client.client_id.clone()), "client"),
        (Change::Scope, "client"),
        (Change::Tenant(tenant_id(0)), "tenant"),
        (Change::User(tenant_id(0), user.user_id.clone()), "user"),
        (Change::Caller(caller.id().to_owned()), "caller"),
        // It may now have a name that the caller's certificate holds, too.
        (
            Change::Caller(WorkloadId::generate(&*test_clock(), &random).into()),
            "caller",
        ),
        (Change::Grant(grant.grant_id.clone()), "grant"),
        (
            revocation(RevocationKind::Grant, grant.grant_id.as_str()),
            "grant",
        ),
        (Change::SigningKeys, "keys"),
        (revocation(RevocationKind::Kid, "kid"), "keys"),
        (revocation(RevocationKind::Jti, grant.grant_id.as_str()), ""),
        (other, ""),
        (elsewhere, ""),
        (Change::UnknownRevocation, "client tenant user caller grant keys"),
        (Change::Unknown, "client tenant user caller grant keys"),
    ] {
        let facts = Facts::new();
        let known = KnownClient::new(client.clone(), None);
        let entry = Entry {
            client: facts.clients.insert(client.client_id.clone(), known),
            tenant: facts.tenants.insert(tenant_id(0), tenant(0, 0)),
            user: facts
                .users
                .insert((tenant_id(0), user.user_id.clone()), user.clone()),
            grant: facts.grants.insert(grant.grant_id.clone(), grant.clone()),
        };
        let caller = facts.callers.insert([1; 32], Some(caller.clone()));
        facts
            .keys
            .store(Some(Arc::new(Keys::new(signer.clone(), Vec::new()).unwrap())));
        assert!(entry.facts_are_current());
        facts.apply(&change);
        let gone = [
            ("client", !entry.client.is_current()),
            ("tenant", !entry.tenant.is_current()),
            ("user", !entry.user.is_current()),
            ("caller", !caller.is_current()),
            ("grant", !entry.grant.is_current()),
            ("keys", facts.keys.load().is_none()),
        ];
        let gone: Vec<_> = gone
            .iter()
            .filter(|(_, gone)| *gone)
            .map(|(name, _)| *name)
            .collect();
        assert_eq!(gone.join(" "), removed, "{change:?}");
        let of_entry = ["client", "tenant", "user", "grant"];
        let affected = gone.iter().any(|name| of_entry.contains(name));
        assert_eq!(entry.facts_are_current(), !affected, "{change:?}");
    }
}
