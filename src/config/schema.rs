//! The JSON Schema of the config, which is also what its shape is checked against.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::types::Config;

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let schema = SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<Config>();
    schema.to_value()
});

pub fn schema() -> &'static Value {
    &SCHEMA
}
