-- A setting is typed by a person, and what Postgres tells of a mistake is the name of the constraint: so
-- that is the rule.
alter table tidings.app_setting
    drop constraint app_setting_app_check,
    add constraint "app has 1 to 128 characters" check (char_length(app) between 1 and 128),
    add constraint "app has no control characters" check (app !~ '[\u0001-\u001f\u007f-\u009f]'),
    add constraint "app is not only white space"
        check (app ~ '[^\u0020\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]'),
    add constraint "app is neither . nor .." check (app not in ('.', '..'));
alter table tidings.app_setting
    rename constraint app_setting_retention_check to "retention is finite and at least 1 hour";
