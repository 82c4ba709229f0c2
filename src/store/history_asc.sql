-- One page of a history with the head of the same snapshot. `taken` counts the rows before the bound
-- on bytes cut the rest. The inner limit keeps each audience to its own index range.
select
    greatest((select id from tidings.notification order by id desc limit 1), e.edge) as "head!",
    p.taken as "taken?", p.id as "id?", p.audience as "audience?", p.event as "event?",
    p.data as "data?", p.created_at as "created_at?", p.expires_at as "expires_at?"
from tidings.retention_edge e left join lateral (
    select q.*, count(*) over () as taken,
        sum(octet_length(q.data)) over (order by q.id asc) - octet_length(q.data) as bytes_before
    from (
        select s.*
        from unnest($2::text[]) as a (audience)
        cross join lateral (
            select n.id, n.audience, n.event, n.data::text as data, n.created_at, n.expires_at
            from tidings.notification n
            where n.app = $1 and n.audience = a.audience and n.id > $3 and n.id < $4
            order by n.id asc
            limit $5
        ) s
        order by s.id asc
        limit $5
    ) q
) p on p.bytes_before < $6
order by p.id asc
