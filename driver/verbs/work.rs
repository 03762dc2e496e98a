//! Building work requests: the list that one doorbell posts.

use super::address::AddressHandle;
use super::buffer::Buffer;
use super::memory::MrSlice;
use crate::device::{ReceiveBatch, ReceiveWr, SendBatch, Shape};
use crate::mem::RawSge;
use tbrdma_proto::{MwBind, Opcode, Qpn, RemoteAddr, SendFlags, SendWr, UdDestination};

/// A scatter/gather list: one slice, or several in order.
pub trait SgList {
    /// The slices.
    fn slices(&self) -> &[MrSlice];
}

impl SgList for MrSlice {
    fn slices(&self) -> &[MrSlice] {
        std::slice::from_ref(self)
    }
}

impl<const N: usize> SgList for [MrSlice; N] {
    fn slices(&self) -> &[MrSlice] {
        self
    }
}

impl SgList for &[MrSlice] {
    fn slices(&self) -> &[MrSlice] {
        self
    }
}

impl SgList for Vec<MrSlice> {
    fn slices(&self) -> &[MrSlice] {
        self
    }
}

/// Buffers lent to the work requests of a list, by position.
pub(crate) type Lent = Vec<(usize, Buffer)>;

/// The send work requests of one doorbell, handed to the closure of [`SendQueue::post`](crate::SendQueue::post). Each method appends one.
pub struct SendWrs<'a> {
    pub(crate) batch: &'a mut SendBatch,
    pub(crate) lent: &'a mut Lent,
}

const NOWHERE: RemoteAddr = RemoteAddr { addr: 0, rkey: 0 };

