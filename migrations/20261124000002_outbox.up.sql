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

-- What a transaction sends to an app beyond its first few rows goes apart, as a run: a million rows that
-- are not committed yet, or were moved and are kept by an old snapshot, would be in the way of whoever
-- looks for the rows of others. A run is seen whole or not at all, so it is moved by counting up
-- `next_seq`, without a DELETE, and its table is truncated.
create table tidings.outbox_run (
    run bigint primary key,
    app tidings.app_name not null,
    -- Whose it is: while that is open, it is added to. (Numbers of transactions begin anew after a
    -- restore; times do not.)
    xid xid8 not null,
    began timestamptz not null,
    -- In which of the two tables its rows are.
    part integer not null check (part in (0, 1)),
    -- Rows below it were moved.
    next_seq bigint not null,
    unique (xid, app, began)
);
create table tidings.outbox_bulk_0 (
    run bigint not null,
    seq bigint not null,
    audience tidings.audience_name not null,
    event tidings.event_name,
    data tidings.event_data not null,
    bytes integer not null,
    lifetime tidings.lifetime,
    replaces tidings.replace_key,
    queued_at timestamptz not null,
    primary key (run, seq)
);
create table tidings.outbox_bulk_1 (like tidings.outbox_bulk_0 including all);

-- How many rows of a transaction go into the outbox like those of others.
create function tidings.bulk_after() returns integer
    immutable parallel safe language sql return 500;

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

-- The run of this transaction for an app.
create function tidings.own_run(app_id text, out run bigint, out part integer) language plpgsql as $$
begin
    select r.run, r.part into run, part from tidings.outbox_run r
    where r.xid = pg_current_xact_id() and r.app = app_id and r.began = now();
    if not found then
        run := nextval('tidings.outbox_seq');
        select t.last_value % 2 into part from tidings.outbox_turn t;
        insert into tidings.outbox_run (run, app, xid, began, part, next_seq)
        values (run, app_id, pg_current_xact_id(), now(), part, run);
    end if;
end
$$;

-- Puts one row into the outbox. What it says has been checked, or is checked by the table.
create function tidings.put_into_outbox(
    app text, audience text, event text, data json, lifetime integer, replaces text
) returns void language plpgsql as $$
declare
    bytes integer := octet_length(data::text);
    -- Forgotten at the end of the transaction.
    before integer := coalesce(nullif(current_setting('tidings.sends', true), ''), '0');
    own record;
begin
    perform set_config('tidings.sends', (before + 1)::text, true);
    if before >= tidings.bulk_after() then
        select * into own from tidings.own_run(app);
        if own.part = 0 then
            insert into tidings.outbox_bulk_0
                (run, seq, audience, event, data, bytes, lifetime, replaces, queued_at)
            values (own.run, nextval('tidings.outbox_seq'), audience, event, data, bytes, lifetime,
                    replaces, clock_timestamp());
        else
            insert into tidings.outbox_bulk_1
                (run, seq, audience, event, data, bytes, lifetime, replaces, queued_at)
            values (own.run, nextval('tidings.outbox_seq'), audience, event, data, bytes, lifetime,
                    replaces, clock_timestamp());
        end if;
    elsif (select t.last_value from tidings.outbox_turn t) % 2 = 0 then
        insert into tidings.outbox_0 (app, seq, audience, event, data, bytes, lifetime, replaces, queued_at)
        values (app, nextval('tidings.outbox_seq'), audience, event, data, bytes, lifetime, replaces,
                clock_timestamp());
    else
        insert into tidings.outbox_1 (app, seq, audience, event, data, bytes, lifetime, replaces, queued_at)
        values (app, nextval('tidings.outbox_seq'), audience, event, data, bytes, lifetime, replaces,
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
-- but to call it, and may have any settings: the checks below are full of backslashes.
create function tidings.send(
    app_id text, user_id text, data json, event_name text default null, expires_in interval default null
) returns void security definer
set search_path = pg_catalog, pg_temp set standard_conforming_strings = on language plpgsql as $$
begin
    perform tidings.check_name('user_id', user_id);
    perform tidings.queue(app_id, 'user:' || user_id, data, event_name, expires_in);
end
$$;

-- The same, to whoever subscribes to a topic.
create function tidings.send_topic(
    app_id text, topic text, data json, event_name text default null, expires_in interval default null
) returns void security definer
set search_path = pg_catalog, pg_temp set standard_conforming_strings = on language plpgsql as $$
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
) returns void security definer
set search_path = pg_catalog, pg_temp set standard_conforming_strings = on language plpgsql as $$
begin
    perform tidings.queue(app_id, 'everyone', data, event_name, expires_in);
