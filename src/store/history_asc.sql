-- One page of a user's history, with what the user did with each, and the head of the same snapshot.
-- `taken` counts the rows before the bound on bytes cut the rest.
--
-- A filter on a bit reads the side of its mark where the bit is as wanted, and on the other side the
-- overrides alone: so a page costs what it shows and what is overridden, not what lies between.
select
    greatest((select id from tidings.notification order by id desc limit 1), e.edge) as "head!",
    p.taken as "taken?", p.id as "id?", p.audience as "audience?", p.event as "event?",
    p.data as "data?", p.created_at as "created_at?", p.expires_at as "expires_at?",
    p.seen as "seen?", p.read as "read?", p.archived as "archived?"
from tidings.retention_edge e left join lateral (
    select q.*, count(*) over () as taken,
        sum(octet_length(q.data)) over (order by q.id asc) - octet_length(q.data) as bytes_before
    from (
        select s.*
        from tidings.inbox_marks($1, $2, $3) m
        cross join lateral (
            -- After which id the one side begins, and with which it ends.
            select case $8::text when 'unread' then greatest(m.read, m.archived)
                       when 'unseen' then greatest(m.seen, m.archived)
                       when 'unarchived' then m.archived
                       else '00000000-0000-0000-0000-000000000000' end as low,
                   case $8 when 'read' then m.read when 'seen' then m.seen when 'archived' then m.archived
                       else 'ffffffff-ffff-ffff-ffff-ffffffffffff' end as high
        ) side
        -- The inner limits keep each audience to its own index range.
        cross join lateral (
            (select n.id, n.audience, n.event, n.data::text as data, n.created_at, n.expires_at,
                coalesce(s.seen, n.id <= m.seen) as seen, coalesce(s.read, n.id <= m.read) as read,
                coalesce(s.archived, n.id <= m.archived) as archived
            from tidings.notification n
            -- The limit makes it one look by the whole key, never a join with all of the user's.
            left join lateral (
                select s.seen, s.read, s.archived from tidings.user_state s
                where s.app = $1 and s.user_name = $2 and s.audience = m.audience and s.id = n.id
                limit 1
            ) s on true
            where n.app = $1 and n.audience = m.audience
                and n.id > greatest($4::uuid, side.low) and n.id < $5::uuid and n.id <= side.high
                and n.event is distinct from 'tidings.state'
                and (n.expires_at is null or n.expires_at > clock_timestamp())
                and (select g.id from tidings.gone g where g.id = n.id) is null
                and case $8
                    when 'unread' then s.read is distinct from true and s.archived is distinct from true
                    when 'unseen' then s.seen is distinct from true and s.archived is distinct from true
                    when 'read' then s.read is distinct from false
                    when 'seen' then s.seen is distinct from false
                    when 'archived' then s.archived is distinct from false
                    when 'unarchived' then s.archived is distinct from true
                    else true end
            order by n.id asc
            limit $6)
            union all
            (select n.id, n.audience, n.event, n.data, n.created_at, n.expires_at,
                coalesce(s.seen, s.id <= m.seen) as seen, coalesce(s.read, s.id <= m.read) as read,
                coalesce(s.archived, s.id <= m.archived) as archived
            from tidings.user_state s
            cross join lateral (
                select n.id, n.audience, n.event, n.data::text as data, n.created_at, n.expires_at
                from tidings.notification n
                where n.id = s.id and (n.expires_at is null or n.expires_at > clock_timestamp())
                limit 1
            ) n
            where s.app = $1 and s.user_name = $2 and s.audience = m.audience
                and s.id > $4 and s.id < $5 and (s.id <= side.low or s.id > side.high)
                and case $8
                    when 'unread' then not coalesce(s.read, s.id <= m.read)
                        and not coalesce(s.archived, s.id <= m.archived)
                    when 'unseen' then not coalesce(s.seen, s.id <= m.seen)
                        and not coalesce(s.archived, s.id <= m.archived)
                    when 'read' then s.read
                    when 'seen' then s.seen
                    when 'archived' then s.archived
                    when 'unarchived' then not s.archived
                    else false end
                and (select g.id from tidings.gone g where g.id = s.id) is null
            order by s.id asc
            limit $6)
        ) s
        order by s.id asc
        limit $6
    ) q
) p on p.bytes_before < $7
order by p.id asc
