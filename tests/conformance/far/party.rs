//! The far party itself: carries out what it is asked, wherever it is.

use super::command::{Answer, Bytes, Command, Completion, Operation};
use crate::common::{self, Node};
use std::fmt::Display;
use tbrdma::{Access, Context, MemoryRegion, MrSlice, QpInit, QpType, WorkCompletion};

/// One end of a connection, and what else a case has it register.
#[derive(Default)]
pub(crate) struct Party {
    node: Option<Node>,
    regions: Vec<MemoryRegion>,
}

/// What went wrong, as text.
fn why(error: impl Display) -> String {
    error.to_string()
}

impl Party {
    /// Carries out one command.
    pub(crate) fn answer(&mut self, command: Command) -> Answer {
        let answer = match command {
            Command::Open { qp_type, shape } => self.open(None, qp_type, |init| shape.of(init)),
            command => self.carry_out(command),
        };
        answer.unwrap_or_else(Answer::Failed)
    }

    /// What the case asks for first, of a context of its own or one that there is.
    pub(crate) fn open(
        &mut self,
        ctx: Option<&Context>,
        qp_type: u32,
        shape: impl FnOnce(QpInit<'_>) -> QpInit<'_>,
    ) -> Result<Answer, String> {
        let qp_type = QpType::from_raw(qp_type).ok_or_else(|| format!("no queue pair type {qp_type}"))?;
        let node = match ctx {
            Some(ctx) => Node::of(ctx, qp_type, shape),
            None => Node::of(&common::open().map_err(why)?, qp_type, shape),
        };
        let answer = Answer::Opened {
            address: node.qp.address().to_string(),
            path_mtu: node.ctx.query_port(1).map_err(why)?.active_mtu.raw(),
            memory: node.mr.remote().into(),
        };
        self.node = Some(node);
        Ok(answer)
    }

    fn carry_out(&mut self, command: Command) -> Result<Answer, String> {
        let node = self.node.as_mut().ok_or("there is no queue pair: open comes first, destroy last")?;
        match command {
            Command::Open { .. } => unreachable!("is answered before"),
            Command::Connect { peer, with } => {
                let with = with.connection().ok_or("no such path MTU")?;
                node.qp.connect_with(&peer.parse().map_err(why)?, &with).map_err(why)?;
            }
            Command::ActivateUd { qkey } => node.qp.activate_ud(qkey).map_err(why)?,
            Command::PostRecv { id, list } => {
                let list: Vec<MrSlice> =
                    list.into_iter().map(|(at, len)| node.mr.slice(at..at + len)).collect();
                node.qp.post_recv(|rq| _ = rq.recv(list).id(id)).map_err(why)?;
            }
            Command::Post { id, at, len, operation } => {
                let slice = node.mr.slice(at..at + len);
                node.qp
                    .post(|wr| {
                        let wr = match operation {
                            Operation::Send => wr.send(slice),
                            Operation::SendWithImm { imm_data } => wr.send_with_imm(slice, imm_data),
                            Operation::Write { remote } => wr.write(slice, remote.into()),
                            Operation::Read { remote } => wr.read(slice, remote.into()),
                            Operation::FetchAndAdd { remote, add } => {
                                wr.fetch_and_add(slice, remote.into(), add)
                            }
                        };
                        _ = wr.id(id);
                    })
                    .map_err(why)?;
            }
            Command::Next => return next(node),
            Command::Nothing => return Ok(Answer::Said(watch(node)?)),
            Command::Read { region, at, len } => {
                let mut bytes = vec![0; len];
                memory(&self.regions, &node.mr, region)?.read(at, &mut bytes);
                return Ok(Answer::Bytes(Bytes(bytes)));
            }
            Command::Write { region, at, bytes } => {
                memory(&self.regions, &node.mr, region)?.write(at, &bytes.0);
            }
            Command::Fill { at, len, byte } => _ = node.mr.write(at, &vec![byte; len]),
            Command::Register { len, access, own_domain } => {
                let access = Access::from_bits_retain(access);
                let pd = if own_domain { node.ctx.alloc_pd().map_err(why)? } else { node.pd.clone() };
                let region = pd.alloc(len, access).map_err(why)?;
                let answer = Answer::Region { number: self.regions.len(), region: region.remote().into() };
                self.regions.push(region);
                return Ok(answer);
            }
            Command::Deregister { region } => {
                memory(&self.regions, &node.mr, Some(region))?.deregister().map_err(why)?;
            }
            Command::State => return Ok(Answer::State(node.qp.state().raw())),
            Command::ToError => node.qp.to_error().map_err(why)?,
            Command::Reset => node.qp.reset().map_err(why)?,
            Command::Destroy => self.node = None,
            Command::Event => loop {
                let event = node.ctx.async_events().next(Some(common::patience())).map_err(why)?;
                let event = event.ok_or("no event came")?;
                if !common::place::is_of_meeting(&event) {
                    return Ok(Answer::Said(event.kind.to_string()));
                }
            },
        }
        Ok(Answer::Done)
    }
}

/// A region registered apart, or the node's memory.
fn memory<'a>(
    regions: &'a [MemoryRegion],
    own: &'a MemoryRegion,
    number: Option<usize>,
) -> Result<&'a MemoryRegion, String> {
    number.map_or(Some(own), |number| regions.get(number)).ok_or_else(|| "there is no such region".to_owned())
}

/// The next completion, if it comes in time.
fn next(node: &Node) -> Result<Answer, String> {
    let begun = common::Moment::now();
    let mut wcs = [WorkCompletion::default()];
    while begun.elapsed() < common::patience() {
        if let [wc] = node.cq.poll(&mut wcs) {
            return Ok(Answer::Completion(Completion::from(wc)));
        }
    }
    Err("nothing completed".to_owned())
}

/// What completes or happens within a short while; nothing, if it is quiet.
fn watch(node: &Node) -> Result<String, String> {
    let begun = common::Moment::now();
    let mut wcs = [WorkCompletion::default()];
    while begun.elapsed() < common::quiet() {
        if let [wc] = node.cq.poll(&mut wcs) {
            return Ok(format!("{wc:?}"));
        }
    }
    let mut event = node.ctx.async_events().try_next();
    if event.as_ref().is_some_and(common::place::is_of_meeting) {
        event = node.ctx.async_events().try_next();
    }
    Ok(event.map_or_else(String::new, |event| event.to_string()))
}
