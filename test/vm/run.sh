# shellcheck shell=dash
# The last part of both machines' PID 1, in the root file system that was made: run.sh BUSYBOX STDOUT STDERR.
# Runs /run/control/command, writes its exit code to /run/control/exit-code and powers off. Any failure ends
# PID 1, so the kernel panics, and no exit code means that the machine failed: it is never written early.
set -eu
b=$1 stdout=$2 stderr=$3

# The command itself gets pipes: a terminal would change how programs behave.
$b mkfifo /run/stdout /run/stderr
$b cat /run/stdout >"$stdout" &
$b cat /run/stderr >"$stderr" &
# On the console, for whoever finds the machine hanging.
echo "init: the command begins"
# The host's shell, since busybox's may put its own commands before the host's; and as a job, since
# otherwise a shell writes "Killed" among the output of a command that a signal ended.
/bin/sh /run/control/command </dev/null >/run/stdout 2>/run/stderr &
code=0
wait $! || code=$?
echo "init: the command ended with $code, and its output may not have yet"
wait
echo "init: all output was taken, and is being sent"
# Changing a terminal waits until all its output is gone.
for output in "$stdout" "$stderr"; do
    if [ -c "$output" ]; then
        $b stty raw <"$output"
    fi
done
echo "$code" >/run/control/exit-code
echo "init: powering off"
$b sync
$b poweroff -f
