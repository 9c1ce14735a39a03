//! The HTTP API of a running agent: every endpoint, its limits, its secrets, and what it says when something hangs.

#[path = "../support/agents.rs"]
mod agents;
mod client;
mod endpoints;
mod hung;
mod limits;
mod listening;
mod scraped;
mod secured;
