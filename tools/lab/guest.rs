//! The virtual machine: starting it, telling it what to run, and making sure it ended as it should.

use crate::cache::Cache;
use crate::monitor::Monitor;
use anyhow::{Context, Result, bail};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long an emulated machine may take to start on a busy host.
const BOOT: Duration = Duration::from_secs(120);

/// After this the guest turns itself off, whatever happens to us.
const LIFETIME_SECONDS: u32 = 600;

const KERNEL: &str = "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off apparmor=0 audit=0 nowatchdog \
                      random.trust_cpu=on cryptomgr.notests rcupdate.rcu_expedited=1 no_timer_check";

/// What a guest is to be.
pub(crate) struct Machine {
    /// Tells its files from those of other guests of the lab.
    pub(crate) name: &'static str,
    /// qemu's kind of machine.
    pub(crate) kind: &'static str,
    pub(crate) memory_mib: u32,
    pub(crate) cores: u32,
    /// qemu's arguments for its devices.
    pub(crate) devices: Vec<String>,
    /// What its kernel and its init are told besides.
    pub(crate) append: String,
}

/// A running guest.
pub(crate) struct Guest {
    child: Child,
    orders: UnixStream,
    shared: Arc<Shared>,
    next: AtomicU32,
    socket: PathBuf,
    monitor: PathBuf,
    initramfs: PathBuf,
    begun: Instant,
    /// How long it took to be ready.
    pub(crate) boot: Duration,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    console: Vec<String>,
    /// The console or the line for orders has ended.
    ended: bool,
    answers: HashMap<u32, Outcome>,
}

/// What a command in the guest did.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// Its exit status; 143 if its time ran out.
    pub(crate) status: i32,
    /// What it printed.
    pub(crate) output: String,
}

impl Outcome {
    /// The output of a command that must succeed.
    pub(crate) fn ok(self) -> Result<String> {
        if self.status == 0 {
            Ok(self.output)
        } else {
            bail!("status {} in the guest:\n{}", self.status, self.output.trim_end())
        }
    }
}

/// A command that runs in the guest.
#[must_use]
pub(crate) struct Running {
    number: u32,
    until: Instant,
}

impl Guest {
    /// Starts the guest and waits until it takes orders.
    pub(crate) fn start(cache: &Cache, initramfs: PathBuf, machine: &Machine, verbose: bool) -> Result<Self> {
        let mut guest = Self::begin(cache, initramfs, machine, verbose)?;
        guest.ready()?;
        Ok(guest)
    }

    /// Starts the guest, which is [`ready`](Self::ready) later.
    pub(crate) fn begin(cache: &Cache, initramfs: PathBuf, machine: &Machine, verbose: bool) -> Result<Self> {
        let begun = Instant::now();
        let file = |end| {
            std::env::temp_dir().join(format!("tbrdma-lab-{}-{}.{end}", std::process::id(), machine.name))
        };
        let (socket, monitor) = (file("sock"), file("monitor"));
        let mut child = qemu(cache)
            .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-machine", machine.kind])
            .args(["-smp", &machine.cores.to_string()])
            .args(["-m", &machine.memory_mib.to_string()])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"])
            .arg("-chardev")
            .arg(format!("socket,id=orders,path={},server=on,wait=off", socket.display()))
            .args(["-device", "virtio-serial-pci", "-device", "virtserialport,chardev=orders"])
            .arg("-qmp")
            .arg(format!("unix:{},server=on,wait=off", monitor.display()))
            .arg("-kernel")
            .arg(cache.vmlinux())
            .arg("-initrd")
            .arg(&initramfs)
            .arg("-append")
            .arg(format!("{KERNEL} lab.seconds={LIFETIME_SECONDS} {}", machine.append))
            .args(&machine.devices)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .context("cannot start the unpacked qemu")?;
        let shared = Arc::new(Shared::default());
        let console = child.stdout.take().context("qemu has no console")?;
        {
            let shared = Arc::clone(&shared);
            thread::spawn(move || read_console(console, &shared, verbose));
        }
        let orders = connect(&socket, &mut child)?;
        {
            let (shared, orders) = (Arc::clone(&shared), orders.try_clone()?);
            thread::spawn(move || read_answers(orders, &shared));
        }
        let next = AtomicU32::new(1);
        Ok(Self { child, orders, shared, next, socket, monitor, initramfs, begun, boot: Duration::ZERO })
    }

    /// Waits until it takes orders.
    pub(crate) fn ready(&mut self) -> Result<()> {
        let running = Running { number: 0, until: self.begun + BOOT };
        self.wait(&running).context("the guest did not start")?;
        self.boot = self.begun.elapsed();
        Ok(())
    }

    /// A line to its qemu, of which there may be one at a time.
    pub(crate) fn monitor(&self) -> Result<Monitor> {
        Monitor::connect(&self.monitor)
    }

