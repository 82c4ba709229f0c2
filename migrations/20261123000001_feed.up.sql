-- The feed: one row per notification, in the order of its ids, which is the order of commits.
-- Everything lives in the schema `tidings` (created by sqlx, see sqlx.toml) and every name is
-- qualified: a procedure that commits may not carry a SET clause for its search path.

-- The last position given to a row. A sequence has no row versions, so an old snapshot held open
-- elsewhere (a dump, a forgotten psql) cannot slow the appends down. It runs ahead of the commits
-- and a rollback does not take it back: it answers only "was this position ever issued?".
create sequence tidings.position as bigint minvalue 0 start with 0;
select setval('tidings.position', 0);

-- Restores and failovers open a new epoch; its number is part of every id made from then on.
create table tidings.epoch (
    epoch integer primary key check (epoch between 0 and 65535),
    -- The last position of the epoch before: a cursor of that one beyond it points at lost rows.
    previous_end bigint not null,
    opened_at timestamptz not null default clock_timestamp()
);
insert into tidings.epoch (epoch, previous_end) values (0, 0);

-- Rows with an id up to and including this one may be gone. Committed before anything is removed.
create table tidings.retention_edge (
    only_row boolean primary key default true check (only_row),
    edge uuid not null
);
insert into tidings.retention_edge (edge) values ('00000000-0000-0000-0000-000000000000');

-- An id is a ULID stored as uuid:
--   48 bits ms | 15 bits counter | 0 | 16 bits epoch | 48 bits tail
-- `position` is the first 63 bits as one number, so that a full counter carries into the ms.
create function tidings.event_id(at_position bigint, epoch integer, tail bigint) returns uuid
    immutable strict parallel safe language sql
    return encode(int8send(at_position << 1) || int8send(epoch::bigint << 48 | tail), 'hex')::uuid;

create function tidings.position(id uuid) returns bigint
    immutable strict parallel safe language sql
    return ('x' || encode(substring(uuid_send(id) for 8), 'hex'))::bit(64)::bigint >> 1;

-- The smallest id of a UTC day: where a partition begins.
create function tidings.first_id_of(utc_day date) returns uuid
    immutable strict parallel safe language sql
    return tidings.event_id((extract(epoch from utc_day::timestamp)::bigint * 1000) << 15, 0, 0);

create function tidings.utc_day_of(id uuid) returns date
    immutable strict parallel safe language sql
    return ('epoch'::timestamp + (tidings.position(id) >> 15) * interval '1 millisecond')::date;

create table tidings.notification (
    id uuid primary key,
    app text collate "C" not null
        check (char_length(app) between 1 and 128 and app !~ '[\u0001-\u001f\u007f-\u009f]'),
    -- 'user:<user>', 'topic:<topic>' or 'everyone'
    audience text collate "C" not null
        check (audience !~ '[\u0001-\u001f\u007f-\u009f]'
               and (audience = 'everyone'
                    or left(audience, 5) = 'user:' and char_length(audience) between 6 and 133
                    or left(audience, 6) = 'topic:' and char_length(audience) between 7 and 134)),
    event text collate "C"
        check (event !~ '[^A-Za-z0-9_.:-]' and octet_length(event) between 1 and 64
               and event not in ('open', 'error', 'message') and strpos(event, 'tidings.') <> 1),
    -- `json`, not `jsonb`: the bytes stay as they were sent. One line, because it becomes the data
    -- field of an SSE event; no \u0000 and no unpaired surrogate, because a strict parser would
    -- refuse them. An escaped backslash is put out of the way first: "\\u0000" is legal.
    data json not null
        check (strpos(data::text, E'\n') = 0 and strpos(data::text, E'\r') = 0
               and (strpos(data::text, '\u') = 0
                    or regexp_replace(
                           replace(data::text, '\\', '--'),
                           '\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}', '-', 'g'
                       ) !~ '\\u(0000|[dD][89a-fA-F])')),
    created_at timestamptz not null
) partition by range (id);

create index notification_replay on tidings.notification (app, audience, id);

-- The newest partition has no upper bound, so that an append never fails for want of one. There is
-- no DEFAULT partition: it makes ATTACH stall and blocks every range that it holds rows of.
create table tidings.notification_open
    partition of tidings.notification for values from (minvalue) to (maxvalue);

-- Where most rows are for everyone, the statistics take every audience for one of a few big ones, and
-- the planner walks the primary key past the rows of all others to find a user's ten. So each
-- partition is told that an audience has ten rows, which leaves it notification_replay alone.
alter table tidings.notification_open alter column audience set (n_distinct = -0.1);

