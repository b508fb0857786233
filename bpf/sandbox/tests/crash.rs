//! What follows when the loader dies: nothing runs on, and the next loader cleans up. Needs root and runc.

mod support;

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clawsec_sandbox::{Cgroups, Config, Error, Sandboxes};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode};
use support::{TestHooks, World, fresh_instance, make_netns, request, shim, until};

const AS_LOADER: &str = "CLAWSEC_TEST_AS_LOADER";
/// A FIFO: who keeps its writing end open is seen at the other one.
const KEPT: &str = "kept";

/// Not a test of its own: the process that `a_dead_loader_leaves_nothing_running` kills.
#[tokio::test(flavor = "multi_thread")]
async fn as_loader() {
    let Ok(what) = std::env::var(AS_LOADER) else { return };
    let (place, instance) = what.split_once(' ').unwrap();
    let hooks = TestHooks::default();
    *hooks.kept.lock().unwrap() = Some(File::create(Path::new(place).join(KEPT)).unwrap().into());
    let place = tempfile::Builder::new().disable_cleanup(true).prefix("loader").tempdir_in(place).unwrap();
    let world = World::at(place, instance.to_owned(), hooks).await;
    world.sandboxes.create(request("orphan", &["/act", "tree", "20"])).await.unwrap();
    let mut attachment = world.sandboxes.get("orphan").unwrap().io().attach().unwrap();
    world.sandboxes.start("orphan").await.unwrap();
    until(&mut attachment, "forked").await;
    world.sandboxes.create(request("unstarted", &["/bin/true"])).await.unwrap();
    println!("runtime {}", world.place.path().display());
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_loader_leaves_nothing_running_and_the_next_one_cleans_up() {
    let place = tempfile::tempdir().unwrap();
    let instance = fresh_instance();
    shim();
    let fifo = place.path().join(KEPT);
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
    let kept = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&fifo).unwrap();
    let mut loader = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "as_loader", "--nocapture"])
        .env(AS_LOADER, format!("{} {instance}", place.path().display()))
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let lines = BufReader::new(loader.stdout.take().unwrap()).lines();
    let runtime = lines
        .map(|line| line.unwrap())
        .find_map(|line| line.split_once("runtime ").map(|(_, path)| path.to_owned()))
        .expect("the loader's runtime folder");
    let cgroups = Cgroups::find(&format!("clawsec-{instance}")).unwrap();
    assert!(cgroups.processes("orphan").len() >= 20);
    assert_eq!(cgroups.processes("unstarted").len(), 1);

    loader.kill().unwrap();
    loader.wait().unwrap();
    let begin = Instant::now();
    let mut ends = [PollFd::new(&kept, PollFlags::IN)];
    poll(&mut ends, Some(&Timespec { tv_sec: 5, tv_nsec: 0 })).unwrap();
    assert_eq!(ends[0].revents(), PollFlags::HUP, "the init kept what it was given, and is gone");
    assert!(cgroups.processes("orphan").len() <= 1, "only the init can be left when it lets go");
    assert!(cgroups.wait_empty("orphan", Duration::from_secs(5)), "{:?} run on", cgroups.processes("orphan"));
    println!(
        "nothing of the running sandbox was left {} us after the loader's death",
        begin.elapsed().as_micros()
    );

    // The one that was only created waits in runc's init, before any instruction of the shim. The next loader kills it.
    let runtime = tempfile::TempDir::from_path(&runtime);
    let world = World::at(runtime, instance, TestHooks::default()).await;
    println!("{:#?}", world.recovered);
    assert!(cgroups.processes("unstarted").is_empty());
    for name in ["orphan", "unstarted"] {
        assert!(
            world.recovered.iter().any(|said| said.contains(&format!("the folder of {name} was removed")))
        );
        assert!(
            world
                .recovered
                .iter()
                .any(|said| said.contains(&format!("network namespace {name} was removed")))
        );
    }
    world.assert_nothing_left();
    let (info, ..) = world.run(request("orphan", &["sh", "-c", "exit 6"])).await;
    assert_eq!(info.exit.unwrap().code, 6);
    world.assert_nothing_left();
}

trait FromPath {
    fn from_path(path: &str) -> tempfile::TempDir;
}

impl FromPath for tempfile::TempDir {
    /// Removed with the test, as the dead loader could not.
    fn from_path(path: &str) -> tempfile::TempDir {
        let wanted = Path::new(path);
        let made = tempfile::Builder::new().prefix("next").tempdir_in(wanted.parent().unwrap()).unwrap();
        fs::remove_dir(made.path()).unwrap();
        fs::rename(wanted, made.path()).unwrap();
        made
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_made_sandbox_is_cleaned() {
    let place = tempfile::tempdir().unwrap();
    let instance = fresh_instance();
    let parent = format!("clawsec-{instance}");
    let cgroups = Cgroups::find(&parent).unwrap();
    // What there is between the cgroups and runc create: folders, a namespace, cgroups of both versions, a process.
    for folder in ["sandboxes/half/rootfs", "sandboxes/half/bundle", "netns", "runc/half"] {
        fs::create_dir_all(place.path().join(folder)).unwrap();
    }
    make_netns(&place.path().join("netns/half"));
    rustix::mount::mount_bind("/usr", place.path().join("sandboxes/half/rootfs")).unwrap();
    let scope = cgroups.create("half", &["main".into(), "tool".into()]).unwrap();
    let v1 = Path::new("/sys/fs/cgroup/pids").join(&parent).join("half");
    let hybrid = Path::new("/sys/fs/cgroup/pids/cgroup.procs").exists();
    let mut children: Vec<_> = (0..2).map(|_| Command::new("sleep").arg("100").spawn().unwrap()).collect();
    clawsec_sandbox::move_process(&scope.subjects[1], children[0].id()).unwrap();
    if hybrid {
        fs::create_dir_all(&v1).unwrap();
        fs::write(v1.join("cgroup.procs"), children[1].id().to_string()).unwrap();
    } else {
        children[1].kill().unwrap();
    }
    let reaped = std::thread::spawn(move || children.iter_mut().map(|child| child.wait().unwrap()).count());

    let world = World::at(place, instance, TestHooks::default()).await;
    println!("{:#?}", world.recovered);
    assert_eq!(reaped.join().unwrap(), 2, "both are dead");
    assert!(Path::new("/usr/bin/env").exists(), "nothing behind a mount was removed");
    assert!(world.recovered.iter().any(|said| said.contains("was removed")));
    world.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_loader_of_the_same_folder_is_refused() {
    let world = World::new().await;
    let config = Config {
        runtime_dir: world.place.path().to_owned(),
        instance: world.instance.clone(),
        shim: shim().to_owned(),
        protected: vec![],
        without: Default::default(),
    };
    let second = Sandboxes::open(config, world.hooks.clone()).await;
    assert!(matches!(second.err(), Some(Error::Precondition(_))));
    let (info, ..) = world.run(request("first", &["/bin/true"])).await;
    assert_eq!(info.exit.unwrap().code, 0);
    world.assert_nothing_left();
}
