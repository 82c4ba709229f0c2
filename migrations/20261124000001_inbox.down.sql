drop procedure tidings.withdraw(text, uuid, bigint, bigint, boolean);
drop procedure tidings.change_state(
    text, text, uuid[], uuid, text[], text, bigint, bigint, bigint, bigint, bigint, uuid
);
drop function tidings.change_up_to(text, text, uuid, uuid, text[], text);
drop function tidings.change_ids(text, text, uuid, uuid[], text);
drop function tidings.note_known(text[], text[]);
drop function tidings.inbox_counts(text, text, text[]);
drop function tidings.inbox_marks(text, text, text[]);
drop table tidings.user_state;
drop table tidings.state_mark;
drop table tidings.known_user;
