drop function tidings.check_epoch(bigint, integer);
drop function tidings.open_epoch();
drop function tidings.epoch(uuid);
drop function tidings.this_cluster();
alter table tidings.epoch drop column system_identifier, drop column timeline;
