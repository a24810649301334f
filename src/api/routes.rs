//! The table of routes: routing, `Allow`, OpenAPI's paths and the reference are made of it.

use std::time::Instant;

use super::parameters::{self, Accepts, FORMAT, GPU, MODEL, Parameter, STEP, WINDOW};
use super::worker::Worker;
use super::{codes_answer, job, openapi, page};
use crate::http::body_parts::Body;
use crate::http::refusal::Refusal;
use crate::http::reply::Reply;
use crate::http::request::Request;
use crate::sys::error_codes::ErrorCode::{self, *};
use crate::sys::explanation::{Explanation, Names};
use crate::sys::exposition;
use crate::sys::order;

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Anyone, even without WORKER_TOKEN; hidden from clients of an orchestrator's proxy.
    Open,
    /// Those with WORKER_TOKEN, where it is set; hidden as well.
    Token,
    /// Those with WORKER_TOKEN, and clients of an orchestrator's proxy.
    Jobs,
    /// A job of a client of an orchestrator's proxy, after a redirect: it has lost its method and body.
    Redirected,
}

impl Access {
    pub(crate) fn is_job(self) -> bool {
        matches!(self, Self::Jobs | Self::Redirected)
    }

    /// Who may use it, as the reference says it.
    pub(crate) fn users(self) -> &'static str {
        match self {
            Self::Open => "anyone",
            Self::Token => "token",
            Self::Jobs | Self::Redirected => "token, also proxied",
        }
    }
}

/// An answer of a route; errors have rows of their own.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Empty without a body.
    pub(crate) content_type: &'static str,
    /// Of OpenAPI; empty for text.
    pub(crate) schema: &'static str,
    pub(crate) meaning: &'static str,
}

#[derive(Debug)]
pub(crate) struct Route {
    /// GET stands for HEAD as well.
    pub(crate) method: &'static str,
    /// Compared as it comes: dot segments and escapes are not resolved.
    pub(crate) path: &'static str,
    pub(crate) access: Access,
    /// Parses the request and answers it. The instant is that of the request's start.
    pub(crate) answer: fn(&Worker, &Request<'_>, Instant) -> Result<Reply, Refusal>,
    /// `jobs`, `state` or `operation`.
    pub(crate) tag: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) details: &'static str,
    pub(crate) parameters: &'static [Parameter],
    pub(crate) answers: &'static [Answer],
    /// Beside [`ANYWHERE`] and `unauthorized`.
    pub(crate) errors: &'static [ErrorCode],
    /// Large answers are compressed where the client takes gzip.
    pub(crate) compressed: bool,
    /// Asked by programs that restart the worker, or send it nothing, unless its small answer comes within a second.
    pub(crate) probe: bool,
}

/// The route that CAPABILITY_NAME's routes repeat.
pub(crate) const JOB_PATH: &str = "/gpu-check";

/// Errors that every route may answer with.
pub(crate) const ANYWHERE: &[ErrorCode] =
    &[BadRequest, BadFraming, IncompleteBody, NotFound, MethodNotAllowed, Timeout, HeadTooLarge, Internal, AtCapacity];

const UNKNOWN_IS_NULL: &str = "Unknown values are null.";
const JSON: &str = "application/json";
const TEXT: &str = "text/plain";

const fn json(schema: &'static str, meaning: &'static str) -> Answer {
    Answer { status: 200, content_type: JSON, schema, meaning }
}

/// What most routes have in common.
const GET: Route = Route {
    method: "GET",
    path: "",
    access: Access::Token,
    answer: |_, _, _| Err(Refusal::new(NotFound, "")),
    tag: "state",
    summary: "",
    details: "",
    parameters: &[],
    answers: &[],
    errors: &[],
    compressed: false,
    probe: false,
};

const JOB: Route = Route {
    method: "POST",
    access: Access::Jobs,
    answer: |worker, request, start| {
        let agent_id = job::agent_id(request.body)?;
        worker.job(&agent_id, job::tickets(request), request.late, start)
    },
    tag: "jobs",
    answers: &[json(
        "JobReport",
        "The report; its first keys are status, agent_id, model_name, vram_usage_mb, total_models, timestamp, gpu_count",
    )],
    errors: &[
        BadJson,
        MissingAgentId,
        BadAgentId,
        BadPayment,
        TicketReused,
        BodyTooLarge,
        AtCapacity,
        NoSample,
        Draining,
        LedgerFailed,
    ],
    ..GET
};

