//! As much of an assembler for eBPF as a steering program needs.

use crate::sys::bpf::Instruction;

/// A register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Register(u8);

pub(super) const R0: Register = Register(0);
pub(super) const R1: Register = Register(1);
pub(super) const R2: Register = Register(2);
pub(super) const R3: Register = Register(3);
pub(super) const R4: Register = Register(4);
pub(super) const R5: Register = Register(5);
pub(super) const R6: Register = Register(6);
pub(super) const R7: Register = Register(7);
pub(super) const R8: Register = Register(8);
pub(super) const R9: Register = Register(9);
/// The end of the stack.
pub(super) const FRAME: Register = Register(10);

/// Bytes that are loaded or stored at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    Byte,
    Half,
    Word,
    Double,
}

impl Size {
    const fn code(self) -> u8 {
        match self {
            Self::Word => 0x00,
            Self::Half => 0x08,
            Self::Byte => 0x10,
            Self::Double => 0x18,
        }
    }
}

/// Arithmetic of 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Math {
    Add = 0x00,
    Or = 0x40,
    And = 0x50,
    ShiftLeft = 0x60,
    ShiftRight = 0x70,
    Move = 0xb0,
}

/// When a jump is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    Equal = 0x10,
    /// Unsigned.
    Greater = 0x20,
    /// Some of these bits are set.
    AnyOf = 0x40,
    Differs = 0x50,
    /// Unsigned.
    Less = 0xa0,
}

/// A place to jump to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label(usize);

/// Collects instructions.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    code: Vec<Instruction>,
    /// Where labels stand.
    places: Vec<Option<usize>>,
    /// Jumps, with their labels.
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    pub(super) fn label(&mut self) -> Label {
        self.places.push(None);
        Label(self.places.len() - 1)
    }

    /// The label stands before the next instruction.
    pub(super) fn place(&mut self, label: Label) {
        debug_assert!(self.places[label.0].is_none(), "a label has one place");
        self.places[label.0] = Some(self.code.len());
    }

    /// `to = *(from + offset)`
    pub(super) fn load(&mut self, size: Size, to: Register, from: Register, offset: i16) {
        self.push(0x61 | size.code(), to, from, offset, 0);
    }

    /// `*(to + offset) = from`
    pub(super) fn store(&mut self, size: Size, to: Register, offset: i16, from: Register) {
        self.push(0x63 | size.code(), to, from, offset, 0);
    }

    /// `*(to + offset) = value`
    pub(super) fn store_value(&mut self, size: Size, to: Register, offset: i16, value: i32) {
        self.push(0x62 | size.code(), to, R0, offset, value);
    }

    /// `to = to OP value`
    pub(super) fn math(&mut self, math: Math, to: Register, value: i32) {
        self.push(0x07 | math as u8, to, R0, 0, value);
    }

    /// `to = to OP from`
    pub(super) fn math_by(&mut self, math: Math, to: Register, from: Register) {
        self.push(0x0f | math as u8, to, from, 0, 0);
    }

    /// `if what WHEN value goto label`, on the lower 32 bits.
    pub(super) fn jump_if(&mut self, what: Register, when: When, value: i32, label: Label) {
        self.jumps.push((self.code.len(), label));
        self.push(0x06 | when as u8, what, R0, 0, value);
    }

    /// `if what WHEN than goto label`, on all 64 bits.
    pub(super) fn jump_if_by(&mut self, what: Register, when: When, than: Register, label: Label) {
        self.jumps.push((self.code.len(), label));
        self.push(0x0d | when as u8, what, than, 0, 0);
    }

    /// `if what WHEN 0 goto label`, on all 64 bits: for pointers.
    pub(super) fn jump_if_pointer(&mut self, what: Register, when: When, label: Label) {
        self.jumps.push((self.code.len(), label));
        self.push(0x05 | when as u8, what, R0, 0, 0);
    }

    pub(super) fn jump(&mut self, label: Label) {
        self.jumps.push((self.code.len(), label));
        self.push(0x05, R0, R0, 0, 0);
    }

    /// `to = map`
    pub(super) fn load_map(&mut self, to: Register, map: i32) {
        self.push(0x18, to, Register(1), 0, map);
        self.push(0, R0, R0, 0, 0);
    }

    pub(super) fn call(&mut self, helper: i32) {
        self.push(0x85, R0, R0, 0, helper);
    }

    pub(super) fn exit(&mut self) {
        self.push(0x95, R0, R0, 0, 0);
    }

    /// The program, with its jumps.
    pub(super) fn finish(mut self) -> Vec<Instruction> {
        for (at, label) in self.jumps {
            let to = self.places[label.0].expect("every label has a place");
            let distance = to as isize - at as isize - 1;
            self.code[at].offset = i16::try_from(distance).expect("programs are short");
        }
        self.code
    }

    fn push(&mut self, code: u8, to: Register, from: Register, offset: i16, immediate: i32) {
        self.code.push(Instruction {
            code,
            registers: from.0 << 4 | to.0,
            offset,
            immediate,
        });
    }
}
