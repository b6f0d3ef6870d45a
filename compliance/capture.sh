#!/bin/sh
# Makes compliance/capture.dat anew: real activity of this machine (scheduler, system calls, interrupts, timers,
# block, net, memory, signals), small enough for the repository. Needs root and tracefs.
set -eu
cd "$(dirname "$0")/.."
exec cargo run --release -p ringtap-format --example capture -- "${1:-compliance/capture.dat}" --kb "${2:-300}" --lean \
    sched raw_syscalls syscalls irq irq_vectors timer block net sock skb tcp udp napi kmem signal workqueue writeback \
    task exceptions rcu ext4 jbd2
