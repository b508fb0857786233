use super::*;

fn run(line: &str) -> Option<Code> {
    let argv: Vec<Vec<u8>> = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
    code(&argv[0], &argv).map(|(_, code)| code)
}

fn files(names: &[&str]) -> Option<Code> {
    Some(Code::Files(names.iter().map(|name| name.as_bytes().to_vec()).collect()))
}

#[test]
fn the_script_of_an_interpreter_is_its_first_operand_behind_its_options_and_their_values() {
    for line in [
        "/usr/bin/dash F x -c y",
        "/usr/bin/dash -e -u F",
        "/usr/bin/dash -eo nounset F",
        "/usr/bin/dash +x +o errexit F",
        "/usr/bin/dash -- F",
        "/usr/bin/dash - F",
        "/usr/bin/bash F -c",
        "/usr/bin/bash --norc -x -- F",
        "/usr/bin/bash -norc F",
        "/usr/bin/bash -posix -login F",
        "/usr/bin/bash -O extglob +O nullglob F",
        "/usr/bin/bash -euo pipefail F",
        "/usr/bin/bash -xO extglob F",
        "/usr/bin/python3.11 F -c",
        "/usr/bin/python3 -W ignore F",
        "/usr/bin/python3 -Wignore -X dev -Xutf8 F",
        "/usr/bin/python3 -bBdEIOPqsSuvx F",
        "/usr/bin/python3 --check-hash-based-pycs always -- F",
        "/opt/bin/node F -e",
        "/opt/bin/node --max-old-space-size=100 --no-warnings --expose_gc F",
        "/opt/bin/node --title x --conditions y -C z --require pkg F",
        "/opt/bin/node -- F",
        "/opt/bin/node --inspect --enable-source-maps F",
        "/opt/bin/node -p -- F",
        "/opt/bin/node --print --no-warnings F",
        "/opt/bin/node -i F",
        "/usr/bin/perl -w -T F",
        "/usr/bin/perl5.36.0 -I lib -Ilib -MFoo -0777 -lw F",
        "/usr/bin/perl5.36-x86_64-linux-gnu -- F",
        "/usr/bin/ruby3.1 -I lib -rjson -w --enable frozen-string-literal F",
        "/usr/bin/php8.2 -n -d x=y F",
        "/usr/bin/php -d x=y -f F",
        "/usr/bin/php -fF",
        "/usr/bin/perl -MFoo::Bar=x;y -M-strict -mFoo F",
        "/usr/bin/perl -F: -F/,/ -an F",
        "/usr/bin/perl -0 -00 -0x1F -0777w F",
        "/usr/bin/perl -V:version -wV F",
        "/usr/bin/ruby -W0 -W:no-deprecated -T1 -Ku F",
        "/usr/bin/ruby -W F",
        "/usr/bin/dash -- F",
        "/bin/busybox sh -e F",
        "/bin/busybox busybox ash F",
    ] {
        assert_eq!(run(line), files(&["F"]), "{line}");
    }
}

#[test]
fn what_is_loaded_before_the_script_counts_as_well() {
    for (line, names) in [
        ("/usr/bin/bash --rcfile R F", &["F", "R"][..]),
        ("/usr/bin/bash --rcfile F F", &["F", "F"]),
        ("/usr/bin/node -r ./R --import=/S F", &["F", "./R", "/S"]),
        ("/usr/bin/node --require=. -r .. F", &["F", ".", ".."]),
        ("/usr/bin/node --test F G", &["F", "G"]),
        ("/usr/bin/node --test --test-reporter spec F", &["F"]),
    ] {
        assert_eq!(run(line), files(names), "{line}");
    }
}

