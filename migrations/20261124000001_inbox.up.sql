-- What users did with their notifications: seen, read, archived. Kept beside the feed and per user, so
-- that a notification for a topic or for everyone stays one row. A bit of a notification is
--     coalesce(the override for its id, its id <= the mark of its audience)
-- so that "everything up to here" moves a mark instead of writing a row for each notification. Read
-- implies seen, and seen is never taken back: so what is unseen is among what is unread.

-- Users that have subscribed or changed their state. Those that were only sent to are known by the first
-- row of their own. The row is also the lock that orders one user's changes.
create table tidings.known_user (
    app text collate "C" not null,
    user_name text collate "C" not null,
    -- What was for everyone or for a topic up to this id counts as read: nobody starts with a month of
    -- unread. Never changes.
    since uuid not null,
    primary key (app, user_name)
);

-- The marks. Without a row they are what `tidings.inbox_marks` says.
create table tidings.state_mark (
    app text collate "C" not null,
    user_name text collate "C" not null,
    audience text collate "C" not null,
    seen_up_to uuid not null,
    read_up_to uuid not null,
    archived_up_to uuid not null,
    primary key (app, user_name, audience)
);

-- The overrides: only where a bit differs from its mark, else null. A row of nulls is removed.
create table tidings.user_state (
    app text collate "C" not null,
    user_name text collate "C" not null,
    audience text collate "C" not null,
    id uuid not null,
    seen boolean,
    read boolean,
    archived boolean,
    primary key (app, user_name, audience, id),
    check (num_nonnulls(seen, read, archived) > 0)
);
-- What counts although it lies below a mark, past all that was archived one by one.
create index user_state_counted on tidings.user_state (app, user_name, audience, id)
    where read = false or archived = false;

-- The marks of one user in each of the audiences. Not volatile, so that the planner puts the query in
-- place of the call.
create function tidings.inbox_marks(app_id text, user_id text, audiences text[])
returns table (audience text, seen uuid, read uuid, archived uuid) stable rows 3 language sql
begin atomic
    select a.audience, coalesce(m.seen_up_to, i.mark), coalesce(m.read_up_to, i.mark),
           coalesce(m.archived_up_to, '00000000-0000-0000-0000-000000000000')
    from unnest(audiences) as a (audience)
    cross join (
        select coalesce(
            (select k.since from tidings.known_user k where k.app = app_id and k.user_name = user_id),
            (select n.id from tidings.notification n
             where n.app = app_id and n.audience = 'user:' || user_id order by n.id limit 1),
            -- Not known yet: nothing of the others counts.
            'ffffffff-ffff-ffff-ffff-ffffffffffff') as since
        offset 0
    ) known
    cross join lateral (
        select case when a.audience = 'user:' || user_id then '00000000-0000-0000-0000-000000000000'
            else known.since end as mark
    ) i
    left join tidings.state_mark m
        on m.app = app_id and m.user_name = user_id and m.audience = a.audience
    -- Both offsets: or the planner would put these expressions in every place where a mark is used.
    offset 0;
end;

-- How much is unread and unseen in these audiences, and the head of the same snapshot: a stream from
-- there brings everything that is not counted here.
create function tidings.inbox_counts(app_id text, user_id text, audiences text[])
returns table (unread bigint, unseen bigint, head uuid) stable rows 1 language sql
begin atomic
    select count(c.seen), count(*) filter (where not c.seen),
           (select greatest((select n.id from tidings.notification n order by n.id desc limit 1), e.edge)
            from tidings.retention_edge e)
    from tidings.inbox_marks(app_id, user_id, audiences) m
    cross join lateral (
        select coalesce(s.seen, n.id <= m.seen) as seen
        from tidings.notification n
        -- The limit makes it one look by the whole key, never a join with all of the user's.
        left join lateral (
            select s.seen, s.read, s.archived from tidings.user_state s
            where s.app = app_id and s.user_name = user_id and s.audience = m.audience and s.id = n.id
            limit 1
        ) s on true
        where n.app = app_id and n.audience = m.audience and n.id > greatest(m.read, m.archived)
          and s.read is distinct from true and s.archived is distinct from true
          and n.event is distinct from 'tidings.state'
          and (n.expires_at is null or n.expires_at > clock_timestamp())
          and (select g.id from tidings.gone g where g.id = n.id) is null
        union all
        -- Below a mark nothing counts without an override.
        select coalesce(s.seen, s.id <= m.seen)
        from tidings.user_state s
        cross join lateral (
            select from tidings.notification n
            where n.id = s.id and (n.expires_at is null or n.expires_at > clock_timestamp())
            limit 1
        ) kept
        where s.app = app_id and s.user_name = user_id and s.audience = m.audience
          and s.id <= greatest(m.read, m.archived) and (s.read = false or s.archived = false)
          and not coalesce(s.read, s.id <= m.read) and not coalesce(s.archived, s.id <= m.archived)
          and (select g.id from tidings.gone g where g.id = s.id) is null
    ) c;
