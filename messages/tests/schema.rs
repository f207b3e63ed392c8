//! The committed documents are those that the types give. `VITA_BLESS=1` rewrites them.

use std::path::Path;

use vita_messages::schema;

#[track_caller]
fn assert_committed(file: &str, document: &serde_json::Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("schema")
        .join(file);
    let generated = format!("{}\n", serde_json::to_string_pretty(document).unwrap());
    if std::env::var_os("VITA_BLESS").is_some() {
        std::fs::write(&path, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == generated,
        "{} is not what the types give; run this test with VITA_BLESS=1",
        path.display()
    );
}

#[test]
fn json_schema_is_as_committed() {
    assert_committed(schema::JSON_SCHEMA_FILE, &schema::json_schema());
}

#[test]
fn asyncapi_is_as_committed() {
    assert_committed(schema::ASYNCAPI_FILE, &schema::asyncapi());
}