#[test]
fn code_in_an_argument_a_module_and_a_stream_are_told_apart() {
    for (line, expected) in [
        ("/usr/bin/dash -c F", Code::Inline),
        ("/usr/bin/dash -ec F", Code::Inline),
        ("/usr/bin/bash -O extglob -c F x", Code::Inline),
        ("/usr/bin/bash -co errexit F", Code::Inline),
        ("/usr/bin/bash --norc -xc F", Code::Inline),
        ("/usr/bin/python3 -cF", Code::Inline),
        ("/usr/bin/python3 -Ic F", Code::Inline),
        ("/usr/bin/node -e F", Code::Inline),
        ("/usr/bin/node --eval=F G", Code::Inline),
        ("/usr/bin/node -pe F", Code::Inline),
        ("/usr/bin/node --print F", Code::Inline),
        ("/usr/bin/node -e F --title x G", Code::Inline),
        ("/usr/bin/node --print F -- G", Code::Inline),
        ("/usr/bin/node -p", Code::Stream),
        ("/usr/bin/node -p - F", Code::Stream),
        ("/usr/bin/bash -sc F", Code::Inline),
        ("/usr/bin/perl -ne F G", Code::Inline),
        ("/usr/bin/perl -CSe F", Code::Inline),
        ("/usr/bin/perl -0777lne F", Code::Inline),
        ("/usr/bin/ruby -rjson -e F", Code::Inline),
        ("/usr/bin/perl -Mvars;1 -e F", Code::Inline),
        ("/usr/bin/perl -F/(x)/ -ne F G", Code::Inline),
        ("/usr/bin/perl -0e F", Code::Inline),
        ("/usr/bin/perl -0777e F", Code::Inline),
        ("/usr/bin/perl -00le F", Code::Inline),
        ("/usr/bin/perl -- -", Code::Stream),
        ("/usr/bin/python3 -- -", Code::Stream),
        ("/usr/bin/ruby -- -", Code::Stream),
        ("/usr/bin/php -r F", Code::Inline),
        ("/usr/bin/python3 -m F", Code::Module),
        ("/usr/bin/python3 -Im F G", Code::Module),
        ("/usr/bin/node --run F", Code::Module),
        ("/usr/bin/node --test", Code::Module),
        ("/usr/bin/node inspect F", Code::Module),
        ("/usr/bin/dash", Code::Stream),
        ("/usr/bin/dash -s F", Code::Stream),
        ("/usr/bin/bash -i", Code::Stream),
        ("/usr/bin/bash -s -- F", Code::Stream),
        ("/usr/bin/python3 -", Code::Stream),
        ("/usr/bin/python3 -i", Code::Stream),
        ("/usr/bin/python3 -i -", Code::Stream),
        ("/usr/bin/node - F", Code::Stream),
        ("/usr/bin/perl", Code::Stream),
        ("/usr/bin/php -- F", Code::Stream),
    ] {
        assert_eq!(run(line), Some(expected), "{line}");
    }
}

#[test]
fn where_something_runs_beside_the_script_it_is_not_known_what_runs() {
    for (line, words) in [
        ("/usr/bin/python3 -i F", "-i the interpreter runs code that it reads from standard input"),
        ("/usr/bin/python3 -vxi F", "-i the interpreter runs code that it reads from standard input"),
        ("/usr/bin/python3 -ic F", "-i the interpreter runs code that it reads from standard input"),
        ("/usr/bin/python3 -i -m F", "-i the interpreter runs code that it reads from standard input"),
        ("/usr/bin/dash -sc F", "-s the interpreter runs code that it reads from standard input"),
        ("/usr/bin/dash -c -s F", "-s the interpreter runs code that it reads from standard input"),
        ("/usr/bin/bash --rcfile R", "loads a file that an option names"),
        ("/usr/bin/bash --init-file R -i", "loads a file that an option names"),
        ("/usr/bin/bash --rcfile R -s F", "loads a file that an option names"),
        ("/usr/bin/bash --rcfile R -ic F", "loads a file that an option names"),
        ("/usr/bin/node -r ./R", "loads a file that an option names"),
        ("/usr/bin/node -r ./R - F", "loads a file that an option names"),
        ("/usr/bin/node -r ./R -e F", "loads a file that an option names"),
        ("/usr/bin/node -e F -r ./R", "loads a file that an option names"),
        ("/usr/bin/node --import /R --test", "loads a file that an option names"),
        ("/usr/bin/node -e 1 -i F", "-i Node runs or loads"),
        ("/usr/bin/node --interactive -pe F", "-i Node runs or loads"),
        ("/usr/bin/perl -d F", "-d the interpreter runs code that its debugger reads"),
        ("/usr/bin/perl -wdt F", "-d the interpreter runs code that its debugger reads"),
        ("/usr/bin/perl -de 1", "-d the interpreter runs code that its debugger reads"),
        ("/usr/bin/perl -d:Foo F", "-d the interpreter runs code that its debugger reads"),
        ("/usr/bin/perl -Mvars;print F", "-M the interpreter runs code in its value"),
        ("/usr/bin/perl -wMvars;print -- -", "-M the interpreter runs code in its value"),
        ("/usr/bin/perl -Mvars;print -", "-M the interpreter runs code in its value"),
        ("/usr/bin/perl -Mvars;print", "-M the interpreter runs code in its value"),
        ("/usr/bin/perl -mFoo(1) F", "-m the interpreter runs code in its value"),
        ("/usr/bin/perl -F/x/);print(1);(/x/ -n F", "-F the interpreter runs code in its value"),
        ("/usr/bin/perl -F/(?{print(1)})/ -n F", "-F the interpreter runs code in its value"),
        ("/usr/bin/perl -F\"@{[1]}\" -n F", "-F the interpreter runs code in its value"),
        ("/usr/bin/ruby -r ./R F", "-r the interpreter runs a file that it names"),
        ("/usr/bin/ruby -w -r/R F", "-r the interpreter runs a file that it names"),
        ("/usr/bin/ruby -C /elsewhere F", "-C the interpreter runs a file of that name in another folder"),
        ("/usr/bin/ruby -X/elsewhere F", "-X the interpreter runs a file of that name in another folder"),
        ("/usr/bin/ruby -x/elsewhere F", "-x the interpreter runs a file of that name in another folder"),
        ("/usr/bin/php -d auto_prepend_file=R F", "-d the interpreter runs a file that it names"),
        ("/usr/bin/php -dx=y\nAuto_Append_File=R F", "-d the interpreter runs a file that it names"),
        ("/usr/bin/node --env-file=E F", "--env-file Node runs or loads what a file says"),
        ("/usr/bin/node --openssl_config E F", "--openssl-config Node runs or loads what a file says"),
        ("/usr/bin/node --build-sea=C F", "--build-sea Node runs or loads what a file says"),
        ("/usr/bin/node --snapshot-blob E F", "--snapshot-blob Node runs or loads what a file says"),
        ("/usr/bin/node --test --test-reporter=./R F", "--test-reporter Node runs or loads what a file says"),
        ("/usr/bin/php -c R F", "-c the interpreter runs what its settings and extensions name"),
        ("/usr/bin/php -zR F", "-z the interpreter runs what its settings and extensions name"),
    ] {
        assert!(
            matches!(run(line), Some(Code::Unknown(why)) if why.contains(words)),
            "{line}: {:?}",
            run(line)
        );
    }
}

