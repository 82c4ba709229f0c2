-- One page for each of many waiting clients, with the facts of the same snapshot. Each client asks
-- once per audience (`waiter`, `source`); `taken` is how many rows the limit let through before the
-- bound on bytes cut the rest, so that the caller can tell a full page from a complete one.
select
    greatest((select id from tidings.notification order by id desc limit 1), e.edge) as "head!",
    e.edge as "edge!",
    -- Not of the snapshot: it runs ahead of the commits, and answers only "was it ever issued?".
    (select p.last_value from tidings.position p) as "last_position!",
    r.waiter as "waiter?", r.source as "source?", r.taken as "taken?",
    r.id as "id?", r.event as "event?", r.data as "data?"
from tidings.retention_edge e left join lateral (
    select w.waiter, w.source, p.*
    from unnest($1::integer[], $2::integer[], $3::text[], $4::text[], $5::uuid[], $6::bigint[])
        as w (waiter, source, app, audience, after, max_bytes)
    cross join lateral (
        select q.*, count(*) over () as taken,
            sum(octet_length(q.data)) over (order by q.id) - octet_length(q.data) as bytes_before
        from (
            select n.id, n.event, n.data::text as data
            from tidings.notification n
            where n.app = w.app and n.audience = w.audience and n.id > w.after
            order by n.id
            limit $7
        ) q
    ) p
    where p.bytes_before < w.max_bytes
) r on true
order by r.waiter, r.id