end;

-- Makes those users known that are not yet. In one order, so that two such statements cannot wait for
-- each other; and without the lane, since whoever takes that may wait for nothing.
create function tidings.note_known(apps text[], users text[]) returns void language plpgsql as $$
begin
    insert into tidings.known_user (app, user_name, since)
    select distinct on (w.app, w.user_name) w.app, w.user_name, coalesce(
        (select n.id from tidings.notification n
         where n.app = w.app and n.audience = 'user:' || w.user_name order by n.id limit 1),
        (select greatest((select n.id from tidings.notification n order by n.id desc limit 1), e.edge)
         from tidings.retention_edge e))
    from unnest(apps, users) as w (app, user_name)
    where (select k.since from tidings.known_user k
           where k.app = w.app and k.user_name = w.user_name) is null
    order by w.app, w.user_name
    on conflict do nothing;
end
$$;

-- Changes the state of single notifications and returns the ids of those that it changed. Those that
-- are not in a list of this user are left out without a word: nobody learns of others' ids.
create function tidings.change_ids(app_id text, user_id text, since uuid, ids uuid[], to_state text)
returns uuid[] language plpgsql as $$
declare
    changed uuid[];
begin
    with found as materialized (
        select n.id, n.audience, s.id is not null as overridden,
               n.id <= i.seen as seen_by_mark, n.id <= i.read as read_by_mark,
               n.id <= i.archived as archived_by_mark,
               coalesce(s.seen, n.id <= i.seen) as seen, coalesce(s.read, n.id <= i.read) as read,
               coalesce(s.archived, n.id <= i.archived) as archived
        from (select distinct w.id from unnest(ids) as w (id)) w
        cross join lateral (
            select n.id, n.audience from tidings.notification n
            where n.id = w.id and n.app = app_id
              and (n.audience in ('user:' || user_id, 'everyone') or left(n.audience, 6) = 'topic:')
              and n.event is distinct from 'tidings.state'
              and (n.expires_at is null or n.expires_at > clock_timestamp())
            limit 1
        ) n
        left join lateral (
            select s.id, s.seen, s.read, s.archived from tidings.user_state s
            where s.app = app_id and s.user_name = user_id and s.audience = n.audience and s.id = n.id
            limit 1
        ) s on true
        left join tidings.state_mark m
            on m.app = app_id and m.user_name = user_id and m.audience = n.audience
        cross join lateral (
            select coalesce(m.seen_up_to, f.mark) as seen, coalesce(m.read_up_to, f.mark) as read,
                   coalesce(m.archived_up_to, '00000000-0000-0000-0000-000000000000') as archived
            from (select case when n.audience = 'user:' || user_id
                     then '00000000-0000-0000-0000-000000000000' else since end as mark) f
        ) i
        where (select g.id from tidings.gone g where g.id = w.id) is null
    ), wanted as (
        select f.*,
               nullif(f.seen or to_state in ('seen', 'read'), f.seen_by_mark) as new_seen,
               nullif(case to_state when 'read' then true when 'unread' then false else f.read end,
                      f.read_by_mark) as new_read,
               nullif(case to_state when 'archived' then true when 'unarchived' then false
                      else f.archived end, f.archived_by_mark) as new_archived
        from found f
        where case to_state when 'seen' then not f.seen when 'read' then not f.read
            when 'unread' then f.read when 'archived' then not f.archived
            when 'unarchived' then f.archived end
    ), written as (
        insert into tidings.user_state as s (app, user_name, audience, id, seen, read, archived)
        select app_id, user_id, w.audience, w.id, w.new_seen, w.new_read, w.new_archived
        from wanted w
        where num_nonnulls(w.new_seen, w.new_read, w.new_archived) > 0
        on conflict (app, user_name, audience, id) do update
        set seen = excluded.seen, read = excluded.read, archived = excluded.archived
    ), removed as (
        delete from tidings.user_state s using wanted w
        where num_nonnulls(w.new_seen, w.new_read, w.new_archived) = 0 and w.overridden
          and s.app = app_id and s.user_name = user_id and s.audience = w.audience and s.id = w.id
    )
    select coalesce(array_agg(w.id order by w.id), '{}') into changed from wanted w;
    return changed;
