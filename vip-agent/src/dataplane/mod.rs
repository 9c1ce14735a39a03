//! The BPF side: load, pin, attach, ownership words, VIP tables, announcements, counters, events.

mod object;

pub use object::OBJECT;
