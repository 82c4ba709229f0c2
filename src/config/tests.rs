//! The promises of the configuration: which layer wins, what each bad value is told, what the help
//! claims.

use clap::{CommandFactory, Parser};

use super::layers::{KNOWN, flag_of, from_environment, from_file};
use super::*;
use crate::cli::Cli;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    flags: Flags,
}

fn flags(line: &str) -> Flags {
    Line::try_parse_from(["serve"].into_iter().chain(line.split_whitespace())).unwrap().flags
}

fn load(flags: &Flags, environment: &[(&str, &str)], file: &[(&str, &str)]) -> Config {
    Config::load(flags, &Layers::of(environment, file)).unwrap().0
}

fn from(environment: &[(&str, &str)]) -> Config {
    load(&Flags::default(), environment, &[])
}

/// The sentence that one value is refused with.
fn refused(variable: &str, value: &str) -> String {
    let layers = Layers::of(&[(variable, value)], &[]);
    let error = Config::load(&Flags::default(), &layers).expect_err("the value was accepted");
    error.to_string()
}

#[test]
fn flags_beat_the_environment_which_beats_the_file() {
    let (environment, file) = ([("TIDINGS_DRAIN", "2s")], [("TIDINGS_DRAIN", "3s")]);
    let drain = |config: Config| config.drain.as_secs();
    assert_eq!(drain(load(&flags("--drain 1s"), &environment, &file)), 1);
    assert_eq!(drain(load(&Flags::default(), &environment, &file)), 2);
    assert_eq!(drain(load(&Flags::default(), &[], &file)), 3);
    assert_eq!(drain(load(&Flags::default(), &[], &[])), 20);
}

#[test]
fn an_empty_value_is_an_unset_one() {
    let file = [("TIDINGS_DRAIN", "3s")];
    let config = load(&flags("--drain="), &[("TIDINGS_DRAIN", "")], &file);
    assert_eq!(config.drain.as_secs(), 3);
    assert_eq!(from(&[("DATABASE_URL", ""), ("TIDINGS_DRAIN", "")]).database_url, None);
}

#[test]
fn every_setting_is_read() {
    let config = from(&[
        ("DATABASE_URL", "postgres://t@db/t"),
        ("TIDINGS_DIRECT_DATABASE_URL", "postgresql://t@db:6432/t"),
        ("TIDINGS_DATA_DIR", "data"),
        ("TIDINGS_POSTGRES_BIN", "bin"),
        ("TIDINGS_POSTGRES_USER", "pg"),
        ("TIDINGS_LISTEN", "0.0.0.0:0"),
        ("TIDINGS_ALLOW_UNAUTHENTICATED", "1"),
        ("TIDINGS_CORS_ORIGINS", "https://a.example, http://localhost:3000"),
        ("TIDINGS_HEARTBEAT", "500ms"),
        ("TIDINGS_DRAIN", "1m"),
        ("TIDINGS_DRAIN_DELAY", "2h"),
        ("TIDINGS_MAX_CONNECTIONS", "7"),
        ("TIDINGS_MAX_DATA", "8"),
        ("TIDINGS_MAX_BODY", "9"),
        ("TIDINGS_RETENTION", "36h"),
        ("TIDINGS_MIGRATE", "off"),
        ("TIDINGS_LOG", "info,sqlx=warn"),
        ("TIDINGS_LOG_FORMAT", "json"),
    ]);
    assert_eq!(config.database_url.as_deref(), Some("postgres://t@db/t"));
    assert_eq!(config.direct_database_url.as_deref(), Some("postgresql://t@db:6432/t"));
    assert_eq!(config.private_postgres.data_dir, Some(PathBuf::from("data")));
    assert_eq!(config.private_postgres.bin_dir, Some(PathBuf::from("bin")));
    assert_eq!(config.private_postgres.user.as_deref(), Some("pg"));
    assert_eq!(config.listen, "0.0.0.0:0".parse().unwrap());
    assert!(config.allow_unauthenticated && !config.migrate);
    let origins = ["https://a.example", "http://localhost:3000"].map(str::to_owned);
    assert_eq!(config.cors_origins, CorsOrigins::Exactly(origins.to_vec()));
    assert_eq!(config.heartbeat, Duration::from_millis(500));
    assert_eq!(config.drain, Duration::from_secs(60));
    assert_eq!(config.drain_delay, Duration::from_secs(7200));
    assert_eq!((config.max_connections, config.max_data, config.max_body), (7, 8, 9));
    assert_eq!(config.retention, Duration::from_secs(36 * 3600));
    assert_eq!(config.log, "info,sqlx=warn");
    assert_eq!(config.log_format, LogFormat::Json);
    assert_eq!(from(&[("TIDINGS_CORS_ORIGINS", "*")]).cors_origins, CorsOrigins::Any);
}

