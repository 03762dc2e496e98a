//! Lists of devices as text: who is called what, and who is cabled to whom.

use tbrdma_proto::{Backend, CableEnd, NamedDevice, parse_devices};

/// The list, as texts.
fn list(text: &str, profile: &str) -> Vec<String> {
    parse_devices(text, profile).unwrap().iter().map(NamedDevice::to_string).collect()
}

#[test]
fn devices_have_the_names_they_are_given_or_those_of_their_profile() {
    let text = "shm, udp:lo,mlx5_9=udp:eth0.7,rdma_en9=shm@left:0";
    assert_eq!(list(text, "plain"), ["shm=shm", "udp_lo=udp:lo", "mlx5_9=udp:eth0.7", "rdma_en9=shm@left:0"]);
    assert_eq!(list("sim, sim:b", "plain"), ["sim=sim", "sim_b=sim:b"]);
    assert_eq!(list("shm,udp:lo", "rxe"), ["rxe0=shm", "rxe1=udp:lo"]);
    assert_eq!(list("shm,udp:lo", "connectx"), ["mlx5_0=shm", "mlx5_1=udp:lo"]);
    assert_eq!(list("shm,shm@a:1", "apple-tb5"), ["rdma_en2=shm", "rdma_en3=shm@a:1"]);
}

#[test]
fn what_is_written_reads_as_itself() {
    for text in ["shm=shm", "a.b-c_d=udp:lo", "x=shm@cable.7:1", "mlx5_0=sim", "mlx5_1=sim:rack-7"] {
        assert_eq!(list(text, "plain"), [text]);
    }
}

/// The other end of a cable.
fn other(end: &CableEnd) -> CableEnd {
    CableEnd { end: 1 - end.end, ..end.clone() }
}

fn ends(text: &str) -> Vec<CableEnd> {
    let devices = parse_devices(text, "apple-tb5").unwrap();
    devices
        .into_iter()
        .enumerate()
        .map(|(index, device)| {
            assert_eq!(device.name, format!("rdma_en{}", index + 2));
            let Backend::Shm(Some(end)) = device.backend else { panic!("{device}") };
            end
        })
        .collect()
}

#[test]
fn a_mesh_has_one_cable_for_each_two_ranks() {
    for size in 2..=8_usize {
        let ranks: Vec<_> = (0..size).map(|rank| ends(&format!("mesh:{rank}/{size}=shm"))).collect();
        for (one, ends) in ranks.iter().enumerate() {
            assert_eq!(ends.len(), size - 1);
            for (two, others) in ranks.iter().enumerate().filter(|(two, _)| *two != one) {
                // Devices are in the order of the ranks they lead to.
                let at = |from: usize, to: usize| if to < from { to } else { to - 1 };
                assert_eq!(ends[at(one, two)], other(&others[at(two, one)]), "{one} to {two} of {size}");
            }
        }
        let mut all: Vec<_> = ranks.iter().flatten().map(ToString::to_string).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), size * (size - 1));
    }
}

#[test]
fn a_ring_leads_to_the_next_rank_and_back() {
    for size in 2..=8_usize {
        let ranks: Vec<_> = (0..size).map(|rank| ends(&format!("ring:{rank}/{size}=shm"))).collect();
        for rank in 0..size {
            assert_eq!(ranks[rank][0], other(&ranks[(rank + 1) % size][1]), "{rank} of {size}");
        }
    }
}

#[test]
fn meshes_with_other_labels_or_sizes_and_rings_are_apart() {
    let texts = ["mesh:0/2=shm", "mesh:0/3=shm", "mesh:0/2:x=shm", "ring:0/2=shm", "ring:0/2:x=shm"];
    let mut cables: Vec<_> = texts.iter().flat_map(|text| ends(text)).map(|end| end.cable).collect();
    let count = cables.len();
    cables.sort();
    cables.dedup();
    assert_eq!(cables.len(), count);
}

#[test]
fn what_makes_no_sense_is_refused_with_what_would() {
    for (text, what) in [
        ("", "no such kind"),
        ("shm,", "no such kind"),
        ("shn", "no such kind"),
        ("udp:", "no such kind"),
        ("udp:sixteen-letters!", "no such kind"),
        ("a=b=shm", "no such kind"),
        ("sim:", "a network name"),
        ("sim:a/b", "a network name"),
        ("simulated", "no such kind"),
        ("shm@left", "no end"),
        ("shm@left:2", "no end"),
        ("shm@:0", "no end"),
        ("shm,shm", "taken"),
        ("a/b=shm", "a name that is none"),
        ("=shm", "a name that is none"),
        (".a=shm", "a name that is none"),
        ("mesh:0/2", "no cables"),
        ("mesh:0/2=udp:lo", "no cables"),
        ("mesh:2/2=shm", "no rank"),
        ("mesh:0/1=shm", "no rank"),
        ("mesh:+0/2=shm", "no rank"),
        ("ring:0/66=shm", "no rank"),
        ("mesh:0/99999999999999999999=shm", "no rank"),
        ("mesh:0/2:a b=shm", "label"),
        ("mesh:0/2:=shm", "label"),
        ("mesh:0/65=shm,shm", "too many"),
    ] {
        let error = parse_devices(text, "plain").unwrap_err();
        assert!(error.what.contains(what), "{text}: {error}");
    }
}