    /// Starts a command that gets at most `limit` of time.
    pub(crate) fn spawn(&self, command: &str, limit: Duration) -> Result<Running> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        // In one piece: the guest's shell forgets half a line when a child of its ends meanwhile.
        let order = format!("{number} {} {command}\n", limit.as_secs().max(1));
        (&self.orders).write_all(order.as_bytes()).context("the guest takes no orders")?;
        // The guest's clock may run slowly when this machine is busy.
        Ok(Running { number, until: Instant::now() + limit + Duration::from_secs(30) })
    }

    /// Waits for the end of a command.
    pub(crate) fn wait(&self, running: &Running) -> Result<Outcome> {
        let mut state = lock(&self.shared);
        loop {
            if let Some(outcome) = state.answers.remove(&running.number) {
                return Ok(outcome);
            }
            let left = running.until.saturating_duration_since(Instant::now());
            if state.ended || left.is_zero() {
                let end = if state.ended { "it ended" } else { "its time ran out" };
                bail!("{end}; the last it said:\n{}", tail(&state.console));
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, command: &str, limit: Duration) -> Result<Outcome> {
        let running = self.spawn(command, limit)?;
        self.wait(&running)
    }

    /// One of rxe's counters, by the name of its file.
    pub(crate) fn counter(&self, name: &str) -> Result<u64> {
        let path = format!("/sys/class/infiniband/rxe0/ports/1/hw_counters/{name}");
        let text = self.run(&format!("cat {path}"), Duration::from_secs(10))?.ok()?;
        text.trim().parse().with_context(|| format!("rxe's counter {name} is {text:?}"))
    }

    /// Ends the guest and says what is wrong with how it ended: a problem on the way, a dirty kernel log, no mark that it is done.
    pub(crate) fn finish(&mut self) -> Result<String> {
        self.orders.write_all(b"quit\n").context("the guest takes no orders")?;
        let until = Instant::now() + Duration::from_secs(60);
        while self.child.try_wait()?.is_none() && Instant::now() < until {
            thread::sleep(Duration::from_millis(20));
        }
        let mut state = lock(&self.shared);
        while !state.ended && Instant::now() < until {
            let (next, _) = self
                .shared
                .changed
                .wait_timeout(state, Duration::from_millis(100))
                .unwrap_or_else(PoisonError::into_inner);
            state = next;
        }
        let said = |mark: &str| state.console.iter().any(|line| line.contains(mark));
        if let Some(problem) = state.console.iter().find(|line| line.contains("LAB-PROBLEM")) {
            bail!("the guest had a problem: {problem}");
        }
        if said("LAB-LOG dirty") || !said("LAB-LOG clean") || !said("LAB-DONE") {
            bail!("the guest's kernel complained, or it did not reach its end:\n{}", tail(&state.console));
        }
        Ok("no warning in the kernel's log, and the mark that it is done".into())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // It may have ended by itself, and files may be gone: nothing is lost then.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.socket);
        let _ = std::fs::remove_file(&self.monitor);
        let _ = std::fs::remove_file(&self.initramfs);
    }
}

/// The unpacked emulator with its own libraries and firmware.
fn qemu(cache: &Cache) -> Command {
    let mut command = Command::new(cache.emulator("usr/bin/qemu-system-x86_64"));
    let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"]
        .map(|path| cache.emulator(path).display().to_string());
    command.env("LD_LIBRARY_PATH", libraries.join(":"));
    command.env("QEMU_MODULE_DIR", cache.emulator("usr/lib/x86_64-linux-gnu/qemu"));
    for firmware in ["usr/share/qemu", "usr/share/seabios"] {
        command.arg("-L").arg(cache.emulator(firmware));
    }
    command
}

/// Connects to the guest's line for orders, which qemu opens shortly after it starts.
fn connect(socket: &Path, child: &mut Child) -> Result<UnixStream> {
    let until = Instant::now() + BOOT;
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() > until => {
                return Err(error).context("qemu opens no line for orders");
            }
            Err(_) => {}
        }
        if let Some(status) = child.try_wait()? {
            bail!("qemu ended at once, with {status}");
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn read_console(console: impl Read, shared: &Shared, verbose: bool) {
    let mut console = BufReader::new(console);
    let mut line = Vec::new();
    while console.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        if verbose {
            println!("guest   {text}");
        }
        lock(shared).console.push(text);
        line.clear();
    }
    lock(shared).ended = true;
    shared.changed.notify_all();
}

fn read_answers(orders: UnixStream, shared: &Shared) {
    let mut orders = BufReader::new(orders);
    while let Some((number, outcome)) = read_answer(&mut orders) {
        lock(shared).answers.insert(number, outcome);
        shared.changed.notify_all();
    }
}

/// "#NUMBER STATUS BYTES", the bytes, and an empty line. Whatever else comes is not ours.
fn read_answer(orders: &mut impl BufRead) -> Option<(u32, Outcome)> {
    loop {
        let mut head = Vec::new();
        if orders.read_until(b'\n', &mut head).ok()? == 0 {
            return None;
        }
        let head = String::from_utf8_lossy(&head).trim().to_owned();
        let mut words = head.strip_prefix('#').unwrap_or_default().split(' ');
        let (Some(number), Some(status), Some(bytes)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let (Ok(number), Ok(status), Ok(bytes)) = (number.parse(), status.parse(), bytes.parse::<usize>())
        else {
            continue;
        };
        let mut output = vec![0; bytes + 1];
        orders.read_exact(&mut output).ok()?;
        output.truncate(bytes);
        return Some((number, Outcome { status, output: String::from_utf8_lossy(&output).into_owned() }));
    }
}

fn lock(shared: &Shared) -> std::sync::MutexGuard<'_, State> {
    shared.state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tail(console: &[String]) -> String {
    let from = console.len().saturating_sub(40);
    console.get(from..).unwrap_or_default().join("\n")
}