#[test]
fn an_option_that_is_not_known_leaves_open_what_the_script_is() {
    for line in [
        "/usr/bin/dash -Z F",
        "/usr/bin/bash --rc F",
        "/usr/bin/bash -x --norc F",
        "/usr/bin/python3 --new x F",
        "/usr/bin/node --new x F",
        "/usr/bin/node -xe F",
        "/usr/bin/node -e",
        "/usr/bin/node -pe -- F",
        "/usr/bin/node --entry-url F",
        "/usr/bin/node --import data:text/javascript,1 F",
        "/usr/bin/perl -S F",
        "/usr/bin/perl -Ve F",
        "/usr/bin/perl -wVI F G",
        "/usr/bin/perl -VMvars;1 F",
        "/usr/bin/ruby -Kue F",
        "/usr/bin/ruby -We F",
        "/usr/bin/ruby -W2e F",
        "/usr/bin/node --import=DATA:text/javascript,1 F",
        "/usr/bin/node --import=./b%61d.mjs F",
        "/usr/bin/node --import ./bad.mjs?x F",
        "/usr/bin/node --import ./bad.mjs#x F",
        "/usr/bin/node --loader FILE:///x.mjs F",
        "/usr/bin/node --build-snapshot-config=C F",
        "/usr/bin/node --test [b]ad.js",
        "/usr/bin/ruby --new F",
        "/usr/bin/php --new F",
    ] {
        assert!(matches!(run(line), Some(Code::Unknown(_))), "{line}: {:?}", run(line));
    }
}

#[test]
fn what_perl_reads_behind_a_space_in_one_argument_is_not_known() {
    for option in ["-i -e", "-D -e", "-D0 -e", "-F: -e", "-F/,/ -e", "-I/x -e", "-x/ -e", "-w -e", "-V -e"] {
        let argv = ["/usr/bin/perl", option, "F"].map(|word| word.as_bytes().to_vec());
        let found = code(&argv[0], &argv).map(|(_, code)| code);
        assert!(matches!(found, Some(Code::Unknown(_))), "{option}: {found:?}");
    }
}

