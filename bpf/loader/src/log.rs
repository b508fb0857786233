//! The log: lines on standard error, in which nothing that came from a sandbox can act on a terminal or a log reader.
//!
//! Escaping is done on the finished line and not by whoever logs, so that no call can forget it.

use std::io::{self, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::cli::LogFormat;

/// Starts logging. Call it once.
pub fn start(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(Escaping);
    match format {
        LogFormat::Text => builder.with_target(false).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

/// Replaces what a terminal, a log reader or an eye could take for something else: control characters, and those
/// that change the direction of text or break lines. `\uXXXX` is the same in JSON.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        let harmful = c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}');
        if harmful {
            escaped.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

#[derive(Debug, Clone, Copy)]
struct Escaping;

impl<'a> MakeWriter<'a> for Escaping {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line
    }
}

/// Writes one finished event; `tracing-subscriber` hands each over in one call.
#[derive(Debug)]
struct Line;

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let mut line = escape(text.trim_end_matches('\n'));
        line.push('\n');
        io::stderr().lock().write_all(line.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_act_on_a_terminal_is_escaped_and_other_text_is_not() {
        assert_eq!(escape("a\u{1b}[2Jb\r\nc"), "a\\u001b[2Jb\\u000d\\u000ac");
        assert_eq!(escape("\u{9b}31m\u{7f}"), "\\u009b31m\\u007f");
        assert_eq!(escape("\u{202e}gpj.exe\u{2028}"), "\\u202egpj.exe\\u2028");
        assert_eq!(escape("naïve 日本 🦞 \\ \""), "naïve 日本 🦞 \\ \"");
    }
}
