//! Scripts of all interpreters.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use clawsec_core::pb;

/// A decision that goes by the script.
pub fn by_script(decision: pb::Decision) -> pb::Decision {
    pb::Decision { depends_on: vec![pb::ExecFact::Script.into()], ..decision }
}

/// A file that can be executed.
pub fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The project's own Node.
pub fn node() -> PathBuf {
    let linked = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../node_modules/.bin/node");
    fs::canonicalize(linked).expect("node_modules has Node")
}

/// Name of the script, its first line, and a line that writes a word.
pub fn interpreters() -> Vec<(&'static str, String, &'static str)> {
    let node = node().display().to_string();
    vec![
        ("sh", "#!/bin/sh".into(), "echo WORD"),
        ("sh-option", "#!/bin/sh -e".into(), "echo WORD"),
        ("bash", "#!/bin/bash".into(), "echo WORD"),
        ("perl", "#!/usr/bin/perl -w".into(), "print \"WORD\\n\";"),
        ("python", "#!/usr/bin/python3".into(), "print('WORD')"),
        ("python-option", "#!/usr/bin/python3 -I".into(), "print('WORD')"),
        ("node", format!("#!{node}"), "console.log('WORD')"),
        ("node.cjs", format!("#!{node}"), "console.log('WORD') // import export await"),
        ("node.mjs", format!("#!{node}"), "import fs from 'node:fs'; fs.writeSync(1, 'WORD\\n')"),
        ("module", format!("#!{node}"), "import fs from 'node:fs'; fs.writeSync(1, 'WORD\\n')"),
        ("env", "#!/usr/bin/env sh".into(), "echo WORD"),
        ("env-python", "#!/usr/bin/env -S /usr/bin/python3 -I".into(), "print('WORD')"),
        ("env-node", format!("#!/usr/bin/env -S {node} --no-warnings"), "console.log('WORD')"),
    ]
}

/// Another content in the same file, at the same place.
pub fn edit(path: &Path, text: &str) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(text.as_bytes(), 0).unwrap();
}

/// A script that writes a word.
pub fn text(first: &str, line: &str, word: &str) -> String {
    format!("{first}\n{}\n", line.replace("WORD", word))
}
