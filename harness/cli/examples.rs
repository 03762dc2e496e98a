//! The examples at the end of each help text, in lines of at most eighty columns.

pub(super) const EXAMPLES: &str = "\
Examples:
  tbrdma-bench pingpong                 both sides here, 64 B SEND over RC
  tbrdma-bench bw --op write --size 1M  bandwidth, beside the machine's memcpy
  tbrdma-bench rate --threads 4 --qps 2
  tbrdma-bench incast --ranks 5         four senders, one receiver; mesh: all
  tbrdma-bench pingpong --server        in one shell, and in another:
  tbrdma-bench pingpong --connect 127.0.0.1 --op read
  tbrdma-bench mixed mix.toml           operations and sizes by weight
  tbrdma-bench idle                     latency after silences
  tbrdma-bench report *.json -o page.html
  tbrdma-bench doctor                   what RDMA is here, and why not more
  tbrdma-bench pingpong --help          so for each: flags, and examples
  tbrdma-bench completions bash         for the shell; `man` for manual pages

Exit codes: 0 measured and every byte was right; 1 something failed;
2 wrong flags; 130 interrupted. Help is as wide as COLUMNS says, up to 100.";

pub(super) const PINGPONG_EXAMPLES: &str = "\
Examples:
  tbrdma-bench pingpong                 both sides here, 64 B SEND over RC
  tbrdma-bench pingpong --rate 20k      open loop: due by the clock
  tbrdma-bench pingpong --op write      the target polls its own memory
  tbrdma-bench pingpong --wait event --duration 5s
  tbrdma-bench pingpong --json result.json --quiet
  tbrdma-bench pingpong --csv all.csv --hgrm this.hgrm
  tbrdma-bench pingpong --server        in one shell, and in another:
  tbrdma-bench pingpong --connect 127.0.0.1 --op read
  tbrdma-bench pingpong --device udp:lo RoCEv2, beside plain sockets
  tbrdma-bench pingpong --device stream:unix:@cable
  tbrdma-bench pingpong --device bar:file:/dev/shm/window
  tbrdma-bench pingpong --link 64Gbps,5us --capture run.pcapng
  tbrdma-bench pingpong --profile apple-tb5 --transport uc

Exit codes: 0 measured and every byte was right; 1 something failed;
2 wrong flags; 130 interrupted.";

pub(super) const BW_EXAMPLES: &str = "\
Examples:
  tbrdma-bench bw                       64 KiB WRITEs, beside memcpy
  tbrdma-bench bw --op read --size 1M --depth 16
  tbrdma-bench bw --device udp:lo --fault loss=1% --seed 7
  tbrdma-bench bw --threads 2 --qps 4   queue pairs of each thread
  tbrdma-bench bw --server              in one shell, and in another:
  tbrdma-bench bw --connect 127.0.0.1 --duration 10s --json bw.json

Exit codes: 0 measured and every byte was right; 1 something failed;
2 wrong flags; 130 interrupted.";

pub(super) const RATE_EXAMPLES: &str = "\
Examples:
  tbrdma-bench rate                     8 B WRITEs
  tbrdma-bench rate --size 8 --post-list 32 --signal-every 64
  tbrdma-bench rate --op send --transport ud --device udp:lo
  tbrdma-bench rate --threads 4 --qps 2 queue pairs of each thread

Exit codes: 0 measured and every byte was right; 1 something failed;
2 wrong flags; 130 interrupted.";

pub(super) const DEVICES_EXAMPLES: &str = "\
Examples:
  tbrdma-bench devices
  tbrdma-bench devices --device udp:lo
  tbrdma-bench devices --device stream:unix:@cable
  tbrdma-bench devices --device shm --profile apple-tb5";

pub(super) const LEDGER_EXAMPLES: &str = "\
Examples:
  TBRDMA_PROFILE=apple-tb5,ledger=on program
  tbrdma-bench ledger                   what it holds, and others
  tbrdma-bench ledger --clear           what dead programs have left";

pub(super) const REPORT_EXAMPLES: &str = "\
Examples:
  tbrdma-bench pingpong --json shm.json
  tbrdma-bench pingpong --device udp:lo --json udp.json
  tbrdma-bench report shm.json udp.json -o page.html
  tbrdma-bench report run-*.json -o page.html --title 'Before and after'";

pub(super) const DOCTOR_EXAMPLES: &str = "\
Examples:
  tbrdma-bench doctor
  tbrdma-bench doctor --json | jq '.findings[].severity'
  tbrdma-bench doctor --record /tmp/this-host   to be examined with --root
  tbrdma-bench doctor --setup --dry-run   commands for a raw stream over a
                                          Thunderbolt or USB4 cable
  sudo tbrdma-bench doctor --setup        shows them, asks, and does them

Exit codes: 0 nothing that is there is hindered; 1 something is (a PROBLEM),
or --setup did not come to a stream; 2 wrong flags.";

pub(super) const COMPARE_EXAMPLES: &str = "\
Examples:
  tbrdma-bench compare before.json after.json
  for i in 1 2 3 4 5; do        in turns: what moves the machine moves both
    old/tbrdma-bench pingpong --quiet --json base/$i.json
    new/tbrdma-bench pingpong --quiet --json new/$i.json
  done
  tbrdma-bench compare base new --json verdict.json

Exit codes: 0 improvement, or noise; 1 regression; 2 the results cannot be
compared.";

pub(super) const GATE_EXAMPLES: &str = "\
Examples:
  tbrdma-bench gate limits.toml result.json
  tbrdma-bench gate limits.toml results/ --baseline main/ --junit gate.xml

A plan:
  [[limit]]
  metric = \"p50\"       # p50, p99, bytes_per_s, or instructions of counts
  at_most = 1.5        # or at_least
  of = \"floor\"        # or \"baseline\"
  where = { op = \"send\", size = 64 }

Exit codes: 0 all limits are kept; 1 one is not; 2 one cannot be measured.";
