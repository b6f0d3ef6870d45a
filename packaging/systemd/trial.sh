#!/bin/bash
# Tries the units of this folder under a systemd of their own, in a Debian container: as root, with systemd-container and
# debootstrap installed, and the programs built by `cargo build -p ringtap-cli && cargo build -p ringtap --example ticks`.
#   packaging/systemd/trial.sh [FOLDER]     FOLDER keeps the container for the next time; without it, it is removed
set -u

inside() {
    export LC_ALL=C
    failed=0
    check() { # WHAT COMMAND...: says whether the command succeeds
        local what=$1; shift
        if "$@" >/tmp/said 2>&1 </dev/null; then echo "ok      $what"; else
            failed=1; echo "FAILED  $what"; sed 's/^/          /' /tmp/said; fi
    }
    not() { ! "$@"; }
    says() { local text=$1 said; shift; said=$("$@" 2>&1 </dev/null); grep -q -- "$text" <<<"$said" || { echo "not '$text': $(tail -3 <<<"$said")"; false; }; }
    soon() { local i; for i in $(seq 100); do "$@" && return; sleep 0.1; done; return 1; }
    as() { local user=$1; shift; setpriv --reuid "$user" --regid "$user" --init-groups env "$@"; }
    application() { # NAME COMMAND...: a `ticks` that writes as many events as `ticks_of NAME COUNT` says
        local name=$1; shift
        mkfifo /tmp/$name; "$@" </tmp/$name >/tmp/$name.out 2>&1 &
        exec {fd}>/tmp/$name; printf -v "to_$name" %s "$fd"
    }
    ticks_of() { local fd=to_$1 before; before=$(wc -l </tmp/$1.out); echo "$2" >&"${!fd}"
        soon grown "/tmp/$1.out" "$before" && tail -1 "/tmp/$1.out"; }
    grown() { [ "$(wc -l <"$1")" -gt "$2" ]; }
    attached() { soon says "attached: true" ticks_of "$1" 0; }
    # That each number below N is in the buffers, and once.
    whole() { local n=$1; shift; "$@" ringtap show </dev/null | sed -n 's/.* tick: number=//p' | sort -n | cmp - <(seq 0 $((n - 1))); }
    # That the unit's main process is another than before.
    another() { local now; now=$("$@" show -P MainPID ringtap.service); [ "$now" != 0 ] && [ "$now" != "$pid" ]; }

    echo "# $(systemctl --version | head -1), $(. /etc/os-release; echo "$PRETTY_NAME"), Linux $(uname -r), $(ringtap --version)"
    groupadd -f tracing
    for user in alice bob carol; do id $user >/dev/null 2>&1 || useradd -m $user; done
    usermod -aG tracing bob

    # A call that the units' filter refuses ends the daemon here, instead of failing unseen.
    for manager in system user; do
        mkdir -p /etc/systemd/$manager/ringtap.service.d
        printf '[Service]\nSystemCallErrorNumber=kill\n' >/etc/systemd/$manager/ringtap.service.d/calls.conf
    done
    systemctl daemon-reload
    # `kill` has no errno: this is the number that systemd shows for it.
    check "refused calls kill" says 2147483646 systemctl show -P SystemCallErrorNumber ringtap.service

    echo "# the machine's unit, started by its socket"
    check "enabled" systemctl enable --now ringtap.socket
    check "not started yet" not systemctl is-active ringtap.service
    application first ticks
    check "the first program that attaches starts it" soon systemctl is-active ringtap.service
    check "start" soon ringtap start -e ticks:tick
    check "the program is attached" attached first
    check "the program writes" says "1000 written, 0 refused, attached: true" ticks_of first 1000
    check "show" whole 1000
    check "stat" says 1000 ringtap stat --json
    check "snapshot" ringtap snapshot --take
    check "filter, trigger, instance" ringtap start -B side -b 64 -e ticks:tick -f 'number > 5' -R 'traceoff:1 if number == 4000'
    pid=$(systemctl show -P MainPID ringtap.service)
    check "killed" systemctl kill -s KILL ringtap.service
    check "the program writes on" says "2000 written, 0 refused" ticks_of first 1000
    check "it is started again" soon another systemctl
    check "and serves" soon ringtap list
    check "and says what it did" says "took over the buffers" journalctl -u ringtap --no-pager
    check "and has all, once" whole 2000
    check "and the instance with its settings" says "number > 5" ringtap list -B side
    check "the program is attached again" attached first
    check "the program goes on" says "3000 written, 0 refused, attached: true" ticks_of first 1000
    check "and all is there" whole 3000
    check "instance rm" ringtap instance rm side
    check "no reload, and it says so" says "not applicable" systemctl reload ringtap.service
    pid=$(systemctl show -P MainPID ringtap.service)
    check "restart" systemctl restart ringtap.service
    check "is another process, which has no settings" soon another systemctl
    check "the program is attached again" soon says "ticks:tick" ringtap list
    check "and traced again" ringtap start -e ticks:tick
    check "and attached" attached first
    check "with its next events" says "attached: true" ticks_of first 10
    check "which are there" says "number=3009" ringtap show

    echo "# event-fork, names and hardening"
    application forks bash -c 'read x; ticks' # its child is the one that writes
    check "threads' children, by perf_event_open" ringtap set -P "$(pgrep -f 'read x')" -c
    echo >&"$to_forks"
    check "a child attaches" attached forks
    check "a child's events are traced" says "7 written" ticks_of forks 7
    check "and there" soon says "ticks-.*number=6$" ringtap show
    check "nobody else's" says "" ticks_of first 5
    check "(none of first)" not says "number=3014$" ringtap show
    check "reset" ringtap reset
    status=/proc/$(systemctl show -P MainPID ringtap.service)/status
    check "capabilities: chown, ptrace, perfmon" says "CapEff:.*0000004000080001" cat "$status"
    check "a filter of system calls" says "Seccomp:.*2" cat "$status"
    check "no new privileges" says "NoNewPrivs:.*1" cat "$status"
    systemd-analyze security ringtap.service --no-pager | tail -1

    echo "# others, and a group"
    export RINGTAP_SOCKET=/run/ringtap/default.sock
    for user in alice bob; do check "$user may not" says "may not attach" as $user ringtap list; done
    for unit in service socket; do mkdir -p /etc/systemd/system/ringtap.$unit.d; done
    printf '[Service]\nExecStart=\nExecStart=/usr/bin/ringtap serve --group tracing\nGroup=tracing\nRuntimeDirectoryMode=0750\n' >/etc/systemd/system/ringtap.service.d/group.conf
    printf '[Socket]\nSocketGroup=tracing\nSocketMode=0660\n' >/etc/systemd/system/ringtap.socket.d/group.conf
    check "with a group" systemctl daemon-reload
    check "stop both" systemctl stop ringtap.socket ringtap.service
    check "start the socket" systemctl start ringtap.socket
    check "alice may not" says "may not attach" as alice ringtap list
    check "bob may list" as bob ringtap list
    application bobs as bob ticks
    check "and start" soon as bob ringtap start -e ticks:tick
    check "and attach" attached bobs
    check "and write" says "10 written" ticks_of bobs 10
    check "and his process has its name" says "ticks-.*number=9$" ringtap show
    check "show, stat, snapshot, set" as bob sh -c 'ringtap show && ringtap stat && ringtap snapshot --take && ringtap set -b 128 && ringtap reset && ringtap start -e ticks:tick'
    pid=$(systemctl show -P MainPID ringtap.service)
    ticks_of bobs 10 >/dev/null
    check "killed" systemctl kill -s KILL ringtap.service
    check "and started again" soon another systemctl
    check "serves" soon as bob ringtap list
    check "has what his process wrote" says "number=19$" as bob ringtap show
    check "alice may not" says "may not attach" as alice ringtap list
    check "without the socket's unit: stop it" systemctl disable --now ringtap.socket ringtap.service
    check "the service alone" systemctl enable --now ringtap.service
    check "gives its socket to the group" soon as bob ringtap list
    check "alice may not" says "may not attach" as alice ringtap list
    check "bob's program is attached again" soon says ticks:tick as bob ringtap list
    pid=$(systemctl show -P MainPID ringtap.service)
    check "traced" as bob ringtap start -e ticks:tick
    ticks_of bobs 10 >/dev/null
    check "killed" systemctl kill -s KILL ringtap.service
    check "started again" soon another systemctl
    check "serves" soon as bob ringtap list
    check "with what there was" says "number=29$" as bob ringtap show

    echo "# buffers that outlive it"
    printf '[Service]\nExecStart=\nExecStart=/usr/bin/ringtap serve --directory /var/lib/ringtap\nRestart=no\n' >/etc/systemd/system/ringtap.service.d/directory.conf
    rm /etc/systemd/system/ringtap.service.d/group.conf
    systemctl daemon-reload
    check "restart" systemctl restart ringtap.service
    unset RINGTAP_SOCKET
    check "first is attached again" soon says ticks:tick ringtap list
    check "traced" ringtap start -e ticks:tick
    check "is attached" attached first
    check "writes" says "attached: true" ticks_of first 10
    check "all are killed" sh -c 'systemctl kill -s KILL ringtap.service; pkill -KILL ticks'
    check "recovered" says "number=302[0-9]" ringtap recover /var/lib/ringtap

    echo "# a user's own"
    loginctl enable-linger carol
    run=/run/user/$(id -u carol)
    carol() { as carol HOME=/home/carol XDG_RUNTIME_DIR="$run" "$@"; }
    check "her manager" soon carol systemctl --user is-system-running
    check "enabled" carol systemctl --user enable --now ringtap.socket
    application carols as carol XDG_RUNTIME_DIR="$run" ticks
    check "started by her program" soon carol systemctl --user is-active ringtap.service
    check "start" soon carol ringtap start -e ticks:tick
    check "her program is attached" attached carols
    check "her program writes" says "attached: true" ticks_of carols 1000
    check "show" whole 1000 carol
    pid=$(carol systemctl --user show -P MainPID ringtap.service)
    check "killed" carol systemctl --user kill -s KILL ringtap.service
    check "her program writes on" says "2000 written, 0 refused" ticks_of carols 1000
    check "started again" soon another carol systemctl --user
    check "serves" soon carol ringtap list
    check "all is there" whole 2000 carol
    check "children of her threads" carol ringtap set -P "$(pgrep -u carol ticks)" -c
    check "of others' threads not, in a sentence" says "perf_event_paranoid" carol ringtap set -P $$ -c
    check "reset" carol ringtap reset
    check "alice may not" says "may not attach" as alice RINGTAP_SOCKET="$run/ringtap/default.sock" ringtap list
    check "restart" carol systemctl --user restart ringtap.service
    check "stop both" carol systemctl --user disable --now ringtap.socket ringtap.service
    check "nothing is left" not says "default" ls "$run/ringtap"
    check "no daemon made a call that its unit refuses" not says "status=31/SYS" journalctl --no-pager
    check "nor was one refused otherwise" not says "Operation not permitted" journalctl --no-pager _COMM=ringtap
    carol systemd-analyze --user security ringtap.service --no-pager | tail -1
    return $failed
}

