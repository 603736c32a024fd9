//! The server: roles, sources, log, store, API, command line.
//!
//! The path of one event leads through [`api`], [`log`], [`feed`], [`engine_thread`], [`commit`], [`store`] and [`live`];
//! see `ARCHITECTURE.md`. It must not know how a statistic is computed.

pub mod api;
pub mod app;
pub mod backlog;
pub mod capsule;
pub mod checkpoint;
pub mod checkpoint_files;
pub mod cli;
pub mod clock;
pub mod command;
pub mod commit;
pub mod config;
pub mod data_dir;
pub mod demo;
pub mod desk;
pub mod directory;
pub mod disk;
pub mod engine_thread;
pub mod fatal;
pub mod feed;
pub mod freshness;
pub mod ids;
pub mod kafka;
pub mod live;
pub mod log;
pub mod logging;
pub mod notify;
pub mod plot;
pub mod points;
pub mod problem;
pub mod redis;
pub mod results;
pub mod roles;
pub mod room;
pub mod run;
pub mod serve;
pub mod share;
pub mod sharing;
pub mod silence;
mod sqlite;
pub mod stats;
pub mod store;
mod tick;
pub mod upload;