end
$$;

-- The one drainer: whoever has this lock, in the very transaction that moves rows. A drainer that
-- was thought dead and comes back has lost it, and begins anew.
create function tidings.is_drainer() returns boolean language sql
    return pg_try_advisory_xact_lock(7463, 4);

-- Keeps what waits from being moved until the end of the transaction: for whoever changes it by hand.
create function tidings.hold_outbox() returns void language sql
    begin atomic
        select pg_advisory_xact_lock(7463, 4);
    end;

-- Sends to come. Those that are due are moved into the outbox: an id is given only then, so that no
-- cursor is ever above it.
create table tidings.scheduled (
    schedule_id uuid primary key,
    app tidings.app_name not null,
    audiences tidings.audience_name[] not null check (cardinality(audiences) between 1 and 1000),
    event tidings.event_name,
    data tidings.event_data not null,
    lifetime tidings.lifetime,
    replaces tidings.replace_key,
    deliver_at timestamptz not null,
    created_at timestamptz not null,
    -- It is no longer to come: in the outbox, or called off. Kept for some days, to be asked for.
    sent_at timestamptz,
    cancelled_at timestamptz,
    check (num_nonnulls(sent_at, cancelled_at) < 2)
);
create index scheduled_due on tidings.scheduled (deliver_at, schedule_id)
    where sent_at is null and cancelled_at is null;
create index scheduled_ended on tidings.scheduled (coalesce(sent_at, cancelled_at))
    where coalesce(sent_at, cancelled_at) is not null;

-- What is acknowledged is durable. A role or database default below `on` would make it a lie.
create function tidings.make_durable() returns void language plpgsql as $$
begin
    if current_setting('synchronous_commit') in ('off', 'local') then
        perform set_config('synchronous_commit', 'on', true);
    end if;
end
$$;

-- Schedules a send, and commits. With an Idempotency-Key the key is looked up before the time is judged,
-- since a repeat may come when it is past.
--   verdict   'scheduled', or 'replayed': what an earlier request with the key was answered,
--             'mismatch': the key is that of another request,
--             'past' or 'far': it is no time to schedule for
create procedure tidings.schedule(
    app_id text, audiences text[], event text, data text, lifetime integer, replaces text,
    due_at timestamptz, idempotency_key text, request bytea,
    inout verdict text, inout id uuid, inout deliver_at timestamptz
) language plpgsql as $$
declare
    answered record;
    now constant timestamptz := clock_timestamp();
begin
    perform tidings.make_durable();
    verdict := 'scheduled';
    if idempotency_key is not null then
        perform tidings.take_lane();
        -- Past its time it counts as absent.
        delete from tidings.idempotency_key k
        where k.app = app_id and k.key = idempotency_key
          and k.answered_at < clock_timestamp() - tidings.key_lifetime();
        select k.* into answered from tidings.idempotency_key k
        where k.app = app_id and k.key = idempotency_key;
        if found then
            verdict := case when answered.fingerprint = request and answered.schedule_id is not null
                            then 'replayed' else 'mismatch' end;
            id := answered.schedule_id;
            deliver_at := answered.deliver_at;
            commit;
            return;
        end if;
    end if;

    verdict := case when due_at < now - interval '5 seconds' then 'past'
                    when due_at > now + interval '30 days' then 'far' else 'scheduled' end;
    if verdict = 'scheduled' then
        -- A ULID of its own: that of the notification comes with the delivery.
        id := encode(substring(int8send((extract(epoch from now) * 1000)::bigint) from 3)
                     || substring(uuid_send(gen_random_uuid()) from 7), 'hex')::uuid;
        deliver_at := due_at;
        insert into tidings.scheduled
            (schedule_id, app, audiences, event, data, lifetime, replaces, deliver_at, created_at)
        values (id, app_id, audiences, event, data::json, lifetime, replaces, due_at, now);
        if idempotency_key is not null then
            insert into tidings.idempotency_key (app, key, fingerprint, schedule_id, deliver_at, answered_at)
            values (app_id, idempotency_key, request, id, due_at, clock_timestamp());
        end if;
    end if;
    commit;
end
$$;

-- Calls a scheduled send off, and commits.
--   outcome   'cancelled', also if it was before; 'sent': too late; 'unknown': the app has no such one
create procedure tidings.cancel_scheduled(app_id text, id uuid, inout outcome text) language plpgsql as $$
begin
    perform tidings.make_durable();
    update tidings.scheduled s set cancelled_at = clock_timestamp()
    where s.schedule_id = id and s.app = app_id and s.sent_at is null and s.cancelled_at is null;
    -- In a later statement: what it waited for may have been the drainer.
    select case when s.cancelled_at is not null then 'cancelled' else 'sent' end into outcome
    from tidings.scheduled s where s.schedule_id = id and s.app = app_id;
    outcome := coalesce(outcome, 'unknown');
    commit;
