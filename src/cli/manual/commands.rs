//! The table of commands.

use super::command::{Command, Opt, Value};

const fn option(flag: &'static str, value: Value, about: &'static str) -> Opt {
    Opt { flag, value, about }
}

const JSON: Opt = option("--json", Value::None, "print one JSON object");

/// All commands; those of a group follow each other.
pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "serve",
        operand: "",
        about: "run the worker until SIGTERM (default)",
        details: "\
Listens, and with ORCH_URL registers and stays registered. SIGTERM unregisters, refuses new jobs, finishes running
ones (10 s at most) and exits with 0. SIGHUP reads secret files again and re-registers immediately. SIGUSR1 does the
same as agent-net ack.

If systemd passes the listening socket (agent-net.socket), or agent-net hold-port holds it (PORT_SOCKET), the port
outlives the worker. SIGTERM then keeps the registrations and refuses no job: the next worker takes the jobs that wait.
SIGINT instead of SIGTERM unregisters.

A second SIGTERM or SIGINT exits immediately, except for SIGTERM after SIGINT.",
        options: &[],
        settings: true,
        example: "agent-net serve --server-port 9000 --model llama3.2:3b",
    },
    Command {
        name: "check",
        operand: "",
        about: "print the verdict and exit with it",
        details: "\
Asks the worker at URL, or the worker on this machine. Without one, it reads the GPUs and Ollama itself. The first
line is a Nagios/Icinga status line. A line for each GPU and the reasons follow. A driver that crashes or does not
respond within --timeout is unhealthy (2). A worker that does not respond is unreachable (3). --watch repeats until
SIGINT or until the output is closed. The exit code is then that of the last verdict.

Several --url are asked in parallel, 32 at a time, each for up to --timeout. Each is one line that begins with its
URL, --json prints an array, and the exit code is that of the worst verdict (ok, unknown, degraded, unhealthy).

--npd is for node-problem-detector: one line of at most 80 bytes of ASCII, exit code 0 (ok), 1 (problem) or 2
(unknown). A problem is an unhealthy verdict, with --degraded also a degraded one. It never reads the GPUs itself.",
        options: &[
            option(
                "--url",
                Value::Any("URL"),
                "base URL of a worker, may be repeated; :WORKER_TOKEN@ goes before the host",
            ),
            option(
                "--timeout",
                Value::Any("DURATION"),
                "limit for worker, driver and Ollama: 30, 30s, 500ms or 1m [30s; --npd: 4s]",
            ),
            option("--watch", Value::None, "repeat; a terminal is redrawn, other output is appended"),
            option("--interval", Value::Any("DURATION"), "interval of --watch [5s]"),
            option("--json", Value::None, "print the report as JSON, one line each time"),
            option("--text", Value::None, "print the report as key=value lines, safe to eval in a shell"),
            option("--npd", Value::None, "print and exit as node-problem-detector expects it"),
            option("--degraded", Value::None, "with --npd: degraded is a problem as well"),
        ],
        settings: true,
        example: "agent-net check --url http://10.0.0.7:9876",
    },
    Command {
        name: "doctor",
        operand: "",
        about: "diagnose this machine and suggest fixes",
        details: "\
Checks settings, driver, device nodes, GPUs, kernel log, Ollama, models, probes, orchestrators, clock, receivers of
notifications, push monitor, peers, state folder, and the ports of the worker and of hold-port.",
        options: &[JSON],
        settings: true,
        example: "agent-net doctor",
    },
    Command {
        name: "explain",
        operand: "[NAME]",
        about: "explain a code, setting, reading, metric, route or JSON field",
        details: "Without NAME it lists all names. Upper and lower case are the same.",
        options: &[JSON],
        settings: false,
        example: "agent-net explain TEMP_HIGH",
    },
    Command {
        name: "ack",
        operand: "",
        about: "acknowledge past errors on the local worker",
        details: "\
Clears XID_FATAL, XID_WARN and GPU_COUNT_LOW until something new happens. STATE_DIR keeps it over restarts. Run it as
the worker's user or as root. It reaches the worker through STATE_DIR/control.sock, or with SIGUSR1
if STATE_DIR is unset.",
        options: &[
            option(
                "--pid",
                Value::Any("N"),
                "process to signal; required if several workers run and STATE_DIR is unset",
            ),
            JSON,
        ],
        settings: true,
        example: "agent-net ack",
    },
    Command {
        name: "health",
        operand: "",
        about: "exit with 0 if the local worker responds, for HEALTHCHECK",
        details: "It does not check GPU, Ollama or orchestrator. Use agent-net check for that.",
        options: &[],
        settings: true,
        example: "agent-net health --server-port 9000",
    },
    Command {
        name: "hold-port",
        operand: "",
        about: "keep the port for jobs open while workers are replaced",
        details: "\
Listens on SERVER_HOST:SERVER_PORT and gives the listening socket to workers of the same user through the Unix socket
PORT_SOCKET (mode 0600). It accepts no connection: up to 1024 wait in the kernel while no worker runs. Workers with the
same PORT_SOCKET serve that port beside their own. Run it in a container of its own, next to the worker's.",
        options: &[],
        settings: true,
        example: "agent-net hold-port --port-socket /run/agent-net/port.sock --server-port 9877",
    },
    Command {
        name: "config",
        operand: "",
        about: "show the effective settings and their sources",
        details: "Secrets are shown as ***.",
        options: &[
            JSON,
            option("--runner-json", Value::None, "print this worker's entry for an orchestrator's -liveRunnerConfig"),
        ],
        settings: true,
        example: "agent-net config",
    },
    Command {
        name: "pull",
        operand: "MODEL",
        about: "pull a model into Ollama, with progress",
        details: "An interrupted pull resumes where it stopped. A worker pulls the models of its setting MODEL itself.",
        options: &[],
        settings: true,
        example: "agent-net pull llama3.2:3b --ollama-url http://10.0.0.7:11434",
    },
    Command {
        name: "probe",
        operand: "[MODEL]",
        about: "ask loaded models for a few tokens, as proof that they answer",
        details: "\
Sends one request to MODEL. Without MODEL it asks each model of the setting MODEL, and if that is unset, each loaded
model. Prints tokens per second, the times to load and to wait for others, and the highest utilization of a GPU. As
after any request, the time for which the model stays loaded starts again. A model that is not loaded is skipped. So is
one whose context length Ollama does not list (before 0.10), since a request could reload it. A model that serves a
request is asked all the same, and the answer waits for that request. One probe is not a verdict: use agent-net check
for that.",
        options: &[JSON],
        settings: true,
        example: "agent-net probe llama3.2:3b",
    },
    Command {
        name: "notify",
        operand: "",
        about: "send a test notification to each URL of NOTIFY_URL",
        details: "\
Sends one message of the event test, with the current verdict if a worker runs on this machine. Prints one line for each
URL: whether it accepted the message, and if not, why and what to do. The line has only the host of the URL.",
        options: &[option("--test", Value::None, "send it (required)")],
        settings: true,
        example: "agent-net notify --test --notify-url https://ntfy.sh/my-gpus --notify-format ntfy",
    },
    Command {
        name: "pm check",
        operand: "[-FLAG VALUE]...",
        about: "check whether jobs would be accepted and paid with these flags",
        details: "\
Shows for each era of go-livepeer (a: up to v0.8.6, b: v0.8.7 and v0.8.8, c: since v0.8.9) which program refuses a
job, why, and the smallest change that helps. Does the same for a Live Runner if it finds RUNNER_PRICE,
-useLiveRunners or a -remoteSigner. A FILE is any text that holds the flags: a compose file, a unit, a script. It may
hold several programs, distinguished by -orchestrator, -gateway and -remoteSigner. Without a FILE, the files in
./compose are checked. A flag overrides the files. An AMOUNT is whole wei or has a unit: 18gwei, 0.001eth.",
        options: &[
            option("--orchestrator", Value::File, "file with the orchestrator's flags"),
            option("--gateway", Value::File, "file with the gateway's flags"),
            option("--signer", Value::File, "file with the flags of the clients' remote signer"),
            option("--worker", Value::File, "file with CAPABILITY_PRICE_PER_UNIT, RUNNER_PRICE and similar"),
            option("--era", Value::Of(&["a", "b", "c", "all"]), "releases of go-livepeer [all]"),
            JSON,
            option("-ticketEV", Value::Any("AMOUNT"), "orchestrator [8000000000]"),
            option("-maxFaceValue", Value::Any("AMOUNT"), "orchestrator [0: no cap]"),
            option("-autoAdjustPrice", Value::Of(&["true", "false"]), "orchestrator [true]"),
            option("-minGasPrice", Value::Any("AMOUNT"), "orchestrator [0]"),
            option("-maxGasPrice", Value::Any("AMOUNT"), "orchestrator [0: none]"),
            option("-network", Value::Any("NAME"), "orchestrator [an Arbitrum network]"),
            option("-useLiveRunners", Value::Of(&["true", "false"]), "orchestrator [false]"),
            option("-maxTicketEV", Value::Any("AMOUNT"), "gateway and signer [3000000000000]"),
            option("-maxTotalEV", Value::Any("AMOUNT"), "gateway and signer [20000000000000]"),
            option("-depositMultiplier", Value::Any("N"), "gateway and signer [1]"),
            option("-maxPricePerUnit", Value::Any("PRICE"), "signer, such as 0.001USD [0: none]"),
            option("--runner-price", Value::Any("PRICE"), "such as 0.0005usd/fixed [RUNNER_PRICE]"),
            option("--eth-price", Value::Any("DOLLARS"), "price of an ETH; required with RUNNER_PRICE"),
            option(
                "--orch-protocol",
                Value::Of(&["auto", "byoc", "live-runner", "both"]),
                "how the worker registers [ORCH_PROTOCOL, else auto]",
            ),
            option("--price-per-unit", Value::Any("AMOUNT"), "price of one second [CAPABILITY_PRICE_PER_UNIT, else 0]"),
            option("--price-scaling", Value::Any("N"), "divisor of the price [1]"),
            option("--price-currency", Value::Of(&["wei", "eth"]), "currency of the price [wei]"),
            option("--timeout", Value::Any("SECONDS"), "the job's timeout_seconds [60]"),
            option("--gas-price", Value::Any("AMOUNT"), "gas price of the chain [0.01gwei]"),
            option("--redeem-gas", Value::Any("N"), "gas for redeeming a winner [1200000; 350000 on Ethereum]"),
            option("--deposit", Value::Any("AMOUNT"), "deposit of the gateway's or signer's account [0.1eth]"),
            option("--reserve", Value::Any("AMOUNT"), "reserve of the gateway's or signer's account [1eth]"),
            option("--balance", Value::Any("AMOUNT"), "balance of the gateway at the orchestrator [0]"),
            option("--pool-size", Value::Any("N"), "active orchestrators that share the reserve [100]"),
            option("--claimed", Value::Any("AMOUNT"), "part of this orchestrator's share claimed in this round [0]"),
            option("--pending", Value::Any("AMOUNT"), "face value of winners being redeemed [0]"),
        ],
        settings: false,
        example: "agent-net pm check --orchestrator orch.yml --gateway gw.yml",
    },
    Command {
        name: "pm winprob",
        operand: "",
        about: "show the odds of a ticket",
        details: "Shows them as go-livepeer's 256-bit number and as 1 in N. An AMOUNT is whole wei or has a unit: 18gwei, 0.001eth.",
        options: &[
            option("--ticket-ev", Value::Any("AMOUNT"), "expected value of a ticket"),
            option("--face-value", Value::Any("AMOUNT"), "face value of a winning ticket"),
            option("--tickets", Value::Any("N"), "number of tickets: also print the chance that none of them wins"),
            JSON,
        ],
        settings: false,
        example: "agent-net pm winprob --ticket-ev 18gwei --face-value 180gwei",
    },
    Command {
        name: "pm ticket",
        operand: "",
        about: "decode a Livepeer-Payment header and verify its signatures",
        details: "Shows the signers. With the recipient's random number it also shows which tickets win.",
        options: &[
            option("--payment", Value::Any("BASE64|@FILE|-"), "the header, a file with it, or standard input"),
            option("--recipient-rand", Value::Any("N"), "the recipient's random number"),
            JSON,
        ],
        settings: false,
        example: "agent-net pm ticket --payment @header.txt",
    },
    Command {
        name: "pm ledger",
        operand: "",
        about: "list tickets received with jobs and their outcome",
        details: "Lists tickets sent directly to the worker, bypassing the orchestrator, and the response of TICKET_SUBMIT_URL.",
        options: &[option("--state-dir", Value::Folder, "folder of the ledger [STATE_DIR]"), JSON],
        settings: false,
        example: "agent-net pm ledger --state-dir /var/lib/agent-net",
    },
    Command {
        name: "completions",
        operand: "bash|zsh|fish",
        about: "print completions for bash, zsh or fish",
        details: "",
        options: &[],
        settings: false,
        example: "source <(agent-net completions bash)",
    },
    Command {
        name: "man",
        operand: "",
        about: "print the manual page",
        details: "",
        options: &[],
        settings: false,
        example: "agent-net man | man -l -",
    },
];

