//! Plans, carried out on tables of plain collections.

mod plans;
mod properties;
mod world;
