# SPDX-License-Identifier: Apache-2.0
"""One function or kernel to C: registers, operands, control of waits. Opcodes are in instructions/."""

from __future__ import annotations

from .ctypes_map import C_TYPES, HALVES, UNSIGNED, integer_literal
from .inline import yields
from .instructions import HANDLERS
from .layout import Layout
from .liveness import Liveness
from .represent import float_registers
from .special import SPECIAL_VALUES
from .syntax import TYPE_WIDTHS, Function, Instruction, Operand, PtxError, Variable

# How the C function is built.
SIMPLE = "simple"  # kernel without waits: a loop over the threads
PHASES = "phases"  # kernel whose only waits are bar.sync 0
SCHEDULE = "schedule"  # kernel with other waits
LOCKSTEP = "lockstep"  # kernel with waits to which the lanes of a group come together: loops over the lanes
DEVICE = "device"  # device function

_STACK_LIMIT = 16384  # bytes of .local memory that may lie on the worker's stack


class FunctionEmitter:
    """Collects the C lines of one function. Handlers of opcodes call `emit`, `read`, `assign`, `address`, `wait`."""

    def __init__(self, layout: Layout, function: Function, mode: str, name: str) -> None:
        self.layout = layout
        self.function = function
        self.mode = mode
        self.name = name
        self.lines: list[str] = []
        self.hoisted: dict[str, str] = {}  # C name -> definition, before the thread loop
        self.specials: dict[str, str] = {}  # C name -> value of special registers
        self.saved: dict[str, str] = {}  # register -> C type, in the frame
        self.waits = 0
        self.uses_thread = False
        self.uses_carry = False
        self._temps = 0
        self._current = 0
        self._live = Liveness(function)
        self._after: dict[int, list[str]] = {}  # wait -> registers to load when it is over
        self._unsaved: dict[int, list[str]] = {}  # wait -> registers to save before it
        self._floats = float_registers(function)
        self.shared: dict[int, int] = {}
        self.static_shared = 0  # bytes; the dynamic part starts there
        self.reserved = 0  # bytes at the end of the static part that are the system's
        if mode != DEVICE:
            self.shared, self.static_shared, self.reserved = layout.shared_layout(function)

    # Registers and operands

    def c_type(self, register: str) -> str:
        """C type in which a register is kept."""
        if register in self._floats:
            return self._floats[register]
        kind = self.function.registers[register]
        return "_Bool" if kind == "pred" else UNSIGNED[TYPE_WIDTHS[kind]]

    def is_float(self, operand: Operand) -> bool:
        """Whether the operand is a register kept as float or double."""
        return operand.kind == "reg" and operand.name in self._floats

    def width(self, operand: Operand) -> int:
        """Width in bits of a register operand; 64 for addresses and constants."""
        return TYPE_WIDTHS[self.function.registers[operand.name]] if operand.kind == "reg" else 64

    def read(self, operand: Operand, kind: str) -> str:
        """C expression of the operand as PTX type `kind`. f16 and bf16 become float."""
        if kind in HALVES:
            return f"{HALVES[kind]}_value({self.read(operand, 'b16')})"
        if operand.kind == "reg":
            return self._read_register(operand, kind)
        if operand.kind == "int":
            return self._read_integer(operand, kind)
        if operand.kind == "float":
            return self._read_float(operand, kind)
        if operand.kind == "special":
            return f"(({C_TYPES[kind]}){self.special(operand.name)})"
        if operand.kind == "sym":
            text = self.symbol_value(operand)
            return text if TYPE_WIDTHS[kind] == 64 else f"(({C_TYPES[kind]})({text}))"
        raise self.error(f"operand of '{self.instruction.opcode}' is not supported by the soft GPU")

    def read_moved(self, operand: Operand, kind: str, moved_as: str) -> str:
        """As `read`, for a value of type `kind` that moves unchanged into a register which is kept as `moved_as`.

        An integer constant then means the bits, not the number.
        """
        if operand.kind == "int" and moved_as in ("f32", "f64") and kind != moved_as:
            bits = integer_literal(operand.value, f"b{TYPE_WIDTHS[moved_as]}")
            return f"gv_{moved_as}({bits})"
        return self.read(operand, moved_as)

    def register_text(self, name: str) -> str:
        """C expression of a register, of its C type."""
        return name

    def _read_register(self, operand: Operand, kind: str) -> str:
        name = self.register_text(operand.name)
        stored = self.c_type(operand.name)
        wanted = C_TYPES[kind]
        if kind == "pred":
            text = name if stored == "_Bool" else f"({name} != 0)"
            return "!" + text if operand.negated else text
        if stored == wanted:
            return name
        if wanted in ("float", "double"):
            bits = name
            if stored in ("float", "double"):
                bits = f"gv_{'u32' if stored == 'float' else 'u64'}({name})"
            return f"gv_f32((uint32_t){bits})" if wanted == "float" else f"gv_f64({bits})"
        if stored == "float":
            name = f"gv_u32({name})"
        elif stored == "double":
            name = f"gv_u64({name})"
        if UNSIGNED.get(TYPE_WIDTHS[kind]) == wanted and self.width(operand) == TYPE_WIDTHS[kind]:
            return name
        return f"(({wanted}){name})"

    def _read_integer(self, operand: Operand, kind: str) -> str:
        if kind in ("f32", "f64"):
            return f"{float(operand.value)!r}{'f' if kind == 'f32' else ''}"
        if kind == "pred":
            return "1" if operand.value else "0"
        return integer_literal(operand.value, kind)

    def _read_float(self, operand: Operand, kind: str) -> str:
        source = f"gv_f32({operand.value:#x}u)" if operand.width == 32 else f"gv_f64({operand.value:#x}ull)"
        if kind == "f32":
            return source if operand.width == 32 else f"(float){source}"
        if kind == "f64":
            return source
        if operand.width == 64 and TYPE_WIDTHS[kind] == 32:
            return f"gv_u32((float){source})"
        return integer_literal(operand.value, kind)

    def assign(self, operand: Operand, kind: str, text: str) -> None:
        """Stores the C expression `text` of PTX type `kind`; narrow values are extended by the sign of their type."""
        if operand.kind == "sink":
            self.emit(f"(void)({text});")
            return
        if operand.kind != "reg":
            raise self.error(f"'{self.instruction.opcode}' does not write to a register")
        if kind in HALVES:
            self.assign(operand, "b16", f"{HALVES[kind]}_bits({text})")
            return
        stored = self.c_type(operand.name)
        made = C_TYPES[kind]
        if stored == made:
            self.emit(f"{operand.name} = {text};")
            return
        if made == "float":
            text = f"gv_u32({text})"
        elif made == "double":
            text = f"gv_u64({text})"
        elif stored not in ("float", "double"):
            text = f"({made})({text})"
        if stored in ("float", "double"):
            text = f"gv_f32((uint32_t)({text}))" if stored == "float" else f"gv_f64((uint64_t)({text}))"
        self.emit(f"{operand.name} = {text};")

    def special(self, name: str) -> str:
        """C expression of a special register; those of the thread and the grid are read once."""
        entry = SPECIAL_VALUES[name]
        if entry[0]:
            self.specials[entry[0]] = entry[1]
            return entry[0]
        return entry[1].replace("@STATIC", str(self.static_shared) if self.mode != DEVICE else "T->static_shared")

    # Symbols and addresses

    def find(self, name: str) -> Function | Variable:
        """What a name means in this function."""
        local = self.function.locals.get(name)
        if local is not None:
            return local
        for variable in self.function.params + self.function.rets:
            if variable.name == name:
                return variable
        assert self.function.module is not None
        found = self.function.module.symbols.get(name)
        if found is None:
            raise self.error(f"'{name}' is not defined")
        return found

    def symbol_value(self, operand: Operand) -> str:
        """64-bit value of a symbol: an address, in .shared an offset."""
        symbol = self.find(operand.name)
        offset = f" + {operand.value}" if operand.value > 0 else f" - {-operand.value}" if operand.value else ""
        if isinstance(symbol, Function):
            index = self.layout.function_index.get(id(symbol))
            if index is None:
                raise self.error(f"the address of '{symbol.name}' is not supported by the soft GPU")
            return f"(uint64_t)(uintptr_t)&gv_functions[{index}]"
        text = self._variable_base(symbol)
        return f"({text}{offset})" if offset else text

    def _variable_base(self, variable: Variable) -> str:
        if variable.space in ("global", "const"):
            index = self.layout.global_index.get(id(variable), -1)
            if index < 0:
                raise self.error(f"external variable '{variable.name}' is not defined")
            self.hoisted[f"G{index}"] = f"const uint64_t G{index} = (uint64_t)(uintptr_t)B->globals[{index}];"
            return f"G{index}"
        if variable.space == "shared":
            if self.mode != DEVICE:
                return f"{self.static_shared if variable.unsized else self.shared[id(variable)]}ull"
            if variable.unsized:
                self.uses_thread = True
                return "(uint64_t)T->dynamic_shared"
            return f"{self.layout.shared_offset(variable)}ull"
        return f"(uint64_t)(uintptr_t){self.storage(variable)}"

    def storage(self, variable: Variable) -> str:
        """C pointer to the bytes of a .local or .param variable."""
        for group, prefix in ((self.function.params, "A"), (self.function.rets, "Q")):
            for index, declared in enumerate(group):
                if declared is variable:
                    if self.mode == DEVICE:
                        return f"{prefix}{index}"
                    offset = self.parameter_offsets()[index]
                    return f"(P + {offset})" if offset else "P"
        frame = "C->" if self.mode in (PHASES, SCHEDULE) else ""
        return frame + "V_" + variable.name.replace(".", "$").replace("%", "")

    def parameter_offsets(self) -> list[int]:
        """Offset of each kernel parameter in the parameter buffer."""
        offsets, size = [], 0
        for parameter in self.function.params:
            size = (size + parameter.align - 1) // parameter.align * parameter.align
            offsets.append(size)
            size += parameter.size
        return offsets

    def address(self, operand: Operand, space: str) -> str:
        """C expression (uint64_t) of the host address of a memory operand in a state space ("" = generic)."""
        if operand.kind != "mem":
            raise self.error(f"'{self.instruction.opcode}' needs an address")
        base = operand.items[0]
        if base.kind == "reg":
            text = self.read(base, "b64" if self.width(base) == 64 else "b32")
            if self.width(base) == 32:
                text = f"(uint64_t){text}"
            if operand.value:
                text = f"{text} {'+' if operand.value > 0 else '-'} {abs(operand.value)}"
        elif base.kind == "sym":
            text = self.symbol_value(Operand("sym", base.name, operand.value))
            variable = self.find(base.name)
            if isinstance(variable, Variable) and variable.space == "shared":
                space = "shared"
        else:
            text = f"{operand.value & (1 << 64) - 1:#x}ull"
        if space == "shared":
            return f"S + ({text})"
        return text

    # Lines and waits

    def emit(self, line: str) -> None:
        """Appends one C line."""
        self.lines.append(line)

    def temp(self) -> str:
        """A fresh C name."""
        self._temps += 1
        return f"x{self._temps}"

    def error(self, message: str) -> PtxError:
        """An error at the current instruction."""
        return PtxError(self.instruction.line, message)

    def wait(self, result: str, setup: list[str]) -> None:
        """The thread waits: saves what is live, returns `result`, and is resumed after this point."""
        if self.mode not in (PHASES, SCHEDULE):
            raise self.error(f"'{self.instruction.opcode}' in a function called by pointer is not supported")
        self.waits += 1
        live = self._after[self._current]
        for register in live:
            self.saved.setdefault(register, self.c_type(register))
        self.lines += setup
        changed = self._unsaved[self._current]
        self.emit(f"C->f.pc = {self.waits};" + "".join(f" C->{r} = {r};" for r in changed))
        self.emit("waiting++; goto next;" if self.mode == PHASES else f"return {result};")
        self.emit(f"W{self.waits}:;" + "".join(f" {r} = C->{r};" for r in live))

    def leave(self, result: str) -> None:
        """The thread or function ends: "" returns, else a gv_block_result or GV_EXIT."""
        if self.mode == DEVICE:
            if not result:
                self._store_results()
            self.emit(f"return {result or '0'};")
        elif self.mode in (SIMPLE, PHASES):
            self.emit(f"return {result};" if result not in ("", "GV_EXIT") else "goto done;")
        else:
            self.emit(f"return {result or 'GV_EXIT'};")

    def _store_results(self) -> None:
        for index, variable in enumerate(self.function.rets):
            if variable.space == "reg":
                register = self.register_of(variable)
                self.emit(f"*({self.c_type(register)} *)(void *)Q{index} = {register};")

    def register_of(self, variable: Variable) -> str:
        """C name of the register that a .reg parameter declares."""
        name = variable.name
        return ("r_" + name[1:] if name[0] == "%" else "n_" + name).replace(".", "$")

    def run(self) -> None:
        """Translates the body into `lines`."""
        body = self.function.body
        if self.mode in (PHASES, SCHEDULE):
            waits = {n for n, i in enumerate(body) if yields(i)}
            self._after = self._live.after(waits)
            self._unsaved = self._live.unsaved(self._after)
        for number, instruction in enumerate(body):
            self._current = number
            self.instruction = instruction
            if instruction.base == "label":
                self.emit(f"{label_name(instruction.opcode)}:;")
                continue
            handler = HANDLERS.get(instruction.base)
            if handler is None:
                raise unsupported(instruction)
            try:
                if instruction.guard:
                    condition = "!" + instruction.guard if instruction.guard_not else instruction.guard
                    self.emit(f"if ({condition}) {{")
                    handler(self, instruction)
                    self.emit("}")
                else:
                    handler(self, instruction)
            except (IndexError, KeyError, ValueError, StopIteration):
                raise self.error(f"'{instruction.opcode}' has wrong operands or types") from None
        self.leave("")

    def registers_at_entry(self) -> set[str]:
        """Registers that may be read before they are written: they start as 0."""
        return set(self._live.at_entry())

    def register_estimate(self) -> int:
        """32-bit registers of a thread, roughly as an assembler would say."""
        return min(255, 8 + 2 * self._live.peak())

    def big_locals(self) -> bool:
        """Whether .local variables are too big for the stack and lie in the scratch memory."""
        return self.mode == SIMPLE and self.local_bytes() > _STACK_LIMIT

    def local_bytes(self) -> int:
        """Bytes of .local memory of one thread."""
        return sum(v.size for v in self.function.locals.values() if v.space == "local")


def label_name(name: str) -> str:
    """C label of a PTX label."""
    return "L_" + name.replace(".", "$").replace("%", "$")


def unsupported(instruction: Instruction) -> PtxError:
    """The error for an opcode, or a form of it, that is not translated."""
    return PtxError(instruction.line, f"opcode '{instruction.opcode}' is not supported by the soft GPU")
