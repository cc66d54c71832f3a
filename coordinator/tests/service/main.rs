//! The coordinator as agents and people meet it: real tonic on a Unix socket, a scripted agent.

mod cancel;
mod crash;
mod leases;
mod people;
mod scripted;
mod way;
