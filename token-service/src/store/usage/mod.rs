//! How grants are used: tokens issued, which [`GrantUsage`] sums up, and requests rejected, which
//! [`rejection`] counts. Both are kept by grant and day for 400 days.

use std::collections::{BTreeMap, HashMap};

use accord::{
    clock::UnixMillis,
    store::{audit::Rollup, removal::delete_where},
    text::id::{GrantId, TenantId},
};
use sea_orm::{
    QuerySelect,
    entity::prelude::*,
    sea_query::{Expr, ExprTrait, Func, SimpleExpr},
};

use super::{
    Store,
    batch::usage::{GrantUsage, day_of},
    entity::{
        grant_rejection,
        grant_usage::{Column, Entity},
    },
};
use crate::{
    error::Result,
    model::grant::usage::{Day, KEPT, UsageOfDay, UsageSummary},
};

pub(super) mod rejection;

impl Store {
    /// Returns what sums up the tokens whose events are sealed.
    pub fn rollup(&self) -> impl Rollup + use<> {
        GrantUsage
    }

    /// Reads how a tenant's grant was used, by day, the newest first. Days without use are absent.
    pub async fn grant_usage(
        &self,
        tenant_id: &TenantId,
        grant_id: &GrantId,
    ) -> Result<Vec<(Day, UsageOfDay)>> {
        let (tenant_id, grant_id) = (tenant_id.as_str(), grant_id.as_str());
        let mut days: BTreeMap<Day, UsageOfDay> = BTreeMap::new();
        let rows = Entity::find()
            .filter(Column::TenantId.eq(tenant_id))
            .filter(Column::GrantId.eq(grant_id));
        for row in rows.all(self.db.read()).await? {
            days.insert(Day(row.day), day_of(row)?);
        }
        let rows = grant_rejection::Entity::find()
            .filter(grant_rejection::Column::TenantId.eq(tenant_id))
            .filter(grant_rejection::Column::GrantId.eq(grant_id));
        for row in rows.all(self.db.read()).await? {
            let day = days.entry(Day(row.day)).or_default();
            day.rejected.insert(row.reason, row.rejected);
        }
        Ok(days.into_iter().rev().collect())
    }

    /// Reads how these grants of a tenant were used lately. Grants without any use are absent. Two queries, whatever the
    /// number of grants.
    ///
    /// Measured on SQLite with 50 grants that were used from 16 addresses on each of 400 days: 17 ms and 7 ms.
    pub async fn usage_summaries(
        &self,
        tenant_id: &TenantId,
        grant_ids: &[&str],
    ) -> Result<HashMap<String, UsageSummary>> {
        let since = Day::of(self.now()).first_of_summary().0;
        let mut summaries: HashMap<String, UsageSummary> = HashMap::new();
        let lately = Expr::case(Column::Day.gte(since), Expr::col(Column::Issued)).finally(0_i64);
        let issued = Entity::find()
            .select_only()
            .column(Column::GrantId)
            .expr(Column::LastUsedAt.max())
            .expr(total(lately.into()))
            .filter(Column::TenantId.eq(tenant_id.as_str()))
            .filter(Column::GrantId.is_in(grant_ids.iter().copied()))
            .group_by(Column::GrantId)
            .into_tuple::<(String, i64, i64)>();
        for (grant_id, last_used_at, issued) in issued.all(self.db.read()).await? {
            let summary = UsageSummary {
                last_used_at: Some(UnixMillis::from_millis(last_used_at)),
                issued,
                rejected: 0,
            };
            summaries.insert(grant_id, summary);
        }
        let rejected = grant_rejection::Entity::find()
            .select_only()
            .column(grant_rejection::Column::GrantId)
            .expr(total(Expr::col(grant_rejection::Column::Rejected)))
            .filter(grant_rejection::Column::TenantId.eq(tenant_id.as_str()))
            .filter(grant_rejection::Column::GrantId.is_in(grant_ids.iter().copied()))
            .filter(grant_rejection::Column::Day.gte(since))
            .group_by(grant_rejection::Column::GrantId)
            .into_tuple::<(String, i64)>();
        for (grant_id, rejected) in rejected.all(self.db.read()).await? {
            summaries.entry(grant_id).or_default().rejected = rejected;
        }
        Ok(summaries)
    }

    /// Deletes the usage of days that are over for longer than it is kept.
    pub async fn delete_old_usage(&self) -> Result<()> {
        let first = Day::of(self.now().minus(KEPT)).0;
        delete_where::<Entity>(&self.db, Column::Day.lt(first)).await?;
        delete_where::<grant_rejection::Entity>(&self.db, grant_rejection::Column::Day.lt(first)).await?;
        Ok(())
    }
}

/// Returns the sum of whole numbers. PostgreSQL adds them up as a `numeric`.
fn total(of: SimpleExpr) -> SimpleExpr {
    Expr::expr(Func::sum(of)).cast_as("bigint")
}

#[cfg(test)]
#[path = "../tests/usage.rs"]
mod tests;
