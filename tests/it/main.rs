//! The real binaries against fakes of everything around them.

#![allow(
    unreachable_pub,
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod ack;
mod activity;
mod agents;
mod bad_input;
mod beats;
mod boards;
mod check;
mod check_watch;
mod cli;
mod codes;
mod counting;
mod coverage;
mod crowd;
mod dates;
mod doctor;
mod draining;
mod examples;
mod fake_dns;
mod fake_gateway;
mod fake_login;
mod fake_ollama;
mod fake_orchestrator;
mod fake_proxy;
mod fake_runners;
mod fake_static_runners;
mod fake_ticket_server;
mod faults;
mod field;
mod framing;
mod gpus;
mod harness;
mod http;
mod image;
mod job_routes;
mod jobs;
mod keeper;
mod keeper_clients;
mod keeper_failures;
mod keeper_pulls;
mod keeper_recordings;
mod kernel_log;
mod lease;
mod ledger;
mod listen;
mod load;
mod logging;
mod manual;
mod memory;
mod metrics;
mod model_store;
mod monitoring;
mod nvml;
mod ollama;
mod ollama_client;
mod openapi;
mod page;
mod picture;
mod pm;
mod pm_limits;
mod pm_live;
mod pm_naive;
mod pm_random;
mod pool;
mod probe_answers;
mod probe_clients;
mod probe_command;
mod probe_gpus;
mod probe_rules;
mod probe_untrue;
mod probes;
mod process_names;
mod prose;
mod proxy;
mod pull;
mod readings;
mod readings_table;
mod ready_model;
mod real_nvml;
mod recordings;
mod registration;
#[path = "../stack/request.rs"]
mod request;
mod resolver;
mod restarts;
mod rooms;
mod rules;
mod runner_list;
mod runners;
mod scheduler;
mod scheduler_faults;
mod scheduler_recordings;
mod scripts;
mod sdk;
mod smoke;
mod smuggling;
mod stack;
mod tables;
mod tegra;
mod thrift;
mod tickets;
mod tidy;
mod tls;
mod uptime;
mod visibility;
mod wallet;
mod warnings;
mod watchdog;