impl SendWrs<'_> {
    #[inline]
    fn push(&mut self, opcode: Opcode, list: &[MrSlice], remote: RemoteAddr) -> SendWrBuilder<'_> {
        let first_sge = self.batch.sges.len() as u32;
        match list {
            // By far the most common, and shorter so.
            [only] => self.batch.sges.push(only.sge()),
            list => self.batch.sges.extend(list.iter().map(MrSlice::sge)),
        }
        if opcode.has_imm() {
            self.batch.shape = self.batch.shape.max(Shape::Immediate);
        } else if !matches!(opcode, Opcode::Send | Opcode::RdmaWrite | Opcode::RdmaRead) {
            self.batch.shape = Shape::Any;
        }
        self.push_wr(opcode, SendFlags::SIGNALED, remote, first_sge, list.len() as u32)
    }

    fn push_inline(&mut self, opcode: Opcode, bytes: &[u8], remote: RemoteAddr) -> SendWrBuilder<'_> {
        let first = self.batch.inline.len() as u32;
        self.batch.inline.extend_from_slice(bytes);
        self.batch.shape = Shape::Any;
        self.push_wr(opcode, SendFlags::SIGNALED | SendFlags::INLINE, remote, first, bytes.len() as u32)
    }

    #[inline(always)]
    fn push_wr(
        &mut self,
        opcode: Opcode,
        flags: SendFlags,
        remote: RemoteAddr,
        first_sge: u32,
        num_sge: u32,
    ) -> SendWrBuilder<'_> {
        let wr = self.batch.wrs.push_mut(SendWr {
            wr_id: 0,
            first_sge,
            compare_add: 0,
            num_sge,
            opcode,
            flags,
            imm_data: 0,
            remote,
            swap: 0,
            ud: None,
        });
        SendWrBuilder { wr }
    }

    /// A work request written by hand, of these entries; its own `sg` means nothing.
    #[inline]
    pub fn raw(&mut self, wr: SendWr, list: &[RawSge]) {
        let (first_sge, num_sge) = (self.batch.sges.len() as u32, list.len() as u32);
        match list {
            [only] => self.batch.sges.push(only.sge()),
            list => self.batch.sges.extend(list.iter().map(|entry| entry.sge())),
        }
        self.batch.shape = Shape::Any;
        self.batch.wrs.push(SendWr { flags: wr.flags - SendFlags::INLINE, first_sge, num_sge, ..wr });
    }

    /// A work request written by hand, of bytes that are copied now; its own `sg` means nothing.
    pub fn raw_inline<'b>(&mut self, wr: SendWr, bytes: impl IntoIterator<Item = &'b [u8]>) {
        let first = self.batch.inline.len();
        for part in bytes {
            self.batch.inline.extend_from_slice(part);
        }
        let (first_sge, num_sge) = (first as u32, (self.batch.inline.len() - first) as u32);
        self.batch.shape = Shape::Any;
        self.batch.wrs.push(SendWr { flags: wr.flags | SendFlags::INLINE, first_sge, num_sge, ..wr });
    }

    /// SEND.
    #[inline]
    pub fn send(&mut self, list: impl SgList) -> SendWrBuilder<'_> {
        self.push(Opcode::Send, list.slices(), NOWHERE)
    }

    /// SEND of the first `len` bytes of a buffer, lent until the completion: [`SendQueue::take_buffer`](crate::SendQueue::take_buffer).
    pub fn send_buffer(&mut self, buffer: Buffer, len: usize) -> SendWrBuilder<'_> {
        let slice = buffer.slice(len);
        self.lent.push((self.batch.wrs.len(), buffer));
        self.batch.shape = Shape::Any;
        self.push(Opcode::Send, &[slice], NOWHERE)
    }

    /// SEND of bytes that are copied now: the caller may change them as soon as the post returns.
    pub fn send_inline(&mut self, bytes: &[u8]) -> SendWrBuilder<'_> {
        self.push_inline(Opcode::Send, bytes, NOWHERE)
    }

    /// SEND with 32 bits of immediate data, in host order here and there.
    #[inline]
    pub fn send_with_imm(&mut self, list: impl SgList, imm_data: u32) -> SendWrBuilder<'_> {
        let builder = self.push(Opcode::SendWithImm, list.slices(), NOWHERE);
        builder.wr.imm_data = imm_data;
        builder
    }

    /// SEND with immediate data, of bytes that are copied now.
    pub fn send_inline_with_imm(&mut self, bytes: &[u8], imm_data: u32) -> SendWrBuilder<'_> {
        let builder = self.push_inline(Opcode::SendWithImm, bytes, NOWHERE);
        builder.wr.imm_data = imm_data;
        builder
    }

    /// SEND that also takes one of the peer's keys out of use before its receive completes; the completion says which
    /// ([`WcFlags::WITH_INV`](tbrdma_proto::WcFlags::WITH_INV)). Reliable connections only.
    pub fn send_with_inv(&mut self, list: impl SgList, rkey: u32) -> SendWrBuilder<'_> {
        let builder = self.push(Opcode::SendWithInv, list.slices(), NOWHERE);
        builder.wr.imm_data = rkey;
        builder
    }

    /// SEND with invalidation, of bytes that are copied now.
    pub fn send_inline_with_inv(&mut self, bytes: &[u8], rkey: u32) -> SendWrBuilder<'_> {
        let builder = self.push_inline(Opcode::SendWithInv, bytes, NOWHERE);
        builder.wr.imm_data = rkey;
        builder
    }

    /// BIND_MW: gives a memory window the part of a region that `bind` says, or takes it away
    /// ([`MemoryWindow::bind_to`](crate::MemoryWindow::bind_to)). Peers may use the new key once this has completed.
    pub fn bind_mw(&mut self, bind: &MwBind) -> SendWrBuilder<'_> {
        let builder = self.push(Opcode::BindMw, &[], NOWHERE);
        builder.wr.set_bind(bind);
        builder
    }

    /// LOCAL_INV: takes a key of our own out of use, that of a memory window of type 2 or of a region with remote rights.
    pub fn local_inv(&mut self, rkey: u32) -> SendWrBuilder<'_> {
        let builder = self.push(Opcode::LocalInv, &[], NOWHERE);
        builder.wr.imm_data = rkey;
        builder
    }

    /// RDMA WRITE.
    #[inline]
    pub fn write(&mut self, list: impl SgList, remote: RemoteAddr) -> SendWrBuilder<'_> {
        self.push(Opcode::RdmaWrite, list.slices(), remote)
    }

    /// RDMA WRITE of bytes that are copied now.
    pub fn write_inline(&mut self, bytes: &[u8], remote: RemoteAddr) -> SendWrBuilder<'_> {
        self.push_inline(Opcode::RdmaWrite, bytes, remote)
    }

    /// RDMA WRITE that also completes a receive at the peer, with 32 bits of immediate data.
    #[inline]
    pub fn write_with_imm(
        &mut self,
        list: impl SgList,
        remote: RemoteAddr,
        imm_data: u32,
    ) -> SendWrBuilder<'_> {
        let builder = self.push(Opcode::RdmaWriteWithImm, list.slices(), remote);
        builder.wr.imm_data = imm_data;
        builder
    }

    /// RDMA WRITE with immediate data, of bytes that are copied now.
    pub fn write_inline_with_imm(
        &mut self,
        bytes: &[u8],
        remote: RemoteAddr,
        imm_data: u32,
    ) -> SendWrBuilder<'_> {
        let builder = self.push_inline(Opcode::RdmaWriteWithImm, bytes, remote);
        builder.wr.imm_data = imm_data;
        builder
    }

    /// RDMA READ into the list.
    #[inline]
    pub fn read(&mut self, list: impl SgList, remote: RemoteAddr) -> SendWrBuilder<'_> {
        self.push(Opcode::RdmaRead, list.slices(), remote)
    }

    /// Atomic compare and swap of 8 bytes; the old value goes to `result`, 8 bytes, in host order.
    pub fn compare_and_swap(
        &mut self,
        result: MrSlice,
        remote: RemoteAddr,
        compare: u64,
        swap: u64,
    ) -> SendWrBuilder<'_> {
        let builder = self.push(Opcode::AtomicCmpAndSwp, &[result], remote);
        builder.wr.compare_add = compare;
        builder.wr.swap = swap;
        builder
    }

    /// Atomic fetch and add of 8 bytes; the old value goes to `result`, 8 bytes, in host order.
    pub fn fetch_and_add(&mut self, result: MrSlice, remote: RemoteAddr, add: u64) -> SendWrBuilder<'_> {
        let builder = self.push(Opcode::AtomicFetchAndAdd, &[result], remote);
        builder.wr.compare_add = add;
        builder
    }
}

