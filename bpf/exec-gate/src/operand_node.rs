//! What Node runs, by its arguments (src/node_options.cc). It has no clusters of options; "_" is "-" in their names.

use crate::operand::{Code, beside_loaded};

/// Options with a value, which may be the next argument.
const VALUED: &[&str] = &[
    "--allow-fs-read",
    "--allow-fs-write",
    "--conditions",
    "--cpu-prof-dir",
    "--cpu-prof-interval",
    "--cpu-prof-name",
    "--debug-port",
    "--diagnostic-dir",
    "--disable-proto",
    "--disable-warning",
    "--dns-result-order",
    "--experimental-default-type",
    "--experimental-test-tag-filter",
    "--heap-prof-dir",
    "--heap-prof-interval",
    "--heap-prof-name",
    "--heapsnapshot-near-heap-limit",
    "--heapsnapshot-signal",
    "--icu-data-dir",
    "--input-type",
    "--inspect-port",
    "--inspect-publish-uid",
    "--localstorage-file",
    "--max-http-header-size",
    "--max-old-space-size-percentage",
    "--network-family-autoselection-attempt-timeout",
    "--redirect-warnings",
    "--report-dir",
    "--report-directory",
    "--report-filename",
    "--report-signal",
    "--secure-heap",
    "--secure-heap-min",
    "--security-revert",
    "--security-reverts",
    "--test-concurrency",
    "--test-coverage-branches",
    "--test-coverage-exclude",
    "--test-coverage-functions",
    "--test-coverage-include",
    "--test-coverage-lines",
    "--test-name-pattern",
    "--test-random-seed",
    "--test-reporter-destination",
    "--test-rerun-failures",
    "--test-shard",
    "--test-skip-pattern",
    "--test-timeout",
    "--title",
    "--tls-cipher-list",
    "--tls-keylog",
    "--trace-event-categories",
    "--trace-event-file-pattern",
    "--trace-require-module",
    "--unhandled-rejections",
    "--use-largepages",
    "--v8-pool-size",
    "--watch-kill-signal",
    "--watch-path",
    "-C",
];
/// These take a value in some versions of Node, and none in others.
const EITHER: &[&str] = &[
    "--es-module-specifier-resolution",
    "--experimental-specifier-resolution",
    "--http-parser",
    "--policy-integrity",
    "--stack-trace-limit",
];
/// These name a file that holds code or says what else to load; nothing tells what that is.
const BESIDE: &[&str] = &[
    "--build-sea",
    "--build-snapshot-config",
    "--env-file",
    "--env-file-if-exists",
    "--experimental-config-file",
    "--experimental-default-config-file",
    "--experimental-package-map",
    "--experimental-policy",
    "--experimental-sea-config",
    "--openssl-config",
    "--snapshot-blob",
    "--test-global-setup",
];
/// What is loaded before the script, by path or by the name of a package.
const LOADED: &[&str] = &["--require", "-r", "--import", "--loader", "--experimental-loader"];
const INLINE: &[&str] = &["-e", "--eval", "-pe"];
/// These take the next argument for code if it does not begin with "-"; else they are options without a value.
const PRINT: &[&str] = &["-p", "--print"];
/// By name, those of Node 18 to 24 and some of V8: of `--experimental-`, `--test-`, `--trace-` and so on, some take a value, and
/// so may those that come with later versions.
const PLAIN: &[&str] = &[
    "-c",
    "-h",
    "-v",
    "--abort-on-uncaught-exception",
    "--addons",
    "--allow-addons",
    "--allow-child-process",
    "--allow-inspector",
    "--allow-natives-syntax",
    "--allow-wasi",
    "--allow-worker",
    "--async-context-frame",
    "--build-snapshot",
    "--check",
    "--completion-bash",
    "--cpu-prof",
    "--deprecation",
    "--disable-sigusr1",
    "--disable-wasm-trap-handler",
    "--enable-etw-stack-walking",
    "--enable-fips",
    "--enable-network-family-autoselection",
    "--enable-source-maps",
    "--experimental-abortcontroller",
    "--experimental-addon-modules",
    "--experimental-async-context-frame",
    "--experimental-detect-module",
    "--experimental-eventsource",
    "--experimental-fetch",
    "--experimental-global-customevent",
    "--experimental-global-navigator",
    "--experimental-global-webcrypto",
    "--experimental-import-meta-resolve",
    "--experimental-import-text",
    "--experimental-inspector-network-resource",
    "--experimental-json-modules",
    "--experimental-modules",
    "--experimental-network-imports",
    "--experimental-network-inspection",
    "--experimental-permission",
    "--experimental-print-required-tla",
    "--experimental-quic",
    "--experimental-repl-await",
    "--experimental-report",
    "--experimental-require-module",
    "--experimental-shadow-realm",
    "--experimental-sqlite",
    "--experimental-storage-inspection",
    "--experimental-stream-iter",
    "--experimental-strip-types",
    "--experimental-test-coverage",
    "--experimental-test-module-mocks",
    "--experimental-test-snapshots",
    "--experimental-top-level-await",
    "--experimental-transform-types",
    "--experimental-vm-modules",
    "--experimental-wasi-unstable-preview1",
    "--experimental-wasm-modules",
    "--experimental-websocket",
    "--experimental-webstorage",
    "--experimental-worker",
    "--experimental-worker-inspection",
    "--expose-gc",
    "--expose-internals",
    "--extra-info-on-fatal-exception",
    "--force-context-aware",
    "--force-fips",
    "--force-node-api-uncaught-exceptions-policy",
    "--frozen-intrinsics",
    "--global-search-paths",
    "--heap-prof",
    "--help",
    "--insecure-http-parser",
    "--inspect",
    "--inspect-brk",
    "--inspect-wait",
    "--jitless",
    "--node-memory-debug",
    "--node-snapshot",
    "--openssl-legacy-provider",
    "--openssl-shared-config",
    "--pending-deprecation",
    "--permission",
    "--preserve-symlinks",
    "--preserve-symlinks-main",
    "--prof",
    "--report-compact",
    "--report-exclude-env",
    "--report-exclude-network",
    "--report-on-fatalerror",
    "--report-on-signal",
    "--report-uncaught-exception",
    "--strip-types",
    "--test-force-exit",
    "--test-only",
    "--test-randomize",
    "--test-udp-no-try-send",
    "--test-update-snapshots",
    "--throw-deprecation",
    "--tls-max-v1.2",
    "--tls-max-v1.3",
    "--tls-min-v1.0",
    "--tls-min-v1.1",
    "--tls-min-v1.2",
    "--tls-min-v1.3",
    "--trace-atomics-wait",
    "--trace-deopt",
    "--trace-deprecation",
    "--trace-env",
    "--trace-env-js-stack",
    "--trace-env-native-stack",
    "--trace-events-enabled",
    "--trace-exit",
    "--trace-gc",
    "--trace-opt",
    "--trace-promises",
    "--trace-sigint",
    "--trace-sync-io",
    "--trace-tls",
    "--trace-uncaught",
    "--trace-warnings",
    "--track-heap-objects",
    "--use-bundled-ca",
    "--use-env-proxy",
    "--use-openssl-ca",
    "--use-system-ca",
    "--v8-options",
    "--verify-base-objects",
    "--version",
    "--warnings",
    "--watch",
    "--watch-preserve-output",
];
/// Beginnings of the names of options without a value, as far as they are not above. But for the first they are V8's, which
/// Node hands on to it without what is behind them.
const PLAIN_BEGINNINGS: &[&str] = &["--no-", "--harmony", "--perf-"];

