//! Adopted memory in one process: bytes survive every order of registrations, threads keep it out or lose nothing, forks get copies.

#[path = "common/census.rs"]
mod census;
#[path = "common/process.rs"]
mod process;
#[path = "common/seccomp.rs"]
mod seccomp;

use nix::libc;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use process::{Child, PATIENCE, go_on_alone, say};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;
use tbrdma::{
    Access, CompletionQueue, Context, ForeignMemory, MemoryPath, MemoryRegion, ProtectionDomain, QpInit,
    QueuePair, WorkCompletion,
};

const PAGE: usize = 4096;
const ARENA: usize = 48 * PAGE;

#[test]
fn child() {
    let Some(role) = process::role() else { return };
    go_on_alone();
    match role.split_once(' ') {
        Some(("random", seed)) => random(seed.parse().unwrap()),
        Some(("threads", _)) => threads(),
        Some(("refused", _)) => match refused() {
            Ok(()) => {}
            Err(error) => return say(format!("skip {error}")),
        },
        _ => forks(),
    }
    say("ok");
}

fn all_access() -> Access {
    Access::LOCAL_WRITE | Access::REMOTE_WRITE | Access::REMOTE_READ | Access::REMOTE_ATOMIC
}

/// Memory of the program's.
struct Arena(*mut u8);

impl Arena {
    fn new() -> Self {
        let arena = Self(std::ptr::null_mut());
        Self(arena.map(ARENA, 0))
    }

    fn map(&self, len: usize, flags: libc::c_int) -> *mut u8 {
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags;
        // SAFETY: new memory, in the place of a part of the arena if it says so.
        let at = unsafe { libc::mmap(self.0.cast(), len, rights, flags, -1, 0) };
        assert_ne!(at, libc::MAP_FAILED);
        at.cast()
    }

    fn at(&self, at: usize) -> *mut u8 {
        assert!(at <= ARENA);
        self.0.wrapping_add(at)
    }

    fn read(&self) -> Vec<u8> {
        let mut bytes = vec![0; ARENA];
        // SAFETY: inside the arena; no peer writes it just now.
        unsafe { self.0.copy_to_nonoverlapping(bytes.as_mut_ptr(), ARENA) };
        bytes
    }

    fn fill(&self, from: usize, to: usize, byte: u8) {
        assert!(from <= to && to <= ARENA);
        // SAFETY: inside the arena; no peer writes it just now.
        unsafe { self.at(from).write_bytes(byte, to - from) };
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at.is_multiple_of(8) && at < ARENA);
        // SAFETY: inside the arena, and aligned.
        unsafe { AtomicU64::from_ptr(self.at(at).cast()) }
    }

    fn memory(&self, from: usize, to: usize) -> ForeignMemory {
        assert!(from < to && to <= ARENA);
        // SAFETY: inside the arena, which stays.
        unsafe { ForeignMemory::from_raw(self.at(from), to - from) }
    }

    /// Is a part of it a mapping of a file?
    fn shows_a_segment(&self) -> bool {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().filter(|line| line.contains("memfd:tbrdma")).any(|line| {
            let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let hex = |text| usize::from_str_radix(text, 16).unwrap();
            hex(from) < self.0.addr() + ARENA && hex(to) > self.0.addr()
        })
    }
}

/// A context that talks to itself.
struct Loop {
    qp: QueuePair,
    cq: CompletionQueue,
    local: MemoryRegion,
    pd: ProtectionDomain,
    _ctx: Context,
}

impl Loop {
    fn new() -> Self {
        let ctx = tbrdma::open("shm").unwrap();
        let (pd, cq) = (ctx.alloc_pd().unwrap(), ctx.create_cq(16).unwrap());
        let mut qp = pd.create_qp(QpInit::rc(&cq)).unwrap();
        qp.connect(&qp.address()).unwrap();
        let local = pd.alloc(ARENA, all_access()).unwrap();
        Self { qp, cq, local, pd, _ctx: ctx }
    }

