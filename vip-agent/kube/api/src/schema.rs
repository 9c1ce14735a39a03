//! Schemas of texts, checked by the API server before we see them: patterns, as no server before 1.25 knows CEL.

use schemars::{Schema, SchemaGenerator, json_schema};

/// A CIDR, `A-B`, or one address. What it means is [`crate::AddressRange`]'s to say.
pub(crate) fn ranges(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": 64,
        "items": { "type": "string", "maxLength": 91, "pattern": r"^[0-9A-Fa-f:.]+(/[0-9]{1,3}| *- *[0-9A-Fa-f:.]+)?$" }
    })
}

/// One address, with or without a prefix length.
pub(crate) fn address(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "maxLength": 49, "pattern": r"^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$", "nullable": true })
}

/// The name of a VipPool.
pub(crate) fn pool(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "minLength": 1, "maxLength": 253, "nullable": true })
}

/// Labels that a node has to have.
pub(crate) fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "maxProperties": 64, "additionalProperties": { "type": "string", "maxLength": 63 } })
}

/// RFC 3339.
pub(crate) fn time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "date-time" })
}

/// RFC 3339, or nothing.
pub(crate) fn optional_time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "date-time", "nullable": true })
}
