//! What a plan does to packets: how often, when, and that a seed decides it all.

use std::time::Duration;

use tbrdma_proto::Time;
use tbrdma_proto::fault::{Delivery, DropCause, Fate, FaultPlan, Faults, Random};

const PACKETS: u64 = 200_000;

fn faults(plan: &str, seed: u64) -> Faults {
    Faults::new(plan.parse::<FaultPlan>().unwrap(), seed)
}

/// The fates of many packets of 100 bytes, one every microsecond.
fn fates(plan: &str, seed: u64) -> Vec<Fate> {
    let mut faults = faults(plan, seed);
    (0..PACKETS).map(|number| faults.apply(Time(number * 1000), 100)).collect()
}

fn share(fates: &[Fate], is: impl Fn(&Fate) -> bool) -> f64 {
    fates.iter().filter(|fate| is(fate)).count() as f64 / fates.len() as f64
}

fn first(fate: &Fate) -> Option<Delivery> {
    match fate {
        Fate::Delivered { first, .. } => Some(*first),
        Fate::Dropped(_) => None,
    }
}

#[test]
fn a_seed_decides_everything() {
    let plan = "loss=5%,burst=1%:4,delay=5us~3us,reorder=5%:9us,dup=5%:9us,corrupt=5%,rate=1Gbps,queue=8";
    assert_eq!(fates(plan, 7), fates(plan, 7));
    assert_ne!(fates(plan, 7), fates(plan, 8));
}

#[test]
fn the_random_numbers_are_those_of_splitmix64_for_ever() {
    let mut random = Random::new(0);
    let three = [random.next_u64(), random.next_u64(), random.next_u64()];
    assert_eq!(three, [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f]);
    // What a seed means to a plan: changing this breaks every seed anybody wrote down.
    let fate =
        fates("loss=50%", 1).iter().take(16).map(|fate| first(fate).map_or('x', |_| '.')).collect::<String>();
    assert_eq!(fate, "...x.xxxx...x..x");
}

#[test]
fn a_perfect_link_is_no_link_at_all() {
    for (number, fate) in fates("none", 3).iter().enumerate() {
        let at = Time(number as u64 * 1000);
        assert_eq!(*fate, Fate::Delivered { first: Delivery { at, flip: None }, second: None });
    }
}

#[test]
fn chances_are_what_the_plan_says() {
    let near = |share: f64, wanted: f64| assert!((share / wanted - 1.0).abs() < 0.1, "{share} for {wanted}");
    let lost = |fate: &Fate| matches!(fate, Fate::Dropped(DropCause::Loss));
    near(share(&fates("loss=1%", 1), lost), 0.01);
    near(share(&fates("loss=30%", 2), lost), 0.30);
    near(share(&fates("dup=3%", 3), |fate| matches!(fate, Fate::Delivered { second: Some(_), .. })), 0.03);
    near(share(&fates("corrupt=4%", 4), |fate| first(fate).is_some_and(|one| one.flip.is_some())), 0.04);
    assert_eq!(share(&fates("loss=100%", 1), lost), 1.0);
}

#[test]
fn bursts_take_runs_of_the_mean_length() {
    let fates = fates("burst=0.5%:8", 5);
    let lost: Vec<bool> = fates.iter().map(|fate| *fate == Fate::Dropped(DropCause::Burst)).collect();
    let runs = lost.windows(2).filter(|pair| pair[0] && !pair[1]).count() as f64;
    let total = lost.iter().filter(|&&lost| lost).count() as f64;
    assert!((total / runs - 8.0).abs() < 1.0, "mean {}", total / runs);
    assert!((runs / PACKETS as f64 / 0.005 - 1.0).abs() < 0.15, "{runs} runs");
}

