drop function tidings.check_epoch(bigint, integer);
drop function tidings.open_epoch(integer);
drop function tidings.epoch(uuid);
drop function tidings.this_cluster();
alter table tidings.epoch drop column system_identifier, drop column timeline, drop column first_position;