#[test]
fn another_program_is_no_interpreter_whatever_its_arguments_are() {
    for line in [
        "/usr/bin/env bash F",
        "/usr/bin/dashboard F",
        "/usr/bin/python-argcomplete-tcsh F",
        "/usr/bin/perldoc F",
        "/usr/bin/awk -f F",
        "/bin/busybox cat sh",
        "/bin/busybox",
    ] {
        assert_eq!(run(line), None, "{line}");
    }
}

#[test]
fn what_a_shell_takes_back_or_names_is_known_or_it_is_not_known_what_runs() {
    for line in [
        "/usr/bin/bash +s F",
        "/usr/bin/bash +c F",
        "/usr/bin/dash +c F",
        "/usr/bin/dash -s +s F",
        "/usr/bin/dash +xs F",
        "/usr/bin/dash -o stdin F",
        "/usr/bin/dash +o stdin F",
        "/usr/bin/dash -O extglob F",
        "/usr/bin/bash +- F",
        "/usr/bin/bash -+c F",
        "/usr/bin/bash +D F",
        "/usr/bin/bash -o no-such-name F",
    ] {
        assert!(matches!(run(line), Some(Code::Unknown(_))), "{line}");
    }
    for line in ["/usr/bin/bash + F", "/usr/bin/dash +xo errexit F", "/usr/bin/bash +eO extglob F"] {
        assert_eq!(run(line), files(&["F"]), "{line}");
    }
}

#[test]
fn an_applet_is_a_shell_however_it_is_called() {
    for line in ["/bin/busybox sh F", "/bin/busybox -sh F", "/bin/busybox bash F"] {
        assert_eq!(run(line), files(&["F"]), "{line}");
    }
    for name in ["-busybox", "-/bin/busybox", "busybox"] {
        let argv = [name, "sh", "F"].map(|word| word.as_bytes().to_vec());
        assert_eq!(code(b"/bin/busybox", &argv).map(|(_, code)| code), files(&["F"]), "{name}");
    }
    assert_eq!(run("/bin/busybox ls F"), None);
}

#[test]
fn a_shell_is_known_by_its_name_also_when_it_is_linked_statically() {
    for name in ["bash-static", "zsh-static", "sh.distrib", "mksh-static"] {
        assert_eq!(run(&format!("/bin/{name} F")), files(&["F"]), "{name}");
    }
}

#[test]
fn a_setting_by_which_python_loads_from_elsewhere_is_more_than_the_script() {
    for line in [
        "/usr/bin/python3 -X pycache_prefix=/work F",
        "/usr/bin/python3 -Xpycache_prefix=/work F",
        "/usr/bin/python3 -BXpresite=x F",
        "/usr/bin/python3 -X no_such_key F",
    ] {
        assert!(matches!(run(line), Some(Code::Unknown(_))), "{line}");
    }
    for line in ["/usr/bin/python3 -X utf8=1 F", "/usr/bin/python3 -Xfrozen_modules=off F"] {
        assert_eq!(run(line), files(&["F"]), "{line}");
    }
}

#[test]
fn what_node_takes_for_more_than_a_switch_is_not_taken_for_one() {
    for line in [
        "/opt/bin/node --http-parser F G",
        "/opt/bin/node --experimental_specifier_resolution F G",
        "/opt/bin/node --es-module-specifier-resolution F G",
        "/opt/bin/node --stack-trace-limit F G",
        "/opt/bin/node --no-print F G",
        "/opt/bin/node --no_print F G",
        "/opt/bin/node --no-eval F G",
        "/opt/bin/node --no-title F G",
        "/opt/bin/node --no-test-isolation F G",
        "/opt/bin/node --no-experimental-test-isolation F G",
        "/opt/bin/node --experimental-new F G",
        "/opt/bin/node --test-new F G",
        "/opt/bin/node --trace-new F G",
        "/opt/bin/node --use_new F G",
        "/opt/bin/node --test --test-isolation=none F",
        "/opt/bin/node --test --experimental-test-isolation none F",
    ] {
        assert!(matches!(run(line), Some(Code::Unknown(_))), "{line}");
    }
    for line in [
        "/opt/bin/node --http-parser=x F",
        "/opt/bin/node --experimental-new=x F",
        "/opt/bin/node --experimental_vm_modules --harmony-x --trace-uncaught F",
        "/opt/bin/node --no-warnings F",
        "/opt/bin/node --test --test-isolation process F",
    ] {
        assert_eq!(run(line), files(&["F"]), "{line}");
    }
}

