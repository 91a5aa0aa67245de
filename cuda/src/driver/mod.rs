//! An NVIDIA GPU, through the driver API.
//!
//! The library is opened at run time. Every function of `cudarc` that calls it panics where it is missing, and so does formatting one of
//! its errors; so [`present`] asks once whether it is there, nothing is called before, and errors are numbers with names of our own.
//!
//! One context (the device's primary one), one stream. Memory is an allocation per arena. Kernels are compiled from their text by
//! the driver, which keeps what it compiled in a cache of its own.

mod call;
mod memory;

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::ptr;
use std::sync::OnceLock;

use brick_ptx::ir::Target;
use cudarc::driver::sys;

use crate::device::{About, Arg, Captured, Device, KernelId, Launch, Mark, Place, Ptr, Region, Ticket};
use crate::error::DeviceError;
use call::{call, check};
use memory::{Arena, Pinned};

/// The oldest driver that will do: CUDA 12.0, whose drivers take the text of the kernels and launches with attributes.
pub const OLDEST_DRIVER: i32 = 12_000;

/// Bytes of the driver's log that are kept when it refuses a kernel.
const LOG: usize = 8 << 10;

/// Whether the driver's library is on this machine. Opens it the first time.
pub fn present() -> bool {
    static PRESENT: OnceLock<bool> = OnceLock::new();
    // SAFETY: opens and closes a library by its well-known names, and calls nothing in it.
    *PRESENT.get_or_init(|| unsafe { sys::is_culib_present() })
}

/// How many GPUs the driver shows.
///
/// # Errors
/// No driver, a stub, one that is too old, or one that does not start.
pub fn count() -> Result<usize, DeviceError> {
    if !present() {
        return Err(DeviceError::NoDriver);
    }
    // SAFETY: the library is there; `cuInit` may be called any number of times.
    match unsafe { sys::cuInit(0) } as u32 {
        0 => {}
        // No device is no failure here: there are none.
        100 => return Ok(0),
        code => return Err(DeviceError::driver("cuInit", code)),
    }
    let found = version()?;
    if found < OLDEST_DRIVER {
        return Err(DeviceError::DriverTooOld { found, needed: OLDEST_DRIVER });
    }
    let mut n = 0;
    // SAFETY: writes an integer.
    call("cuDeviceGetCount", || unsafe { sys::cuDeviceGetCount(&raw mut n) })?;
    Ok(usize::try_from(n).unwrap_or(0))
}

fn version() -> Result<i32, DeviceError> {
    let mut found = 0;
    // SAFETY: writes an integer.
    call("cuDriverGetVersion", || unsafe { sys::cuDriverGetVersion(&raw mut found) })?;
    Ok(found)
}

struct Kernel {
    name: String,
    function: sys::CUfunction,
    /// Dynamic shared memory that the function has been given room for: what its own arrays leave of 48 KiB, until it is asked for more.
    shared: u32,
}

struct Graph {
    graph: sys::CUgraph,
    exec: sys::CUgraphExec,
}

/// A GPU.
pub struct Cuda {
    about: About,
    device: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
    arenas: Vec<Arena>,
    /// Address, size and name of each region.
    regions: Vec<(u64, u64, String)>,
    kernels: Vec<Kernel>,
    by_name: HashMap<String, KernelId>,
    modules: Vec<sys::CUmodule>,
    graphs: Vec<Graph>,
    capturing: bool,
    marks: Vec<sys::CUevent>,
    marks_used: usize,
    pinned: Pinned,
}

// SAFETY: the handles belong to a context that every call makes current on the calling thread first; `&mut self` keeps calls apart.
unsafe impl Send for Cuda {}

impl std::fmt::Debug for Cuda {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cuda").field("about", &self.about).field("kernels", &self.kernels.len()).finish_non_exhaustive()
    }
}

