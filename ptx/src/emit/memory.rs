//! Text of memory instructions.

use super::{EmitErrorKind, Emitted, Writer, names};
use crate::ir::{
    Address, Atomic, Base, CacheHints, CopyAsync, L1, Load, Operand, Order, SharedId, SharedSize, Store, Type,
};

impl Writer<'_> {
    pub(super) fn load(&mut self, load: &Load) -> Emitted {
        let opcode = if load.order == Order::Volatile { "ld.volatile" } else { "ld" };
        let dst: Vec<Operand> = load.dst.iter().map(|&d| d.into()).collect();
        let (vector, dst) = self.vector("ld", &dst)?;
        let order = order(load.order);
        let read_only = if load.read_only { ".nc" } else { "" };
        let (hints, policy) = self.hints("ld", load.hints)?;
        let from = self.address("ld", load.from)?;
        let (space, ty) = (load.from.space.name(), untyped(load.ty));
        self.line(&format!("{opcode}{order}.{space}{read_only}{hints}{vector}{ty} {dst}, {from}{policy};"));
        Ok(())
    }

    pub(super) fn store(&mut self, store: &Store) -> Emitted {
        let opcode = if store.order == Order::Volatile { "st.volatile" } else { "st" };
        let (vector, values) = self.vector("st", &store.values)?;
        let order = order(store.order);
        let (hints, policy) = self.hints("st", store.hints)?;
        let to = self.address("st", store.to)?;
        let (space, ty) = (store.to.space.name(), untyped(store.ty));
        self.line(&format!("{opcode}{order}.{space}{hints}{vector}{ty} {to}, {values}{policy};"));
        Ok(())
    }

    pub(super) fn atomic(&mut self, atomic: &Atomic) -> Emitted {
        let opcode = if atomic.dst.is_some() { "atom" } else { "red" };
        let dst = match atomic.dst {
            Some(dst) => format!("{}, ", self.names.register(opcode, dst)?),
            None => String::new(),
        };
        let at = self.address(opcode, atomic.at)?;
        let mut value = self.names.operand(opcode, atomic.value)?;
        if let Some(compare) = atomic.compare {
            value = format!("{}, {value}", self.names.operand(opcode, compare)?);
        }
        let (order, space, op) = (order(atomic.order), atomic.at.space.name(), atomic.op.name());
        self.line(&format!("{opcode}{order}.{space}.{op}{} {dst}{at}, {value};", atomic.ty));
        Ok(())
    }

    pub(super) fn copy_async(&mut self, copy: &CopyAsync) -> Emitted {
        let opcode = "cp.async";
        let level = if copy.bypass_l1 { "cg" } else { "ca" };
        let hints = CacheHints { l1: L1::Normal, prefetch: copy.prefetch, policy: copy.policy };
        let (hints, policy) = self.hints(opcode, hints)?;
        let (to, from) = (self.address(opcode, copy.to)?, self.address(opcode, copy.from)?);
        let read = match copy.read_bytes {
            Some(bytes) => format!(", {}", self.names.operand(opcode, bytes)?),
            None => String::new(),
        };
        self.line(&format!("cp.async.{level}.shared.global{hints} {to}, {from}, {}{read}{policy};", copy.bytes));
        Ok(())
    }

    pub(super) fn address(&self, opcode: &'static str, address: Address) -> Result<String, EmitErrorKind> {
        let base = match address.base {
            Base::Reg(reg) => self.names.register(opcode, reg)?,
            Base::Shared(shared) => self.shared(opcode, shared)?,
        };
        Ok(match address.offset {
            0 => format!("[{base}]"),
            // `[r-4]` is a syntax error; the assembler takes `[r+-4]`.
            offset => format!("[{base}+{offset}]"),
        })
    }

    pub(super) fn shared(&self, opcode: &'static str, id: SharedId) -> Result<String, EmitErrorKind> {
        let shared = self.kernel.shared.get(id.0 as usize).ok_or(EmitErrorKind::Shared { opcode, index: id.0 })?;
        Ok(match shared.size {
            SharedSize::Static { .. } => shared.name.clone(),
            SharedSize::Dynamic { .. } => names::dynamic_shared(self.kernel, shared),
        })
    }

    /// The qualifier and the operand of a vector; of one element, none and the element.
    pub(super) fn vector(&self, opcode: &'static str, elements: &[Operand]) -> Result<(String, String), EmitErrorKind> {
        let names: Result<Vec<String>, _> = elements.iter().map(|&e| self.names.operand(opcode, e)).collect();
        match names?.as_slice() {
            [] => Err(EmitErrorKind::EmptyVector { opcode }),
            [one] => Ok((String::new(), one.clone())),
            many => Ok((format!(".v{}", many.len()), format!("{{{}}}", many.join(", ")))),
        }
    }

    /// Qualifiers, and the operand at the end.
    fn hints(&self, opcode: &'static str, hints: CacheHints) -> Result<(String, String), EmitErrorKind> {
        let l1 = match hints.l1 {
            L1::Normal => "",
            L1::NoAllocate => ".L1::no_allocate",
            L1::EvictFirst => ".L1::evict_first",
            L1::EvictLast => ".L1::evict_last",
        };
        let (cache_hint, policy) = match hints.policy {
            Some(policy) => (".L2::cache_hint", format!(", {}", self.names.register(opcode, policy)?)),
            None => ("", String::new()),
        };
        Ok((format!("{l1}{cache_hint}{}", hints.prefetch.qualifier()), policy))
    }
}

/// Qualifiers of an ordering. `volatile` is written before, in place of one.
fn order(order: Order) -> String {
    match order {
        Order::Weak | Order::Volatile => String::new(),
        Order::Relaxed(scope) => format!(".relaxed.{}", scope.name()),
        Order::Acquire(scope) => format!(".acquire.{}", scope.name()),
        Order::Release(scope) => format!(".release.{}", scope.name()),
        Order::AcquireRelease(scope) => format!(".acq_rel.{}", scope.name()),
    }
}

/// Moves and memory do not know halves and pairs: they are bits there.
pub(super) fn untyped(ty: Type) -> Type {
    match ty {
        Type::F16 | Type::Bf16 => Type::B16,
        Type::F16x2 | Type::Bf16x2 => Type::B32,
        other => other,
    }
}