// Each option that it has, with 3 and more for those that take a value; what it does of them is fixed when it is built. An alias
// is that of the option that it stands for, and takes nothing where it brings a value (`--trace-events-enabled`).
const NODE_OPTIONS: &str = "
const { internalBinding } = require('internal/test/binding');
const binding = internalBinding('options');
const info = binding.getCLIOptionsInfo?.() ?? binding.getCLIOptions?.() ?? binding;
for (const [name, { type }] of info.options) console.log(name, type);
for (const [name, [of, ...more]] of info.aliases)
  if (/^[\\w-]+$/.test(name) && name !== '-pe') console.log(name, more.length > 0 ? 0 : info.options.get(of).type);
";

#[test]
fn no_option_of_the_nodes_that_are_here_is_taken_for_one_with_a_value_or_without_one_by_mistake() {
    let linked = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../node_modules/.bin/node");
    let nodes = [linked, "/usr/bin/node".into()].into_iter().filter(|node| node.exists());
    let mut seen = 0;
    for node in nodes {
        let said =
            std::process::Command::new(&node).args(["--expose-internals", "-e", NODE_OPTIONS]).output();
        let said = String::from_utf8(said.unwrap().stdout).unwrap();
        for line in said.lines().filter(|line| line.starts_with('-')) {
            let (name, kind) = line.split_once(' ').unwrap();
            let takes = kind.parse::<u32>().unwrap() >= 3;
            let of = |name: &str| run(&format!("/opt/bin/node {name} F G"));
            // Whichever it takes for the script, it is not the other one.
            let wrong = if takes { files(&["F"]) } else { files(&["G"]) };
            let spelt = format!("--{}", name.trim_start_matches('-').replace('-', "_"));
            for name in [name, if name.starts_with("--") { &spelt } else { name }] {
                assert_ne!(of(name), wrong, "{name} of {}", node.display());
            }
            // Never is what comes behind "=" and a value the value, too.
            assert_ne!(of(&format!("{name}=x")), files(&["G"]), "{name}=x of {}", node.display());
            if !takes {
                let negated = name.replacen("--", "--no-", 1);
                assert_ne!(of(&negated), files(&["G"]), "{negated} of {}", node.display());
            }
            seen += 1;
        }
    }
    assert!(seen > 150, "no Node is here, or its options have another form: {seen}");
}

/// Numbers that look random and are the same each time (Knuth's MMIX).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    fn one_of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }
}

const SCRIPTS: [&str; 8] = ["a", "b", "c", "o", "e", "+e", "-x", "ab"];
const OF_SHELLS: &str = "-es -se -cx -xc -xs -oe -eo -xo -soc -ooc -Oo +oo +xo +eo -o- nounset -T -C -h -m -P -f -q -cO -OO -lc \
    -ls -li --init-filex -init-file --rcfile=a -rcfil --help --version --s --c -dump-strings -D -noediting -login -posix -O- --o - -- \
    -c -s -o +o -O +O -e +e -x -i -l --login --rcfile --init-file -ce -ec -sc -oc -co -oo -so posix pipefail extglob errexit stdin \
    --norc -norc --posix -rcfile --noprofile -p +p -v -n -a -k -t -B -E -r -V -H -cs -xoc -xO +c +s +cs +es +xs +i +l +D --debugger \
    -ox --verbose -I -b -u -ic --pretty-print --wordexp --- -+ + +- -z";
const OF_PYTHON: &str = "- -- -B -I -E -s -S -u -x -O -OO -W ignore -Wignore -X utf8 -Xdev -c -m -bb -q -d -P -v -V -h -? -R -t \
    --version --check-hash-based-pycs never --check-hash-based-pycs=never --help -i -BW -BX -uW -J -Bx --- +e --check --vers";
const OF_PERL: &str = "- -- -w -W -X -t -T -U -u -f -s -a -c -S -x -xb -0 -0777 -0xFF -0x -00 -l -l0 -l012 -I -Ib -I. -M -Mstrict \
    -mstrict -M-strict -e -E -F -F: -F, -C -C0 -CS -D -v -V:version -h -g -wl -lw -we -sx -wI -C7e -lI -0I -* --help -? -y -w- --w -wd \
    -Cb -fI -ta -A -r -lx -0x41e -Ve -VI -V -wV: -Mstrict;1 -F/(a)/ -F/";

/// Scripts that say their names, in a folder of their own, and standard input and code that say what they are.
struct Scripts {
    folder: tempfile::TempDir,
    text: &'static str,
}

