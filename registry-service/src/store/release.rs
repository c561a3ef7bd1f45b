//! The release of one-time links by another person than their creator. Returns the release code once; the link's row holds
//! a MAC of it.

use accord::{
    clock::UnixMillis,
    keys::DataKey,
    store::{
        Transaction,
        audit::{Event, Origin, action},
        rows::ProtectedRows,
    },
    text::{
        id::{ClientId, DeliveryId, TenantId, UserId},
        person::are_different_persons,
        release_code::ReleaseCode,
    },
};

use super::{
    Store,
    caller::{acting, note_second_person},
    client, commit, corrupt,
    credentials::is_unopened,
    delivery,
    enrolment::{is_unused, unused},
    entity::{delivery as link, enrolment, user},
    integration_request, second_operator_required,
};
use crate::{
    error::{Error, Result},
    model::{
        link::{CodeProblem, Release, code_mac},
        purpose,
    },
};

/// A release, and what the releasing person must compare before passing the code on: whoever asks for it may name another
/// link than the one that it is for.
#[derive(Debug)]
pub struct Released<T> {
    /// The release code.
    pub code: ReleaseCode,
    /// Who gets what the link holds.
    pub recipient: T,
    /// The person who created the link.
    pub creator: String,
    /// When the link was created.
    pub created_at: UnixMillis,
}

/// The client whose credentials a link holds.
#[derive(Debug)]
pub struct Recipient {
    /// The client.
    pub client_id: ClientId,
    /// Its name.
    pub display_name: String,
    /// The address of the partner's contact, from the request that the client was registered from.
    pub contact_email: String,
}

/// What a link's row says of its release.
pub(super) struct LinkRelease<'a> {
    needs_release: bool,
    creator: &'a str,
    releaser: Option<&'a str>,
    mac: Option<(Vec<u8>, i32)>,
}

macro_rules! link_release {
    ($($row:ty),*) => {
        $(impl<'a> From<&'a $row> for LinkRelease<'a> {
            fn from(row: &'a $row) -> Self {
                Self {
                    needs_release: row.needs_release,
                    creator: &row.creator,
                    releaser: row.releaser.as_deref(),
                    mac: row.release_mac.clone().zip(row.release_key_version),
                }
            }
        }

        impl $row {
            fn set_release(&mut self, releaser: String, mac: Vec<u8>, key_version: i32) {
                self.releaser = Some(releaser);
                self.release_mac = Some(mac);
                self.release_key_version = Some(key_version);
            }

            fn released<T>(&self, code: ReleaseCode, recipient: T) -> Released<T> {
                Released {
                    code,
                    recipient,
                    creator: self.creator.clone(),
                    created_at: UnixMillis::from_millis(self.created_at),
                }
            }
        })*
    };
}

link_release!(link::Model, enrolment::Model);

impl Store {
    /// Releases a link to credentials. A link that was released before gets another code.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::SecondOperatorRequired`], [`Error::WrongState`] for a link that is not open.
    pub async fn release_delivery(&self, origin: &Origin, id: &DeliveryId) -> Result<Released<Recipient>> {
        self.keyring.get().await?;
        let tx = self.db.write().await?;
        let row = link::Entity::look_up_by_id(id.as_str()).lock_one(&tx).await?;
        let mut row = row.ok_or(Error::NotFound("delivery"))?;
        let (client_id, _) = delivery::ids(&row)?;
        let event = delivery::event(action::DELIVERY_RELEASE, &row)?;
        let needs_other = row.needs_release || self.second_operator;
        let (tx, event, releaser) = self
            .require_other(tx, origin, (&row.creator, needs_other), event)
            .await?;
        let (code, mac, version) = self.new_code(id.as_str().as_bytes())?;
        let now = self.now().as_millis();
        if !is_unopened(&row) || row.expires_at <= now {
            return Err(Error::WrongState {
                resource: "delivery",
                state: ended_as(row.claimed_at.is_some()).to_owned(),
            });
        }
        row.set_release(releaser, mac, version);
        row.save(&tx).await?;
        let client = client::find(&tx, &client_id)
            .await?
            .ok_or(corrupt("deliveries"))?;
        let request = integration_request::find(&tx, &client.integration_request_id).await?;
        let recipient = Recipient {
            client_id,
            display_name: client.presentation.display_name,
            contact_email: request.ok_or(corrupt("clients"))?.content.contact_email,
        };
        self.audit(&tx, origin, event).await?;
        commit(tx, row.released(code, recipient)).await
    }

