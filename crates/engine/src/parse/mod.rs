//! From bytes to events.
