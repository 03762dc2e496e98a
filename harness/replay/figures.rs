//! The latencies of a replay, by operation, beside those of the trace.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::workload::Workload;
use crate::error::Result;
use crate::histogram::{Latencies, Measures, recorder};
use crate::plan::{Op, Transport};

/// With more sizes than so many, an operation of a transport is one row whatever the size.
const MOST_ROWS: usize = 16;

/// What is told apart.
#[derive(Debug, Clone)]
pub struct Row {
    /// The operation.
    pub op: Op,
    /// Its transport.
    pub transport: Transport,
    /// Bytes of the messages, each as often as it occurs.
    pub sizes: BTreeMap<u32, u64>,
    /// Requests.
    pub requests: u64,
    /// Of these with their bytes in the request.
    pub inline: u64,
    /// From posting to the completion.
    pub services: Latencies,
    /// From the moment it was due to the completion.
    pub responses: Latencies,
    /// From the call to the completion, in the trace.
    pub originals: Latencies,
}

impl Row {
    /// Bytes of the message in the middle.
    #[must_use]
    pub fn median_size(&self) -> u64 {
        let mut below = 0;
        let middle = self.sizes.iter().find(|(_, count)| {
            below += **count;
            below * 2 >= self.requests
        });
        middle.map_or(0, |(size, _)| u64::from(*size))
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> String {
        let (first, last) = (self.sizes.first_key_value(), self.sizes.last_key_value());
        let sizes = match (first, last) {
            (Some((first, _)), Some((last, _))) if first != last => format!("{first}..{last}"),
            (Some((only, _)), _) => only.to_string(),
            _ => "0".to_owned(),
        };
        format!("{} {} {sizes}", self.op, self.transport)
    }
}

/// All figures of a replay.
#[derive(Debug, Clone)]
pub struct Figures {
    /// What is told apart.
    pub rows: Vec<Row>,
    /// The row of each item.
    row_of: Vec<u32>,
    /// How long lists waited beyond the moment when they were due.
    pub waits: Histogram<u64>,
    /// Lists that were posted when the next was due already.
    pub late: u64,
    /// From the first list to the last.
    pub posting: Duration,
}

impl Figures {
    /// Nothing recorded but what the trace says.
    ///
    /// # Errors
    /// Never with the bounds used here; the recorder's own words otherwise.
    pub fn new(work: &Workload) -> Result<Self> {
        let transport =
            |lane: u16| work.lanes.get(usize::from(lane)).map_or(Transport::Rc, |lane| lane.transport);
        type Key = (String, Transport, Op, Option<u32>);
        let key = |known: &(u16, Op, u32), fine: bool| -> Key {
            let of = transport(known.0);
            // Rows lie in the order of their names.
            (format!("{} {of}", known.1), of, known.1, fine.then_some(known.2))
        };
        let keys = |fine: bool| {
            let mut keys: BTreeMap<(String, Option<u32>), (Transport, Op)> = BTreeMap::new();
            for item in &work.items {
                let (name, transport, op, size) = key(&item.known, fine);
                keys.insert((name, size), (transport, op));
                if fine && keys.len() > MOST_ROWS {
                    return None;
                }
            }
            Some(keys)
        };
        let (fine, keys) = match keys(true) {
            Some(keys) => (true, keys),
            None => (false, keys(false).unwrap_or_default()),
        };
        let latencies = Latencies::new(Measures::WholeOperation)?;
        let rows = keys.values().map(|(transport, op)| Row {
            op: *op,
            transport: *transport,
            sizes: BTreeMap::new(),
            requests: 0,
            inline: 0,
            services: latencies.clone(),
            responses: latencies.clone(),
            originals: latencies.clone(),
        });
        let mut figures = Self {
            rows: rows.collect(),
            row_of: Vec::with_capacity(work.items.len()),
            waits: recorder()?,
            late: 0,
            posting: Duration::ZERO,
        };
        let places: BTreeMap<_, u32> = keys.into_keys().zip(0..).collect();
        for item in &work.items {
            let (name, _, _, size) = key(&item.known, fine);
            let place = places.get(&(name, size)).copied().unwrap_or_default();
            figures.row_of.push(place);
            if let Some(row) = figures.rows.get_mut(place as usize) {
                row.requests += 1;
                row.inline += u64::from(item.inline);
                *row.sizes.entry(item.known.2).or_default() += 1;
                if let Some(original) = item.original_ns.filter(|_| item.measured) {
                    row.originals.record(Duration::from_nanos(original));
                }
            }
        }
        Ok(figures)
    }

    /// A request has completed.
    pub fn record(&mut self, item: usize, service: Duration, response: Duration) {
        let row = self.row_of.get(item).copied().unwrap_or_default();
        if let Some(row) = self.rows.get_mut(row as usize) {
            row.services.record(service);
            row.responses.record(response);
        }
    }

    /// A list was posted so long after it was due.
    pub fn waited(&mut self, time: Duration, next_was_due: bool) {
        self.waits.saturating_record(time.as_nanos() as u64);
        self.late += u64::from(next_was_due);
    }

    /// The first list and the last lie so far apart.
    pub fn posted_in(&mut self, time: Duration) {
        self.posting = time;
    }
}
