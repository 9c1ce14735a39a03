//! Steering against models and an independent packet reader.

mod maglev;
