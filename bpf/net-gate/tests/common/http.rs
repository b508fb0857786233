//! Clients and rows for connections that are read as HTTP.

use clawsec_core::pb;

use super::{World, action, row};

/// `ask(s, request)` gives status and body of the answer; `head` makes a request; `req` does both.
pub const CLIENT: &str = "
import http.client
def head(method, path, host='good.example', more='', body=''):
    length = 'Content-Length: %d\\r\\n' % len(body) if body else ''
    return ('%s %s HTTP/1.1\\r\\nHost: %s\\r\\n%s%s\\r\\n%s' % (method, path, host, length, more, body)).encode()
def ask(s, request, method='GET'):
    s.sendall(request)
    r = http.client.HTTPResponse(s, method=method); r.begin()
    return r.status, r.read().decode(), r
def req(s, method, path, **more): return ask(s, head(method, path, **more), method)
";

/// Runs a script with these helpers as the subject `tool`.
pub fn run(world: &World, script: &str) -> String {
    world.run("tool", &format!("{CLIENT}\n{script}"))
}

/// A row about requests to `good.example`.
pub fn http(rule: &str, methods: &[&str], path: &str, verdict: pb::Verdict) -> pb::NetworkRow {
    pb::NetworkRow {
        http_methods: methods.iter().map(|method| (*method).into()).collect(),
        http_path: path.into(),
        ..row(rule, "good.example", verdict)
    }
}

/// Rule, verdict, method and path of each decision about the host so far.
pub fn decided(world: &World) -> Vec<(String, pb::Verdict, String, String)> {
    let all = world.events.decisions().into_iter().filter(|(_, event)| action(event).host == "good.example");
    all.map(|(_, event)| {
        let action = action(&event);
        (event.rule.clone(), event.verdict(), action.http_method.clone(), action.http_path.clone())
    })
    .collect()
}