#[test]
fn a_bad_value_is_refused_with_the_variable_the_flag_and_the_remedy() {
    for (variable, value, remedy) in [
        ("TIDINGS_LISTEN", "8080", "as in 127.0.0.1:8080"),
        ("TIDINGS_LISTEN", "localhost:8080", "write an IP address"),
        ("TIDINGS_HEARTBEAT", "10", "as in 500ms, 10s or 5m"),
        ("TIDINGS_HEARTBEAT", "1.5s", "whole number"),
        ("TIDINGS_HEARTBEAT", "0s", "at least 100ms"),
        ("TIDINGS_DRAIN", "s", "as in 500ms, 10s or 5m"),
        ("TIDINGS_DRAIN", "-1s", "as in 500ms, 10s or 5m"),
        ("TIDINGS_DRAIN_DELAY", "99999999999999999d", "at most 365d"),
        ("TIDINGS_DRAIN_DELAY", "99999999999999999999d", "whole number"),
        ("TIDINGS_MAX_CONNECTIONS", "0", "above 0"),
        ("TIDINGS_MAX_DATA", "64k", "number of bytes"),
        ("TIDINGS_MAX_BODY", "-1", "number of bytes"),
        ("TIDINGS_RETENTION", "23h", "at least 1d"),
        ("TIDINGS_RETENTION", "for ever", "as in 500ms, 10s or 5m"),
        ("TIDINGS_RETENTION", "366d", "at most 365d"),
        ("TIDINGS_MIGRATE", "maybe", "write on or off"),
        ("TIDINGS_ALLOW_UNAUTHENTICATED", "2", "write on or off"),
        ("TIDINGS_LOG", "verbose", "write off, error"),
        ("TIDINGS_LOG", "info,sqlx=loud", "write off, error"),
        ("TIDINGS_LOG_FORMAT", "xml", "write text or json"),
        ("TIDINGS_CORS_ORIGINS", "https://a.example/", "without path or final /"),
        ("TIDINGS_CORS_ORIGINS", "https://a.example/app", "without path or final /"),
        ("TIDINGS_CORS_ORIGINS", "a.example", "scheme://host"),
        ("TIDINGS_CORS_ORIGINS", "null", "scheme://host"),
        ("TIDINGS_CORS_ORIGINS", "https://a.example,*", "alone"),
        ("TIDINGS_CORS_ORIGINS", "https://A.example", "write https://a.example,"),
        ("TIDINGS_CORS_ORIGINS", "https://a.example:443", "write https://a.example,"),
    ] {
        let sentence = refused(variable, value);
        let beginning = format!("{variable} ({}) ", flag_of(variable));
        assert!(sentence.starts_with(&beginning), "{sentence}");
        assert!(sentence.contains(remedy), "{sentence}");
    }
}

#[test]
fn a_database_address_is_never_repeated() {
    for variable in ["DATABASE_URL", "TIDINGS_DIRECT_DATABASE_URL"] {
        for value in ["mysql://t:secret@db/t", "postgres://t:secret@db:x/t", "secret"] {
            let sentence = refused(variable, value);
            assert!(sentence.starts_with(variable) && !sentence.contains("secret"), "{sentence}");
        }
    }
    let config = from(&[("DATABASE_URL", "postgres://t:secret@db/t")]);
    assert!(!format!("{config:?}").contains("secret"));
}

#[test]
fn what_is_not_safe_is_refused() {
    let alone = refused("TIDINGS_DIRECT_DATABASE_URL", "postgres://t@db/t");
    assert!(alone.contains("without DATABASE_URL"), "{alone}");
    for reachable in ["0.0.0.0:8080", "[::]:8080", "192.0.2.1:80"] {
        let sentence = refused("TIDINGS_LISTEN", reachable);
        assert!(sentence.contains("TIDINGS_ALLOW_UNAUTHENTICATED=1"), "{sentence}");
    }
    for loopback in ["127.9.9.9:1", "[::1]:0", "[::ffff:127.0.0.1]:0"] {
        assert_eq!(from(&[("TIDINGS_LISTEN", loopback)]).listen, loopback.parse().unwrap());
    }
}

#[test]
fn unknown_names_are_warned_about_with_the_nearest_known_one() {
    let layers = Layers::of(
        &[
            ("TIDINGS_HEARTBAET", "1s"),
            ("TIDINGS_DATABASE_URL", "x"),
            ("TIDINGS_DRAIN", "1s"),
            ("TIDINGS_PORT", "80"),
            ("TIDINGS_SERVICE_HOST", "10.0.0.1"),
        ],
        &[("TIDINGS_CORS_ORIGIN", "*")],
    );
    let (_, warnings) = Config::load(&Flags::default(), &layers).unwrap();
    let ends = [
        "is TIDINGS_HEARTBEAT",
        "is DATABASE_URL",
        "is TIDINGS_CORS_ORIGINS",
        "TIDINGS_PORT is not a setting and is ignored; the nearest one is TIDINGS_LISTEN",
        "TIDINGS_SERVICE_HOST is not a setting and is ignored; `tidings serve --help` lists them all",
    ];
    assert_eq!(warnings.len(), ends.len(), "{warnings:?}");
    for end in ends {
        assert!(warnings.iter().any(|warning| warning.ends_with(end)), "{end}: {warnings:?}");
    }
}