    fn wait(&self) {
        let begun = Instant::now();
        let mut wcs = [WorkCompletion::default()];
        while self.cq.poll(&mut wcs).is_empty() {
            assert!(begun.elapsed() < PATIENCE);
        }
        wcs[0].ok().unwrap();
    }

    fn write(&mut self, region: &MemoryRegion, offset: usize, bytes: &[u8]) {
        self.local.write(0, bytes);
        let (from, to) = (self.local.slice(0..bytes.len()), region.remote().at(offset as u64));
        self.qp.post(|wr| drop(wr.write(from, to))).unwrap();
        self.wait();
    }

    fn read(&mut self, region: &MemoryRegion, offset: usize, len: usize) -> Vec<u8> {
        let (to, from) = (self.local.slice(0..len), region.remote().at(offset as u64));
        self.qp.post(|wr| drop(wr.read(to, from))).unwrap();
        self.wait();
        let mut bytes = vec![0; len];
        self.local.read(0, &mut bytes);
        bytes
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % bound
    }

    fn range(&mut self) -> (usize, usize) {
        let from = self.below(ARENA - 1);
        let longest = if self.below(2) == 0 { 3 * PAGE } else { ARENA };
        let (mut from, mut to) = (from, (from + 1 + self.below(longest)).min(ARENA));
        if self.below(3) == 0 && to - from > 2 * PAGE {
            (from, to) = (from.next_multiple_of(PAGE), to - to % PAGE);
        }
        (from, to)
    }
}

fn random(seed: u64) {
    let mut random = Random(seed);
    let arena = Arena::new();
    let mut loops = [Loop::new(), Loop::new()];
    let mut model = vec![0_u8; ARENA];
    let mut regions: Vec<(usize, usize, usize, MemoryRegion)> = Vec::new();
    let mut adopted = 0;
    for step in 0..300 {
        match random.below(8) {
            0 | 1 if regions.len() < 6 => {
                let (from, to) = random.range();
                let (context, memory) = (random.below(2), arena.memory(from, to));
                let memory = if random.below(4) == 0 { memory } else { memory.adopt() };
                let region = loops[context].pd.register_foreign(memory, all_access()).unwrap();
                adopted += usize::from(matches!(region.path(), MemoryPath::Mapped | MemoryPath::Partly));
                regions.push((context, from, to, region));
            }
            2 | 3 if !regions.is_empty() => drop(regions.swap_remove(random.below(regions.len()))),
            4 => {
                let (from, to) = random.range();
                arena.fill(from, to, step as u8);
                model[from..to].fill(step as u8);
            }
            5 if !regions.is_empty() => {
                let (context, from, to, region) = &regions[random.below(regions.len())];
                let at = random.below(to - from);
                let len = 1 + random.below(to - from - at);
                let bytes: Vec<u8> = (0..len).map(|n| (n + step) as u8).collect();
                loops[*context].write(region, at, &bytes);
                model[from + at..][..len].copy_from_slice(&bytes);
            }
            6 if !regions.is_empty() => {
                let (context, from, to, region) = &regions[random.below(regions.len())];
                let at = random.below(to - from);
                let len = 1 + random.below(to - from - at);
                assert_eq!(loops[*context].read(region, at, len), model[from + at..][..len]);
            }
            7 if random.below(4) == 0 => {
                // The program gives pages away and gets others, where no region is.
                let (from, to) = random.range();
                let (from, to) = (from - from % PAGE, to.next_multiple_of(PAGE).min(ARENA));
                if regions.iter().all(|(_, start, end, _)| *end <= from || to <= *start) {
                    Arena(arena.at(from)).map(to - from, libc::MAP_FIXED);
                    model[from..to].fill(0);
                }
            }
            7 if random.below(8) == 0 => in_a_child(|| {
                assert!(arena.read() == model);
                arena.fill(0, ARENA, 0xee);
            }),
            _ => {}
        }
        assert!(arena.read() == model, "step {step}");
    }
    assert!(adopted > 2, "only {adopted} regions were adopted");
    regions.clear();
    assert!(arena.read() == model);
    assert!(!arena.shows_a_segment());
}

