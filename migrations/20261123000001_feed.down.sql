drop function tidings.extend_partitions(integer);
drop procedure tidings.append(
    text[], text[], text[], text[], integer[], text[], text[], text[], bytea[], integer[], integer[],
    bigint, bigint, bigint, bigint, integer, timestamptz,
    integer, integer[], bytea[], uuid[], integer[], timestamptz[]
);
drop function tidings.replace(text[], text[], text[], bigint, integer, bigint, bigint);
drop function tidings.next_positions(integer, bigint);
drop function tidings.take_lane();
drop function tidings.key_lifetime();
drop table tidings.idempotency_key;
drop table tidings.replaceable;
drop table tidings.gone;
drop table tidings.notification;
drop function tidings.utc_day_of(uuid);
drop function tidings.first_id_of(date);
drop function tidings.ulid(uuid);
drop function tidings.position(uuid);
drop function tidings.event_id(bigint, integer, bigint);
drop table tidings.app_edge;
drop table tidings.retention_edge;
drop table tidings.epoch;
drop sequence tidings.position;