impl Scripts {
    fn new(text: &'static str) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), text }
    }

    /// Whether it is known what runs by these arguments; panics where the interpreter runs something else.
    fn compare(&self, argv: &[&str]) -> bool {
        let bytes: Vec<Vec<u8>> = argv.iter().map(|word| word.as_bytes().to_vec()).collect();
        let told = code(&bytes[0], &bytes).unwrap().1;
        if matches!(told, Code::Unknown(_)) {
            return false;
        }
        // Again for each, since perl can edit them.
        for name in SCRIPTS {
            std::fs::write(self.folder.path().join(name), self.text.replace('@', name)).unwrap();
        }
        let input = self.folder.path().join("input");
        std::fs::write(&input, self.text.replace("RAN-@", "STREAM")).unwrap();
        let output = std::process::Command::new("/usr/bin/timeout")
            .args(["5"])
            .args(argv)
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .stdin(std::fs::File::open(&input).unwrap())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let has = |word: &str| said.lines().any(|line| line == word);
        let ran: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("RAN-")).collect();
        let is_as_told = match &told {
            Code::Files(names) => {
                ran.iter().all(|name| names.contains(&name.as_bytes().to_vec()))
                    && !has("INLINE")
                    && !has("STREAM")
            }
            Code::Inline => ran.is_empty() && !has("STREAM"),
            Code::Stream => ran.is_empty() && !has("INLINE"),
            _ => ran.is_empty(),
        };
        assert!(is_as_told, "{argv:?} is told as {told:?} and said {said:?}");
        true
    }
}

const SHELL_TEXTS: (&str, &str) = ("echo RAN-@\n", "echo INLINE");
const PYTHON_TEXTS: (&str, &str) = ("print('RAN-@')\n", "print('INLINE')");
const PERL_TEXTS: (&str, &str) = ("print \"RAN-@\\n\";\n", "print \"INLINE\\n\"");

// What it does with command lines that a person would not write is what was told of them before.
#[test]
fn interpreters_run_what_is_told_of_their_arguments() {
    for (program, options, (script, code_text), rounds) in [
        ("/usr/bin/dash", OF_SHELLS, SHELL_TEXTS, 600),
        ("/usr/bin/bash", OF_SHELLS, SHELL_TEXTS, 600),
        ("/usr/bin/python3", OF_PYTHON, PYTHON_TEXTS, 150),
        ("/usr/bin/perl", OF_PERL, PERL_TEXTS, 300),
    ] {
        let scripts = Scripts::new(script);
        let words: Vec<&str> = options.split_ascii_whitespace().collect();
        let mut numbers = Numbers(1);
        let mut compared = 0;
        for _ in 0..rounds {
            let mut argv = vec![program];
            for _ in 0..numbers.below(5) {
                argv.push(match numbers.below(8) {
                    0 => numbers.one_of(&SCRIPTS),
                    1 => code_text,
                    _ => numbers.one_of(&words),
                });
            }
            for _ in 0..numbers.below(3) {
                argv.push(numbers.one_of(&["a", "b", "c"]));
            }
            compared += usize::from(scripts.compare(&argv));
        }
        assert!(compared > rounds / 5, "{program}: {compared} of {rounds} are known");
    }
}

// A letter that takes a value where none was thought, or the reverse, shows with the letters that come behind it.
#[test]
fn interpreters_take_their_letters_as_is_told_alone_and_in_pairs() {
    let letters: Vec<char> = ('!'..='~').filter(|letter| !matches!(letter, 'y' | 'Y' | 'z' | 'Z')).collect();
    for (program, (script, code_text), least) in [
        ("/usr/bin/dash", SHELL_TEXTS, 500),
        ("/usr/bin/bash", SHELL_TEXTS, 500),
        ("/usr/bin/python3", PYTHON_TEXTS, 20),
        ("/usr/bin/perl", PERL_TEXTS, 500),
    ] {
        let scripts = Scripts::new(script);
        // It takes long to start, and its fewer letters are in the words above.
        let seconds: &[char] = if program.ends_with("python3") { &['c', 'm'] } else { &letters };
        let mut compared = 0;
        for first in &letters {
            let pairs = seconds.iter().map(|second| format!("-{first}{second}"));
            for option in pairs.chain([format!("-{first}")]) {
                compared += usize::from(scripts.compare(&[program, &option, code_text, "a"]));
            }
        }
        assert!(compared > least, "{program}: {compared} are known");
    }
}
