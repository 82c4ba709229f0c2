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

-- The same for one app, whose rows are kept for a shorter time.
create table tidings.app_edge (
    app text collate "C" primary key,
    edge uuid not null
);
-- Every read of the feed looks for the highest.
create index app_edge_edge on tidings.app_edge (edge);

-- An id is a ULID stored as uuid:
--   48 bits ms | 15 bits counter | 0 | 16 bits epoch | 48 bits tail
-- `position` is the first 63 bits as one number, so that a full counter carries into the ms.
create function tidings.event_id(at_position bigint, epoch integer, tail bigint) returns uuid
    immutable strict parallel safe language sql
    return encode(int8send(at_position << 1) || int8send(epoch::bigint << 48 | tail), 'hex')::uuid;

create function tidings.position(id uuid) returns bigint
    immutable strict parallel safe language sql
    -- Shifted as bits: as a number it would keep the sign of the first one.
    return (('x' || encode(substring(uuid_send(id) for 8), 'hex'))::bit(64) >> 1)::bigint;

-- The text of an id: Crockford's base 32, 26 digits of 5 bits, the first of 3. One expression, so that
-- the planner puts it in place of the call: a view makes it for every row.
create function tidings.ulid(id uuid) returns text
    immutable strict parallel safe language sql
    return substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', 1 + (get_byte(uuid_send(id), 0) >> 5), 1)
        || substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', 1 + ((get_byte(uuid_send(id), 0)) & 31), 1)
        || substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', 1 + ((get_byte(uuid_send(id), 1) >> 3) & 31), 1)
        || substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', 1 + (((get_byte(uuid_send(id), 1) << 2) | (get_byte(uuid_send(id), 2) >> 6)) & 31), 1)
        || substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', 1 + ((get_byte(uuid_send(id), 2) >> 1) & 31), 1)
        || substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', 1 + (((get_byte(uuid_send(id), 2) << 4) | (get_byte(uuid_send(id), 3) >> 4)) & 31), 1)
        || substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', 1 + (((get_byte(uuid_send(id), 3) << 1) | (get_byte(uuid_send(id), 4) >> 7)) & 31), 1)
        || substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', 1 + ((get_byte(uuid_send(id), 4) >> 2) & 31), 1)
        || substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', 1 + (((get_byte(uuid_send(id), 4) << 3) | (get_byte(uuid_send(id), 5) >> 5)) & 31), 1)
        || substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', 1 + ((get_byte(uuid_send(id), 5)) & 31), 1)
        || substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', 1 + ((get_byte(uuid_send(id), 6) >> 3) & 31), 1)
        || substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', 1 + (((get_byte(uuid_send(id), 6) << 2) | (get_byte(uuid_send(id), 7) >> 6)) & 31), 1)
        || substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', 1 + ((get_byte(uuid_send(id), 7) >> 1) & 31), 1)
        || substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', 1 + (((get_byte(uuid_send(id), 7) << 4) | (get_byte(uuid_send(id), 8) >> 4)) & 31), 1)
        || substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', 1 + (((get_byte(uuid_send(id), 8) << 1) | (get_byte(uuid_send(id), 9) >> 7)) & 31), 1)
        || substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', 1 + ((get_byte(uuid_send(id), 9) >> 2) & 31), 1)
        || substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', 1 + (((get_byte(uuid_send(id), 9) << 3) | (get_byte(uuid_send(id), 10) >> 5)) & 31), 1)
        || substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', 1 + ((get_byte(uuid_send(id), 10)) & 31), 1)
        || substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', 1 + ((get_byte(uuid_send(id), 11) >> 3) & 31), 1)
        || substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', 1 + (((get_byte(uuid_send(id), 11) << 2) | (get_byte(uuid_send(id), 12) >> 6)) & 31), 1)
        || substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', 1 + ((get_byte(uuid_send(id), 12) >> 1) & 31), 1)
        || substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', 1 + (((get_byte(uuid_send(id), 12) << 4) | (get_byte(uuid_send(id), 13) >> 4)) & 31), 1)
        || substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', 1 + (((get_byte(uuid_send(id), 13) << 1) | (get_byte(uuid_send(id), 14) >> 7)) & 31), 1)
        || substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', 1 + ((get_byte(uuid_send(id), 14) >> 2) & 31), 1)
        || substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', 1 + (((get_byte(uuid_send(id), 14) << 3) | (get_byte(uuid_send(id), 15) >> 5)) & 31), 1)
        || substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', 1 + ((get_byte(uuid_send(id), 15)) & 31), 1);

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
    -- 'tidings.state' makes the row a state entry: it tells what became of other rows, and is
    -- replayed like them. Only this schema's own routines write it.
    event text collate "C"
        check (event = 'tidings.state'
               or event !~ '[^A-Za-z0-9_.:-]' and octet_length(event) between 1 and 64
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
    created_at timestamptz not null,
    expires_at timestamptz
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

-- Notifications that are deliverable no more: withdrawn, or replaced by a newer one. Beside the feed,
-- because under the lane nothing is written back to a row that another session may hold.
create table tidings.gone (
    id uuid primary key,
    -- Null: withdrawn.
    replaced_by uuid
);

-- The notifications that a later one with the same key in the same audience replaces.
create table tidings.replaceable (
    app text collate "C" not null,
    audience text collate "C" not null,
    key text collate "C" not null
        check (char_length(key) between 1 and 128 and key !~ '[\u0001-\u001f\u007f-\u009f]'),
    id uuid not null,
    primary key (app, audience, key, id)
);

-- What sends with an Idempotency-Key were answered. Whoever adds or removes a key takes the lane first:
-- so nobody meets a key of a transaction that is still open, and nobody waits for one.
create table tidings.idempotency_key (
    app text collate "C" not null,
    key text collate "C" not null,
    -- Of the request: a key with another request is a mistake.
    fingerprint bytea not null,
    -- The ids of the send are this one and those that follow it without a hole.
    first_id uuid,
    id_count integer not null default 0,
    -- Or, of a scheduled send:
    schedule_id uuid,
    deliver_at timestamptz,
    answered_at timestamptz not null,
    primary key (app, key)
);
create index idempotency_key_answered_at on tidings.idempotency_key (answered_at);

-- How long a key is remembered.
create function tidings.key_lifetime() returns interval
    immutable parallel safe language sql return interval '24 hours';

-- The lane: a lock held from here to the commit makes the order of ids the order of commits. Under it
-- nothing waits: insert only, no row that another session may hold.
create function tidings.take_lane() returns void language plpgsql as $$
begin
    -- A role or database default below `on` would make an acknowledgement a lie.
    if current_setting('synchronous_commit') in ('off', 'local') then
        perform set_config('synchronous_commit', 'on', true);
    end if;
    perform pg_advisory_xact_lock(7463, 1);
end
$$;

-- Under the lane, in a later statement than the lock (the snapshot of a shared one would be older than
-- the lock): issues the next `count` positions, and wakes the readers at the commit.
--   prev        the last position before these
--   first       the position of the first row; the others follow without a hole
create function tidings.next_positions(
    count integer, instance_ms bigint,
    out prev bigint, out first bigint, out epoch integer, out created_at timestamptz
) language plpgsql as $$
begin
    select p.last_value into prev from tidings.position p;
    select max(e.epoch) into epoch from tidings.epoch e;
    created_at := clock_timestamp();
    -- The database's clock, but never far ahead of the instance's: one bad clock must not push the
    -- ids years ahead. Never backwards, whatever any clock says.
    first := greatest(
        prev + 1,
        least((extract(epoch from created_at) * 1000)::bigint, instance_ms + 600000) << 15
    );
    perform setval('tidings.position', first + count - 1);
    -- A wake-up, never the data: readers read the feed after their own position.
    perform pg_notify('tidings', (first + count - 1)::text);
end
$$;

-- Under the lane: marks what the new rows replace as gone, and adds a state entry that says so for
-- each. Returns how many.
create function tidings.replace(
    apps text[], audiences text[], keys text[], first bigint, epoch integer, tail bigint, instance_ms bigint
) returns integer language plpgsql as $$
declare
    olds uuid[];
    news uuid[];
    old_apps text[];
    old_audiences text[];
    at record;
begin
    with fresh as materialized (
        select n.app, n.audience, n.key, tidings.event_id(first + n.ordinal - 1, epoch, tail) as id
        from unnest(apps, audiences, keys) with ordinality as n (app, audience, key, ordinal)
        where n.key is not null
    ), pairs as (
        select f.*, coalesce(
            lag(f.id) over (partition by f.app, f.audience, f.key order by f.id),
            (select r.id from tidings.replaceable r
             where r.app = f.app and r.audience = f.audience and r.key = f.key
             order by r.id desc limit 1)
        ) as old
        from fresh f
    ), noted as (
        insert into tidings.replaceable (app, audience, key, id)
        select f.app, f.audience, f.key, f.id from fresh f
    ), replaced as (
        insert into tidings.gone (id, replaced_by)
        select p.old, p.id from pairs p
        where p.old is not null and not exists (select from tidings.gone g where g.id = p.old)
        returning id
    )
    select array_agg(p.old order by p.id), array_agg(p.id order by p.id),
           array_agg(p.app order by p.id), array_agg(p.audience order by p.id)
    into olds, news, old_apps, old_audiences
    from pairs p join replaced on replaced.id = p.old;

    if olds is null then
        return 0;
    end if;
    select * into at from tidings.next_positions(cardinality(olds), instance_ms);
    insert into tidings.notification (id, app, audience, event, data, created_at)
    select tidings.event_id(at.first + n.ordinal - 1, at.epoch, tail), n.app, n.audience, 'tidings.state',
           format('{"ids":["%s"],"state":"replaced","by":"%s"}',
                  tidings.ulid(n.old), tidings.ulid(n.new))::json,
           at.created_at
    from unnest(olds, news, old_apps, old_audiences) with ordinality as n (old, new, app, audience, ordinal);
    return cardinality(olds);
end
$$;

-- Appends one group of sends and commits. The commit is inside, so that a client that freezes between
-- its call and its next message cannot keep the lane.
--
-- A send with an Idempotency-Key is the rows `key_firsts[i]` to `key_firsts[i] + key_counts[i] - 1`,
-- from 1, of the key number i. If the key is there already, its rows are left out, and it is among the
-- `known`, with what it was answered; the rows that are left move up.
--   entries     state entries that follow the group's own rows
create procedure tidings.append(
    apps text[], audiences text[], events text[], datas text[], lifetimes integer[], replaces text[],
    key_apps text[], keys text[], fingerprints bytea[], key_firsts integer[], key_counts integer[],
    tail bigint, instance_ms bigint,
    inout prev bigint, inout first bigint, inout epoch integer, inout created_at timestamptz,
    inout entries integer,
    inout known integer[], inout known_fingerprints bytea[], inout known_firsts uuid[],
    inout known_counts integer[], inout known_at timestamptz[]
) language plpgsql as $$
declare
    at record;
begin
    entries := 0;
    perform tidings.take_lane();

    if cardinality(keys) > 0 then
        -- Past its time it counts as absent.
        delete from tidings.idempotency_key k
        using unnest(key_apps, keys) as n (app, key)
        where k.app = n.app and k.key = n.key
          and k.answered_at < clock_timestamp() - tidings.key_lifetime();

        select array_agg(n.number order by n.number), array_agg(k.fingerprint order by n.number),
               -- The zero id for a scheduled send, since the client reads no array with nulls.
               array_agg(coalesce(k.first_id, '00000000-0000-0000-0000-000000000000') order by n.number),
               array_agg(k.id_count order by n.number),
               array_agg(k.answered_at order by n.number)
        into known, known_fingerprints, known_firsts, known_counts, known_at
        from unnest(key_apps, keys) with ordinality as n (app, key, number)
        join tidings.idempotency_key k on k.app = n.app and k.key = n.key;
    end if;

    if known is not null then
        with kept as (
            select n.* from unnest(apps, audiences, events, datas, lifetimes, replaces)
                with ordinality as n (app, audience, event, data, lifetime, key, ordinal)
            where not exists (
                select from unnest(known) as k (number)
                where n.ordinal >= key_firsts[k.number]
                  and n.ordinal < key_firsts[k.number] + key_counts[k.number]
            )
        )
        select coalesce(array_agg(k.app order by k.ordinal), '{}'), array_agg(k.audience order by k.ordinal),
               array_agg(k.event order by k.ordinal), array_agg(k.data order by k.ordinal),
               array_agg(k.lifetime order by k.ordinal), array_agg(k.key order by k.ordinal)
        into apps, audiences, events, datas, lifetimes, replaces
        from kept k;
    end if;

    if cardinality(apps) = 0 then
        select p.last_value, p.last_value + 1 into prev, first from tidings.position p;
        epoch := 0;
        created_at := clock_timestamp();
        commit;
        return;
    end if;

    select * into at from tidings.next_positions(cardinality(apps), instance_ms);
    prev := at.prev;
    first := at.first;
    epoch := at.epoch;
    created_at := at.created_at;

    insert into tidings.notification (id, app, audience, event, data, created_at, expires_at)
    select tidings.event_id(append.first + n.ordinal - 1, append.epoch, append.tail),
           n.app, n.audience, n.event, n.data::json, append.created_at,
           append.created_at + n.lifetime * interval '1 second'
    from unnest(apps, audiences, events, datas, lifetimes)
         with ordinality as n (app, audience, event, data, lifetime, ordinal);

    if cardinality(keys) > 0 then
        insert into tidings.idempotency_key (app, key, fingerprint, first_id, id_count, answered_at)
        select n.app, n.key, n.fingerprint,
               tidings.event_id(
                   append.first + n.first - 1 - coalesce((
                       select sum(key_counts[k.number]) from unnest(known) as k (number)
                       where key_firsts[k.number] < n.first
                   ), 0)::bigint,
                   append.epoch, append.tail),
               n.count, append.created_at
        from unnest(key_apps, keys, fingerprints, key_firsts, key_counts)
             with ordinality as n (app, key, fingerprint, first, count, number)
        where n.number <> all (coalesce(known, '{}'));
    end if;

    if array_remove(replaces, null) <> '{}' then
        entries := tidings.replace(apps, audiences, replaces, first, epoch, tail, instance_ms);
    end if;
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
    select substring(pg_get_expr(c.relpartbound, c.oid) from 'FROM [(](.*?)[)] TO')
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
