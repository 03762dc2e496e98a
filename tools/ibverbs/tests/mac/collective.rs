//! Collective operations over connections, in the manner of MLX's JACCL: bytes are copied through registered buffers, each message is as long as
//! its buffer, two are in flight, and nobody asks whether the other side is ready.

use super::rdma::{Address, BUFFERS, Connection, Rdma, SIZES, Use};
use crate::common::process::PATIENCE;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Instant;

/// Up to here everybody sends all to everybody.
const SMALL: usize = 32 << 10;

/// What ranks tell each other before they are connected: a star of sockets around rank 0.
pub(crate) enum Star {
    Middle(Vec<TcpStream>),
    Ray(TcpStream, usize),
}

impl Star {
    /// The middle. `tell` gets the port that the others are to be told.
    pub(crate) fn middle(size: usize, tell: impl FnOnce(u16)) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        tell(listener.local_addr().expect("an address").port());
        let mut rays: Vec<_> = (1..size)
            .map(|_| {
                let (mut ray, _) = listener.accept().expect("a rank");
                let mut rank = [0];
                ray.read_exact(&mut rank).expect("its number");
                (rank[0], ray)
            })
            .collect();
        rays.sort_unstable_by_key(|(rank, _)| *rank);
        Self::Middle(rays.into_iter().map(|(_, ray)| ray).collect())
    }

    pub(crate) fn ray(rank: usize, size: usize, port: u16) -> Self {
        let mut middle = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("rank 0 listens");
        middle.write_all(&[rank as u8]).expect("it hears");
        Self::Ray(middle, size)
    }

    /// What everybody said, by rank. All say equally much.
    pub(crate) fn all_gather(&mut self, own: &[u8]) -> Vec<Vec<u8>> {
        let all = match self {
            Self::Middle(rays) => {
                let mut all = own.to_vec();
                for ray in rays.iter_mut() {
                    let mut said = vec![0; own.len()];
                    ray.read_exact(&mut said).expect("what the rank says");
                    all.extend(said);
                }
                for ray in rays {
                    ray.write_all(&all).expect("it hears");
                }
                all
            }
            Self::Ray(middle, size) => {
                middle.write_all(own).expect("rank 0 hears");
                let mut all = vec![0; own.len() * *size];
                middle.read_exact(&mut all).expect("what all said");
                all
            }
        };
        all.chunks_exact(own.len()).map(<[u8]>::to_vec).collect()
    }
}

/// One of several ranks. Wires lead to other ranks: one to each, or one to the next and one to the one before.
pub(crate) struct Group<'a> {
    rank: usize,
    size: usize,
    wires: Vec<Connection<'a>>,
}

/// Bytes for one wire and bytes from it.
struct Transfer {
    wire: usize,
    out: Vec<u8>,
    into: Vec<u8>,
}

impl<'a> Group<'a> {
    /// Connects. `wires` are a device each, and whose wire is at the other end of it: a rank, and which wire of it.
    pub(crate) fn connect(
        rdma: &'a Rdma,
        rank: usize,
        wires: &[(String, (usize, usize))],
        star: &mut Star,
    ) -> Self {
        let opened: Vec<_> = wires.iter().map(|(device, _)| Connection::open(rdma, device)).collect();
        let own: Vec<u8> = opened.iter().flat_map(|wire| wire.begin().to_bytes()).collect();
        let all = star.all_gather(&own);
        for (wire, (_, (peer, number))) in opened.iter().zip(wires) {
            wire.connect(Address::from_bytes(&all[*peer][number * Address::BYTES..]));
        }
        // Whoever sends first has somebody to send to.
        star.all_gather(&[0]);
        Self { rank, size: all.len(), wires: opened }
    }

    /// Sends and receives, piece by piece. Both sides of a wire know how much either sends.
    fn exchange(&self, uses: [Use; 2], transfers: &mut [Transfer]) {
        // The largest buffer that the bytes fill, else the smallest.
        let size_for = |bytes: usize| SIZES.iter().rposition(|size| *size <= bytes).unwrap_or(0);
        let pieces = |bytes: usize| bytes.div_ceil(SIZES[size_for(bytes)]);
        let range = |piece: usize, bytes: usize| {
            let size = SIZES[size_for(bytes)];
            piece * size..((piece + 1) * size).min(bytes)
        };
        let [send, recv] = uses;
        let id = |receives: bool, piece: usize, transfer: usize| {
            (1 + u64::from(receives)) << 48 | (piece as u64) << 16 | transfer as u64
        };
        let begin_send = |at: usize, piece: usize, transfer: &Transfer| {
            let size = size_for(transfer.out.len());
            let bytes = &transfer.out[range(piece, transfer.out.len())];
            self.wires[transfer.wire].send(send, size, piece % BUFFERS, bytes, id(false, piece, at));
        };
        let begin_recv = |at: usize, piece: usize, transfer: &Transfer| {
            let size = size_for(transfer.into.len());
            self.wires[transfer.wire].recv(recv, size, piece % BUFFERS, id(true, piece, at));
        };
        let mut left = 0;
        for (at, transfer) in transfers.iter().enumerate() {
            let (outs, ins) = (pieces(transfer.out.len()), pieces(transfer.into.len()));
            left += outs + ins;
            (0..ins.min(BUFFERS)).for_each(|piece| begin_recv(at, piece, transfer));
            (0..outs.min(BUFFERS)).for_each(|piece| begin_send(at, piece, transfer));
        }
        let begun = Instant::now();
        let mut completed = Vec::new();
        while left > 0 {
            for wire in &self.wires {
                wire.poll(&mut completed);
            }
            if completed.is_empty() {
                // Ranks are more than cores here.
                std::thread::yield_now();
            }
            for id in completed.drain(..) {
                let (receives, piece, at) =
                    (id >> 48 == 2, (id >> 16) as usize & 0xffff_ffff, id as usize & 0xffff);
                let transfer = &mut transfers[at];
                left -= 1;
                if receives {
                    let length = transfer.into.len();
                    let (size, range) = (size_for(length), range(piece, length));
                    self.wires[transfer.wire].received(
                        recv,
                        size,
                        piece % BUFFERS,
                        &mut transfer.into[range],
                    );
                    if piece + BUFFERS < pieces(length) {
                        begin_recv(at, piece + BUFFERS, transfer);
                    }
                } else if piece + BUFFERS < pieces(transfer.out.len()) {
                    begin_send(at, piece + BUFFERS, transfer);
                }
            }
            assert!(begun.elapsed() < PATIENCE, "rank {}: {left} messages do not complete", self.rank);
        }
    }

