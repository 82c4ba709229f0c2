//! What refers to rows that are going: who was addressed by them is noted before, and what is of no use
//! without them is deleted after, in batches that no append or change of state waits for.

use sqlx::PgConnection;
use uuid::Uuid;

use super::retention::{Range, STEP_DEADLINE};
use super::{Maintenance, StoreError, within};

const BATCH_ROWS: i64 = 1000;
/// Of 8 KiB each: what one statement reads of a table that has no index by id.
const BATCH_PAGES: i64 = 1000;

/// Where a table is deleted from, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftovers {
    /// The keys by which a later row would replace them.
    Replaceable(i64),
    /// What users did with them.
    UserState(i64),
    /// That they were withdrawn or replaced.
    Gone(Uuid),
    /// The edges of apps that the edge of all has overtaken.
    AppEdges,
}

impl Leftovers {
    /// Where to begin: with a key left, a send would note as replaced what is no more.
    pub const FIRST: Leftovers = Leftovers::Replaceable(0);
}

impl Maintenance {
    /// Deletes the next batch of what refers to rows up to the edge, and returns where to go on. Only
    /// once the rows are removed: those that were withdrawn would be deliverable again.
    pub async fn forget(&mut self, at: Leftovers) -> Result<Option<Leftovers>, StoreError> {
        within(STEP_DEADLINE, async {
            Ok(match at {
                Leftovers::Replaceable(page) => {
                    let next = forget_replaceable(&mut self.conn, page).await?;
                    Some(next.map_or(Leftovers::UserState(0), Leftovers::Replaceable))
                }
                Leftovers::UserState(page) => {
                    let next = forget_user_state(&mut self.conn, page).await?;
                    Some(next.map_or(Leftovers::Gone(Uuid::nil()), Leftovers::UserState))
                }
                Leftovers::Gone(after) => {
                    let next = forget_gone(&mut self.conn, after).await?;
                    Some(next.map_or(Leftovers::AppEdges, Leftovers::Gone))
                }
                Leftovers::AppEdges => {
                    sqlx::query!(
                        "delete from tidings.app_edge a using tidings.retention_edge e
                        where a.edge <= e.edge"
                    )
                    .execute(&mut self.conn)
                    .await?;
                    None
                }
            })
        })
        .await
    }
}

/// Notes those whom the rows of a partition, or of one app in it, are addressed to as known: their first
/// row, by which they are known so far, is about to go.
pub(super) async fn note_known_users(
    conn: &mut PgConnection,
    range: Range,
    app: Option<&str>,
) -> sqlx::Result<()> {
    let (mut last_app, mut last_audience) = (String::new(), String::new());
    loop {
        let batch = sqlx::query!(
            r#"with next as materialized (
                select distinct on (n.app, n.audience) n.app, n.audience, n.id
                from tidings.notification n
                where n.id >= $1 and n.id < $2 and (n.app, n.audience) > ($3, $4)
                    and left(n.audience, 5) = 'user:' and ($5::text is null or n.app = $5)
                order by n.app, n.audience, n.id limit $6
            ), noted as (
                insert into tidings.known_user (app, user_name, since)
                select n.app, substr(n.audience, 6), n.id from next n order by n.app, n.audience
                on conflict do nothing
            )
            select n.app, n.audience from next n order by n.app desc, n.audience desc limit 1"#,
            range.from,
            range.to,
            last_app,
            last_audience,
            app,
            BATCH_ROWS,
        )
        .fetch_optional(&mut *conn)
        .await?;
        match batch {
            Some(last) => (last_app, last_audience) = (last.app, last.audience),
            None => return Ok(()),
        }
    }
}

async fn forget_replaceable(conn: &mut PgConnection, page: i64) -> sqlx::Result<Option<i64>> {
    let pages = sqlx::query_scalar!(
        r#"select pg_relation_size('tidings.replaceable') / current_setting('block_size')::bigint
            as "pages!""#
    );
    if page >= pages.fetch_one(&mut *conn).await? {
        return Ok(None);
    }
    // By place: an index by id would cost every send with a key, for this alone.
    sqlx::query!(
        "delete from tidings.replaceable r using tidings.retention_edge e
        where r.ctid >= format('(%s,0)', $1::bigint)::tid
            and r.ctid < format('(%s,0)', $2::bigint)::tid and r.id <= e.edge",
        page,
        page + BATCH_PAGES,
    )
    .execute(conn)
    .await?;
    Ok(Some(page + BATCH_PAGES))
}

async fn forget_user_state(conn: &mut PgConnection, page: i64) -> sqlx::Result<Option<i64>> {
    let pages = sqlx::query_scalar!(
        r#"select pg_relation_size('tidings.user_state') / current_setting('block_size')::bigint
            as "pages!""#
    );
    if page >= pages.fetch_one(&mut *conn).await? {
        return Ok(None);
    }
    // What a change of state has locked is left for the next time: the two lock rows in orders of
    // their own, and would wait for each other.
    sqlx::query!(
        "delete from tidings.user_state s where s.ctid = any(array(
            select o.ctid from tidings.user_state o, tidings.retention_edge e
            where o.ctid >= format('(%s,0)', $1::bigint)::tid
                and o.ctid < format('(%s,0)', $2::bigint)::tid and o.id <= e.edge
            for update of o skip locked
        ))",
        page,
        page + BATCH_PAGES,
    )
    .execute(conn)
    .await?;
    Ok(Some(page + BATCH_PAGES))
}

async fn forget_gone(conn: &mut PgConnection, after: Uuid) -> sqlx::Result<Option<Uuid>> {
    let last = sqlx::query_scalar!(
        r#"with expired as materialized (
            select g.id from tidings.gone g, tidings.retention_edge e
            where g.id > $1 and g.id <= e.edge order by g.id limit $2
        ), deleted as (
            delete from tidings.gone g using expired e where g.id = e.id
        )
        select e.id from expired e order by e.id desc limit 1"#,
        after,
        BATCH_ROWS,
    );
    last.fetch_optional(conn).await
}