/// The command of this name.
pub(crate) fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.name == name)
}

/// What the only group does.
pub(super) const GROUP_ABOUT: &str = "check payment flags, ticket odds and tickets (offline)";

/// What a command or the group does, by its first word.
pub(super) fn about(word: &str) -> &'static str {
    find(word).map_or(GROUP_ABOUT, |command| command.about)
}

/// The words that a command or a group is called by, the group's own name among them.
pub(super) fn first_words() -> Vec<&'static str> {
    let mut words: Vec<&str> = COMMANDS.iter().map(|c| c.name.split(' ').next().unwrap_or_default()).collect();
    words.dedup();
    words
}

/// The first words, as errors list them.
pub(crate) fn names() -> String {
    first_words().join(", ")
}

/// The second words of a group.
pub(crate) fn names_in(group: &str) -> String {
    second_words(group).join(", ")
}

pub(super) fn second_words(group: &str) -> Vec<&'static str> {
    members(group).map(|(word, _)| word).collect()
}

/// The commands of a group, by their second words.
pub(super) fn members(group: &str) -> impl Iterator<Item = (&'static str, &'static Command)> {
    COMMANDS.iter().filter_map(move |command| {
        let (first, second) = command.name.split_once(' ')?;
        (first == group).then_some((second, command))
    })
}
