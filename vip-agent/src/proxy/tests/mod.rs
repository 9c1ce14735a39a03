//! Real clients and backends on loopback addresses, and a proxy between them.

mod backends;
mod endings;
mod fixture;
mod headers;
mod moves;