/// What may be said of a send work request once it is on the list. Without a word it is signaled and has identifier 0.
pub struct SendWrBuilder<'a> {
    wr: &'a mut SendWr,
}

impl SendWrBuilder<'_> {
    #[inline]
    fn flag(self, flag: SendFlags, on: bool) -> Self {
        self.wr.flags.set(flag, on);
        self
    }

    /// The identifier that its completion carries.
    #[inline]
    pub fn id(self, wr_id: u64) -> Self {
        self.wr.wr_id = wr_id;
        self
    }

    /// No completion if it succeeds; it keeps its place in the queue until a later signaled one has been polled.
    #[inline]
    pub fn unsignaled(self) -> Self {
        self.flag(SendFlags::SIGNALED, false)
    }

    /// A completion also if it succeeds (the default).
    #[inline]
    pub fn signaled(self) -> Self {
        self.flag(SendFlags::SIGNALED, true)
    }

    /// The receiver's completion is a solicited one.
    #[inline]
    pub fn solicited(self) -> Self {
        self.flag(SendFlags::SOLICITED, true)
    }

    /// Starts only when all earlier READs and atomics of the queue have ended.
    #[inline]
    pub fn fence(self) -> Self {
        self.flag(SendFlags::FENCE, true)
    }

    /// Where a datagram goes.
    pub fn to(self, ah: &AddressHandle, qpn: Qpn, qkey: u32) -> Self {
        self.wr.ud = Some(UdDestination { ah: ah.number(), qpn, qkey });
        self
    }
}

/// The receive work requests of one doorbell, handed to the closure of [`ReceiveQueue::post_recv`](crate::ReceiveQueue::post_recv).
pub struct ReceiveWrs<'a> {
    pub(crate) batch: &'a mut ReceiveBatch,
    pub(crate) lent: &'a mut Lent,
}

impl ReceiveWrs<'_> {
    fn push(&mut self, list: &[MrSlice]) -> ReceiveWrBuilder<'_> {
        let first_sge = self.batch.sges.len() as u32;
        self.batch.sges.extend(list.iter().map(MrSlice::sge));
        let at = self.batch.wrs.len();
        self.batch.wrs.push(ReceiveWr { wr_id: 0, first_sge, num_sge: list.len() as u32 });
        ReceiveWrBuilder { wr: &mut self.batch.wrs[at] }
    }

    /// A receive into entries written by hand.
    #[inline]
    pub fn raw(&mut self, wr_id: u64, list: &[RawSge]) {
        let first_sge = self.batch.sges.len() as u32;
        self.batch.sges.extend(list.iter().map(|entry| entry.sge()));
        self.batch.wrs.push(ReceiveWr { wr_id, first_sge, num_sge: list.len() as u32 });
    }

    /// A receive into the list.
    pub fn recv(&mut self, list: impl SgList) -> ReceiveWrBuilder<'_> {
        self.push(list.slices())
    }

    /// A receive into a buffer, lent until the completion: [`ReceiveQueue::take_buffer`](crate::ReceiveQueue::take_buffer).
    pub fn recv_buffer(&mut self, buffer: Buffer) -> ReceiveWrBuilder<'_> {
        let slice = buffer.slice(buffer.len());
        self.lent.push((self.batch.wrs.len(), buffer));
        self.push(&[slice])
    }

    /// A receive without memory: for writes with immediate, and for messages of no bytes.
    pub fn recv_nothing(&mut self) -> ReceiveWrBuilder<'_> {
        self.push(&[])
    }
}

/// What may be said of a receive work request once it is on the list.
pub struct ReceiveWrBuilder<'a> {
    wr: &'a mut ReceiveWr,
}

impl ReceiveWrBuilder<'_> {
    /// The identifier that its completion carries.
    pub fn id(self, wr_id: u64) -> Self {
        self.wr.wr_id = wr_id;
        self
    }
}