impl Cuda {
    /// Opens a GPU.
    ///
    /// # Errors
    /// As [`count`]; [`DeviceError::Ordinal`] if there is none of that number, [`DeviceError::TooOld`] if it is older than the kernels.
    pub fn open(ordinal: usize) -> Result<Self, DeviceError> {
        let count = count()?;
        if ordinal >= count {
            return Err(DeviceError::Ordinal { ordinal, count });
        }
        let mut device = 0;
        // SAFETY: the ordinal is one of the driver's.
        call("cuDeviceGet", || unsafe { sys::cuDeviceGet(&raw mut device, ordinal as i32) })?;
        let about = about(device)?;
        if about.capability < (8, 0) {
            return Err(DeviceError::TooOld { name: about.name, capability: about.capability });
        }
        let mut context = ptr::null_mut();
        // SAFETY: the device is one of the driver's; released in `drop`.
        call("cuDevicePrimaryCtxRetain", || unsafe { sys::cuDevicePrimaryCtxRetain(&raw mut context, device) })?;
        let mut cuda = Self {
            about,
            device,
            context,
            stream: ptr::null_mut(),
            arenas: Vec::new(),
            regions: Vec::new(),
            kernels: Vec::new(),
            by_name: HashMap::new(),
            modules: Vec::new(),
            graphs: Vec::new(),
            capturing: false,
            marks: Vec::new(),
            marks_used: 0,
            pinned: Pinned::default(),
        };
        cuda.bind()?;
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: the context is current; the stream is destroyed in `drop`.
        call("cuStreamCreate", || unsafe { sys::cuStreamCreate(&raw mut cuda.stream, flags) })?;
        Ok(cuda)
    }

    /// Makes the context current on this thread.
    fn bind(&self) -> Result<(), DeviceError> {
        // SAFETY: the context is retained as long as `self` lives.
        call("cuCtxSetCurrent", || unsafe { sys::cuCtxSetCurrent(self.context) })
    }

    fn address(&self, at: Ptr) -> Result<u64, DeviceError> {
        let (base, ..) =
            self.regions.get(at.region.index()).ok_or(DeviceError::Foreign { what: "region", id: at.region.0 })?;
        Ok(base + at.offset)
    }

    /// The address of bytes that are all inside their region.
    fn span(&self, at: Ptr, bytes: u64) -> Result<u64, DeviceError> {
        let (base, size, name) =
            self.regions.get(at.region.index()).ok_or(DeviceError::Foreign { what: "region", id: at.region.0 })?;
        match at.offset.checked_add(bytes).filter(|end| end <= size) {
            Some(_) => Ok(base + at.offset),
            None => Err(DeviceError::Range {
                region: name.clone(),
                start: at.offset,
                end: at.offset.saturating_add(bytes),
                size: *size,
            }),
        }
    }

    fn graph(&self, captured: Captured) -> Result<&Graph, DeviceError> {
        self.graphs.get(captured.0 as usize).ok_or(DeviceError::Foreign { what: "graph", id: captured.0 })
    }

    /// Registers per thread, bytes of local memory per thread and of static shared memory per block that the driver's compiler gave a kernel.
    ///
    /// # Errors
    /// [`DeviceError::Foreign`] for a kernel of another device.
    pub fn resources(&self, kernel: KernelId) -> Result<[i32; 3], DeviceError> {
        use sys::CUfunction_attribute_enum as A;
        let k = self.kernels.get(kernel.0 as usize).ok_or(DeviceError::Foreign { what: "kernel", id: kernel.0 })?;
        self.bind()?;
        let mut out = [0; 3];
        let asked = [
            A::CU_FUNC_ATTRIBUTE_NUM_REGS,
            A::CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES,
            A::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES,
        ];
        for (out, what) in out.iter_mut().zip(asked) {
            // SAFETY: writes an integer; the function is loaded.
            call("cuFuncGetAttribute", || unsafe { sys::cuFuncGetAttribute(out, what, k.function) })?;
        }
        Ok(out)
    }
}

