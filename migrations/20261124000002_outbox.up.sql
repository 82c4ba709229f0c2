-- The outbox: sends from SQL, and scheduled ones when they are due, wait here to be given an id.
-- A row is written in its sender's own transaction, without the lane and without NOTIFY: so a sender
-- that keeps its transaction open holds up nobody. One drainer in the cluster moves what is committed
-- into the feed, in the order of the calls.

-- The order of the calls. A transaction that begins after another has committed draws higher numbers.
create sequence tidings.outbox_seq as bigint;

-- Which of the two tables takes new rows: its parity. A sequence, since it has no row versions.
create sequence tidings.outbox_turn as bigint minvalue 0 start with 0;
select setval('tidings.outbox_turn', 0);

-- The CHECKs of the feed once more, so that nothing gets in that could not get out. As domains, whose
-- checks are prepared once for each session: CHECKs of a table are prepared for each statement, which
-- took 70 of the 80 microseconds of a send.
create domain tidings.app_name as text collate "C"
    check (char_length(value) between 1 and 128 and value !~ '[\u0001-\u001f\u007f-\u009f]');
create domain tidings.audience_name as text collate "C"
    check (value !~ '[\u0001-\u001f\u007f-\u009f]'
           and (value = 'everyone'
                or left(value, 5) = 'user:' and char_length(value) between 6 and 133
                or left(value, 6) = 'topic:' and char_length(value) between 7 and 134));
create domain tidings.event_name as text collate "C"
    check (value !~ '[^A-Za-z0-9_.:-]' and octet_length(value) between 1 and 64
           and value not in ('open', 'error', 'message') and strpos(value, 'tidings.') <> 1);
create domain tidings.event_data as json
    check (strpos(value::text, E'\n') = 0 and strpos(value::text, E'\r') = 0
           and (strpos(value::text, '\u') = 0
                or regexp_replace(
                       -- An escaped backslash is put out of the way first: "\\u0000" is legal.
                       replace(value::text, '\\', '--'),
                       '\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}', '-', 'g'
                   ) !~ '\\u(0000|[dD][89a-fA-F])'));
create domain tidings.replace_key as text collate "C"
    check (char_length(value) between 1 and 128 and value !~ '[\u0001-\u001f\u007f-\u009f]');
-- Seconds.
create domain tidings.lifetime as integer check (value between 1 and 31536000);

-- Two tables in rotation: a table whose rows were all moved is truncated, which removes even what an
-- old snapshot keeps a DELETE from removing.
create table tidings.outbox_0 (
    app tidings.app_name not null,
    seq bigint not null,
    audience tidings.audience_name not null,
    event tidings.event_name,
    data tidings.event_data not null,
    -- Of the data: what a drainer takes at once is bounded.
    bytes integer not null,
    -- From the delivery on.
    lifetime tidings.lifetime,
    replaces tidings.replace_key,
    queued_at timestamptz not null,
    primary key (app, seq)
);
create table tidings.outbox_1 (like tidings.outbox_0 including all);

-- Most bytes of the data of a send from SQL, compact: the default of TIDINGS_MAX_DATA.
create function tidings.max_data() returns integer
    immutable parallel safe language sql return 65536;

-- Raises unless `name` can be the name of an app, a user or a topic: the rules of src/address.rs.
create function tidings.check_name(what text, name text) returns void
    immutable parallel safe language plpgsql as $$
declare
    wrong text;
begin
    wrong := case
        when name is null then 'is null: give a name of 1 to 128 characters'
        when name = '' then 'is empty: give a name of 1 to 128 characters'
        when char_length(name) > 128 then 'is longer than 128 characters: give a shorter name'
        when name ~ '[\u0001-\u001f\u007f-\u009f]' then 'has a control character: remove it'
        when name !~ '[^\u0020\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]'
            then 'is only white space: give a name'
        when name in ('.', '..') then 'is a path of dots, which clients resolve away: give another name'
    end;
    if wrong is not null then
        raise exception '% %', what, wrong using errcode = 'invalid_parameter_value';
    end if;
end
$$;

-- Takes the white space between tokens out, so that the data is one line. Every other byte stays:
-- numbers, order of keys, repeated keys, escapes. Raises if a client could not read it.
create function tidings.compact(data json) returns json
    immutable strict parallel safe language plpgsql as $$
declare
    compact text := data::text;
    brackets text;
