"""The label-free gate: whether a candidate encoder may take the place of the live one."""

from adapt.gate.judgement import judge
from adapt.gate.settings import GateSettings
from adapt.gate.verdict import Signal, Verdict

__all__ = ["GateSettings", "Signal", "Verdict", "judge"]
