//! The coordinator: takes plans, hands jobs to agents, stores evidence, judges.
//!
//! Floors, lowest first: `config`, `blocking`, `metrics` · `domain` (states; pure) · `decide` (placement, liveness; pure) · `store` (sled) ·
//! `engine` (the task that owns all state) · `notify` (webhooks, mail) · `rpc` · `web` (pages, metrics, health) · `app`.

pub mod app;
pub mod blocking;
pub mod config;
pub mod decide;
pub mod domain;
pub mod engine;
pub mod metrics;
pub mod notify;
pub mod rpc;
pub mod store;
pub mod web;
