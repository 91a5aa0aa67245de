//! A device that does nothing but note what it is told: what a lowering launches, where, and in which order, as text.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::device::{About, Access, Arg, Captured, Device, KernelId, Launch, Place, Ptr, Region, Ticket};
use crate::error::DeviceError;

/// Something that was asked of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// An arena of so many bytes in so many parts.
    Arena(String, u64, usize),
    /// Bytes from the host.
    Write(Ptr, u64),
    /// Bytes set to zero.
    Clear(Ptr, u64),
    /// Bytes copied on the device.
    Copy(Ptr, Ptr, u64),
    /// Bytes to the host.
    Fetch(Ptr, u64),
    /// A launch: run, or noted while capturing.
    Launch(Launch),
    /// A capture begins.
    BeginCapture,
    /// A capture ends, with that many launches.
    EndCapture(Captured, usize),
    /// A captured graph runs.
    Replay(Captured),
    /// The host waits.
    Synchronize,
}

/// What a device was asked for, to be looked at while an engine owns the device.
#[derive(Debug, Clone, Default)]
pub struct Record(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    regions: Vec<Place>,
    kernels: Vec<String>,
    events: Vec<Event>,
}

impl Record {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was asked for, in order.
    pub fn events(&self) -> Vec<Event> {
        self.state().events.clone()
    }

    /// Forgets what was asked for so far.
    pub fn forget(&self) {
        self.state().events.clear();
    }

    /// What was asked for, a line each.
    pub fn text(&self) -> String {
        let state = self.state();
        let mut out = String::new();
        for event in &state.events {
            state.line(&mut out, event).expect("invariant: writing to a string does not fail");
        }
        out
    }
}

impl State {
    fn line(&self, out: &mut String, event: &Event) -> std::fmt::Result {
        match event {
            Event::Arena(name, bytes, parts) => writeln!(out, "arena {name}: {bytes} bytes in {parts} parts"),
            Event::Write(to, bytes) => writeln!(out, "write {bytes} bytes to {}", self.place(*to)),
            Event::Clear(at, bytes) => writeln!(out, "clear {bytes} bytes at {}", self.place(*at)),
            Event::Copy(from, to, bytes) => {
                writeln!(out, "copy {bytes} bytes from {} to {}", self.place(*from), self.place(*to))
            }
            Event::Fetch(from, bytes) => writeln!(out, "fetch {bytes} bytes from {}", self.place(*from)),
            Event::BeginCapture => writeln!(out, "begin capture"),
            Event::EndCapture(captured, launches) => {
                writeln!(out, "end capture: graph {} of {launches} launches", captured.0)
            }
            Event::Replay(captured) => writeln!(out, "replay graph {}", captured.0),
            Event::Synchronize => writeln!(out, "synchronize"),
            Event::Launch(launch) => self.launch_line(out, launch),
        }
    }

    fn launch_line(&self, out: &mut String, launch: &Launch) -> std::fmt::Result {
        let [x, y, z] = launch.dims.grid;
        write!(out, "{} <<<{x}", self.kernels.get(launch.kernel.0 as usize).map_or("?", String::as_str))?;
        if (y, z) != (1, 1) {
            write!(out, "x{y}")?;
        }
        if z != 1 {
            write!(out, "x{z}")?;
        }
        write!(out, ", {}", launch.dims.block[0])?;
        if launch.dims.dynamic_shared > 0 {
            write!(out, ", {} B", launch.dims.dynamic_shared)?;
        }
        write!(out, "{}>>>(", if launch.dependent { ", dependent" } else { "" })?;
        for (i, arg) in launch.args.iter().enumerate() {
            if i > 0 {
                out.push_str(", ");
            }
            match *arg {
                Arg::Ptr(at, Access::Read) => write!(out, "{}", self.place(at))?,
                Arg::Ptr(at, Access::Write) => write!(out, ">{}", self.place(at))?,
                Arg::Ptr(at, Access::ReadWrite) => write!(out, "<>{}", self.place(at))?,
                Arg::Null => out.push('-'),
                Arg::U32(n) => write!(out, "{n}")?,
                Arg::U64(n) => write!(out, "{n}")?,
                Arg::F32(x) => write!(out, "{x:?}")?,
            }
        }
        out.push_str(")\n");
        Ok(())
    }

    /// Name and offset of an address.
    fn place(&self, at: Ptr) -> String {
        let name = self.regions.get(at.region.index()).map_or("?", |r| r.name.as_str());
        if at.offset == 0 { name.to_owned() } else { format!("{name}+{}", at.offset) }
    }
}

/// A device that records.
#[derive(Debug)]
pub struct Noop {
    about: About,
    record: Record,
    used: u64,
    /// Launches of the capture under way.
    capturing: Option<usize>,
    captured: u32,
    fetched: u32,
}

impl Noop {
    /// A device that says it is an H200.
    pub fn new() -> Self {
        Self::with_memory(139 << 30)
    }

