drop procedure tidings.rotate_outbox(bigint);
drop procedure tidings.drain_outbox(integer, integer, bigint, text, integer, boolean, timestamptz);
drop procedure tidings.forget_old(boolean);
drop function tidings.move_due();
drop procedure tidings.cancel_scheduled(text, uuid, text);
drop procedure tidings.schedule(
    text, text[], text, text, integer, text, timestamptz, text, bytea, text, uuid, timestamptz
);
drop function tidings.make_durable();
drop table tidings.scheduled;
drop function tidings.is_drainer();
drop function tidings.send_everyone(text, json, text, interval);
drop function tidings.send_topic(text, text, json, text, interval);
drop function tidings.send(text, text, json, text, interval);
drop function tidings.queue(text, text, json, text, interval);
drop function tidings.put_into_outbox(text, text, text, json, integer, text);
drop function tidings.compact(json);
drop function tidings.check_name(text, text);
drop function tidings.max_data();
drop table tidings.outbox_1;
drop table tidings.outbox_0;
drop domain tidings.lifetime;
drop domain tidings.replace_key;
drop domain tidings.event_data;
drop domain tidings.event_name;
drop domain tidings.audience_name;
drop domain tidings.app_name;
drop sequence tidings.outbox_turn;
drop sequence tidings.outbox_seq;
