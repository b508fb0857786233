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
        ("/usr/bin/perl -Mvars;print F", Code::Inline),
        ("/usr/bin/perl -mFoo(1) F", Code::Inline),
        ("/usr/bin/perl -0e F", Code::Inline),
        ("/usr/bin/perl -0777e F", Code::Inline),
        ("/usr/bin/perl -00le F", Code::Inline),
        ("/usr/bin/perl -- -", Code::Stream),
        ("/usr/bin/python3 -- -", Code::Stream),
        ("/usr/bin/ruby -- -", Code::Stream),
        ("/usr/bin/perl -F/x/);print(1);(/x/ -n F", Code::Inline),
        ("/usr/bin/perl -F/(?{print(1)})/ -n F", Code::Inline),
        ("/usr/bin/perl -F\"@{[1]}\" -n F", Code::Inline),
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
        ("/usr/bin/ruby -r ./R F", "-r the interpreter runs a file that it names"),
        ("/usr/bin/ruby -w -r/R F", "-r the interpreter runs a file that it names"),
        ("/usr/bin/ruby -C /elsewhere F", "-C the interpreter runs a file of that name in another folder"),
        ("/usr/bin/ruby -X/elsewhere F", "-X the interpreter runs a file of that name in another folder"),
        ("/usr/bin/ruby -x/elsewhere F", "-x the interpreter runs a file of that name in another folder"),
        ("/usr/bin/php -d auto_prepend_file=R F", "-d the interpreter runs a file that it names"),
        ("/usr/bin/php -dx=y\nAuto_Append_File=R F", "-d the interpreter runs a file that it names"),
        ("/usr/bin/node --env-file=E F", "--env-file Node runs or loads what a file says"),
        ("/usr/bin/node --openssl_config E F", "--openssl-config Node runs or loads what a file says"),
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