    /// Sums over all ranks, where there is a wire to each.
    pub(crate) fn mesh_all_reduce(&self, data: &mut [f32]) {
        let plain = [Use::Send, Use::Recv];
        if self.size == 2 || size_of_val(data) <= SMALL {
            let own = to_bytes(data);
            let mut transfers: Vec<_> = (0..self.size - 1)
                .map(|wire| Transfer { wire, out: own.clone(), into: vec![0; own.len()] })
                .collect();
            self.exchange(plain, &mut transfers);
            // In the order of ranks, so that all have the same sum to the last bit.
            let mut sum = vec![0.0; data.len()];
            let mut others = transfers.iter();
            for rank in 0..self.size {
                let bytes = if rank == self.rank { &own } else { &others.next().expect("one each").into };
                add(&mut sum, bytes);
            }
            data.copy_from_slice(&sum);
            return;
        }
        // Each rank sums up its part, and then everybody gets all parts.
        let part = data.len().div_ceil(self.size);
        let range = |rank: usize| (rank * part).min(data.len())..((rank + 1) * part).min(data.len());
        let others: Vec<_> = (0..self.size).filter(|rank| *rank != self.rank).collect();
        let own = range(self.rank);
        let mut transfers: Vec<_> = { others.iter() }
            .enumerate()
            .map(|(wire, rank)| Transfer {
                wire,
                out: to_bytes(&data[range(*rank)]),
                into: vec![0; own.len() * 4],
            })
            .collect();
        self.exchange([Use::ScatterSend, Use::ScatterRecv], &mut transfers);
        let mut sum = data[own.clone()].to_vec();
        transfers.iter().for_each(|transfer| add(&mut sum, &transfer.into));
        let out = to_bytes(&sum);
        let mut transfers: Vec<_> = { others.iter() }
            .enumerate()
            .map(|(wire, rank)| Transfer { wire, out: out.clone(), into: vec![0; range(*rank).len() * 4] })
            .collect();
        self.exchange(plain, &mut transfers);
        data[own].copy_from_slice(&sum);
        for (rank, transfer) in others.iter().zip(&transfers) {
            let range = (rank * part).min(data.len())..((rank + 1) * part).min(data.len());
            data[range].copy_from_slice(&to_floats(&transfer.into));
        }
    }

    /// Sums over all ranks, where wire 0 leads to the next one and wire 1 to the one before. Half of the data goes round each way.
    pub(crate) fn ring_all_reduce(&self, data: &mut [f32]) {
        const NEXT: usize = 0;
        const BEFORE: usize = 1;
        let (size, rank) = (self.size, self.rank);
        let length = data.len();
        let part = length.div_ceil(2 * size);
        // Of one way, one part a rank.
        let range = |way: usize, number: usize| {
            let at = (way * size + number) * part;
            at.min(length)..(at + part).min(length)
        };
        // Which part a rank sends in a step, by the way it goes; what comes is what the rank behind sends.
        let out = |way: usize, rank: usize, step: usize, gathering: usize| match way {
            NEXT => (rank + gathering + 2 * size - step) % size,
            _ => (rank + 2 * size - gathering + step) % size,
        };
        let behind = |way: usize| if way == NEXT { (rank + size - 1) % size } else { (rank + 1) % size };
        for gathering in [0, 1] {
            for step in 0..size - 1 {
                let uses = if gathering == 0 {
                    [Use::ScatterSend, Use::ScatterRecv]
                } else {
                    [Use::Send, Use::Recv]
                };
                let comes = |way: usize| range(way, out(way, behind(way), step, gathering));
                // Out on one wire goes what goes that way; in on it comes what goes the other.
                let mut transfers = [(NEXT, BEFORE), (BEFORE, NEXT)].map(|(way, other)| Transfer {
                    wire: way,
                    out: to_bytes(&data[range(way, out(way, rank, step, gathering))]),
                    into: vec![0; comes(other).len() * 4],
                });
                self.exchange(uses, &mut transfers);
                for (transfer, way) in transfers.iter().zip([BEFORE, NEXT]) {
                    let to = &mut data[comes(way)];
                    match gathering {
                        0 => add(to, &transfer.into),
                        _ => to.copy_from_slice(&to_floats(&transfer.into)),
                    }
                }
            }
        }
    }
}

fn to_bytes(data: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; size_of_val(data)];
    bytes.chunks_exact_mut(4).zip(data).for_each(|(four, value)| four.copy_from_slice(&value.to_ne_bytes()));
    bytes
}

fn to_floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|four| f32::from_ne_bytes(four.try_into().expect("four"))).collect()
}

fn add(sum: &mut [f32], bytes: &[u8]) {
    for (sum, value) in sum.iter_mut().zip(to_floats(bytes)) {
        *sum += value;
    }
}
