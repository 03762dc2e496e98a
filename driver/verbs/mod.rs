//! The verbs API: the objects of InfiniBand verbs as safe Rust values, whichever device is behind them.

pub(crate) mod address;
pub(crate) mod buffer;
pub(crate) mod channel;
pub(crate) mod clock;
pub(crate) mod context;
pub(crate) mod cq;
pub(crate) mod event;
pub(crate) mod memory;
pub(crate) mod options;
pub(crate) mod pd;
pub(crate) mod qp;
pub(crate) mod queues;
pub(crate) mod srq;
pub(crate) mod window;
pub(crate) mod work;