// Where Node takes a name for a URL: whether it means something else as one than as a path.
fn is_no_plain_name(name: &[u8]) -> bool {
    name.iter()
        .any(|byte| matches!(byte, b'%' | b'?' | b'#' | b':' | b'\\') || *byte <= b' ' || !byte.is_ascii())
}

// What an option negates. Node takes `--no-print CODE` for `--print CODE`.
fn negated(name: &str) -> Option<String> {
    name.strip_prefix("--no-").map(|rest| format!("--{rest}"))
}

fn takes_something(name: &str) -> bool {
    let more =
        ["--test-reporter", "--test-isolation", "--experimental-test-isolation", "--run", "--entry-url"];
    [VALUED, EITHER, BESIDE, LOADED, INLINE, PRINT, &more].iter().any(|list| list.contains(&name))
}

fn beside(option: &str) -> Code {
    Code::Unknown(format!(
        "with its option {option} Node runs or loads what a file says, so that the script is not all that runs"
    ))
}

/// What Node runs with these arguments, the first being its own name.
pub fn code(argv: &[Vec<u8>]) -> Code {
    let unknown = |text: &str| {
        let option: String = text.chars().take(80).collect();
        Code::Unknown(format!(
            "clawsec does not know the option {option} of Node, and so not which argument is the script"
        ))
    };
    let (mut loaded, mut inline, mut is_test, mut has_prompt, mut at) = (Vec::new(), false, false, false, 1);
    while let Some(argument) = argv.get(at) {
        let text = String::from_utf8_lossy(argument);
        if text == "-" {
            break;
        }
        if !text.starts_with('-') {
            break;
        }
        at += 1;
        if text == "--" {
            break;
        }
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.as_bytes().to_vec())),
            None => (text.as_ref(), None),
        };
        let name = if name.starts_with("--") { name.replace('_', "-") } else { name.to_owned() };
        let name = name.as_str();
        if LOADED.contains(&name) {
            let value = if value.is_some() { value } else { argv.get(at).inspect(|_| at += 1).cloned() };
            let Some(value) = value else { return unknown(name) };
            let is_url = !matches!(name, "--require" | "-r");
            if is_url && is_no_plain_name(&value) {
                return Code::Unknown("Node loads something by a URL before its script".into());
            }
            // Else it is the name of a package.
            let is_path = ["/", "./", "../"].iter().any(|start| value.starts_with(start.as_bytes()));
            if is_path || value == b"." || value == b".." {
                loaded.push(value);
            }
        } else if INLINE.contains(&name) || PRINT.contains(&name) && value.is_none() {
            // Options go on behind the code.
            let is_given = value.is_some() || argv.get(at).is_some_and(|next| !next.starts_with(b"-"));
            inline |= is_given;
            if !is_given && INLINE.contains(&name) {
                return unknown(name);
            }
            at += usize::from(is_given && value.is_none());
        } else if matches!(name, "-i" | "--interactive") {
            has_prompt = true;
        } else if BESIDE.contains(&name) {
            return beside(name);
        } else if name == "--test-reporter" {
            let value = if value.is_some() { value } else { argv.get(at).inspect(|_| at += 1).cloned() };
            // Else it is one of Node's own, or the name of a package.
            if value.is_some_and(|value| value.iter().any(|byte| matches!(byte, b'/' | b':'))) {
                return beside(name);
            }
        } else if name == "--run" {
            // It executes a command of package.json, and loads nothing by itself.
            return Code::Module;
        } else if name == "--entry-url" {
            return Code::Unknown("the script of Node is a URL".into());
        } else if name == "--test" {
            is_test = true;
        } else if matches!(name, "--test-isolation" | "--experimental-test-isolation") {
            let value = if value.is_some() { value } else { argv.get(at).inspect(|_| at += 1).cloned() };
            // Else each file of tests runs in a Node of its own.
            if value.is_some_and(|value| value == b"none") {
                return beside(name);
            }
        } else if EITHER.contains(&name) {
            if value.is_none() {
                return unknown(name);
            }
        } else if negated(name).is_some_and(|name| takes_something(&name)) {
            return unknown(name);
        } else if VALUED.contains(&name) {
            at += usize::from(value.is_none());
        } else if value.is_none()
            && !PLAIN.contains(&name)
            && !PLAIN_BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
        {
            return unknown(name);
        }
    }
    // With a prompt, the operand behind code is a script, too.
    if inline && has_prompt {
        return beside("-i");
    }
    let alone = |code| if loaded.is_empty() { code } else { beside_loaded() };
    if inline {
        return alone(Code::Inline);
    }
    let rest = &argv[at.min(argv.len())..];
    match rest.first().map(Vec::as_slice) {
        // It starts another Node for the script, which is an exec of its own.
        Some(b"inspect") | Some(b"debug") if !is_test => alone(Code::Module),
        Some(b"-") => alone(Code::Stream),
        Some(_)
            if is_test && rest.iter().any(|name| name.iter().any(|byte| b"*?[]{}()!+@".contains(byte))) =>
        {
            Code::Unknown("Node takes the names of its tests for patterns".into())
        }
        Some(_) if is_test => Code::Files([rest, &loaded].concat()),
        Some(operand) => Code::Files([vec![operand.to_vec()], loaded].concat()),
        None if is_test => alone(Code::Module),
        None => alone(Code::Stream),
    }
}
