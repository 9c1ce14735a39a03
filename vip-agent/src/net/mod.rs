//! The kernel by rtnetlink and sysctl: links, addresses, neighbours, and the journal of what we changed.