begin
    if compact ~ '[ \t\r\n]' then
        -- A string is taken whole, as it is; what is left to the other branch is between tokens.
        compact := regexp_replace(compact, '("(?:[^"\\]|\\.)*")|[ \t\r\n]+', '\1', 'g');
    end if;
    if octet_length(compact) > tidings.max_data() then
        raise exception 'data has % bytes as compact JSON, over the limit of %: send less, or a link to it',
            octet_length(compact), tidings.max_data()
            using errcode = 'invalid_parameter_value';
    end if;
    if strpos(compact, '\u') > 0 and regexp_replace(
        -- An escaped backslash is put out of the way first: "\\u0000" is legal.
        replace(compact, '\\', '--'),
        '\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}', '-', 'g'
    ) ~ '\\u(0000|[dD][89a-fA-F])' then
        raise exception 'data has the escape \u0000 or an unpaired surrogate escape, which strict parsers refuse: remove it, or send the whole pair'
            using errcode = 'invalid_parameter_value';
    end if;
    -- Only what has many brackets can be deep.
    if octet_length(compact) - octet_length(translate(compact, '[{', '')) > 128 then
        brackets := regexp_replace(compact, '"(?:[^"\\]|\\.)*"|[^][{}]', '', 'g');
        for level in 1..128 loop
            brackets := replace(replace(brackets, '[]', '{}'), '{}', '');
        end loop;
        if brackets <> '' then
            raise exception 'data is nested deeper than 128: flatten it'
                using errcode = 'invalid_parameter_value';
        end if;
    end if;
    return compact::json;
end
$$;

-- Puts one row into the outbox. What it says has been checked, or is checked by the table.
create function tidings.put_into_outbox(
    app text, audience text, event text, data json, lifetime integer, replaces text
) returns void language plpgsql as $$
declare
    bytes integer := octet_length(data::text);
begin
    if (select t.last_value from tidings.outbox_turn t) % 2 = 0 then
        insert into tidings.outbox_0 (seq, app, audience, event, data, bytes, lifetime, replaces, queued_at)
        values (nextval('tidings.outbox_seq'), app, audience, event, data, bytes, lifetime, replaces,
                clock_timestamp());
    else
        insert into tidings.outbox_1 (seq, app, audience, event, data, bytes, lifetime, replaces, queued_at)
        values (nextval('tidings.outbox_seq'), app, audience, event, data, bytes, lifetime, replaces,
                clock_timestamp());
    end if;
end
$$;

-- What all sends from SQL have in common: the checks, then the row.
create function tidings.queue(
    app_id text, audience text, data json, event_name text, expires_in interval
) returns void language plpgsql as $$
declare
    seconds numeric := extract(epoch from expires_in);
begin
    perform tidings.check_name('app_id', app_id);
    if data is null then
        raise exception 'data is null: give any JSON, ''null''::json for none'
            using errcode = 'invalid_parameter_value';
    end if;
    if event_name = '' or event_name ~ '[^A-Za-z0-9_.:-]' or octet_length(event_name) > 64 then
        raise exception 'event_name has to be 1 to 64 characters of A-Z a-z 0-9 _ . : -'
            using errcode = 'invalid_parameter_value';
    end if;
    if event_name in ('open', 'error', 'message') or strpos(event_name, 'tidings.') = 1 then
        raise exception 'event_name is reserved: tidings.* are control events; open, error and message are the browser''s own'
            using errcode = 'invalid_parameter_value';
    end if;
    if seconds < 1 or seconds > 31536000 or seconds <> trunc(seconds) then
        raise exception 'expires_in is not whole seconds from 1 second to 365 days: give such an interval, or leave it out'
            using errcode = 'invalid_parameter_value';
    end if;
    perform tidings.put_into_outbox(
        app_id, audience, event_name, tidings.compact(data), seconds::integer, null);
end
$$;

-- Sends to a user when, and only if, the transaction that calls it commits. The caller needs no right
-- but to call it.
create function tidings.send(
    app_id text, user_id text, data json, event_name text default null, expires_in interval default null
) returns void security definer set search_path = pg_catalog, pg_temp language plpgsql as $$
begin
    perform tidings.check_name('user_id', user_id);
    perform tidings.queue(app_id, 'user:' || user_id, data, event_name, expires_in);
end
$$;

-- The same, to whoever subscribes to a topic.
create function tidings.send_topic(
    app_id text, topic text, data json, event_name text default null, expires_in interval default null
) returns void security definer set search_path = pg_catalog, pg_temp language plpgsql as $$
begin
    perform tidings.check_name('topic', topic);
    if strpos(topic, ',') > 0 then
        raise exception 'topic has a comma, which separates topics: remove it'
            using errcode = 'invalid_parameter_value';
    end if;
    perform tidings.queue(app_id, 'topic:' || topic, data, event_name, expires_in);
end
$$;

