//! Memory: allocations on the device, and memory of the host that it copies to while the host goes on.

use std::ffi::c_void;
use std::ptr;

use cudarc::driver::sys;

use super::call::call;
use crate::device::Ticket;
use crate::error::DeviceError;

/// An allocation on the device. The context is current when it is made and dropped.
pub(super) struct Arena {
    address: u64,
}

impl Arena {
    pub(super) fn new(bytes: u64) -> Result<Self, DeviceError> {
        let mut address = 0;
        // SAFETY: writes an address; freed in `drop`. The driver refuses zero bytes.
        call("cuMemAlloc", || unsafe { sys::cuMemAlloc_v2(&raw mut address, bytes.max(1) as usize) })?;
        Ok(Self { address })
    }

    pub(super) fn address(&self) -> u64 {
        self.address
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: allocated in `new`, freed once.
        unsafe { sys::cuMemFree_v2(self.address) };
    }
}

/// Pinned memory for one copy, and the event behind it.
pub(super) struct Slot {
    memory: *mut c_void,
    room: usize,
    event: sys::CUevent,
    /// Bytes of the copy under way; `None` if the slot is free.
    bytes: Option<usize>,
}

impl Slot {
    fn new(room: usize) -> Result<Self, DeviceError> {
        let mut slot = Self { memory: ptr::null_mut(), room, event: ptr::null_mut(), bytes: None };
        // SAFETY: what is made here is freed in `drop`, whichever call fails.
        unsafe {
            call("cuMemHostAlloc", || sys::cuMemHostAlloc(&raw mut slot.memory, room, 0))?;
            let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as u32;
            call("cuEventCreate", || sys::cuEventCreate(&raw mut slot.event, flags))?;
        }
        Ok(slot)
    }

    pub(super) fn memory(&self) -> *mut c_void {
        self.memory
    }

    pub(super) fn event(&self) -> sys::CUevent {
        self.event
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // SAFETY: both were made by the driver, or are null.
        unsafe {
            if !self.event.is_null() {
                sys::cuEventDestroy_v2(self.event);
            }
            if !self.memory.is_null() {
                sys::cuMemFreeHost(self.memory);
            }
        }
    }
}

/// Slots, made as they are needed and used again.
#[derive(Default)]
pub(super) struct Pinned(Vec<Slot>);

impl Pinned {
    /// A free slot for `bytes`.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(Ticket, &Slot), DeviceError> {
        let free = self.0.iter().position(|s| s.bytes.is_none() && s.room >= bytes);
        let index = if let Some(index) = free {
            index
        } else {
            self.0.push(Slot::new(bytes.next_power_of_two().max(4096))?);
            self.0.len() - 1
        };
        let slot = &mut self.0[index];
        slot.bytes = Some(bytes);
        Ok((Ticket(index as u32), slot))
    }

    /// Waits for a slot's copy, takes it out, and frees the slot.
    pub(super) fn give(&mut self, ticket: Ticket, out: &mut [u8]) -> Result<(), DeviceError> {
        let foreign = DeviceError::Foreign { what: "ticket", id: ticket.0 };
        let slot = self.0.get_mut(ticket.0 as usize).ok_or(foreign)?;
        let Some(bytes) = slot.bytes.take().filter(|&n| n == out.len()) else {
            return Err(DeviceError::Foreign { what: "ticket", id: ticket.0 });
        };
        // SAFETY: the event was recorded behind the copy.
        call("cuEventSynchronize", || unsafe { sys::cuEventSynchronize(slot.event) })?;
        // SAFETY: the slot has room for `bytes`, which the copy has filled; the device is done with it.
        out.copy_from_slice(unsafe { std::slice::from_raw_parts(slot.memory.cast::<u8>(), bytes) });
        Ok(())
    }
}
