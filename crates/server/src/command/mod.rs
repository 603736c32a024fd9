//! The commands, a file each.

pub mod all;
pub mod config;
pub mod demo;
pub mod detect;
pub mod openapi;
