-- SQL as an interface: ids as text, views for reading, and two roles. docs/sql.md shows them at work.

-- The id whose text this is, in any case: the other direction of tidings.ulid(uuid).
create function tidings.ulid(id text) returns uuid
    immutable strict parallel safe language plpgsql as $$
declare
    bits text;
begin
    -- 26 digits hold 130 bits; the first two have to be zero.
    if upper(id) !~ '^[0-7][0-9A-HJKMNP-TV-Z]{25}$' then
        raise exception 'not a ULID of 26 characters: %', id using errcode = 'invalid_parameter_value';
    end if;
    select string_agg((strpos('0123456789ABCDEFGHJKMNPQRSTVWXYZ', d.digit) - 1)::bit(5)::text, '' order by d.place)
    into bits
    from string_to_table(upper(id), null) with ordinality as d (digit, place);
    return encode(int8send(substr(bits, 3, 64)::bit(64)::bigint)
                  || int8send(substr(bits, 67)::bit(64)::bigint), 'hex')::uuid;
end
$$;

-- The time in an id. It can differ from `created_at` while clocks disagree.
create function tidings.ulid_time(id uuid) returns timestamptz
    immutable strict parallel safe language sql
    return to_timestamp((tidings.position(id) >> 15) / 1000.0);

create function tidings.ulid_time(id text) returns timestamptz
    immutable strict parallel safe language sql
    return tidings.ulid_time(tidings.ulid(id));

-- All notifications, whomever they are for. Look one up by `uuid`, which has an index, and an inbox by
-- app and audience.
create view tidings.history as
select tidings.ulid(n.id) as id, n.app, n.audience,
       case when left(n.audience, 5) = 'user:' then substr(n.audience, 6) end as user_id,
       case when left(n.audience, 6) = 'topic:' then substr(n.audience, 7) end as topic,
       n.event, n.data, n.created_at, n.expires_at,
       case when g.replaced_by = '00000000-0000-0000-0000-000000000000' then 'withdrawn'
            when g.replaced_by is not null then 'replaced'
            when n.expires_at <= clock_timestamp() then 'expired'
            else 'deliverable' end as status,
       tidings.ulid(nullif(g.replaced_by, '00000000-0000-0000-0000-000000000000')) as replaced_by,
       n.id as uuid
from tidings.notification n
-- Not joined: the planner would read the whole of the other table.
cross join lateral (
    select (select coalesce(g.replaced_by, '00000000-0000-0000-0000-000000000000')
            from tidings.gone g where g.id = n.id) as replaced_by
) g
where n.event is distinct from 'tidings.state';

-- The users that Tidings knows: they have subscribed or changed their state, or a notification is
-- theirs alone. What is for everyone counts for them from `since` on.
create view tidings.known_users as
select k.app, k.user_name as user_id, k.since as since_uuid, tidings.ulid(k.since) as since
from tidings.known_user k
union all
select f.app, f.user_id, f.since, tidings.ulid(f.since)
from (
    select n.app, substr(n.audience, 6) as user_id, min(n.id::text)::uuid as since
    from tidings.notification n
    where n.audience >= 'user:' and n.audience < 'user;'
    group by n.app, n.audience
) f
where not exists (
    select from tidings.known_user k where k.app = f.app and k.user_name = f.user_id
);

-- What known users have not read, of what is theirs or for everyone: what is unread in their counts.
-- Topics are not in it, since which ones a user follows is known to the clients alone.
create view tidings.unread as
select u.app, u.user_id, tidings.ulid(n.id) as id, n.audience, n.event, n.data, n.created_at,
       coalesce(s.seen, n.id <= m.seen) as seen, n.id as uuid
from tidings.known_users u
cross join lateral (values ('user:' || u.user_id), ('everyone')) a (audience)
cross join lateral (
    -- As tidings.inbox_marks.
    select coalesce(w.seen_up_to, d.mark) as seen, coalesce(w.read_up_to, d.mark) as read,
           coalesce(w.archived_up_to, '00000000-0000-0000-0000-000000000000') as archived
    from (select case when a.audience = 'everyone' then u.since_uuid
              else '00000000-0000-0000-0000-000000000000' end as mark) d
    left join tidings.state_mark w
        on w.app = u.app and w.user_name = u.user_id and w.audience = a.audience
) m
join tidings.notification n on n.app = u.app and n.audience = a.audience
left join tidings.user_state s
    on s.app = u.app and s.user_name = u.user_id and s.audience = a.audience and s.id = n.id
