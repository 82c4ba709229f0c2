alter table tidings.app_setting
    rename constraint "retention is finite and at least 1 hour" to app_setting_retention_check;
alter table tidings.app_setting
    drop constraint "app has 1 to 128 characters",
    drop constraint "app has no control characters",
    drop constraint "app is not only white space",
    drop constraint "app is neither . nor ..",
    add constraint app_setting_app_check
        check (char_length(app) between 1 and 128 and app !~ '[\u0001-\u001f\u007f-\u009f]'
               and app ~ '[^\u0020\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]'
               and app not in ('.', '..'));