end
$$;

-- Changes the state of everything up to an id, in these audiences, and returns of how many
-- notifications. Moves marks; writes rows only to keep what lies between the id and a mark above it.
create function tidings.change_up_to(
    app_id text, user_id text, since uuid, up_to uuid, audiences text[], to_state text
) returns bigint language plpgsql as $$
declare
    zero constant uuid := '00000000-0000-0000-0000-000000000000';
    value constant boolean := to_state in ('seen', 'read', 'archived');
    -- Which bit it is about, besides that read implies seen.
    is_seen constant boolean := to_state = 'seen';
    is_read constant boolean := to_state in ('read', 'unread');
    changed bigint;
begin
    insert into tidings.state_mark (app, user_name, audience, seen_up_to, read_up_to, archived_up_to)
    select app_id, user_id, a.audience, i.mark, i.mark, zero
    from unnest(audiences) as a (audience)
    cross join lateral (select case when a.audience = 'user:' || user_id then zero else since end) i (mark)
    on conflict do nothing;

    select count(*) into changed
    from tidings.state_mark m
    cross join lateral (select case when is_seen then m.seen_up_to when is_read then m.read_up_to
        else m.archived_up_to end) b (mark)
    cross join lateral (
        -- Where the mark says the opposite, all but those that are overridden change …
        select from tidings.notification n
        left join lateral (
            select s.seen, s.read, s.archived from tidings.user_state s
            where s.app = app_id and s.user_name = user_id and s.audience = m.audience and s.id = n.id
            limit 1
        ) s on true
        where n.app = app_id and n.audience = m.audience
          and n.id > case when value then b.mark else zero end
          and n.id <= case when value then up_to else least(b.mark, up_to) end
          and case when is_seen then s.seen when is_read then s.read else s.archived end
              is distinct from value
          and n.event is distinct from 'tidings.state'
          and (n.expires_at is null or n.expires_at > clock_timestamp())
          and (select g.id from tidings.gone g where g.id = n.id) is null
        union all
        -- … and elsewhere those alone that are.
        select from tidings.user_state s
        cross join lateral (
            select from tidings.notification n
            where n.id = s.id and (n.expires_at is null or n.expires_at > clock_timestamp())
            limit 1
        ) kept
        where s.app = app_id and s.user_name = user_id and s.audience = m.audience
          and s.id <= up_to and (s.id <= b.mark) = value
          and case when is_seen then s.seen when is_read then s.read else s.archived end = not value
          and (select g.id from tidings.gone g where g.id = s.id) is null
    ) c
    where m.app = app_id and m.user_name = user_id and m.audience = any(audiences);

    if not value then
        -- The mark falls below what lies between the id and it, which stays as it is.
        insert into tidings.user_state as s (app, user_name, audience, id, read, archived)
        select app_id, user_id, m.audience, n.id,
               case when is_read then true end, case when not is_read then true end
        from tidings.state_mark m
        cross join lateral (
            select n.id from tidings.notification n
            where n.app = app_id and n.audience = m.audience and n.id > up_to
              and n.id <= case when is_read then m.read_up_to else m.archived_up_to end
              and n.event is distinct from 'tidings.state'
              and (select g.id from tidings.gone g where g.id = n.id) is null
            offset 0
        ) n
        where m.app = app_id and m.user_name = user_id and m.audience = any(audiences)
        on conflict (app, user_name, audience, id) do update
        set read = coalesce(s.read, excluded.read), archived = coalesce(s.archived, excluded.archived);
    end if;

    -- Overrides that say what their mark will say.
    with redundant as (
        select s.audience, s.id,
               case when is_seen or to_state = 'read' then null else s.seen end as seen,
               case when is_read then null else s.read end as read,
               case when is_seen or is_read then s.archived end as archived
        from tidings.state_mark m
        join tidings.user_state s
            on s.app = app_id and s.user_name = user_id and s.audience = m.audience
        where m.app = app_id and m.user_name = user_id and m.audience = any(audiences)
          and (s.id <= up_to
               or not value and case when is_read then s.read else s.archived end = false)
          and case when to_state = 'read' then num_nonnulls(s.seen, s.read) > 0
              when is_seen then s.seen is not null when is_read then s.read is not null
              else s.archived is not null end
    ), removed as (
        delete from tidings.user_state s using redundant r
        where num_nonnulls(r.seen, r.read, r.archived) = 0
          and s.app = app_id and s.user_name = user_id and s.audience = r.audience and s.id = r.id
    )
    update tidings.user_state s set seen = r.seen, read = r.read, archived = r.archived
    from redundant r
    where num_nonnulls(r.seen, r.read, r.archived) > 0
      and s.app = app_id and s.user_name = user_id and s.audience = r.audience and s.id = r.id;

    update tidings.state_mark m
    set seen_up_to = case when is_seen or to_state = 'read'
            then greatest(m.seen_up_to, up_to) else m.seen_up_to end,
        read_up_to = case to_state when 'read' then greatest(m.read_up_to, up_to)
            when 'unread' then zero else m.read_up_to end,
        archived_up_to = case to_state when 'archived' then greatest(m.archived_up_to, up_to)
            when 'unarchived' then zero else m.archived_up_to end
    where m.app = app_id and m.user_name = user_id and m.audience = any(audiences);
    return changed;