end
$$;

-- Moves scheduled sends that are due into the outbox, in the drainer's transaction; how many. Bounded in
-- rows and bytes, since one can be for a thousand users. One that is being called off right now is left
-- for the next time.
create function tidings.move_due() returns integer language plpgsql as $$
declare
    now constant timestamptz := clock_timestamp();
    due uuid[];
begin
    with candidates as materialized (
        select s.schedule_id, s.deliver_at, cardinality(s.audiences) as rows,
               octet_length(s.data::text)::bigint as bytes
        from tidings.scheduled s
        where s.deliver_at <= now and s.sent_at is null and s.cancelled_at is null
        order by s.deliver_at, s.schedule_id
        limit 500
        for update skip locked
    )
    select array_agg(c.schedule_id) into due from (
        select c.schedule_id, row_number() over earlier as number,
               sum(c.rows) over earlier as rows, sum(c.rows * c.bytes) over earlier as bytes
        from candidates c window earlier as (order by c.deliver_at, c.schedule_id)
    ) c where c.number = 1 or c.rows <= 5000 and c.bytes <= 16777216;
    if due is null then
        return 0;
    end if;

    update tidings.scheduled s set sent_at = now where s.schedule_id = any(due);
    perform tidings.put_into_outbox(d.app, d.audience, d.event, d.data, d.lifetime, d.replaces)
    from (
        select s.app, a.audience, s.event, s.data, s.lifetime, s.replaces
        from tidings.scheduled s, unnest(s.audiences) with ordinality as a (audience, number)
        where s.schedule_id = any(due)
        order by s.deliver_at, s.schedule_id, a.number
    ) d;
    return cardinality(due);
end
$$;

-- Forgets, in small groups, idempotency keys past their time and scheduled sends that ended a week ago;
-- more: there are others.
create procedure tidings.forget_old(inout more boolean) language plpgsql as $$
declare
    until timestamptz := clock_timestamp() - interval '7 days';
    gone integer;
begin
    more := false;
    if not tidings.is_drainer() then
        commit;
        return;
    end if;
    delete from tidings.scheduled s where s.schedule_id in (
        select o.schedule_id from tidings.scheduled o
        where coalesce(o.sent_at, o.cancelled_at) < until
        order by coalesce(o.sent_at, o.cancelled_at) limit 500 for update skip locked
    );
    get diagnostics gone = row_count;
    more := gone = 500;
    commit;

    until := clock_timestamp() - tidings.key_lifetime();
    if exists (select from tidings.idempotency_key k where k.answered_at < until) then
        -- Whoever adds or removes a key has the lane.
        perform tidings.take_lane();
        delete from tidings.idempotency_key k using (
            select o.app, o.key from tidings.idempotency_key o
            where o.answered_at < until order by o.answered_at limit 500
        ) o where k.app = o.app and k.key = o.key;
        get diagnostics gone = row_count;
        more := more or gone = 500;
    end if;
    commit;
end
$$;

-- Reads what is to be moved next, fair by app: of up to `most_apps` apps behind `after_app` the same
-- share of `most_rows` each, in rounds of 100 rows.
--
-- In one snapshot, and of every app its lowest numbers: if a row of a session is in it, those that the
-- session committed before are too, and come before it.
--   runs         of the rows that are in one
--   next_after   behind which app the next one begins; '' for the first
--   is_cut       there is more than this
create function tidings.read_slice(
    after_app text, most_apps integer, most_rows integer,
    out apps text[], out runs bigint[], out seqs bigint[], out sizes integer[], out oldest timestamptz,
    out next_after text, out is_cut boolean
) language plpgsql as $$
declare
    app_count integer;
