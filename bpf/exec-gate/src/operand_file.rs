//! The file that an interpreter opens for the name that it is given.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::operand::Language;
use crate::resolve::{Failure, Found, Start, View, Who};

/// Largest package.json that is read.
const PACKAGE_MAX: u64 = 1 << 20;

// What is there under a name.
enum There {
    File(Found),
    Folder,
    Nothing,
}

/// Finds it, as the thread's interpreter will; with the name by which it is opened. The error is a sentence.
///
/// Of a folder Node reads what its package.json says, or an index. What Python reads of one is not known: the byte code in
/// its `__pycache__` comes before the text of `__main__.py`.
pub fn find(view: &View, who: Who, language: Language, name: &[u8]) -> Result<(Vec<u8>, Found), String> {
    let name = if language == Language::Node { without_names_before_dots(name) } else { name.to_vec() };
    let shown = || String::from_utf8_lossy(&name).chars().take(200).collect::<String>();
    let look = |name: &[u8]| match view.find(who, Start::Cwd, name, true) {
        Ok(found) => Ok(There::File(found)),
        // So the walk ends at a folder. Where the kernel says it of something on the way, nothing is found there, either.
        Err(Failure::Errno(Errno::EACCES)) => Ok(There::Folder),
        Err(Failure::Errno(Errno::ENOENT | Errno::ENOTDIR)) => Ok(There::Nothing),
        Err(Failure::Errno(errno)) => Err(format!("the script {} cannot be found ({errno})", shown())),
        Err(Failure::Refused(why)) => Err(format!("the script {} cannot be found: {why}", shown())),
    };
    let others = match (language, look(&name)?) {
        (_, There::File(found)) => return Ok((name, found)),
        (Language::Node, There::Folder) => in_package(look(&[&name, &b"/package.json"[..]].concat())?)?,
        (Language::Node, There::Nothing) => with_extensions(b""),
        _ => Vec::new(),
    };
    for other in others {
        let name = [name.as_slice(), &other].concat();
        if let There::File(found) = look(&name)? {
            return Ok((name, found));
        }
    }
    Err(format!("it is not known which file its interpreter reads for {}", shown()))
}

fn with_extensions(name: &[u8]) -> Vec<Vec<u8>> {
    [".js", ".json", ".node"].iter().map(|extension| [name, extension.as_bytes()].concat()).collect()
}

// What Node looks for in a folder, in its order (lib/internal/modules/cjs/loader.js, `tryPackage`).
fn in_package(package: There) -> Result<Vec<Vec<u8>>, String> {
    let mut names = Vec::new();
    if let There::File(package) = package {
        let unknown = |why: &dyn std::fmt::Display| {
            let path = String::from_utf8_lossy(&package.path).into_owned();
            format!("the script that {path} names is not known ({why})")
        };
        let path = format!("/proc/self/fd/{}", package.fd.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = openat(CWD, path, flags, Mode::empty()).map_err(|error| unknown(&error))?;
        let mut text = Vec::new();
        File::from(file).take(PACKAGE_MAX).read_to_end(&mut text).map_err(|error| unknown(&error))?;
        let package: serde_json::Value = serde_json::from_slice(&text).map_err(|error| unknown(&error))?;
        if let Some(main) =
            package.get("main").and_then(serde_json::Value::as_str).filter(|main| !main.is_empty())
        {
            let main = without_names_before_dots(format!("./{main}").as_bytes());
            let main = [b"/", main.as_slice()].concat();
            names.push(main.clone());
            names.extend(with_extensions(&main));
            names.extend(with_extensions(&[main.as_slice(), b"/index"].concat()));
        }
    }
    names.extend(with_extensions(b"/index"));
    Ok(names)
}

// Node takes "a/../b" for "b", whatever "a" is.
fn without_names_before_dots(name: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    let is_absolute = name.starts_with(b"/");
    for part in name.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if parts.last().is_some_and(|last| *last != b"..") => {
                parts.pop();
            }
            b".." if is_absolute => {}
            part => parts.push(part),
        }
    }
    let path = parts.join(&b'/');
    match (is_absolute, path.is_empty()) {
        (true, _) => [b"/", path.as_slice()].concat(),
        (false, true) => b".".to_vec(),
        (false, false) => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_takes_names_away_before_dots_and_leaves_dots_that_lead_out() {
        for (name, expected) in [
            ("a/../b", "b"),
            ("./a.js", "a.js"),
            ("../a", "../a"),
            ("../x/../../a", "../../a"),
            ("/a/./../../b", "/b"),
            (".", "."),
            ("a/..", "."),
        ] {
            assert_eq!(without_names_before_dots(name.as_bytes()), expected.as_bytes(), "{name}");
        }
    }
}
