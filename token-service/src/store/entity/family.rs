//! Rows of `families`.

use accord::{
    store::{
        audit::Renewal,
        rows::{Protected, Recorded, RenewalOf},
    },
    text::id::FamilyId,
};
use sea_orm::entity::prelude::*;

/// The refresh tokens of one redemption: their numbers, not the tokens.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "families")]
pub struct Model {
    /// The tenant.
    #[sea_orm(primary_key, auto_increment = false)]
    pub tenant_id: String,
    /// ULID.
    #[sea_orm(primary_key, auto_increment = false)]
    pub family_id: String,
    /// The grant.
    pub grant_id: String,
    /// The client.
    pub client_id: String,
    /// The newest generation that was presented; 0 at first.
    pub used_generation: i32,
    /// The newest generation that was handed out; 1 at first.
    pub current_generation: i32,
    /// When the current generation was first handed out.
    pub handed_out_at: i64,
    /// Version of the key of the tokens' MAC.
    pub key_version: i32,
    /// The registry's epoch when the family began.
    pub registry_epoch: String,
    /// The registry's feed position when the family began.
    pub registry_seq: i64,
    /// Unix milliseconds.
    pub created_at: i64,
    /// The family's absolute end.
    pub expires_at: i64,
    /// When the family was revoked or replayed, before `expires_at`.
    pub ended_at: Option<i64>,
    /// `revoked`, `replayed`, `code_replayed` or `grant_ended`.
    pub end_reason: Option<String>,
    /// See [`Protected`].
    pub mac: Vec<u8>,
}

impl ActiveModelBehavior for ActiveModel {}

impl Protected for Entity {
    const MAC: Column = Column::Mac;
    const RECORDED: Recorded<Model> = Recorded::AtEnd(|row| row.ended_at.is_some());
    const RENEWAL: Option<RenewalOf<Model>> = Some(|row| {
        let family_id = FamilyId::parse(&row.family_id).ok()?;
        let generation = row.current_generation.try_into().ok()?;
        row.ended_at.is_none().then_some(Renewal {
            family_id,
            generation,
        })
    });
}
