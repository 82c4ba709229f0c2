drop function tidings.retire_partition(text);
drop function tidings.first_id_younger_than(interval, bigint);
drop view tidings.partitions;
drop table tidings.leaving_partition;
drop table tidings.app_setting;
