//! The programs that the tests run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Programs that the tests run, compiled once for each test binary; or found in the folder that CLAWSEC_TEST_PROGRAMS
/// names, for machines on which a compiler is slow.
pub struct Programs {
    pub actor: PathBuf,
    pub effect: PathBuf,
    pub good: PathBuf,
    pub evil: PathBuf,
    /// Leave a byte in the file that their first variable, or their working directory, is called like.
    pub by_environment: PathBuf,
    pub by_cwd: PathBuf,
    pub family: PathBuf,
}

/// Sources of the actor.
const ACTOR: [&str; 5] = ["actor.c", "children.c", "execs.c", "races.c", "reach.c"];

/// The programs.
pub fn programs() -> &'static Programs {
    static PROGRAMS: OnceLock<Programs> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let built = std::env::var_os("CLAWSEC_TEST_PROGRAMS").map(PathBuf::from);
        // Worktrees can share a target folder, and each has its own programs.
        let tree = env!("CARGO_MANIFEST_DIR").replace('/', "_");
        let folder = &Path::new(env!("CARGO_TARGET_TMPDIR")).join(tree);
        // One process builds at a time, and what is there and the same stays: another one may run it just now, and is
        // refused what is exchanged under it.
        let _turn = built.is_none().then(|| {
            fs::create_dir_all(folder).unwrap();
            let lock = fs::File::create(folder.join(".lock")).unwrap();
            lock.lock().unwrap();
            lock
        });
        let build = |sources: &[&str], name: &str, more: &[&str]| {
            if let Some(built) = &built {
                return built.join(name);
            }
            let (path, new) = (folder.join(name), folder.join(format!(".{name}.new")));
            let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs");
            let status = Command::new("clang")
                .args(["-static", "-O1", "-Wall", "-Werror", "-pthread"])
                .args(more)
                .args(sources.iter().map(|source| all.join(source)))
                .arg("-o")
                .arg(&new)
                .status();
            assert!(status.unwrap().success(), "clang {name}");
            match fs::read(&path).is_ok_and(|old| old == fs::read(&new).unwrap()) {
                true => fs::remove_file(new).unwrap(),
                false => fs::rename(new, &path).unwrap(),
            }
            path
        };
        Programs {
            actor: build(&ACTOR, "actor", &[]),
            effect: build(&["effect.c"], "effect", &[]),
            good: build(&["effect.c"], "good", &["-DFIXED=\"good\""]),
            evil: build(&["effect.c"], "evil", &["-DFIXED=\"evil\""]),
            by_environment: build(&["effect.c"], "by-environment", &["-DBY_ENVIRONMENT"]),
            by_cwd: build(&["effect.c"], "by-cwd", &["-DBY_CWD"]),
            family: build(&["family.c"], "family", &[]),
        }
    })
}