#[test]
fn what_is_ignored_of_a_database_address_is_warned_about_by_its_name_alone() {
    let url =
        "postgres://u@h/d?sslmode=require&sslpassword=secret&options[search_path]=x&sslmod=off";
    let layers = Layers::of(&[("DATABASE_URL", url)], &[]);
    let (_, warnings) = Config::load(&Flags::default(), &layers).unwrap();
    let names: Vec<_> = warnings.iter().filter_map(|warning| warning.split(' ').nth(4)).collect();
    assert_eq!(names, ["sslpassword,", "sslmod,"], "{warnings:?}");
    assert!(!warnings.concat().contains("secret"), "{warnings:?}");

    // A password with a ? that was not escaped: what follows it would be the name of a parameter.
    let sentence = refused("DATABASE_URL", "postgres://u:12?secret@host:5432/d");
    assert!(sentence.contains("%-escapes") && !sentence.contains("secret"), "{sentence}");
}

#[test]
fn more_connections_than_open_files_are_warned_about() {
    let layers = Layers::of(&[("TIDINGS_MAX_CONNECTIONS", "99999999999")], &[]);
    let (_, warnings) = Config::load(&Flags::default(), &layers).unwrap();
    assert!(warnings[0].contains("limit on open files"), "{warnings:?}");
}

#[test]
fn the_file_is_read_without_touching_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".env");
    assert!(from_file(&path).unwrap().is_empty());

    std::fs::write(&path, "# ours\nTIDINGS_DRAIN=3s\nexport DATABASE_URL='postgres://a b'\nX=1\n")
        .unwrap();
    let found = from_file(&path).unwrap();
    assert_eq!(found["TIDINGS_DRAIN"], "3s");
    assert_eq!(found["DATABASE_URL"], "postgres://a b");
    assert_eq!(found.len(), 2);
    assert!(std::env::var_os("TIDINGS_DRAIN").is_none());

    for line in ["DATABASE_URL=se'cret", "DATABASE_URL: se://cret", "export DATABASE_URL se://cret"]
    {
        std::fs::write(&path, format!("{line}\n")).unwrap();
        let sentence = from_file(&path).unwrap_err().to_string();
        assert!(sentence.contains("\"DATABASE_URL\""), "{sentence}");
        assert!(!sentence.contains("cret"), "{sentence}");
    }
}

#[cfg(unix)]
#[test]
fn a_value_that_is_not_text_is_refused_by_name() {
    use std::os::unix::ffi::OsStringExt;
    let broken = || std::ffi::OsString::from_vec(vec![0xff]);
    let sentence = from_environment([("TIDINGS_LOG".into(), broken())].into_iter()).unwrap_err();
    assert!(sentence.to_string().starts_with("TIDINGS_LOG is not UTF-8"));
    assert!(from_environment([("OTHER".into(), broken())].into_iter()).unwrap().is_empty());
}

#[test]
fn the_clients_server_comes_from_the_same_layers() {
    let layers = Layers::of(&[("TIDINGS_URL", "https://a.example/push")], &[]);
    let url = |flag: Option<&str>, layers: &Layers| server_url(&flag.map(str::to_owned), layers);
    assert_eq!(url(None, &layers).unwrap().as_str(), "https://a.example/push");
    assert_eq!(url(Some("http://b"), &layers).unwrap().as_str(), "http://b/");
    assert_eq!(url(None, &Layers::default()).unwrap().as_str(), "http://127.0.0.1:8080/");
    let sentence = url(Some("localhost:8080"), &layers).unwrap_err().to_string();
    assert!(sentence.starts_with("TIDINGS_URL (--url) is \"localhost:8080\""), "{sentence}");
}

/// Every variable is in the help, beside the flag of its name, and a default that the help states
/// is the default.
#[test]
fn the_help_tells_every_variable_and_the_true_defaults() {
    let mut found = Vec::new();
    let mut defaults = Vec::new();
    let commands = Cli::command();
    let send = commands.find_subcommand("send").unwrap();
    for argument in commands.get_arguments().chain(send.get_arguments()) {
        let help = argument.get_help().unwrap_or_default().to_string();
        let part = |mark: &str| Some(help.split_once(mark)?.1.split_once(']')?.0.to_owned());
        let Some(variable) = part("[env: ") else { continue };
        assert_eq!(format!("--{}", argument.get_long().unwrap()), flag_of(&variable));
        defaults.extend(part("[default: ").map(|default| (variable.clone(), default)));
        found.push(variable);
    }
    found.sort();
    assert_eq!(found, KNOWN);

    let stated: Vec<_> =
        defaults.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(stated.len(), 12, "{stated:?}");
    assert_eq!(format!("{:?}", from(&stated)), format!("{:?}", Config::default()));
}
