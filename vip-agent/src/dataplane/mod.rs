//! The BPF side: load, pin, attach, ownership words, VIP tables, announcements, counters, events.

pub mod announce;
