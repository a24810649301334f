//! The table.

use super::{Command, Opt, Value};

const fn option(flag: &'static str, value: Value, about: &'static str) -> Opt {
    Opt { flag, value, about }
}

const JSON: Opt = option("--json", Value::None, "one JSON object instead of lines for people");

/// All commands; those of a group follow each other.
pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "serve",
        operand: "",
        about: "answer jobs until SIGTERM; the default",
        details: "\
It listens, registers where ORCH_URL is set, and stays registered. SIGTERM unregisters, refuses new jobs, finishes
those in flight (10 s at most) and ends with 0. SIGHUP reads secret files anew and registers at once. SIGUSR1 does
what agent-net ack does.",
        options: &[],
        settings: true,
        example: "agent-net serve --server-port 9000 --model llama3.2:3b",
    },
    Command {
        name: "check",
        operand: "",
        about: "the verdict once; the exit code is the verdict",
        details: "\
Asks the worker at URL, else the one of this machine, else reads the GPUs and Ollama by itself. The first line says
it all, as Nagios and Icinga want it; then come a line for each GPU and the reasons. A driver that does not answer
within --timeout, or that crashes, is unhealthy (2); a worker that does not is unreachable (3).
With --watch it goes on until SIGINT or until its output is closed; the exit code is that of the last verdict.",
        options: &[
            option("--url", Value::Any("URL"), "of a worker"),
            option("--timeout", Value::Any("DURATION"), "for worker, driver and Ollama: 30, 30s, 500ms or 1m [30s]"),
            option(
                "--watch",
                Value::None,
                "again and again; a terminal is drawn again, elsewhere blocks follow each other",
            ),
            option("--interval", Value::Any("DURATION"), "of --watch [5s]"),
            option("--json", Value::None, "the report as JSON, one line each time"),
            option("--text", Value::None, "the report as key=value lines, safe to eval in a shell"),
        ],
        settings: true,
        example: "agent-net check --url http://10.0.0.7:9876",
    },
    Command {
        name: "doctor",
        operand: "",
        about: "what is wrong on this machine, and how to fix it",
        details: "\
Looks at device nodes, driver, library, helper, container, Ollama, models, settings, port, state folder, clock and
orchestrators.",
        options: &[JSON],
        settings: true,
        example: "agent-net doctor",
    },
    Command {
        name: "explain",
        operand: "[NAME]",
        about: "explain a public name: a reason code",
        details: "Without NAME it lists all names. Upper and lower case are the same.",
        options: &[JSON],
        settings: false,
        example: "agent-net explain TEMP_HIGH",
    },
    Command {
        name: "ack",
        operand: "",
        about: "tell the worker here that its errors so far are known",
        details: "\
Clears XID_FATAL, XID_WARN and GPU_COUNT_LOW until something new happens. It needs the worker's user or root,
and reaches the worker by STATE_DIR/control.sock, else by SIGUSR1.",
        options: &[
            option(
                "--pid",
                Value::Any("N"),
                "of the worker, to signal it; needed where several run and STATE_DIR is unset",
            ),
            JSON,
        ],
        settings: true,
        example: "agent-net ack",
    },
    Command {
        name: "health",
        operand: "",
        about: "whether the worker here serves, for HEALTHCHECK",
        details: "It says nothing about GPU, Ollama or orchestrator: see check.",
        options: &[],
        settings: true,
        example: "agent-net health --server-port 9000",
    },
    Command {
        name: "config",
        operand: "",
        about: "the settings and where each came from",
        details: "Secrets are shown as ***.",
        options: &[
            JSON,
            option("--runner-json", Value::None, "this worker's entry for an orchestrator's -liveRunnerConfig instead"),
        ],
        settings: true,
        example: "agent-net config",
    },
    Command {
        name: "pull",
        operand: "MODEL",
        about: "pull a model into Ollama and show how far it is",
        details: "A pull that is broken off goes on where it stopped. A worker pulls the models of its setting MODEL by itself.",
        options: &[],
        settings: true,
        example: "agent-net pull llama3.2:3b --ollama-url http://10.0.0.7:11434",
    },
    Command {
        name: "pm check",
        operand: "[-FLAG VALUE]...",
        about: "whether jobs are accepted and paid with these flags",
        details: "\
For each era of go-livepeer (a: up to v0.8.6, b: v0.8.7 and v0.8.8, c: since v0.8.9): who refuses a job and why, and
the smallest change that helps. The same for a Live Runner, where RUNNER_PRICE, -useLiveRunners or a
-remoteSigner is found. A FILE is any text that holds the flags: a compose file, a unit, a script; it may hold several
programs, told apart by -orchestrator, -gateway and -remoteSigner. Without any, those in ./compose are checked. A flag
wins over the files.",
        options: &[
            option("--orchestrator", Value::File, "with the orchestrator's flags"),
            option("--gateway", Value::File, "with the gateway's flags"),
            option("--signer", Value::File, "with the flags of the clients' remote signer"),
            option("--worker", Value::File, "with CAPABILITY_PRICE_PER_UNIT, RUNNER_PRICE and the like"),
            option("--era", Value::Of(&["a", "b", "c", "all"]), "[all]"),
            JSON,
            option("-ticketEV", Value::Any("AMOUNT"), "orchestrator [8000000000]"),
            option("-maxFaceValue", Value::Any("AMOUNT"), "orchestrator [0: no cap]"),
            option("-autoAdjustPrice", Value::Of(&["true", "false"]), "orchestrator [true]"),
            option("-minGasPrice", Value::Any("AMOUNT"), "orchestrator [0]"),
            option("-maxGasPrice", Value::Any("AMOUNT"), "orchestrator [0: none]"),
            option("-network", Value::Any("NAME"), "orchestrator [an Arbitrum]"),
            option("-useLiveRunners", Value::Of(&["true", "false"]), "orchestrator [false]"),
            option("-maxTicketEV", Value::Any("AMOUNT"), "gateway and signer [3000000000000]"),
            option("-maxTotalEV", Value::Any("AMOUNT"), "gateway and signer [20000000000000]"),
            option("-depositMultiplier", Value::Any("N"), "gateway and signer [1]"),
            option("-maxPricePerUnit", Value::Any("PRICE"), "signer, e.g. 0.001USD [0: none]"),
            option("--runner-price", Value::Any("PRICE"), "e.g. 0.0005usd/fixed [RUNNER_PRICE]"),
            option("--eth-price", Value::Any("DOLLARS"), "for an ETH; needed with a runner's price"),
            option(
                "--orch-protocol",
                Value::Of(&["auto", "byoc", "live-runner", "both"]),
                "[ORCH_PROTOCOL, else auto]",
            ),
            option("--price-per-unit", Value::Any("AMOUNT"), "of one second [CAPABILITY_PRICE_PER_UNIT, else 0]"),
            option("--price-scaling", Value::Any("N"), "[1]"),
            option("--price-currency", Value::Of(&["wei", "eth"]), "[wei]"),
            option("--timeout", Value::Any("SECONDS"), "the job's timeout_seconds [60]"),
            option("--gas-price", Value::Any("AMOUNT"), "[0.01gwei]"),
            option("--redeem-gas", Value::Any("N"), "[1200000; 350000 on Ethereum]"),
            option("--deposit", Value::Any("AMOUNT"), "of the gateway's or signer's account [0.1eth]"),
            option("--reserve", Value::Any("AMOUNT"), "of the gateway's or signer's account [1eth]"),
            option("--balance", Value::Any("AMOUNT"), "of the gateway at the orchestrator [0]"),
            option("--pool-size", Value::Any("N"), "active orchestrators, who share the reserve [100]"),
            option("--claimed", Value::Any("AMOUNT"), "of this orchestrator's share, in this round [0]"),
            option("--pending", Value::Any("AMOUNT"), "winners that are being redeemed [0]"),
        ],
        settings: false,
        example: "agent-net pm check --orchestrator orch.yml --gateway gw.yml",
    },
    Command {
        name: "pm winprob",
        operand: "",
        about: "the odds of a ticket",
        details: "As go-livepeer's 256-bit number, and as 1 in so many. An AMOUNT is whole wei or has a unit: 18gwei, 0.001eth.",
        options: &[
            option("--ticket-ev", Value::Any("AMOUNT"), "what tickets are worth on average"),
            option("--face-value", Value::Any("AMOUNT"), "what a winner is worth"),
            option("--tickets", Value::Any("N"), "how likely so many tickets win at least once"),
            JSON,
        ],
        settings: false,
        example: "agent-net pm winprob --ticket-ev 18gwei --face-value 180gwei",
    },
    Command {
        name: "pm ticket",
        operand: "",
        about: "what a Livepeer-Payment header holds",
        details: "Whose signatures are in it, and with the recipient's random number which tickets win.",
        options: &[
            option("--payment", Value::Any("BASE64|@FILE|-"), "the header, a file that holds it, or standard input"),
            option("--recipient-rand", Value::Any("N"), "the recipient's number"),
            JSON,
        ],
        settings: false,
        example: "agent-net pm ticket --payment @header.txt",
    },
    Command {
        name: "pm ledger",
        operand: "",
        about: "tickets that came with jobs, and what became of them",
        details: "Those that came past the orchestrator, and what TICKET_SUBMIT_URL answered to them.",
        options: &[option("--state-dir", Value::Folder, "where the worker keeps them [STATE_DIR]"), JSON],
        settings: false,
        example: "agent-net pm ledger --state-dir /var/lib/agent-net",
    },
    Command {
        name: "completions",
        operand: "bash|zsh|fish",
        about: "completions for a shell, to be sourced or installed",
        details: "",
        options: &[],
        settings: false,
        example: "source <(agent-net completions bash)",
    },
    Command {
        name: "man",
        operand: "",
        about: "the manual page",
        details: "",
        options: &[],
        settings: false,
        example: "agent-net man | man -l -",
    },
];
