//! Mutants of the append procedure, made by rewriting its text in the database.

use sqlx::{AssertSqlSafe, Connection};

use super::{Store, StoreError};
use crate::mutant::{Mutant, chosen};

/// Stands in every procedure that was rewritten.
const MUTATED: &str = "-- mutated";

const IDS_BEFORE_LANE: [[&str; 2]; 2] = [
    [
        "    perform tidings.take_lane();\n",
        "    -- mutated
    select * into at from tidings.next_positions(cardinality(apps), instance_ms);
    perform tidings.take_lane();\n",
    ],
    [
        "    select * into at from tidings.next_positions(cardinality(apps), instance_ms);
    prev := at.prev;\n",
        "    prev := at.prev;\n",
    ],
];

const KEY_BEFORE_LANE: [[&str; 2]; 3] = [
    ["    perform tidings.take_lane();\n", "    -- mutated\n"],
    [
        "    if known is not null then\n",
        "    perform tidings.take_lane();
    if known is not null then\n",
    ],
    [
        "        where n.number <> all (coalesce(known, '{}'));\n",
        "        where n.number <> all (coalesce(known, '{}'))
        on conflict do nothing;\n",
    ],
];

impl Store {
    /// Makes the append procedure wrong, if that is what the chosen mutant is about.
    pub(crate) async fn mutate(&self) -> Result<(), StoreError> {
        let rewrites = match chosen() {
            Some(Mutant::IdsBeforeLane) => &IDS_BEFORE_LANE[..],
            Some(Mutant::KeyBeforeLane) => &KEY_BEFORE_LANE[..],
            _ => return Ok(()),
        };
        let mut conn = self.session("mutant").await?;
        let text = sqlx::query_scalar("select pg_get_functiondef('tidings.append'::regproc)");
        let mut text: String = text.fetch_one(&mut conn).await?;
        if !text.contains(MUTATED) {
            for [right, wrong] in rewrites {
                assert!(text.contains(right), "tidings.append has changed: mend this mutant");
                text = text.replacen(right, wrong, 1);
            }
            sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut conn).await?;
        }
        conn.close().await?;
        Ok(())
    }
}
