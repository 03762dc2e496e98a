//! What each device is declared not to do, or to do otherwise, beyond what its attributes say: with the reason, which the table shows.

use crate::case::Need;
use crate::rxe;

/// What is declared of a device.
#[derive(Debug)]
pub struct Declaration {
    /// What it lacks: cases that need it are not run.
    pub cannot: &'static [(Need, &'static str)],
    /// Cases that fail there, with the evidence. They are run, and one that passes is a failure of its declaration.
    pub deviates: &'static [(&'static str, &'static str)],
    /// Cases that fail there on some runs only: either is as declared.
    pub sometimes: &'static [(&'static str, &'static str)],
}

/// All that is declared of a device, by its name.
pub fn declaration(device: &str) -> &'static [&'static Declaration] {
    ALL.iter().find(|(prefix, _)| device.starts_with(prefix)).map_or(&[], |(_, all)| *all)
}

/// Beginnings of names, and what holds for these devices: those over the system's library are as what is below it. Longer beginnings come first.
const ALL: &[(&str, &[&Declaration])] = &[
    ("shm", &[&SHM]),
    ("native:shm", &[&SHM]),
    ("bar:", &[&TWO]),
    ("stream:", &[&TWO]),
    ("rxe-udp", &[&rxe::WITH_US]),
    ("rxe", &[&rxe::ALONE]),
];

/// Devices at a place for two: contexts beyond the second are one of these again (`tests/common/place.rs`).
const TWO: Declaration = Declaration {
    cannot: &[],
    deviates: &[
        (
            "memory_window::a_send_gives_nothing_back_that_is_not_its_to_give",
            "there are two contexts for its three, so events of two queue pairs come in one order",
        ),
        (
            "ud::many_senders_fill_one_receive_queue_and_nothing_is_mixed_up",
            "each sender's thread opens a context, and there is room for one",
        ),
    ],
    sometimes: &[],
};

/// Shared memory.
const SHM: Declaration = Declaration {
    cannot: &[(
        Need::CqOverrun,
        "completions lie where they are made, so a completion queue cannot overflow",
    )],
    deviates: &[],
    sometimes: &[],
};
