-- The roles stay: they belong to the cluster, and another database may use them.
do $$
begin
    if exists (select from pg_catalog.pg_roles where rolname = 'tidings_admin') then
        revoke all on all tables in schema tidings from tidings_admin;
        revoke all on all sequences in schema tidings from tidings_admin;
        revoke all on all routines in schema tidings from tidings_admin;
        revoke all on schema tidings from tidings_admin;
    end if;
    if exists (select from pg_catalog.pg_roles where rolname = 'tidings_sender') then
        revoke all on all routines in schema tidings from tidings_sender;
        revoke all on schema tidings from tidings_sender;
    end if;
end
$$;
grant execute on all routines in schema tidings to public;
drop procedure tidings.grant_roles();
drop view tidings.edges;
drop view tidings.outbox_by_app;
drop view tidings.scheduled_sends;
drop view tidings.stats_by_app;
drop view tidings.unread;
drop view tidings.known_users;
drop view tidings.history;
drop function tidings.ulid_time(text);
drop function tidings.ulid_time(uuid);
drop function tidings.ulid(text);