end
$$;

-- Changes a user's state, of `ids` or of everything up to `up_to`, and tells it to the user's other
-- devices, together. Returns how many notifications changed, and the counts after it with the head of
-- the snapshot that they were read in.
--
-- Changes of one user follow each other by the lock on its row, which comes before the lane: under
-- that nothing may wait. Everything commits in here, for the reason that `tidings.append` does.
--   audiences     what is counted and, with `up_to`, changed
create procedure tidings.change_state(
    app_id text, user_id text, ids uuid[], up_to uuid, audiences text[], to_state text,
    tail bigint, instance_ms bigint,
    inout changed bigint, inout unread bigint, inout unseen bigint, inout head uuid
) language plpgsql as $$
declare
    since uuid;
    changed_ids uuid[];
    entry text;
    at record;
begin
    loop
        select k.since into since from tidings.known_user k
        where k.app = app_id and k.user_name = user_id for update;
        exit when found;
        perform tidings.note_known(array[app_id], array[user_id]);
        -- Whoever else makes the user known waits for no more than this.
        commit;
    end loop;

    if ids is not null then
        changed_ids := tidings.change_ids(app_id, user_id, since, ids, to_state);
        changed := cardinality(changed_ids);
        select format('{"ids":[%s],"state":"%s"}', string_agg('"' || tidings.ulid(c.id) || '"', ',' order by c.id),
                      to_state)
        into entry from unnest(changed_ids) as c (id);
    else
        -- What is above the head has yet to come.
        select least(up_to, greatest((select n.id from tidings.notification n order by n.id desc limit 1), e.edge))
        into up_to from tidings.retention_edge e;
        changed := tidings.change_up_to(app_id, user_id, since, up_to, audiences, to_state);
        select format('{"up_to":"%s","state":"%s"%s}', tidings.ulid(up_to), to_state,
                      ',"topics":[' || string_agg(to_json(substr(a.audience, 7))::text, ',') || ']')
        into entry from unnest(audiences) as a (audience) where left(a.audience, 6) = 'topic:';
    end if;

    select c.unread, c.unseen, c.head into unread, unseen, head
    from tidings.inbox_counts(app_id, user_id, audiences) c;

    if changed > 0 then
        perform tidings.take_lane();
        select * into at from tidings.next_positions(1, instance_ms);
        insert into tidings.notification (id, app, audience, event, data, created_at)
        values (tidings.event_id(at.first, at.epoch, tail), app_id, 'user:' || user_id, 'tidings.state',
                entry::json, at.created_at);
    end if;
    commit;
end
$$;

-- Withdraws a notification and tells it to its audience, together. False: the app has no such one.
create procedure tidings.withdraw(app_id text, withdrawn_id uuid, tail bigint, instance_ms bigint, inout known boolean)
language plpgsql as $$
declare
    whose text;
    at record;
begin
    select n.audience into whose from tidings.notification n
    where n.id = withdrawn_id and n.app = app_id and n.event is distinct from 'tidings.state'
      and (n.expires_at is null or n.expires_at > clock_timestamp()
           or (select g.id from tidings.gone g where g.id = n.id) is not null);
    known := found;
    if known then
        perform tidings.take_lane();
        -- All who insert here have the lane, so this waits for nobody.
        insert into tidings.gone (id) values (withdrawn_id) on conflict do nothing;
        if found then
            select * into at from tidings.next_positions(1, instance_ms);
            insert into tidings.notification (id, app, audience, event, data, created_at)
            values (tidings.event_id(at.first, at.epoch, tail), app_id, whose, 'tidings.state',
                    format('{"ids":["%s"],"state":"withdrawn"}', tidings.ulid(withdrawn_id))::json,
                    at.created_at);
        end if;
    end if;
    commit;
end
$$;