#[test]
fn jitter_keeps_the_order_and_its_bounds() {
    let fates = fates("delay=50us~20us", 6);
    let mut last = Time::ZERO;
    for (number, fate) in fates.iter().enumerate() {
        let at = first(fate).unwrap().at;
        let late = at.0 - number as u64 * 1000;
        assert!((30_000..=70_000).contains(&late), "{late} ns");
        assert!(at >= last);
        last = at;
    }
}

#[test]
fn a_reordered_packet_is_overtaken_and_not_later_than_said() {
    let fates = fates("delay=10us,reorder=2%:50us", 7);
    let late: Vec<u64> =
        fates.iter().zip(0..).map(|(fate, number)| first(fate).unwrap().at.0 - number * 1000).collect();
    assert!(late.iter().all(|late| (10_000..=60_000).contains(late)));
    let share = late.iter().filter(|&&late| late > 10_000).count() as f64 / PACKETS as f64;
    assert!((share / 0.02 - 1.0).abs() < 0.1, "{share}");
}

#[test]
fn a_second_copy_is_never_first() {
    for fate in fates("dup=50%:20us,delay=10us~5us", 8) {
        if let Fate::Delivered { first, second: Some(second) } = fate {
            assert!(second.at >= first.at && second.at.0 - first.at.0 <= 20_000);
        }
    }
}

#[test]
fn a_flipped_bit_is_inside_the_packet_and_changes_one_bit() {
    let mut seen = [false; 800];
    for fate in fates("corrupt=100%", 9) {
        let delivery = first(&fate).unwrap();
        seen[delivery.flip.unwrap()] = true;
        let mut packet = [0x5a_u8; 100];
        delivery.damage(&mut packet);
        assert_eq!(packet.iter().map(|byte| (byte ^ 0x5a).count_ones()).sum::<u32>(), 1);
    }
    assert!(seen.iter().all(|&seen| seen), "every bit can be hit");
}

#[test]
fn packets_leave_at_the_rate() {
    // 100 bytes at 8 Gb/s are 100 ns.
    let mut faults = faults("rate=8Gbps,delay=1us", 1);
    let at = |fate: Fate| first(&fate).unwrap().at.0;
    assert_eq!(at(faults.apply(Time(0), 100)), 1100);
    assert_eq!(at(faults.apply(Time(0), 100)), 1200);
    assert_eq!(at(faults.apply(Time(50), 50)), 1250);
    assert_eq!(at(faults.apply(Time(9000), 100)), 10_100, "an idle link saves nothing up");
}

#[test]
fn a_fast_link_does_not_round_packets_away() {
    // 64 bytes at 400 Gb/s are 1.28 ns.
    let mut faults = faults("rate=400Gbps", 1);
    let last = (0..100).map(|_| first(&faults.apply(Time(0), 64)).unwrap().at.0).last().unwrap();
    assert_eq!(last, 128);
}

#[test]
fn a_full_queue_drops_and_empties_again() {
    let mut faults = faults("rate=8Gbps,queue=3", 1);
    let dropped = |fate| fate == Fate::Dropped(DropCause::Queue);
    let burst: Vec<bool> = (0..5).map(|_| dropped(faults.apply(Time(0), 100))).collect();
    assert_eq!(burst, [false, false, false, true, true]);
    assert!(!dropped(faults.apply(Time(100), 100)), "one has left");
    assert!(dropped(faults.apply(Time(100), 100)));
    assert!(!dropped(faults.apply(Time(1000), 100)));
}

#[test]
fn a_partition_takes_all_and_only_its_time() {
    let mut faults = Faults::starting_at("partition=1us..2us+5us..".parse().unwrap(), 1, Time(10_000));
    for (now, cut) in
        [(10_000, false), (10_999, false), (11_000, true), (11_999, true), (12_000, false), (15_000, true)]
    {
        let fate = faults.apply(Time(now), 10);
        assert_eq!(fate == Fate::Dropped(DropCause::Partition), cut, "{now}");
    }
    assert_eq!(faults.apply(Time(u64::MAX), 10), Fate::Dropped(DropCause::Partition));
}