-- The same, to all users of an app.
create function tidings.send_everyone(
    app_id text, data json, event_name text default null, expires_in interval default null
) returns void security definer set search_path = pg_catalog, pg_temp language plpgsql as $$
begin
    perform tidings.queue(app_id, 'everyone', data, event_name, expires_in);
end
$$;

-- The one drainer: whoever has this lock, in the very transaction that moves rows. A drainer that
-- was thought dead and comes back has lost it, and begins anew.
create function tidings.is_drainer() returns boolean language sql
    return pg_try_advisory_xact_lock(7463, 4);

-- Moves one slice of what waits in the outbox into the feed. The slice is fair: up to `most_apps` apps
-- behind `after_app`, and of each the same share of `most_rows`, in rounds of 100 rows. It ends early
-- after 250 ms, so that an app that comes meanwhile is soon part of one.
--
-- Order: a slice is read in one snapshot, and has of every app its lowest numbers. If a row of a
-- session is in it, those that the session committed before are too, and come before it. Every row is
-- moved by deleting it, so that whoever comes second finds nothing, and moves nothing twice.
--   moved    rows that have got their ids
--   more     there is more to do at once
--   oldest   since when the oldest row of the slice had waited
create procedure tidings.drain_outbox(
    most_apps integer, most_rows integer, instance_ms bigint,
    inout after_app text, inout moved integer, inout more boolean, inout oldest timestamptz
) language plpgsql as $$
declare
    began timestamptz := clock_timestamp();
    slice_apps text[];
    slice_seqs bigint[];
    slice_bytes integer[];
    apps text[];
    audiences text[];
    events text[];
    datas json[];
    lifetimes integer[];
    replaces text[];
    app_count integer;
    is_first boolean := after_app = '';
    low integer := 1;
    high integer;
    bytes bigint;
    at record;
    tail bigint;