where not coalesce(s.read, n.id <= m.read)
  and not coalesce(s.archived, n.id <= m.archived)
  and n.event is distinct from 'tidings.state'
  and (n.expires_at is null or n.expires_at > clock_timestamp())
  and (select g.id from tidings.gone g where g.id = n.id) is null;

-- Reads the whole feed.
create view tidings.stats_by_app as
select n.app, count(*) as notifications,
       count(*) filter (where n.created_at > now() - interval '1 day') as last_day,
       count(distinct n.audience) filter (where left(n.audience, 5) = 'user:') as users,
       count(distinct n.audience) filter (where left(n.audience, 6) = 'topic:') as topics,
       sum(octet_length(n.data::text)) as data_bytes,
       min(n.created_at) as oldest, max(n.created_at) as newest
from tidings.notification n
where n.event is distinct from 'tidings.state'
group by n.app;

-- Sends to come, called off, and sent within a week.
create view tidings.scheduled_sends as
select tidings.ulid(s.schedule_id) as schedule_id, s.app::text, s.audiences::text[], s.event::text,
       s.data::json, s.lifetime * interval '1 second' as expires_in, s.replaces::text, s.deliver_at,
       case when s.sent_at is not null then 'sent' when s.cancelled_at is not null then 'cancelled'
            else 'scheduled' end as status,
       s.created_at, s.sent_at, s.cancelled_at
from tidings.scheduled s;

-- What was sent from SQL, or is due, and has no id yet.
create view tidings.outbox_by_app as
select o.app::text, count(*) as waiting, sum(o.bytes) as data_bytes, min(o.queued_at) as oldest
from (select * from tidings.outbox_0 union all select * from tidings.outbox_1) o
group by o.app;

-- Up to these ids notifications may be gone; without an app: of all apps.
create view tidings.edges as
select null::text as app, tidings.ulid(e.edge) as edge, tidings.ulid_time(e.edge) as edge_time
from tidings.retention_edge e
union all
select e.app, tidings.ulid(e.edge), tidings.ulid_time(e.edge) from tidings.app_edge e;

-- The lane must not be taken by whoever comes along: what is not granted below is for the owner alone.
revoke execute on all routines in schema tidings from public;

-- Two roles for people and applications, which belong to the whole cluster: there may be some from
-- another database, and the right to make them may be missing.
do $$
declare
    name text;
begin
    foreach name in array array['tidings_admin', 'tidings_sender'] loop
        begin
            execute format('create role %I nologin', name);
        exception
            when duplicate_object or unique_violation then
                null; -- There, or made by another migration at this moment.
            when insufficient_privilege then
                raise notice 'the role % could not be created, since % lacks CREATEROLE: docs/sql.md shows how to add it later',
                    name, current_user;
        end;
    end loop;
end
$$;

-- Grants what there is to grant to those of the roles that exist; again as often as wanted.
create procedure tidings.grant_roles() language plpgsql as $$
begin
    if exists (select from pg_catalog.pg_roles where rolname = 'tidings_admin') then
        grant usage on schema tidings to tidings_admin;
        -- Also of the views; the partitions are read through their parent.
        grant select on all tables in schema tidings to tidings_admin;
        grant select on all sequences in schema tidings to tidings_admin;
        grant execute on function
            tidings.ulid(uuid), tidings.ulid(text), tidings.ulid_time(uuid), tidings.ulid_time(text),
            tidings.position(uuid), tidings.event_id(bigint, integer, bigint)
        to tidings_admin;
    end if;
    if exists (select from pg_catalog.pg_roles where rolname = 'tidings_sender') then
        grant usage on schema tidings to tidings_sender;
        grant execute on function
            tidings.send(text, text, json, text, interval),
            tidings.send_topic(text, text, json, text, interval),
            tidings.send_everyone(text, json, text, interval)
        to tidings_sender;
    end if;
end
$$;
revoke execute on procedure tidings.grant_roles() from public;
call tidings.grant_roles();
