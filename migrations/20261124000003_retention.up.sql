-- Retention: what is old goes. The edge is committed before anything is taken away, so that no stream
-- can meet a hole without being told of it.

-- Settings of single apps, administered by plain SQL. No row, or null: as for all.
create table tidings.app_setting (
    -- As tidings.check_name: a setting of an app that cannot be is a mistake.
    app text collate "C" primary key
        check (char_length(app) between 1 and 128 and app !~ '[\u0001-\u001f\u007f-\u009f]'
               and app ~ '[^\u0020\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]'
               and app not in ('.', '..')),
    -- How long this app's notifications are kept. Longer than the server's TIDINGS_RETENTION has no
    -- effect: the partitions are removed for all apps together.
    retention interval check (retention >= interval '1 hour' and isfinite(retention))
);
comment on column tidings.app_setting.retention is
    'How long this app''s notifications are kept, at least an hour; longer than TIDINGS_RETENTION has no effect';

-- Partitions on their way out: noted together with the edge, and forgotten together with their table. So
-- one that is detached but not dropped yet is found again, and a table that somebody else detached, to
-- keep it, is left alone.
create table tidings.leaving_partition (
    name text primary key,
    from_id uuid,
    to_id uuid not null
);

-- The partitions of the feed, and what was one and is not dropped yet. The state tells how far its
-- removal has come:
--   kept       it has not begun
--   leaving    the edge is committed: whoever comes from below it is told of a gap
--   detaching  queries that begin now do not see it any more
--   detached   nothing but its table is left
create view tidings.partitions as
select t.name, t.state,
       -- Null: without a bound.
       t.from_id, t.to_id,
       to_timestamp((tidings.position(t.from_id) >> 15) / 1000.0) as from_time,
       to_timestamp((tidings.position(t.to_id) >> 15) / 1000.0) as to_time,
       coalesce(pg_stat_get_live_tuples(t.oid), 0) as rows_estimate,
       coalesce(pg_total_relation_size(t.oid), 0) as bytes
from (
    select c.oid, c.relname::text as name,
           substring(b.text from 'FROM \(''([0-9a-f-]{36})''\)')::uuid as from_id,
           substring(b.text from 'TO \(''([0-9a-f-]{36})''\)')::uuid as to_id,
           case when i.inhdetachpending then 'detaching' when l.name is null then 'kept' else 'leaving' end
               as state
    from pg_catalog.pg_inherits i
    join pg_catalog.pg_class c on c.oid = i.inhrelid
    cross join lateral (select pg_get_expr(c.relpartbound, c.oid) as text) b
    left join tidings.leaving_partition l on l.name = c.relname
    where i.inhparent = 'tidings.notification'::regclass
    union all
    select to_regclass(format('tidings.%I', l.name)), l.name, l.from_id, l.to_id, 'detached'
    from tidings.leaving_partition l
    where not exists (
        select from pg_catalog.pg_inherits i join pg_catalog.pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'tidings.notification'::regclass and c.relname = l.name
    )
) t;

-- The smallest id of what is younger than `age`, by whichever of the two clocks is behind: one that runs
-- ahead must not remove what is young.
create function tidings.first_id_younger_than(age interval, instance_ms bigint) returns uuid
    volatile language sql
    return tidings.event_id(
        greatest(0, least((extract(epoch from clock_timestamp()) * 1000)::bigint, instance_ms)
                    - (extract(epoch from age) * 1000)::bigint) << 15,
        0, 0);

-- Marks a partition as leaving: its rows may be gone from the commit of this on, though nothing is
-- removed yet. The edge is the newest of its rows and not the partition's bound, so that clients of a
-- quiet feed that have everything are told of no gap.
create function tidings.retire_partition(part text) returns void language plpgsql as $$
declare
    at record;
    newest uuid;
begin
    select p.from_id, p.to_id into strict at from tidings.partitions p
    where p.name = part and p.state = 'kept' and p.to_id is not null;
    -- Row locks come before the lane.
    perform from tidings.retention_edge for update;
    -- Under the lane no append is on its way, so that `newest` is the last there will ever be: no id may
    -- fall into the range from here on, also should every clock go back after a quiet time.
    perform tidings.take_lane();
    perform setval('tidings.position', tidings.position(at.to_id))
    from tidings.position p where p.last_value < tidings.position(at.to_id);
    execute format('select n.id from tidings.%I n order by n.id desc limit 1', part) into newest;
    update tidings.retention_edge e set edge = newest where e.edge < newest;
    insert into tidings.leaving_partition (name, from_id, to_id) values (part, at.from_id, at.to_id);
end
$$;