-- Appends one group of notifications and commits. The lane, an advisory lock held from here to the
-- commit, makes the order of ids the order of commits. Under it nothing waits: insert only, no row
-- that another session may hold. The commit is inside, so that a client that freezes between its
-- call and its next message cannot keep the lane.
--   prev        the last position before this group, read under the lane
--   first       the position of the first row; the others follow without a hole
create procedure tidings.append(
    apps text[], audiences text[], events text[], datas text[],
    tail bigint, instance_ms bigint,
    inout prev bigint, inout first bigint, inout epoch integer, inout created_at timestamptz
) language plpgsql as $$
declare
    last bigint;
begin
    -- A role or database default below `on` would make an acknowledgement a lie.
    if current_setting('synchronous_commit') in ('off', 'local') then
        perform set_config('synchronous_commit', 'on', true);
    end if;

    perform pg_advisory_xact_lock(7463, 1);
    -- A later statement than the lock: the snapshot of a shared one would be older than the lock.
    select p.last_value into prev from tidings.position p;
    select max(e.epoch) into epoch from tidings.epoch e;

    created_at := clock_timestamp();
    -- The database's clock, but never far ahead of the instance's: one bad clock must not push the
    -- ids years ahead. Never backwards, whatever any clock says.
    first := greatest(
        prev + 1,
        least((extract(epoch from created_at) * 1000)::bigint, instance_ms + 600000) << 15
    );
    last := first + cardinality(apps) - 1;
    perform setval('tidings.position', last);

    insert into tidings.notification (id, app, audience, event, data, created_at)
    select tidings.event_id(append.first + n.ordinal - 1, append.epoch, append.tail),
           n.app, n.audience, n.event, n.data::json, append.created_at
    from unnest(apps, audiences, events, datas)
         with ordinality as n (app, audience, event, data, ordinal);

    -- A wake-up, never the data: readers read the feed after their own position.
    perform pg_notify('tidings', last::text);
    commit;
end
$$;

-- Makes daily partitions up to `days_ahead` days from now and returns how many (with lock_timeout
-- set and the maintenance lock held). The open one is detached plainly and attached again above the
-- new ranges in one transaction; if it holds rows, it gets a bound above them and a new one follows.
create function tidings.extend_partitions(days_ahead integer) returns integer
language plpgsql as $$
declare
    lower_bound text; -- as it stands in FOR VALUES FROM (…)
    next_bound uuid;
    open_day date;
    today date;
    day date;
    part text;
    added integer := 0;
    holds_rows boolean;
begin
    select substring(pg_get_expr(c.relpartbound, c.oid) from 'FROM \((.*?)\) TO')
    into lower_bound from pg_class c where c.oid = 'tidings.notification_open'::regclass;
    open_day := tidings.utc_day_of(substring(lower_bound from '[0-9a-f-]{36}')::uuid);

    -- Ids can be ahead of this clock.
    select greatest((clock_timestamp() at time zone 'UTC')::date,
                    ('epoch'::timestamp + (p.last_value >> 15) * interval '1 millisecond')::date)
    into today from tidings.position p;
    if open_day > today + days_ahead then
        return 0;
    end if;

    alter table tidings.notification detach partition tidings.notification_open;
    select greatest(open_day, today + 1, tidings.utc_day_of(max(id::text)::uuid) + 1), count(*) > 0
    into day, holds_rows
    from (select id from tidings.notification_open order by id desc limit 1) newest;

    -- From wherever the open one began up to a day boundary, as one: with its rows, or empty.
    if open_day is null or open_day < day then
        part := 'notification_to_' || to_char(day, 'YYYYMMDD');
        if holds_rows then
            execute format('alter table tidings.notification_open rename to %I', part);
            create table tidings.notification_open (like tidings.notification including all);
            alter table tidings.notification_open alter column audience set (n_distinct = -0.1);
        else
            execute format('create table tidings.%I (like tidings.notification including all)', part);
            execute format('alter table tidings.%I alter column audience set (n_distinct = -0.1)', part);
        end if;
        next_bound := tidings.first_id_of(day);
        execute format('alter table tidings.notification attach partition tidings.%I
            for values from (%s) to (%L)', part, lower_bound, next_bound);
        lower_bound := quote_literal(next_bound);
        added := added + 1;
    end if;

    while day <= today + days_ahead loop
        part := 'notification_' || to_char(day, 'YYYYMMDD');
        day := day + 1;
        next_bound := tidings.first_id_of(day);
        execute format('create table tidings.%I (like tidings.notification including all)', part);
        execute format('alter table tidings.%I alter column audience set (n_distinct = -0.1)', part);
        execute format('alter table tidings.notification attach partition tidings.%I
            for values from (%s) to (%L)', part, lower_bound, next_bound);
        lower_bound := quote_literal(next_bound);
        added := added + 1;
    end loop;
    execute format('alter table tidings.notification attach partition tidings.notification_open
        for values from (%s) to (maxvalue)', lower_bound);
    return added;
end
$$;
