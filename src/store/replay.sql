-- One page for each of many waiting clients, with the facts of the same snapshot: one row for each client
-- at least, so that the facts come also to those who missed nothing.
--
-- A page is the first rows of all the client's audiences together. Each audience is read `depth` rows
-- deep. Behind the first row that is the last one of its depth, rows of that audience may be missing, so
-- the page ends there; or where its bytes end, but not before its first row. `number` counts the rows
-- of an audience and `looked_at` all that were read, so that the caller can tell why the page ended.
select
    w.waiter as "waiter!",
    greatest(e.newest, e.edge, e.highest_edge) as "head!",
    e.edge as "edge!",
    -- Not of the snapshot: it runs ahead of the commits, and answers only "was it ever issued?".
    (select p.last_value from tidings.position p) as "last_position!",
    (select max(x.epoch) from tidings.epoch x) as "epoch!",
    e.cut_off_at as "cut_off_at?",
    p.source as "source?", p.number as "number?", p.looked_at as "looked_at?",
    p.id as "id?", p.event as "event?", p.created_at as "created_at?", p.data as "data?"
from unnest($1::text[], $2::uuid[], $3::integer[], $4::integer[], $5::integer[], $6::integer[])
    with ordinality as w (app, after, first_source, last_source, depth, overhead, waiter)
cross join lateral (
    select greatest(r.edge, (select a.edge from tidings.app_edge a where a.app = w.app)) as edge,
        -- Of another app: no row of ours, but where the hub stands if its rows were the newest of all. A
        -- page that ended below would never meet the ring.
        (select a.edge from tidings.app_edge a order by a.edge desc limit 1) as highest_edge,
        (select n.id from tidings.notification n order by n.id desc limit 1) as newest,
        -- Where a restore cut the feed off below the cursor: what was kept of its epoch ends there. A time
        -- (`since`) has an epoch above all.
        (select min(x.previous_end) from tidings.epoch x
         where x.previous_end < tidings.position(w.after)
            and (x.epoch > tidings.epoch(w.after)
                or tidings.position(w.after) < x.first_position and tidings.epoch(w.after) < 65535))
            as cut_off_at
    from tidings.retention_edge r
    -- Once for each client, not for each of its rows.
    offset 0
) e
left join lateral (
    select c.*
    from (
        select b.*, sum(octet_length(b.data) + w.overhead) over (order by b.id) as bytes
        from (
            -- What is not deliverable is left out here, after the limits, and leaves its id: a million
            -- expired rows are passed in steps that are as bounded as any other page.
            select s.source, s.number, s.looked_at, s.ordinal, s.id, s.event, s.created_at,
                case when (s.expires_at is null or s.expires_at > now())
                    -- A correlated look at one key, which the planner cannot turn into a scan.
                    and (select g.id from tidings.gone g where g.id = s.id) is null
                then s.data::text end as data
            from (
                select m.*, count(*) over () as looked_at, row_number() over in_order as ordinal,
                    -- As stored, which is known without unpacking: no more than about a page of
                    -- long texts is unpacked to learn their true lengths.
                    sum(pg_column_size(m.data)) over in_order as stored_bytes,
                    count(*) filter (where m.number = w.depth) over (
                        order by m.id rows between unbounded preceding and 1 preceding
                    ) as ended
                from (
                    select a.source, n.*
                    from unnest(($7::text[])[w.first_source:w.last_source])
                        with ordinality as a (audience, source)
                    cross join lateral (
                        select row_number() over (order by f.id) as number, f.*
                        from (
                            select n.id, n.event, n.created_at, n.expires_at, n.data
                            from tidings.notification n
                            where n.app = w.app and n.audience = a.audience and n.id > w.after
                                -- Spares a look into each partition that was made ahead.
                                and n.id <= e.newest
                            order by n.id
                            limit w.depth
                        ) f
                    ) n
                ) m
                window in_order as (order by m.id)
            ) s
            where s.ended = 0 and (s.stored_bytes <= $8 or s.ordinal = 1)
            -- Keeps `data` from being unpacked once for its length and once more for itself.
            offset 0
        ) b
    ) c
    where c.bytes is null or c.bytes <= $8 or c.ordinal = 1
) p on true