/// Does something in a forked child.
fn in_a_child(act: impl FnOnce()) {
    // SAFETY: this process has no other thread but the library's.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            act();
            // SAFETY: ends the child at once; nothing of it is used afterwards.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0))),
    }
}

#[test]
fn bytes_survive_any_order_of_registrations() {
    let only = std::env::var("TBRDMA_TEST_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    let seeds = only.map_or(1..30, |seed| seed..seed + 1);
    for seed in seeds {
        println!("TBRDMA_TEST_SEED={seed}");
        assert_eq!(Child::start(&format!("random {seed}")).hear(), "ok");
    }
}

fn threads() {
    let arena: &'static Arena = Box::leak(Box::new(Arena::new()));
    let end = Loop::new();
    let register = || end.pd.register_foreign(arena.memory(0, ARENA).adopt(), all_access()).unwrap();
    assert_eq!(register().path(), MemoryPath::Mapped);
    for _ in 0..30 {
        let region = register();
        assert_eq!(region.path(), MemoryPath::Mapped);
        // A thread that counts in each page, and would notice a count that is lost.
        let stop = Arc::new(AtomicBool::new(false));
        let laps = Arc::new(AtomicU64::new(0));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&laps));
        let address = arena.0.expose_provenance();
        let thread = std::thread::spawn(move || {
            let arena = Arena(std::ptr::with_exposed_provenance_mut(address));
            let mut known = [0_u64; ARENA / PAGE];
            (0..known.len())
                .for_each(|page| known[page] = arena.word(page * PAGE + 64).load(Ordering::Relaxed));
            while !stopped.load(Ordering::Relaxed) {
                for (page, known) in known.iter_mut().enumerate() {
                    let word = arena.word(page * PAGE + 64);
                    let old = word.load(Ordering::Relaxed);
                    assert_eq!(old, *known, "page {page}");
                    *known += 1;
                    word.store(*known, Ordering::Relaxed);
                }
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        let lap = |more: u64| {
            let from = laps.load(Ordering::Relaxed);
            process::until("the thread counts", || laps.load(Ordering::Relaxed) >= from + more);
        };
        lap(2);
        // With another thread there is no adoption.
        let other: Vec<_> = (0..PAGE * 4).map(|n| n as u8).collect();
        // SAFETY: `other` outlives the region.
        let memory = unsafe { ForeignMemory::from_raw(other.as_ptr().cast_mut(), other.len()) };
        let second = end.pd.register_foreign(memory.adopt(), all_access()).unwrap();
        assert_eq!(second.path(), MemoryPath::ProcessVm);
        drop(second);
        drop(region);
        lap(2);
        stop.store(true, Ordering::Relaxed);
        thread.join().unwrap();
        // What has been given back is ordinary memory: what the program does not need any more is zero.
        // SAFETY: the arena's own pages, which nobody else uses now.
        let done = unsafe { libc::madvise(arena.0.cast(), ARENA, libc::MADV_DONTNEED) };
        assert_eq!((done, arena.read().iter().all(|byte| *byte == 0)), (0, true));
        // And with new pages in their place all begins anew.
        arena.map(ARENA, libc::MAP_FIXED);
    }
    assert_eq!(register().path(), MemoryPath::Mapped);
}

#[test]
fn other_threads_lose_nothing() {
    assert_eq!(Child::start("threads ").hear(), "ok");
}

#[test]
fn bytes_that_are_handed_over_are_adopted_beside_other_threads() {
    let mut end = Loop::new();
    let bytes: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
    let address = bytes.as_ptr().addr() as u64;
    let memory = ForeignMemory::from_bytes(bytes).adopt();
    let region = end.pd.register_foreign(memory, all_access()).unwrap();
    assert_eq!((region.addr(), region.path()), (address, MemoryPath::Partly));
    end.write(&region, 50_000, &[7; 10_000]);
    let bytes = region.into_bytes().unwrap();
    assert_eq!(bytes.as_ptr().addr() as u64, address);
    assert!((0..100_000).all(|n| bytes[n] == if (50_000..60_000).contains(&n) { 7 } else { n as u8 }));
}

#[test]
fn what_would_take_long_to_move_stays() {
    let end = Loop::new();
    // Never touched: it costs nothing.
    let memory = ForeignMemory::from_bytes(vec![0; (256 << 20) + 3 * PAGE]).adopt();
    assert_eq!(end.pd.register_foreign(memory, all_access()).unwrap().path(), MemoryPath::ProcessVm);
}

#[test]
fn nothing_is_left_of_many_adoptions() {
    let mut end = Loop::new();
    let before = census::segments();
    for round in 0..2000_usize {
        let memory = ForeignMemory::from_bytes(vec![round as u8; 64 << 10]).adopt();
        let region = end.pd.register_foreign(memory, all_access()).unwrap();
        assert_eq!(region.path(), MemoryPath::Partly);
        if round.is_multiple_of(100) {
            assert_eq!(end.read(&region, 30_000, 64), [round as u8; 64]);
        }
    }
    assert_eq!(census::segments(), before);
}

/// The kernel makes no mappings any more: nothing is adopted, what is adopted stays so, and nothing is lost.
fn refused() -> std::io::Result<()> {
    let (early, late) = (Arena::new(), Arena::new());
    let mut end = Loop::new();
    let register = |end: &Loop, arena: &Arena| {
        end.pd.register_foreign(arena.memory(0, ARENA).adopt(), all_access()).unwrap()
    };
    let region = register(&end, &early);
    assert_eq!(region.path(), MemoryPath::Mapped);
    seccomp::deny(&[libc::SYS_mmap])?;
    end.write(&region, 0, &[1; ARENA]);
    drop(region);
    assert!(early.read().iter().all(|byte| *byte == 1));
    early.fill(0, ARENA, 2);
    assert!(early.read().iter().all(|byte| *byte == 2));
    late.fill(0, ARENA, 3);
    for arena in [&early, &late] {
        let region = register(&end, arena);
        assert_eq!(region.path(), MemoryPath::ProcessVm);
        end.write(&region, PAGE, &[4; PAGE]);
    }
    for (arena, byte) in [(early, 2), (late, 3)] {
        let bytes = arena.read();
        assert!((0..ARENA).all(|at| bytes[at] == if at / PAGE == 1 { 4 } else { byte }));
    }
    Ok(())
}

#[test]
fn a_kernel_that_refuses_costs_nothing() {
    let said = Child::start("refused ").hear();
    if said.starts_with("skip") {
        return process::skip(said);
    }
    assert_eq!(said, "ok");
}

fn forks() {
    let arena = Arena::new();
    let mut end = Loop::new();
    let region = end.pd.register_foreign(arena.memory(100, ARENA).adopt(), all_access()).unwrap();
    assert_eq!(region.path(), MemoryPath::Partly);
    arena.fill(0, ARENA, 1);
    for round in 2..10_u8 {
        let before = round - 1;
        let (reader, writer) = nix::unistd::pipe().unwrap();
        // SAFETY: this process has no other thread but the library's.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                drop(writer);
                // What the parent and its peers write from now on is not seen here.
                nix::unistd::read(&reader, &mut [0]).unwrap();
                let same = arena.read().iter().all(|byte| *byte == before);
                arena.fill(0, ARENA, 0xee);
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(if same && !arena.shows_a_segment() { 0 } else { 1 }) }
            }
            ForkResult::Parent { child } => {
                // The copy is the child's first deed; it is there when a later sign of life is.
                process::until("the child has its copy", || {
                    let maps = std::fs::read_to_string(format!("/proc/{child}/maps")).unwrap_or_default();
                    maps.lines().filter(|line| line.contains("memfd:tbrdma-shm")).count() < 2
                });
                end.write(&region, 0, &vec![round; ARENA - 100]);
                arena.fill(0, 100, round);
                drop(writer);
                assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)));
                assert!(arena.read().iter().all(|byte| *byte == round));
            }
        }
    }
    drop(region);
    assert!(arena.read().iter().all(|byte| *byte == 9));
    assert!(!arena.shows_a_segment());
}

#[test]
fn children_have_copies() {
    assert_eq!(Child::start("forks").hear(), "ok");
}