begin
    with recursive in_0 (app, seq, n) as (
        -- From app to app by the index: one with very many rows costs one step.
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
              union all select in_1.app, null, in_1.seq from in_1
              union all select r.app, null, null from tidings.outbox_run r where r.app > after_app) a
        group by a.app order by a.app limit most_apps
    ), share as materialized (
        select greatest(10, most_rows / greatest(count(*), 1)) as rows from waiting
    ), slice as (
        select w.app, o.run, o.seq, o.bytes, o.queued_at,
               (row_number() over (partition by w.app order by o.seq) - 1) / 100 as round,
               count(*) over (partition by w.app) >= (select s.rows from share s) as cut
        from waiting w cross join lateral (
            select * from (
                -- From the first one on that was found above: not past the dead ones again.
                (select null::bigint as run, o.seq, o.bytes, o.queued_at from tidings.outbox_0 o
                 where o.app = w.app and o.seq >= w.seq_0
                 order by o.seq limit (select s.rows from share s))
                union all
                (select null, o.seq, o.bytes, o.queued_at from tidings.outbox_1 o
                 where o.app = w.app and o.seq >= w.seq_1
                 order by o.seq limit (select s.rows from share s))
                union all
                select r.run, b.seq, b.bytes, b.queued_at
                from tidings.outbox_run r cross join lateral (
                    (select b.seq, b.bytes, b.queued_at from tidings.outbox_bulk_0 b
                     where r.part = 0 and b.run = r.run and b.seq >= r.next_seq
                     order by b.seq limit (select s.rows from share s))
                    union all
                    (select b.seq, b.bytes, b.queued_at from tidings.outbox_bulk_1 b
                     where r.part = 1 and b.run = r.run and b.seq >= r.next_seq
                     order by b.seq limit (select s.rows from share s))
                ) b where r.app = w.app
            ) o order by o.seq limit (select s.rows from share s)
        ) o
    )
    select array_agg(s.app::text order by s.round, s.seq), array_agg(s.run order by s.round, s.seq),
           array_agg(s.seq order by s.round, s.seq), array_agg(s.bytes order by s.round, s.seq),
           min(s.queued_at), coalesce(bool_or(s.cut), false),
           (select count(*) from waiting), (select max(w.app) from waiting w)
    into apps, runs, seqs, sizes, oldest, is_cut, app_count, next_after
    from slice s;
    is_cut := is_cut or app_count = most_apps or after_app <> '';
    if app_count < most_apps then
        -- The last app was reached.
        next_after := '';
    end if;
end
$$;

-- Where the chunk ends that begins at `low`: what one commit takes, and so what holds the lane, is
-- bounded in rows and in bytes.
create function tidings.chunk_end(low integer, sizes integer[]) returns integer
immutable language plpgsql as $$
declare
    high integer := low;
    bytes bigint := sizes[low];
begin
    while high < cardinality(sizes) and high - low < 999 and bytes + sizes[high + 1] <= 4194304 loop
        high := high + 1;
        bytes := bytes + sizes[high];
    end loop;
    return high;
end
$$;

-- Moves these rows from the outbox into the feed, as far as they are still there; how many. They are
-- moved by being deleted, or by counting up their run: whoever comes second finds nothing, and moves
-- nothing twice.
create function tidings.move_chunk(
    chunk_apps text[], chunk_runs bigint[], chunk_seqs bigint[], instance_ms bigint
) returns integer language plpgsql as $$
declare
    apps text[];
    audiences text[];
    events text[];
    datas json[];
    lifetimes integer[];
    replaces text[];
    at record;
    tail bigint;
begin
    -- Before the lane, since it waits should somebody else hold one of the rows.
    with wanted as (
        select w.app, w.run, w.seq from unnest(chunk_apps, chunk_runs, chunk_seqs) as w (app, run, seq)
    ), taken_0 as (
        delete from tidings.outbox_0 o using wanted w
        where w.run is null and o.app = w.app and o.seq = w.seq
        returning o.seq, o.app, o.audience, o.event, o.data, o.lifetime, o.replaces
    ), taken_1 as (
        delete from tidings.outbox_1 o using wanted w
        where w.run is null and o.app = w.app and o.seq = w.seq
        returning o.seq, o.app, o.audience, o.event, o.data, o.lifetime, o.replaces
    ), parts as (
        select w.run, min(w.seq) as low, max(w.seq) as high from wanted w
        where w.run is not null group by w.run
    ), advanced as (
        -- Exactly the next rows of the run: not again what another has moved, nor past what is left. (As
        -- scalars, which are looked up by the index, also in a table that was never analyzed: a join
        -- read all rows of the run for each chunk.)
        update tidings.outbox_run r set next_seq = p.high + 1 from parts p
        where r.run = p.run and p.low = case r.part
            when 0 then (select b.seq from tidings.outbox_bulk_0 b
                         where b.run = r.run and b.seq >= r.next_seq order by b.seq limit 1)
            else (select b.seq from tidings.outbox_bulk_1 b
                  where b.run = r.run and b.seq >= r.next_seq order by b.seq limit 1)
            end
        returning r.run, r.part, r.app, p.low, p.high
    )
    select array_agg(t.app::text order by t.seq), array_agg(t.audience::text order by t.seq),
           array_agg(t.event::text order by t.seq), array_agg(t.data::json order by t.seq),
           array_agg(t.lifetime::integer order by t.seq), array_agg(t.replaces::text order by t.seq)
    into apps, audiences, events, datas, lifetimes, replaces
    from (
        select * from taken_0
        union all
        select * from taken_1
        union all
        select b.seq, a.app, b.audience, b.event, b.data, b.lifetime, b.replaces
        from advanced a join tidings.outbox_bulk_0 b
            on a.part = 0 and b.run = a.run and b.seq between a.low and a.high
        union all
        select b.seq, a.app, b.audience, b.event, b.data, b.lifetime, b.replaces
        from advanced a join tidings.outbox_bulk_1 b
            on a.part = 1 and b.run = a.run and b.seq between a.low and a.high
    ) t;
    if apps is null then
        return 0;
    end if;

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
    return cardinality(apps);
