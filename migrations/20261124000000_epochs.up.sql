-- Restores and failovers. A database that went back in time would give positions out again that were
-- given before, and "the cursor is ahead of everything" would be true only until the next send. So such
-- a database opens an epoch, and remembers where the one before ended here.

-- Of the cluster in which the epoch was opened; null until somebody has looked.
alter table tidings.epoch
    add column system_identifier bigint,
    add column timeline integer,
    -- Nothing below it was given out in this epoch. A backup does not know the epochs that were opened
    -- after it was made, so restoring it twice can open the same number twice; a cursor of the first
    -- time is then below this.
    add column first_position bigint not null default 0;

-- The cluster and its line of history: promoting a standby or recovering to a point in time begins a
-- new one.
create function tidings.this_cluster(out system_identifier bigint, out timeline integer)
    language sql stable
    return (select row (
        s.system_identifier,
        ('x' || substring(pg_walfile_name(pg_current_wal_lsn()) for 8))::bit(32)::integer
    ) from pg_control_system() s);

-- The epoch in which an id was made: the 16 bits after those of its position.
create function tidings.epoch(id uuid) returns integer
    immutable strict parallel safe language sql
    return (get_byte(uuid_send(id), 8) << 8) + get_byte(uuid_send(id), 9);

-- Opens an epoch: what cursors of earlier ones point at beyond the rows that are here now is lost. Its
-- number is above `known_epoch`, too: whoever knows that one must see that this is another.
create function tidings.open_epoch(known_epoch integer default 0) returns integer language plpgsql as $$
declare
    opened integer;
begin
    perform tidings.take_lane();
    insert into tidings.epoch (epoch, previous_end, first_position, system_identifier, timeline)
    select greatest((select max(e.epoch) from tidings.epoch e), known_epoch) + 1,
           -- Of committed rows, not of the sequence: that one may have run ahead.
           greatest(
               tidings.position((select n.id from tidings.notification n order by n.id desc limit 1)),
               (select tidings.position(r.edge) from tidings.retention_edge r),
               (select max(e.previous_end) from tidings.epoch e)
           ),
           setval('tidings.position', greatest(
               (select p.last_value from tidings.position p),
               (extract(epoch from clock_timestamp()) * 1000)::bigint << 15
           )) + 1,
           c.system_identifier, c.timeline
    from tidings.this_cluster() c
    returning epoch into opened;
    -- Wakes the readers: their positions may be among what is lost.
    perform pg_notify('tidings', 'epoch');
    return opened;
end
$$;

-- What an instance asks on every new connection of its own: is this the database that it knows? If the
-- cluster is another one, or has gone back behind what the instance has read, an epoch is opened. An
-- instance that has read nothing yet knows no epoch, and gives -1.
create function tidings.check_epoch(highest_seen bigint, known_epoch integer) returns void
language plpgsql as $$
declare
    here record;
    newest record;
begin
    -- Usually all is well, and nobody needs the lane. The second look is under it, in later statements:
    -- another instance may have been here meanwhile.
    for look in 1..2 loop
        select * into here from tidings.this_cluster();
        select e.epoch, e.system_identifier, e.timeline into newest
        from tidings.epoch e order by e.epoch desc limit 1;

        if newest.system_identifier = here.system_identifier and newest.timeline = here.timeline
           and (newest.epoch > known_epoch
                or newest.epoch = known_epoch
                   and highest_seen <= (select p.last_value from tidings.position p)) then
            return;
        end if;
        if look = 1 then
            perform tidings.take_lane();
        end if;
    end loop;

    if newest.system_identifier is null then
        update tidings.epoch e
        set system_identifier = here.system_identifier, timeline = here.timeline
        where e.epoch = newest.epoch;
    else
        perform tidings.open_epoch(known_epoch);
    end if;
end
$$;
