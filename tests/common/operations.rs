//! Every operation, from one puppet to another.

use super::process::Child;
use super::puppet::Obey;

/// Every operation from `a` to `b`, at the front and at the very end of `b`'s memory.
pub(crate) fn everything(a: &mut Child, b: &mut Child) {
    let lengths = [a.run("length"), b.run("length")].map(|length| length.parse::<usize>().unwrap());
    for (id, size) in [1_usize, 64, 4097, 65_536, 200_001].into_iter().enumerate() {
        for at in [0, 24, lengths[1] - size] {
            let seed = id + at;
            let from = lengths[0] - size;
            a.ok(&format!("fill {seed} {from} {size}"));
            a.ok(&format!("post write {id} {from} {size} {at}"));
            assert_eq!(a.run("wait"), format!("{id} Success RdmaWrite {size} 0"));
            b.ok(&format!("check {seed} {at} {size}"));

            b.ok(&format!("fill {} {at} {size}", seed + 1));
            a.ok(&format!("post read {id} {from} {size} {at}"));
            assert_eq!(a.run("wait"), format!("{id} Success RdmaRead {size} 0"));
            a.ok(&format!("check {} {from} {size}", seed + 1));

            b.ok(&format!("recv {id} {at} {size}"));
            a.ok(&format!("fill {} {from} {size}", seed + 2));
            a.ok(&format!("post send {id} {from} {size}"));
            assert_eq!(a.run("wait"), format!("{id} Success Send {size} 0"));
            assert_eq!(b.run("wait"), format!("{id} Success Recv {size} 0"));
            b.ok(&format!("check {} {at} {size}", seed + 2));
        }
    }
    a.ok("fill 5 0 40");
    a.ok("post write-inline 1 0 40 80");
    assert_eq!(a.run("wait"), "1 Success RdmaWrite 40 0");
    b.ok("check 5 80 40");
    b.ok("recv 7 0 0");
    a.ok("post write-imm 8 0 40 400 9");
    assert_eq!(a.run("wait"), "8 Success RdmaWrite 40 0");
    assert_eq!(b.run("wait"), "7 Success RecvRdmaWithImm 40 9");
    b.ok("check 5 400 40");
}

/// Atomics from `a` to `b`.
pub(crate) fn atomics(a: &mut Child, b: &mut Child) {
    b.ok("store 128 41");
    a.ok("post faa 1 0 8 128 2");
    assert_eq!(a.run("wait"), "1 Success FetchAdd 8 0");
    a.ok("post cas 2 8 8 128 43 7");
    assert_eq!(a.run("wait"), "2 Success CompSwap 8 0");
    assert_eq!([a.run("load 0"), a.run("load 8"), b.run("load 128")], ["41", "43", "7"]);
}
