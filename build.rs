//! Points sqlx's compile-time checked queries at `sqlx-data/`, so that the crate builds from a clean
//! clone with no database. An environment that already says otherwise (the freshness check in
//! `.ci/run`, a developer with `SQLX_OFFLINE=false`) wins.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
    println!("cargo:rerun-if-changed=sqlx.toml");
    println!("cargo:rerun-if-changed=sqlx-data");
    let manifest = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    for (name, value) in
        [("SQLX_OFFLINE_DIR", format!("{manifest}/sqlx-data")), ("SQLX_OFFLINE", "true".to_owned())]
    {
        println!("cargo:rerun-if-env-changed={name}");
        if std::env::var_os(name).is_none() {
            println!("cargo:rustc-env={name}={value}");
        }
    }
}
