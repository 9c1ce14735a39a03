//! The configuration file: schema, validation with positions, difference.
