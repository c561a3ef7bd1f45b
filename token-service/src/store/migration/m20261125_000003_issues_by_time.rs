//! Issued tokens leave every index of the audit trail but the one by time: each index whose keys are
//! spread would cost a page for each token. Other events stay as they were.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        accord::store::audit::leave_issues_out_of_indexes(manager).await
    }
}