pub(crate) const ROUTES: &[Route] = &[
    Route {
        path: "/",
        answer: |_, request, _| Ok(page::reply(request.if_none_match)),
        summary: "The status page: verdict and what to do, GPUs with their last hour, models, uptime, registrations, jobs",
        answers: &[
            Answer { status: 200, content_type: "text/html", schema: "", meaning: "The page; it updates itself" },
            Answer { status: 304, content_type: "", schema: "", meaning: "If-None-Match names this page" },
        ],
        compressed: true,
        ..GET
    },
    Route {
        path: "/",
        access: Access::Redirected,
        answer: |worker, request, _| worker.gpu(parameters::wants_text(request)?),
        tag: "jobs",
        ..GET
    },
    Route {
        path: JOB_PATH,
        summary: "The report, as the answer to a job",
        details: "The body is a JSON object with an agent_id of 1 to 256 characters. Other keys and any Content-Type are \
                  accepted. Livepeer-Payment is used only with Livepeer, and if TICKET_SUBMIT_URL is set.",
        ..JOB
    },
    Route { path: "/agent-net", summary: "The same as POST /gpu-check", ..JOB },
    Route {
        path: "/",
        summary: "The same as POST /gpu-check",
        details: "Jobs to /process/request/ and to a runner's /apps/ID/app/ arrive here.",
        ..JOB
    },
    Route {
        path: "/gpu",
        answer: |worker, request, _| worker.gpu(parameters::wants_text(request)?),
        summary: "The report without agent_id, with the registrations",
        details: "Text: key=value lines, safe to eval in a shell.",
        parameters: &[FORMAT],
        answers: &[
            json("Report", "The report"),
            Answer { status: 200, content_type: TEXT, schema: "", meaning: "The report" },
        ],
        errors: &[BadFormat, NoSample],
        compressed: true,
        ..GET
    },
    Route {
        path: "/models",
        answer: |worker, _, _| worker.models(),
        summary: "The models that Ollama has pulled and loaded",
        answers: &[json("Models", "The models")],
        errors: &[NoSample],
        ..GET
    },
    Route {
        path: "/uptime",
        answer: |worker, request, _| Ok(worker.uptime(parameters::uptime(request)?)),
        summary: "Uptime of the GPUs over 1h, 24h and 30d, and the minutes of one window",
        parameters: &[WINDOW, STEP],
        answers: &[json("Uptime", "The windows, and the steps of one of them")],
        errors: &[BadWindow, BadStep],
        ..GET
    },
    Route {
        path: "/history",
        answer: |worker, _, _| Ok(worker.history()),
        summary: "Temperature, power, utilization and VRAM of each GPU in the last hour, a mean for each minute; the speeds of models in their last probes",
        answers: &[json("History", "The curves")],
        compressed: true,
        ..GET
    },
    Route {
        path: "/agents",
        answer: |worker, _, _| Ok(worker.agents()),
        summary: "Agents that have sent jobs, the latest first, up to 1,024",
        answers: &[json("Agents", "The agents")],
        ..GET
    },
    Route {
        path: "/jobs",
        answer: |worker, _, _| Ok(worker.jobs()),
        summary: "Jobs since the start: counts by route and result, jobs in progress, duration",
        answers: &[json("Jobs", "The jobs")],
        ..GET
    },
    Route {
        path: "/peers",
        answer: |worker, _, _| Ok(worker.peers()),
        summary: "The workers of PEERS: verdict, worst reason, GPUs, models and speed of each, as last reported",
        details: "Each is asked every 15 s while this route is in use, otherwise once a minute. One that does not respond \
                  is unknown and keeps its last report.",
        answers: &[json("Peers", "The workers; empty without PEERS")],
        ..GET
    },
    Route {
        path: "/version",
        answer: |worker, _, _| Ok(worker.version()),
        summary: "Capability, model and version, in pytrickle's format",
        answers: &[json("Version", "Capability, model and version")],
        ..GET
    },
    Route {
        path: "/hardware/info",
        answer: |worker, _, _| worker.hardware(),
        summary: "The GPUs, in pytrickle's format",
        details: UNKNOWN_IS_NULL,
        answers: &[json("Hardware", "The GPUs by index")],
        errors: &[NoSample],
        ..GET
    },
    Route {
        path: "/hardware/stats",
        answer: |worker, _, _| worker.hardware_stats(),
        summary: "The load of the GPUs, in pytrickle's format",
        details: UNKNOWN_IS_NULL,
        answers: &[json("HardwareStats", "The GPUs by index")],
        errors: &[NoSample],
        ..GET
    },
    Route {
        path: "/capabilities",
        answer: |worker, _, _| Ok(worker.capabilities()),
        summary: "The names of CAPABILITY_NAME, as list_capabilities of Livepeer's Python SDK reads them",
        answers: &[json("Capabilities", "One row for each name")],
        ..GET
    },
    Route {
        path: "/codes",
        answer: |_, request, _| Ok(codes_answer::reply(request.accept)),
        summary: "The reason codes: what each means, when it clears and what to do",
        details: "The help of a reason points here. Browsers get a page with an anchor for each code.",
        answers: &[
            json("Codes", "The codes"),
            Answer {
                status: 200,
                content_type: "text/html",
                schema: "",
                meaning: "The same, if Accept names text/html",
            },
        ],
        compressed: true,
        ..GET
    },
    Route {
        path: "/metrics",
        answer: |worker, request, _| Ok(worker.metrics(exposition::wants_open(request.accept))),
        tag: "operation",
        summary: "Metrics for Prometheus",
        answers: &[
            Answer { status: 200, content_type: TEXT, schema: "", meaning: "Text format 0.0.4" },
            Answer {
                status: 200,
                content_type: "application/openmetrics-text",
                schema: "",
                meaning: "OpenMetrics, if Accept names it",
            },
        ],
        compressed: true,
        ..GET
    },
    Route {
        path: "/health",
        access: Access::Open,
        answer: |worker, _, _| worker.health(),
        tag: "operation",
        summary: "200 while the process serves, whatever the state of GPUs, Ollama and orchestrators",
        answers: &[json("Liveness", "It serves")],
        probe: true,
        ..GET
    },
    Route {
        path: "/ready",
        answer: |worker, request, _| worker.ready(parameters::ready(request)?.as_ref()),
        tag: "operation",
        summary: "200 if jobs may come, else 503 with the reasons",
        details: "With a model: 200 only while Ollama answers, the model is loaded with that share on the GPU, no reason \
                  about GPUs or Ollama is unhealthy, and the model's probes neither hang nor show that no GPU works. \
                  Reasons about other models do not count. `why` has a sentence for each failed condition.",
        parameters: &[MODEL, GPU],
        answers: &[
            json("Ready", "Jobs may come"),
            Answer {
                status: 503,
                content_type: JSON,
                schema: "Ready",
                meaning: "The verdict is unhealthy, or the model is not ready",
            },
        ],
        errors: &[BadModel, BadGpu, NoSample, Draining],
        probe: true,
        ..GET
    },
    Route {
        path: "/openapi.json",
        answer: |_, _, _| Ok(Reply::json(200, Body::packed(openapi::PACKED))),
        tag: "operation",
        summary: "All routes as OpenAPI 3.1",
        answers: &[json("OpenApi", "The document")],
        compressed: true,
        ..GET
    },
];