    /// The same with that many bytes of memory.
    pub fn with_memory(memory: u64) -> Self {
        let about = About {
            backend: "noop",
            name: "no GPU (launches are recorded)".into(),
            capability: (9, 0),
            processors: 132,
            memory,
            l2: 50 << 20,
            shared: 227 << 10,
            driver: 0,
        };
        Self { about, record: Record::default(), used: 0, capturing: None, captured: 0, fetched: 0 }
    }

    /// What it is asked for, now and later.
    pub fn record(&self) -> Record {
        self.record.clone()
    }

    fn note(&self, event: Event) {
        self.record.state().events.push(event);
    }

    fn span(&self, at: Ptr, bytes: u64) -> Result<(), DeviceError> {
        let state = self.record.state();
        let foreign = DeviceError::Foreign { what: "region", id: at.region.0 };
        let region = state.regions.get(at.region.index()).ok_or(foreign)?;
        let end = at.offset.saturating_add(bytes);
        if end <= region.bytes {
            return Ok(());
        }
        Err(DeviceError::Range { region: region.name.clone(), start: at.offset, end, size: region.bytes })
    }
}

impl Default for Noop {
    fn default() -> Self {
        Self::new()
    }
}

impl Device for Noop {
    fn about(&self) -> &About {
        &self.about
    }

    fn keeps_data(&self) -> bool {
        false
    }

    fn arena(&mut self, name: &str, parts: &[Place]) -> Result<Vec<Region>, DeviceError> {
        let needed = Place::end(parts);
        let (free, total) = self.memory()?;
        if needed > free {
            return Err(DeviceError::OutOfMemory { arena: name.to_owned(), needed, free, total });
        }
        self.used += needed;
        self.note(Event::Arena(name.to_owned(), needed, parts.len()));
        let regions = &mut self.record.state().regions;
        let first = regions.len() as u32;
        regions.extend_from_slice(parts);
        Ok((first..regions.len() as u32).map(Region).collect())
    }

    fn write(&mut self, to: Ptr, bytes: &[u8]) -> Result<(), DeviceError> {
        self.span(to, bytes.len() as u64)?;
        self.note(Event::Write(to, bytes.len() as u64));
        Ok(())
    }

    fn clear(&mut self, at: Ptr, bytes: u64) -> Result<(), DeviceError> {
        self.span(at, bytes)?;
        self.note(Event::Clear(at, bytes));
        Ok(())
    }

    fn copy(&mut self, from: Ptr, to: Ptr, bytes: u64) -> Result<(), DeviceError> {
        self.span(from, bytes)?;
        self.span(to, bytes)?;
        self.note(Event::Copy(from, to, bytes));
        Ok(())
    }

    fn fetch(&mut self, from: Ptr, bytes: usize) -> Result<Ticket, DeviceError> {
        self.span(from, bytes as u64)?;
        self.note(Event::Fetch(from, bytes as u64));
        self.fetched += 1;
        Ok(Ticket(self.fetched))
    }

    fn receive(&mut self, _: Ticket, out: &mut [u8]) -> Result<(), DeviceError> {
        out.fill(0);
        Ok(())
    }

    fn kernel(&mut self, name: &str, _: &str) -> Result<KernelId, DeviceError> {
        let kernels = &mut self.record.state().kernels;
        let at = kernels.iter().position(|k| k == name).unwrap_or_else(|| {
            kernels.push(name.to_owned());
            kernels.len() - 1
        });
        Ok(KernelId(at as u32))
    }

    fn launch(&mut self, launch: &Launch) -> Result<(), DeviceError> {
        for arg in &launch.args {
            if let Arg::Ptr(at, _) = arg {
                self.span(*at, 1)?;
            }
        }
        self.note(Event::Launch(launch.clone()));
        if let Some(launches) = &mut self.capturing {
            *launches += 1;
        }
        Ok(())
    }

    fn begin_capture(&mut self) -> Result<(), DeviceError> {
        if self.capturing.is_some() {
            return Err(DeviceError::Capture("one is under way already"));
        }
        self.note(Event::BeginCapture);
        self.capturing = Some(0);
        Ok(())
    }

    fn end_capture(&mut self) -> Result<Captured, DeviceError> {
        let launches = self.capturing.take().ok_or(DeviceError::Capture("none was begun"))?;
        if launches == 0 {
            return Err(DeviceError::Capture("it holds no launch"));
        }
        let captured = Captured(self.captured);
        self.captured += 1;
        self.note(Event::EndCapture(captured, launches));
        Ok(captured)
    }

    fn abandon_capture(&mut self) {
        self.capturing = None;
    }

    fn replay(&mut self, captured: Captured) -> Result<(), DeviceError> {
        if captured.0 >= self.captured {
            return Err(DeviceError::Foreign { what: "graph", id: captured.0 });
        }
        self.note(Event::Replay(captured));
        Ok(())
    }

    fn synchronize(&mut self) -> Result<(), DeviceError> {
        self.note(Event::Synchronize);
        Ok(())
    }

    fn memory(&mut self) -> Result<(u64, u64), DeviceError> {
        Ok((self.about.memory.saturating_sub(self.used), self.about.memory))
    }
}