#[test]
fn one_kind_does_not_move_the_dice_of_another() {
    let corrupt = |fates: &[Fate]| fates.iter().map(|fate| first(fate).unwrap().flip).collect::<Vec<_>>();
    assert_eq!(
        corrupt(&fates("corrupt=10%", 4)),
        corrupt(&fates("corrupt=10%,delay=5us~3us,reorder=5%:9us", 4))
    );
}

#[test]
fn times_near_the_end_saturate() {
    let mut faults = faults("delay=10s~5s,rate=1bps,queue=4,dup=100%:10s,reorder=100%:10s", 1);
    for now in [Time(u64::MAX - 1), Time::NEVER] {
        match faults.apply(now, 100) {
            Fate::Delivered { first, .. } => assert_eq!(first.at, Time::NEVER),
            Fate::Dropped(cause) => panic!("{cause:?}"),
        }
    }
    assert_eq!(Duration::from_nanos(u64::MAX), Time::NEVER.since(Time::ZERO));
}

#[test]
fn a_plan_changes_when_it_says_so_and_its_dice_roll_on() {
    let mut changing = faults("none; 1ms: loss=50%; 2ms: delay=1us,partition=10us..20us", 1);
    let mut always = faults("loss=50%", 1);
    for micro in 0..3000_u64 {
        let now = Time(micro * 1000);
        let fate = changing.apply(now, 100);
        let whole = |at| Fate::Delivered { first: Delivery { at, flip: None }, second: None };
        match micro {
            0..1000 => assert_eq!(fate, whole(now)),
            1000..2000 => assert_eq!(fate, always.apply(now, 100)),
            // Partitions count from where their part begins.
            2010..2020 => assert_eq!(fate, Fate::Dropped(DropCause::Partition)),
            _ => assert_eq!(fate, whole(now + Duration::from_micros(1))),
        }
    }
}

#[test]
fn times_are_spread_as_the_plan_says() {
    let extra = |plan: &str| {
        let mut faults = faults(plan, 9);
        // Far apart, so that none waits for its predecessor.
        let mut times: Vec<u64> = (0..PACKETS)
            .map(|number| {
                let now = Time(number * 100_000_000);
                first(&faults.apply(now, 100)).unwrap().at.since(now).as_nanos() as u64
            })
            .collect();
        times.sort_unstable();
        times
    };
    let at = |times: &[u64], part: f64| times[(times.len() as f64 * part) as usize] as f64;
    let near = |is: f64, wanted: f64| assert!((is / wanted - 1.0).abs() < 0.05, "{is} for {wanted}");
    let mean = |times: &[u64]| times.iter().sum::<u64>() as f64 / times.len() as f64;

    let normal = extra("delay=1ms~300us:normal");
    near(mean(&normal), 1e6);
    near(at(&normal, 0.841), 1.1e6);
    near(at(&normal, 0.9987), 1.3e6);
    assert!(at(&normal, 0.0) > 0.4e6);

    let tail = extra("delay=1ms~100us:pareto");
    assert_eq!(tail[0], 1_000_000);
    near(at(&tail, 0.5) - 1e6, 0.414 * 1e5);
    near(at(&tail, 0.99) - 1e6, 9.0 * 1e5);
    near(mean(&tail) - 1e6, 1e5);
    assert!(*tail.last().unwrap() <= 11_000_000);
}

#[test]
fn a_link_that_sleeps_makes_the_first_and_those_beside_it_wait() {
    let mut faults = faults("sleep=100us:30us", 1);
    let mut at = |micro: u64| {
        let now = Time(micro * 1000);
        first(&faults.apply(now, 100)).unwrap().at.since(now).as_micros()
    };
    assert_eq!([at(0), at(50), at(149)], [0, 0, 0]);
    assert_eq!([at(249), at(250), at(278), at(279), at(378)], [30, 29, 1, 0, 0]);
    assert_eq!([at(600), at(700), at(729), at(730)], [30, 0, 0, 0]);
}