end
$$;

-- Moves one slice of what waits in the outbox into the feed, in small commits. It ends early after
-- 250 ms, so that an app that comes meanwhile is soon part of one.
--   moved    rows that have got their ids
--   more     there is more to do at once
--   oldest   since when the oldest row of the slice had waited
create procedure tidings.drain_outbox(
    most_apps integer, most_rows integer, instance_ms bigint,
    inout after_app text, inout moved integer, inout more boolean, inout oldest timestamptz
) language plpgsql as $$
declare
    slice record;
    ends_at timestamptz;
    low integer := 1;
    high integer;
    due integer;
begin
    moved := 0;
    more := false;
    if not tidings.is_drainer() then
        commit;
        return;
    end if;
    due := tidings.move_due();
    -- In a later statement than the lock: its snapshot has all that the drainer before has moved.
    select * into slice from tidings.read_slice(after_app, most_apps, most_rows);
    after_app := slice.next_after;
    oldest := slice.oldest;
    more := slice.is_cut or due > 0;
    ends_at := clock_timestamp() + interval '250 milliseconds';

    while low <= cardinality(slice.seqs) loop
        if low > 1 and (clock_timestamp() > ends_at or not tidings.is_drainer()) then
            more := true;
            exit;
        end if;
        high := tidings.chunk_end(low, slice.sizes);
        moved := moved + tidings.move_chunk(
            slice.apps[low:high], slice.runs[low:high], slice.seqs[low:high], instance_ms);
        commit;
        low := high + 1;
    end loop;
    commit;
end
$$;

-- Truncates a table of the outbox whose rows were all moved, if nobody is in the way. A TRUNCATE that
-- waits would hold up every sender behind it, and throw away what the one it waited for has committed.
--   is_empty   a query that tells whether all were moved
create function tidings.truncate_if_done(name text, is_empty text) returns void language plpgsql as $$
declare
    done boolean;
begin
    if pg_relation_size(format('tidings.%I', name)) = 0 then
        return;
    end if;
    begin
        execute format('lock table tidings.%I in access exclusive mode nowait', name);
    exception when lock_not_available then
        return; -- A sender or a dump holds it: later.
    end;
    -- In a later statement than the lock: now every row that anybody has put here is seen.
    execute is_empty into done;
    if done then
        execute format('truncate tidings.%I', name);
    end if;
end
$$;

-- Lets go of the room of what was moved, and turns to the other tables once these have grown.
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
    -- Of a run that is seen all rows are seen.
    delete from tidings.outbox_run r
    where case r.part
        when 0 then (select b.seq from tidings.outbox_bulk_0 b
                     where b.run = r.run and b.seq >= r.next_seq order by b.seq limit 1)
        else (select b.seq from tidings.outbox_bulk_1 b
              where b.run = r.run and b.seq >= r.next_seq order by b.seq limit 1)
        end is null;
    select t.last_value % 2 into turn from tidings.outbox_turn t;
    perform tidings.truncate_if_done(
        format('outbox_%s', 1 - turn),
        format('select not exists (select from tidings.outbox_%s)', 1 - turn));
    perform tidings.truncate_if_done(
        format('outbox_bulk_%s', 1 - turn),
        format('select not exists (select from tidings.outbox_run r where r.part = %s)', 1 - turn));

    size := greatest(pg_relation_size(format('tidings.outbox_%s', turn)),
                     pg_relation_size(format('tidings.outbox_bulk_%s', turn)));
    other_size := greatest(pg_relation_size(format('tidings.outbox_%s', 1 - turn)),
                           pg_relation_size(format('tidings.outbox_bulk_%s', 1 - turn)));
    -- To those with less to skip, also if none can be truncated.
    if size >= turn_at and size > other_size then
        perform nextval('tidings.outbox_turn');
    end if;
    commit;
end
$$;