begin
    moved := 0;
    more := false;
    if not tidings.is_drainer() then
        commit;
        return;
    end if;

    -- In a later statement than the lock: its snapshot has all that the drainer before has moved.
    with recursive in_0 (app, seq, n) as (
        -- From app to app by the index: an app with a million rows costs one step.
        (select o.app, o.seq, 1 from tidings.outbox_0 o where o.app > after_app order by o.app, o.seq limit 1)
        union all
        select o.app, o.seq, a.n + 1 from in_0 a cross join lateral (
            select o.app, o.seq from tidings.outbox_0 o where o.app > a.app order by o.app, o.seq limit 1
        ) o where a.n < most_apps
    ), in_1 (app, seq, n) as (
        (select o.app, o.seq, 1 from tidings.outbox_1 o where o.app > after_app order by o.app, o.seq limit 1)
        union all
        select o.app, o.seq, a.n + 1 from in_1 a cross join lateral (
            select o.app, o.seq from tidings.outbox_1 o where o.app > a.app order by o.app, o.seq limit 1
        ) o where a.n < most_apps
    ), waiting as materialized (
        select a.app, max(a.seq_0) as seq_0, max(a.seq_1) as seq_1
        from (select in_0.app, in_0.seq as seq_0, null::bigint as seq_1 from in_0
              union all select in_1.app, null, in_1.seq from in_1) a
        group by a.app order by a.app limit most_apps
    ), share as materialized (
        select count(*) as apps, max(w.app) as last_app,
               greatest(10, most_rows / greatest(count(*), 1)) as rows
        from waiting w
    ), slice as (
        select r.app, r.seq, r.bytes, r.queued_at,
               (row_number() over (partition by r.app order by r.seq) - 1) / 100 as round,
               count(*) over (partition by r.app) >= (select s.rows from share s) as full
        from waiting w cross join lateral (
            select * from (
                -- From the first one on that was found above: not past the dead ones again.
                (select o.app, o.seq, o.bytes, o.queued_at from tidings.outbox_0 o
                 where o.app = w.app and o.seq >= w.seq_0
                 order by o.seq limit (select s.rows from share s))
                union all
                (select o.app, o.seq, o.bytes, o.queued_at from tidings.outbox_1 o
                 where o.app = w.app and o.seq >= w.seq_1
                 order by o.seq limit (select s.rows from share s))
            ) o order by o.seq limit (select s.rows from share s)
        ) r
    )
    select array_agg(s.app::text order by s.round, s.seq), array_agg(s.seq order by s.round, s.seq),
           array_agg(s.bytes order by s.round, s.seq), min(s.queued_at), bool_or(s.full),
           (select count(*) from waiting), (select max(w.app) from waiting w)
    into slice_apps, slice_seqs, slice_bytes, oldest, more, app_count, after_app
    from slice s;

    more := coalesce(more, false) or app_count = most_apps or not is_first;
    if app_count < most_apps then
        -- The last app was reached: the next slice begins with the first.
        after_app := '';
    end if;

    while low <= cardinality(slice_seqs) loop
        if low > 1 and not tidings.is_drainer() then
            more := true;
            commit;
            return;
        end if;
        -- What one commit takes, and so what holds the lane, is bounded in rows and in bytes.
        high := low;
        bytes := slice_bytes[low];
        while high < cardinality(slice_seqs) and high - low < 999
              and bytes + slice_bytes[high + 1] <= 4194304 loop
            high := high + 1;
            bytes := bytes + slice_bytes[high];
        end loop;

        -- Before the lane, since it waits should somebody else hold one of the rows.
        with wanted as (
            select w.app, w.seq from unnest(slice_apps[low:high], slice_seqs[low:high]) as w (app, seq)
        ), taken_0 as (
            delete from tidings.outbox_0 o using wanted w where o.app = w.app and o.seq = w.seq
            returning o.seq, o.app, o.audience, o.event, o.data, o.lifetime, o.replaces
        ), taken_1 as (
            delete from tidings.outbox_1 o using wanted w where o.app = w.app and o.seq = w.seq
            returning o.seq, o.app, o.audience, o.event, o.data, o.lifetime, o.replaces
        )
        select array_agg(t.app::text order by t.seq), array_agg(t.audience::text order by t.seq),
               array_agg(t.event::text order by t.seq), array_agg(t.data::json order by t.seq),
               array_agg(t.lifetime::integer order by t.seq), array_agg(t.replaces::text order by t.seq)
        into apps, audiences, events, datas, lifetimes, replaces
        from (select * from taken_0 union all select * from taken_1) t;

        if apps is not null then
            perform tidings.take_lane();
            select * into at from tidings.next_positions(cardinality(apps), instance_ms);
            tail := ('x' || encode(substring(uuid_send(gen_random_uuid()) from 11), 'hex'))::bit(48)::bigint;
            -- The time to live begins now, with the delivery.
            insert into tidings.notification (id, app, audience, event, data, created_at, expires_at)
            select tidings.event_id(at.first + n.ordinal - 1, at.epoch, tail),
                   n.app, n.audience, n.event, n.data, at.created_at,
                   at.created_at + n.lifetime * interval '1 second'
            from unnest(apps, audiences, events, datas, lifetimes)
                 with ordinality as n (app, audience, event, data, lifetime, ordinal);
            if array_remove(replaces, null) <> '{}' then
                perform tidings.replace(apps, audiences, replaces, at.first, at.epoch, tail, instance_ms);
            end if;
            moved := moved + cardinality(apps);
        end if;
        commit;
        low := high + 1;
        if clock_timestamp() > began + interval '250 milliseconds' then
            more := true;
            return;
        end if;
    end loop;
    commit;
end
$$;

-- Turns to the other table once this one has grown, and truncates a table whose rows were all moved.
-- Refused (a sender or a dump holds the table) means later: a TRUNCATE that waits would hold up every
-- sender behind it, and throw away what the one it waited for has committed.
--   turn_at   bytes
create procedure tidings.rotate_outbox(turn_at bigint) language plpgsql as $$
declare
    turn integer;
    size bigint;
    other_size bigint;
begin
    if not tidings.is_drainer() then
        commit;
        return;
    end if;
    select t.last_value % 2 into turn from tidings.outbox_turn t;
    size := pg_relation_size(format('tidings.outbox_%s', turn));
    other_size := pg_relation_size(format('tidings.outbox_%s', 1 - turn));
    if other_size > 0 then
        begin
            if turn = 0 then
                lock table tidings.outbox_1 in access exclusive mode nowait;
            else
                lock table tidings.outbox_0 in access exclusive mode nowait;
            end if;
        exception when lock_not_available then
            other_size := -1;
        end;
        -- In a later statement than the lock: now every row that anybody has put here is seen.
        if other_size > 0 and turn = 0 and not exists (select from tidings.outbox_1) then
            truncate tidings.outbox_1;
            other_size := 0;
        elsif other_size > 0 and turn = 1 and not exists (select from tidings.outbox_0) then
            truncate tidings.outbox_0;
            other_size := 0;
        end if;
    end if;
    -- To the one with less to skip, also if neither can be truncated.
    if size >= turn_at and size > pg_relation_size(format('tidings.outbox_%s', 1 - turn)) then
        perform nextval('tidings.outbox_turn');
    end if;
    commit;
end
$$;