fn about(device: sys::CUdevice) -> Result<About, DeviceError> {
    use sys::CUdevice_attribute_enum as A;
    let get = |what: A| -> Result<u32, DeviceError> {
        let mut value = 0;
        // SAFETY: writes an integer.
        call("cuDeviceGetAttribute", || unsafe { sys::cuDeviceGetAttribute(&raw mut value, what, device) })?;
        Ok(u32::try_from(value).unwrap_or(0))
    };
    let mut name = [0_u8; 256];
    // SAFETY: writes at most 256 bytes, with a NUL.
    call("cuDeviceGetName", || unsafe { sys::cuDeviceGetName(name.as_mut_ptr().cast(), 256, device) })?;
    let len = name.iter().position(|&b| b == 0).unwrap_or(0);
    let mut memory = 0;
    // SAFETY: writes an integer.
    call("cuDeviceTotalMem", || unsafe { sys::cuDeviceTotalMem_v2(&raw mut memory, device) })?;
    Ok(About {
        backend: "cuda",
        name: String::from_utf8_lossy(&name[..len]).into_owned(),
        capability: (
            get(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            get(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        processors: get(A::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        memory: memory as u64,
        l2: u64::from(get(A::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?),
        shared: get(A::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        driver: version()?,
    })
}

impl Device for Cuda {
    fn about(&self) -> &About {
        &self.about
    }

    fn arena(&mut self, name: &str, parts: &[Place]) -> Result<Vec<Region>, DeviceError> {
        let needed = Place::end(parts);
        let (free, total) = self.memory()?;
        let arena = Arena::new(needed).map_err(|e| match e {
            DeviceError::Driver { code: 2, .. } => {
                DeviceError::OutOfMemory { arena: name.to_owned(), needed, free, total }
            }
            e => e,
        })?;
        let base = arena.address();
        self.arenas.push(arena);
        let first = self.regions.len() as u32;
        self.regions.extend(parts.iter().map(|p| (base + p.offset, p.bytes, p.name.clone())));
        Ok((first..self.regions.len() as u32).map(Region).collect())
    }

    fn write(&mut self, to: Ptr, bytes: &[u8]) -> Result<(), DeviceError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let address = self.span(to, bytes.len() as u64)?;
        self.bind()?;
        // SAFETY: the range is inside an allocation of ours. Memory of the host that is not pinned is copied to the driver's own
        // before the call returns.
        call("cuMemcpyHtoDAsync", || unsafe {
            sys::cuMemcpyHtoDAsync_v2(address, bytes.as_ptr().cast(), bytes.len(), self.stream)
        })
    }

    fn clear(&mut self, at: Ptr, bytes: u64) -> Result<(), DeviceError> {
        let address = self.span(at, bytes)?;
        self.bind()?;
        // SAFETY: the range is inside an allocation of ours.
        call("cuMemsetD8Async", || unsafe { sys::cuMemsetD8Async(address, 0, bytes as usize, self.stream) })
    }

    fn copy(&mut self, from: Ptr, to: Ptr, bytes: u64) -> Result<(), DeviceError> {
        let (from, to) = (self.span(from, bytes)?, self.span(to, bytes)?);
        self.bind()?;
        // SAFETY: both ranges are inside allocations of ours.
        call("cuMemcpyDtoDAsync", || unsafe { sys::cuMemcpyDtoDAsync_v2(to, from, bytes as usize, self.stream) })
    }

    fn fetch(&mut self, from: Ptr, bytes: usize) -> Result<Ticket, DeviceError> {
        let address = self.span(from, bytes as u64)?;
        self.bind()?;
        let (ticket, slot) = self.pinned.take(bytes)?;
        // SAFETY: the slot has room for `bytes` and is not touched until its event has passed.
        call("cuMemcpyDtoHAsync", || unsafe { sys::cuMemcpyDtoHAsync_v2(slot.memory(), address, bytes, self.stream) })?;
        // SAFETY: the event belongs to the slot.
        call("cuEventRecord", || unsafe { sys::cuEventRecord(slot.event(), self.stream) })?;
        Ok(ticket)
    }

    fn receive(&mut self, ticket: Ticket, out: &mut [u8]) -> Result<(), DeviceError> {
        self.bind()?;
        self.pinned.give(ticket, out)
    }

    fn kernel(&mut self, name: &str, text: &str) -> Result<KernelId, DeviceError> {
        if let Some(&id) = self.by_name.get(name) {
            return Ok(id);
        }
        self.bind()?;
        let jit = |log: String| DeviceError::Jit { kernel: name.to_owned(), log };
        let source = CString::new(text).map_err(|_| jit("its text holds a NUL byte".into()))?;
        let symbol = CString::new(name).map_err(|_| jit("its name holds a NUL byte".into()))?;
        let mut log = vec![0_u8; LOG];
        let mut options =
            [sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER, sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
        let mut values: [*mut c_void; 2] = [log.as_mut_ptr().cast(), ptr::without_provenance_mut(LOG)];
        let mut module = ptr::null_mut();
        // SAFETY: text and log outlive the call; there are two options and two values.
        let code = unsafe {
            sys::cuModuleLoadDataEx(
                &raw mut module,
                source.as_ptr().cast(),
                2,
                options.as_mut_ptr(),
                values.as_mut_ptr(),
            )
        } as u32;
        if code != 0 {
            let end = log.iter().position(|&b| b == 0).unwrap_or(log.len());
            let log = String::from_utf8_lossy(&log[..end]).trim().to_owned();
            return match DeviceError::driver("cuModuleLoadDataEx", code) {
                e @ DeviceError::Lost { .. } => Err(e),
                e if log.is_empty() => Err(jit(e.to_string())),
                _ => Err(jit(log)),
            };
        }
        self.modules.push(module);
        let mut function = ptr::null_mut();
        // SAFETY: the module is loaded.
        call("cuModuleGetFunction", || unsafe {
            sys::cuModuleGetFunction(&raw mut function, module, symbol.as_ptr())
        })?;
        let mut own = 0;
        let what = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES;
        // SAFETY: writes an integer; the function is loaded.
        call("cuFuncGetAttribute", || unsafe { sys::cuFuncGetAttribute(&raw mut own, what, function) })?;
        let shared = (48_u32 << 10).saturating_sub(own as u32);
        let id = KernelId(self.kernels.len() as u32);
        self.kernels.push(Kernel { name: name.to_owned(), function, shared });
        self.by_name.insert(name.to_owned(), id);
        Ok(id)
    }

    fn launch(&mut self, launch: &Launch) -> Result<(), DeviceError> {
        self.bind()?;
        let mut values = [0_u64; MAX_ARGS];
        if launch.args.len() > MAX_ARGS {
            return Err(DeviceError::Capture("a launch has more arguments than any kernel takes"));
        }
        for (value, arg) in values.iter_mut().zip(&launch.args) {
            // A 32-bit argument is read from the first four bytes, which on these machines are the low ones.
            *value = match *arg {
                Arg::Ptr(at, _) => self.address(at)?,
                Arg::Null => 0,
                Arg::U32(n) => n.into(),
                Arg::U64(n) => n,
                Arg::F32(x) => x.to_bits().into(),
            };
        }
        let mut pointers = [ptr::null_mut::<c_void>(); MAX_ARGS];
        for (pointer, value) in pointers.iter_mut().zip(&mut values) {
            *pointer = ptr::from_mut(value).cast();
        }
        let kernel = launch.kernel;
        let kernel =
            self.kernels.get_mut(kernel.0 as usize).ok_or(DeviceError::Foreign { what: "kernel", id: kernel.0 })?;
        let dims = launch.dims;
        if dims.dynamic_shared > kernel.shared {
            let what = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function is loaded.
            call("cuFuncSetAttribute", || unsafe {
                sys::cuFuncSetAttribute(kernel.function, what, dims.dynamic_shared as i32)
            })?;
            kernel.shared = dims.dynamic_shared;
        }
        // SAFETY: plain data, for which zero is a value.
        let mut attribute: sys::CUlaunchAttribute = unsafe { std::mem::zeroed() };
        attribute.id = sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
        attribute.value.programmaticStreamSerializationAllowed = 1;
        // SAFETY: as above.
        let mut config: sys::CUlaunchConfig = unsafe { std::mem::zeroed() };
        [config.gridDimX, config.gridDimY, config.gridDimZ] = dims.grid;
        [config.blockDimX, config.blockDimY, config.blockDimZ] = dims.block;
        config.sharedMemBytes = dims.dynamic_shared;
        config.hStream = self.stream;
        config.attrs = &raw mut attribute;
        config.numAttrs = u32::from(launch.dependent && self.about.target() >= Target::Sm90);
        // SAFETY: there is a value per parameter (the lowering's tests compare launches with declarations), each as large as the
        // largest parameter; the driver copies them before it returns.
        let code = unsafe {
            sys::cuLaunchKernelEx(&raw const config, kernel.function, pointers.as_mut_ptr(), ptr::null_mut())
        } as u32;
        check("cuLaunchKernelEx", code).map_err(|e| match e {
            DeviceError::Driver { code: 1 | 701, .. } => DeviceError::Jit {
                kernel: kernel.name.clone(),
                log: format!("a launch of {:?} blocks of {:?} threads: {e}", dims.grid, dims.block),
            },
            e => e,
        })
    }

    fn begin_capture(&mut self) -> Result<(), DeviceError> {
        if self.capturing {
            return Err(DeviceError::Capture("one is under way already"));
        }
        self.bind()?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is ours, and not the legacy one.
        call("cuStreamBeginCapture", || unsafe { sys::cuStreamBeginCapture_v2(self.stream, mode) })?;
        self.capturing = true;
        Ok(())
    }

    fn end_capture(&mut self) -> Result<Captured, DeviceError> {
        if !self.capturing {
            return Err(DeviceError::Capture("none was begun"));
        }
        self.capturing = false;
        self.bind()?;
        let mut graph = ptr::null_mut();
        // SAFETY: a capture of this stream is under way.
        call("cuStreamEndCapture", || unsafe { sys::cuStreamEndCapture(self.stream, &raw mut graph) })?;
        if graph.is_null() {
            return Err(DeviceError::Capture("it holds no launch"));
        }
        let mut exec = ptr::null_mut();
        // SAFETY: the graph was just captured.
        let made = call("cuGraphInstantiate", || unsafe { sys::cuGraphInstantiateWithFlags(&raw mut exec, graph, 0) });
        if let Err(e) = made {
            // SAFETY: the graph is ours, and nothing was made of it.
            unsafe { sys::cuGraphDestroy(graph) };
            return Err(e);
        }
        self.graphs.push(Graph { graph, exec });
        // SAFETY: the graph was just instantiated.
        call("cuGraphUpload", || unsafe { sys::cuGraphUpload(exec, self.stream) })?;
        Ok(Captured(self.graphs.len() as u32 - 1))
    }

    fn abandon_capture(&mut self) {
        if std::mem::take(&mut self.capturing) && self.bind().is_ok() {
            let mut graph = ptr::null_mut();
            // SAFETY: a capture of this stream was under way; what came of it is destroyed.
            unsafe {
                sys::cuStreamEndCapture(self.stream, &raw mut graph);
                if !graph.is_null() {
                    sys::cuGraphDestroy(graph);
                }
            }
        }
    }

    fn replay(&mut self, captured: Captured) -> Result<(), DeviceError> {
        let exec = self.graph(captured)?.exec;
        self.bind()?;
        // SAFETY: instantiated, and destroyed with `self` only.
        call("cuGraphLaunch", || unsafe { sys::cuGraphLaunch(exec, self.stream) })
    }

    fn dot(&self, captured: Captured) -> Result<Option<String>, DeviceError> {
        let graph = self.graph(captured)?.graph;
        self.bind()?;
        // The driver writes files only.
        let path = std::env::temp_dir().join(format!("brick-graph-{}-{}.dot", std::process::id(), captured.0));
        let Some(name) = path.to_str().and_then(|p| CString::new(p).ok()) else { return Ok(None) };
        // SAFETY: the graph is ours, the path ends with a NUL.
        call("cuGraphDebugDotPrint", || unsafe { sys::cuGraphDebugDotPrint(graph, name.as_ptr(), 0) })?;
        let text = std::fs::read_to_string(&path).ok();
        let _ = std::fs::remove_file(&path);
        Ok(text)
    }

    fn mark(&mut self) -> Result<Mark, DeviceError> {
        self.bind()?;
        if self.marks_used == self.marks.len() {
            let mut event = ptr::null_mut();
            // SAFETY: destroyed in `drop`.
            call("cuEventCreate", || unsafe { sys::cuEventCreate(&raw mut event, 0) })?;
            self.marks.push(event);
        }
        let mark = Mark(self.marks_used as u32);
        self.marks_used += 1;
        self.mark_again(mark)?;
        Ok(mark)
    }

    fn mark_again(&mut self, mark: Mark) -> Result<(), DeviceError> {
        let foreign = DeviceError::Foreign { what: "mark", id: mark.0 };
        let event = self.marks.get(mark.0 as usize).copied().ok_or(foreign)?;
        self.bind()?;
        // Within a capture, an event that is not external would only order what was captured.
        let external = sys::CUevent_record_flags::CU_EVENT_RECORD_EXTERNAL as u32;
        let flags = if self.capturing { external } else { 0 };
        // SAFETY: event and stream are ours.
        call("cuEventRecordWithFlags", || unsafe { sys::cuEventRecordWithFlags(event, self.stream, flags) })
    }

    fn elapsed_ns(&mut self, from: Mark, to: Mark) -> Result<u64, DeviceError> {
        let event = |mark: Mark| {
            self.marks.get(mark.0 as usize).copied().ok_or(DeviceError::Foreign { what: "mark", id: mark.0 })
        };
        let (from, to) = (event(from)?, event(to)?);
        self.bind()?;
        let mut ms = 0.0;
        // SAFETY: both events are ours and were recorded.
        unsafe {
            call("cuEventSynchronize", || sys::cuEventSynchronize(to))?;
            call("cuEventElapsedTime", || sys::cuEventElapsedTime(&raw mut ms, from, to))?;
        }
        Ok((f64::from(ms) * 1e6) as u64)
    }

    fn release_marks(&mut self) {
        self.marks_used = 0;
    }

    fn synchronize(&mut self) -> Result<(), DeviceError> {
        self.bind()?;
        // SAFETY: the stream is ours.
        call("cuStreamSynchronize", || unsafe { sys::cuStreamSynchronize(self.stream) })
    }

    fn memory(&mut self) -> Result<(u64, u64), DeviceError> {
        self.bind()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: writes two integers.
        call("cuMemGetInfo", || unsafe { sys::cuMemGetInfo_v2(&raw mut free, &raw mut total) })?;
        Ok((free as u64, total as u64))
    }
}

/// Most parameters of a kernel: attention has sixteen.
const MAX_ARGS: usize = 24;

impl Drop for Cuda {
    fn drop(&mut self) {
        self.abandon_capture();
        if self.bind().is_err() {
            return;
        }
        // SAFETY: all handles are ours, used by nobody else, and destroyed once, in the order opposite to their making. Codes are not
        // looked at: there is nobody to tell, and a lost device gives errors for everything.
        unsafe {
            sys::cuStreamSynchronize(self.stream);
            for g in self.graphs.drain(..) {
                sys::cuGraphExecDestroy(g.exec);
                sys::cuGraphDestroy(g.graph);
            }
            for event in self.marks.drain(..) {
                sys::cuEventDestroy_v2(event);
            }
            for module in self.modules.drain(..) {
                sys::cuModuleUnload(module);
            }
        }
        self.pinned = Pinned::default();
        self.arenas.clear();
        // SAFETY: as above; the stream may be null if it was never made, which the driver refuses.
        unsafe {
            if !self.stream.is_null() {
                sys::cuStreamDestroy_v2(self.stream);
            }
            sys::cuDevicePrimaryCtxRelease_v2(self.device);
        }
    }
}
