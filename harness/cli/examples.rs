//! The examples at the end of each help text.

pub(super) const EXAMPLES: &str = "\
Examples:
  tbrdma-bench pingpong                                 both sides on this machine, 64 B SEND over RC
  tbrdma-bench pingpong --rate 20k                      open loop: due by the clock, waits counted
  tbrdma-bench pingpong --op write --size 64            the target polls its own memory
  tbrdma-bench pingpong --wait event --duration 5s      sleep on the completion channel
  tbrdma-bench bw --op write --size 1M                  bandwidth, beside the machine's memcpy
  tbrdma-bench rate --size 8 --post-list 32 --signal-every 64
  tbrdma-bench pingpong --json result.json --quiet      for scripts
  tbrdma-bench pingpong --csv all.csv --hgrm this.hgrm  a row of a table, percentiles to plot
  tbrdma-bench pingpong --server                        in one shell, and in another:
  tbrdma-bench pingpong --connect 127.0.0.1 --op read
  tbrdma-bench pingpong --device udp:lo                 RoCEv2 over UDP sockets, beside plain sockets
  tbrdma-bench bw --device udp:lo --fault loss=1% --seed 7 --capture run.pcapng
  tbrdma-bench pingpong --link 64Gbps,5us --capture run.pcapng
  tbrdma-bench pingpong --profile apple-tb5 --transport uc
  tbrdma-bench incast --ranks 5                         four senders to one receiver; mesh: each to each
  tbrdma-bench rate --threads 4 --qps 2                 threads on each side, queue pairs of each
  tbrdma-bench mixed mix.toml                           operations and sizes by weight (mixed --help)
  tbrdma-bench idle                                     latency after silences of 10 us to 100 ms
  tbrdma-bench devices
  tbrdma-bench doctor                                   what RDMA this host has, and why not more

Exit codes: 0 measured and every byte was right; 1 something failed; 2 wrong flags; 130 interrupted.";

pub(super) const REPORT_EXAMPLES: &str = "\
Examples:
  tbrdma-bench pingpong --json shm.json && tbrdma-bench pingpong --device udp:lo --json udp.json
  tbrdma-bench report shm.json udp.json -o page.html
  tbrdma-bench report run-*.json -o page.html --title 'Before and after'";

pub(super) const DOCTOR_EXAMPLES: &str = "\
Examples:
  tbrdma-bench doctor
  tbrdma-bench doctor --json | jq '.findings[] | select(.severity == \"problem\")'
  tbrdma-bench doctor --record /tmp/this-host       for others to examine with --root

Exit codes: 0 nothing that is there is hindered; 1 something is (a PROBLEM); 2 wrong flags.";

pub(super) const COMPARE_EXAMPLES: &str = "\
Examples:
  tbrdma-bench compare before.json after.json
  for i in 1 2 3 4 5; do                        in turns, so that what moves the machine moves both
    old/tbrdma-bench pingpong --quiet --json base/$i.json
    new/tbrdma-bench pingpong --quiet --json new/$i.json
  done
  tbrdma-bench compare base new

Exit codes: 0 improvement, or noise; 1 regression; 2 the results cannot be compared.";

pub(super) const GATE_EXAMPLES: &str = "\
Examples:
  tbrdma-bench gate limits.toml result.json
  tbrdma-bench gate limits.toml results/ --baseline main/ --junit gate.xml

A plan:
  [[limit]]
  metric = \"p50\"              # p50, p99 or bytes_per_s
  at_most = 1.5               # or at_least
  of = \"floor\"               # or \"baseline\"
  where = { op = \"send\", size = 64 }

Exit codes: 0 all limits are kept; 1 one is not; 2 one cannot be measured.";