/// For `agent-net explain`, by path.
pub(crate) const NAMES: Names = Names { kind: "route", all: paths, find };

fn paths() -> Vec<&'static str> {
    let mut paths: Vec<&str> = listed().map(|route| route.path).collect();
    order::sort(&mut paths);
    paths.dedup();
    paths
}

/// A field for each method.
fn find(path: &str) -> Option<Explanation> {
    let name = listed().find(|route| route.path.eq_ignore_ascii_case(path))?.path;
    let fields = listed().filter(|route| route.path == name).map(|route| (route.method, route.explanation()));
    Some(Explanation::new(&NAMES, name, fields))
}

/// The routes that the documents list: a redirected job is not sent on purpose.
pub(crate) fn listed() -> impl Iterator<Item = &'static Route> {
    ROUTES.iter().filter(|route| route.access != Access::Redirected)
}

/// A target of a probe, also below the path of CAPABILITY_URL.
pub(crate) fn is_probe(target: &str) -> bool {
    let path = target.split('?').next().unwrap_or_default();
    ROUTES.iter().any(|route| route.probe && path.ends_with(route.path))
}

impl Route {
    fn explanation(&self) -> String {
        let mut parts = vec![format!("{}.", self.summary)];
        parts.extend((!self.details.is_empty()).then(|| self.details.to_owned()));
        parts.push(format!("Access: {} ({}).", self.access.users(), self.tag));
        parts.extend(self.parameters.iter().map(|parameter| {
            let default = match parameter.accepts {
                Accepts::WordsOrFirst(_) => ", the first by default",
                Accepts::Percent => ", 0 to 100, 100 by default",
                Accepts::Words(_) | Accepts::Model => "",
            };
            format!("{}{default}: {}.", parameter.form(), parameter.meaning)
        }));
        parts.extend(self.answers.iter().map(|answer| {
            let form = [answer.content_type, answer.schema].join(" ");
            format!("{} {}: {}.", answer.status, form.trim(), answer.meaning)
        }));
        let errors: Vec<&str> = self.errors.iter().chain(ANYWHERE).map(|code| code.row().name).collect();
        parts.push(format!("Errors: {}.", errors.join(", ")));
        parts.join(" ")
    }
}

#[cfg(test)]
mod tests;