if [ "${1:-}" = inside ]; then inside; exit; fi

for tool in systemd-nspawn debootstrap nsenter; do
    command -v $tool >/dev/null || { echo "$0: there is no $tool: install systemd-container, debootstrap and util-linux" >&2; exit 1; }
done
repository=$(realpath "$(dirname "$0")/../..")
folder=${1:-$(mktemp -d /var/tmp/ringtap-systemd.XXXXXX)}
root=$folder/root
mkdir -p "$folder" || exit
[ -x "$root/usr/bin/systemctl" ] || debootstrap --variant=minbase \
    --include=systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,procps,util-linux bookworm "$root" >"$folder/debootstrap.log" || exit
built=$repository/target/debug
cp "$built/ringtap" "$built/examples/ticks" "$0" "$root/usr/bin/" || exit
cp "$repository"/packaging/systemd/ringtap.* "$root/usr/lib/systemd/system/"
cp "$repository"/packaging/systemd/user/ringtap.* "$root/usr/lib/systemd/user/"
rm -rf "$root"/etc/systemd/*/*/ringtap.* "$root"/etc/systemd/*/ringtap.* "$root"/home/*/.config/systemd "$root/var/log/journal"
# Neither the container's capabilities nor its filter of system calls may stand before the units' own.
SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 setsid systemd-nspawn -D "$root" -b --register=no --keep-unit --machine=ringtap-trial \
    --console=pipe --private-network --capability=all --system-call-filter=perf_event_open </dev/null >"$folder/console.log" 2>&1 &
nspawn=$!
trap 'kill $nspawn 2>/dev/null' EXIT
for _ in $(seq 100); do init=$(pgrep -P $nspawn | head -1); [ -n "$init" ] && break; sleep 0.1; done
enter() { nsenter -t "$init" -m -u -i -p -n -C -r -w env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root "$@"; }
for _ in $(seq 300); do case $(enter systemctl is-system-running 2>/dev/null) in running | degraded) break ;; esac; sleep 0.1; done
enter timeout 300 bash "/usr/bin/$(basename "$0")" inside </dev/null
status=$?
enter systemctl poweroff --force >/dev/null 2>&1
wait $nspawn
[ $# -gt 0 ] || rm -rf "$folder"
exit $status
