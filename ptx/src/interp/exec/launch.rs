//! A launch: blocks come, run interleaved, and go, until all are done or something is wrong.

use super::barrier::Arrival;
use super::block::Block;
use super::schedule::{Id, Ready, Schedule};
use super::step::{Flow, position, step};
use super::warp::{Context, Geometry};
use crate::interp::counts::{Counts, Tally};
use crate::interp::decode::Kernel;
use crate::interp::fault::{Broken, Fault, FaultKind};
use crate::interp::memory::Global;
use crate::interp::op::Op;
use crate::interp::race::Locations;

/// A launch that has been checked and can start.
pub(crate) struct Plan<'a> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) geometry: Geometry,
    pub(crate) schedule: Schedule,
    pub(crate) races: bool,
    pub(crate) params: Vec<u8>,
    /// Instructions of warps the launch may take.
    pub(crate) steps: u64,
    /// Blocks that run at once.
    pub(crate) resident: usize,
    /// What clocks say when it begins.
    pub(crate) began: u64,
}

struct Run<'a> {
    plan: &'a Plan<'a>,
    global: &'a mut Global,
    locations: Locations,
    tally: Tally,
    issued: Vec<u64>,
    lanes: Vec<u64>,
    steps: u64,
    blocks: Vec<Block>,
    ready: Ready,
    /// Blocks of the grid, and how many have started.
    total: u64,
    started: u64,
}

/// How a warp's turn ended.
enum Turn {
    Ready,
    Waits,
    Done,
}

/// Runs a launch to its end.
pub(crate) fn run(plan: &Plan<'_>, global: &mut Global) -> Result<Counts, Box<Fault>> {
    let code = &plan.kernel.code;
    let mut run = Run {
        plan,
        global,
        locations: Locations::default(),
        tally: Tally::default(),
        issued: vec![0; code.len()],
        lanes: vec![0; code.len()],
        steps: 0,
        blocks: Vec::new(),
        ready: Ready::new(plan.schedule),
        total: plan.geometry.grid.iter().map(|&n| u64::from(n)).product(),
        started: 0,
    };
    run.finish()?;
    let counted = code.iter().zip(run.issued.iter().zip(&run.lanes));
    let mut counts = Counts::of_code(counted.map(|(instr, (&n, &lanes))| (&instr.op, instr.line, n, lanes)));
    counts.blocks = run.total;
    counts.warps = run.total * u64::from(plan.geometry.warps());
    counts.tally = run.tally;
    Ok(counts)
}

impl Run<'_> {
    fn finish(&mut self) -> Result<(), Box<Fault>> {
        while self.blocks.len() < self.plan.resident && self.started < self.total {
            let block = self.next_block();
            self.blocks.push(block);
            self.enqueue(self.blocks.len() - 1);
        }
        while let Some((id, turn)) = self.ready.next() {
            match self.turn(id, turn)? {
                Turn::Ready => self.ready.push(id),
                Turn::Waits => {}
                Turn::Done => {
                    let slot = id.0;
                    self.blocks[slot].unfinished -= 1;
                    if self.blocks[slot].unfinished == 0 && self.started < self.total {
                        self.blocks[slot] = self.next_block();
                        self.enqueue(slot);
                    }
                }
            }
        }
        self.no_deadlock()
    }

    fn next_block(&mut self) -> Block {
        let index = self.started;
        self.started += 1;
        Block::new(self.plan.kernel, &self.plan.geometry, index, self.plan.races)
    }

    fn enqueue(&mut self, slot: usize) {
        for warp in 0..self.blocks[slot].warps.len() as u32 {
            self.ready.push((slot, warp));
        }
    }

    /// Nothing can run: either everything is done, or some warps wait for ever.
    fn no_deadlock(&mut self) -> Result<(), Box<Fault>> {
        let waiting = self.blocks.iter().map(|block| block.barriers.waiting()).sum();
        let found = self.blocks.iter().enumerate().find_map(|(slot, b)| Some((slot, b.barriers.first_waiting()?)));
        let Some((slot, (warp, id, arrived, expected))) = found else { return Ok(()) };
        let kind = FaultKind::Deadlock { waiting, id, arrived, expected };
        // The warp has moved past its barrier already.
        let pc = self.blocks[slot].warps[warp as usize].paths.last().map_or(0, |path| path.pc.saturating_sub(1));
        Err(Box::new(self.fault((slot, warp), pc, Broken::warp(kind))))
    }

    fn fault(&self, (slot, warp): Id, pc: u32, broken: Broken) -> Fault {
        let (lane, kind) = broken.parts();
        Fault {
            kernel: self.plan.kernel.name.clone(),
            line: self.plan.kernel.code[pc as usize].line,
            block: self.plan.geometry.block_id(self.blocks[slot].index),
            warp,
            lane,
            kind,
        }
    }

    /// Lets a warp execute up to `turn` instructions.
    fn turn(&mut self, id: Id, turn: u32) -> Result<Turn, Box<Fault>> {
        let (slot, index) = id;
        let kernel = self.plan.kernel;
        for _ in 0..turn {
            let block = &mut self.blocks[slot];
            let warp = &mut block.warps[index as usize];
            let Some((pc, active)) = position(warp) else { return Ok(Turn::Done) };
            if self.steps >= self.plan.steps {
                let kind = FaultKind::StepLimit { steps: self.plan.steps };
                return Err(Box::new(self.fault(id, pc, Broken::warp(kind))));
            }
            self.steps += 1;
            let exec = warp.guarded(kernel.code[pc as usize].guard, active);
            self.issued[pc as usize] += 1;
            // All active lanes take part in a branch, whichever way they go.
            let lanes = if matches!(kernel.code[pc as usize].op, Op::Bra { .. }) { active } else { exec };
            self.lanes[pc as usize] += u64::from(lanes.count_ones());
            let mut cx = Context {
                global: self.global,
                shared: &mut block.shared,
                global_locations: &mut self.locations,
                shared_locations: &mut block.locations,
                tally: &mut self.tally,
                params: &self.plan.params,
                races: self.plan.races,
                now: self.plan.began + self.steps,
            };
            match step(warp, kernel, (pc, active, exec), &mut cx, &mut self.ready) {
                Ok(Flow::Continue) => {}
                Ok(Flow::Yield) => return Ok(Turn::Ready),
                Ok(Flow::Done) => return Ok(Turn::Done),
                Ok(Flow::Barrier { id: barrier, threads, arrive }) => {
                    let arrival = Arrival { id: barrier, threads, waits: !arrive };
                    if !self.barrier(id, arrival).map_err(|kind| Box::new(self.fault(id, pc, Broken::warp(kind))))? {
                        return Ok(Turn::Waits);
                    }
                }
                Err(broken) => return Err(Box::new(self.fault(id, pc, broken))),
            }
        }
        Ok(Turn::Ready)
    }

    /// A warp arrives at a barrier; says whether it may go on at once.
    fn barrier(&mut self, (slot, index): Id, arrival: Arrival) -> Result<bool, FaultKind> {
        self.tally.barriers += 1;
        let block = &mut self.blocks[slot];
        let limit = 32 * self.plan.geometry.warps();
        let release = block.barriers.arrive(&mut block.warps[index as usize], arrival, limit)?;
        let Some(release) = release else { return Ok(!arrival.waits) };
        for &warp in &release.warps {
            block.warps[warp as usize].actor.leave(&release.known, &release.fenced);
            if warp != index {
                self.ready.push((slot, warp));
            }
        }
        Ok(true)
    }
}