    /// Releases a user's open enrolment link. A link that was released before gets another code. The recipient is the user, by
    /// label.
    ///
    /// # Errors
    /// [`Error::NotFound`] (user), [`Error::SecondOperatorRequired`], [`Error::NoOpenEnrolment`].
    pub async fn release_enrolment(
        &self,
        origin: &Origin,
        tenant_id: &TenantId,
        user_id: &UserId,
    ) -> Result<Released<String>> {
        use enrolment::{Column, Entity};
        self.keyring.get().await?;
        let tx = self.db.write().await?;
        let key = (tenant_id.to_string(), user_id.to_string());
        let user = user::Entity::look_up_by_id(key).read_one(&tx).await?;
        let user = user.ok_or(Error::NotFound("user"))?.into_row();
        // A new link ends the ones before it.
        let open = Entity::look_up()
            .equal(Column::TenantId, tenant_id.as_str())
            .equal(Column::UserId, user_id.as_str())
            .filter(unused(), is_unused)
            .lock_one(&tx)
            .await?;
        let not_open = |is_used| Error::NoOpenEnrolment {
            state: ended_as(is_used),
        };
        let mut row = open.ok_or_else(|| not_open(user.password_hash.is_some()))?;
        let event = Event::new(action::USER_RELEASE_ENROLMENT)
            .tenant(tenant_id)
            .subject(user_id.as_str());
        let needs_other = row.needs_release || self.second_operator;
        let (tx, event, releaser) = self
            .require_other(tx, origin, (&row.creator, needs_other), event)
            .await?;
        let (code, mac, version) = self.new_code(&row.token_hash)?;
        if row.expires_at <= self.now().as_millis() {
            return Err(not_open(false));
        }
        row.set_release(releaser, mac, version);
        row.save(&tx).await?;
        self.audit(&tx, origin, event).await?;
        commit(tx, row.released(code, user.label)).await
    }

    /// Returns what a link's row says of its release. A link from before the setting was turned on needs one, too; a release of
    /// that time counts if it was another person's.
    pub(super) fn release<'a>(&self, link: impl Into<LinkRelease<'a>>) -> Release {
        let LinkRelease {
            needs_release,
            creator,
            releaser,
            mac,
        } = link.into();
        let counts =
            !self.second_operator || releaser.is_some_and(|person| are_different_persons(person, creator));
        Release {
            is_needed: needs_release || self.second_operator || mac.is_some(),
            mac: mac.filter(|_| counts),
        }
    }

    /// Checks the release code that a call brings. `link` identifies the link.
    pub(super) fn check_code(
        &self,
        release: &Release,
        link: &[u8],
        code: Option<&ReleaseCode>,
    ) -> Result<Result<(), CodeProblem>> {
        let Some((_, version)) = release.mac else {
            return Ok(release.check(None, link, code));
        };
        let keyring = self.keyring.loaded();
        let key = keyring.require(purpose::DELIVERY, version)?;
        Ok(release.check(Some(key), link, code))
    }

    /// Rejects whoever is not known to be another person than the creator of a link that needs one. Without the setting,
    /// a link that did not need a release when it was made may be released again by its creator. Adds to the event why no second
    /// person may have been there. Returns who releases the link.
    async fn require_other(
        &self,
        tx: Transaction,
        origin: &Origin,
        (creator, needs_other): (&str, bool),
        event: Event,
    ) -> Result<(Transaction, Event, String)> {
        let acting = acting(&tx, origin).await?;
        let event = match acting.is(creator) {
            true => event.detail("same_person", "created it"),
            false => note_second_person(&acting, creator, event),
        };
        if needs_other && !acting.is_other_than(creator) {
            let event = self.with_tenants(&tx, origin, event).await?;
            tx.rollback().await?;
            return Err(second_operator_required("the release needs", event));
        }
        Ok((tx, event, acting.person))
    }

    /// Generates the code of a link. Returns it with its MAC and the version of the MAC's key.
    fn new_code(&self, link: &[u8]) -> Result<(ReleaseCode, Vec<u8>, i32)> {
        let code = ReleaseCode::generate(&*self.random);
        let keyring = self.keyring.loaded();
        let key: &DataKey = keyring.current(purpose::DELIVERY)?;
        let mac = code_mac(key, link, &code).to_vec();
        Ok((code, mac, key.version()))
    }
}

/// Returns the state of a link that can't be released: it was used, or has ended or expired.
fn ended_as(is_used: bool) -> &'static str {
    if is_used { "USED" } else { "ENDED" }
}

#[cfg(test)]
#[path = "tests/release.rs"]
mod tests;
