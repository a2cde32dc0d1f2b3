from .calls import (
    Judged,
    NoChoice,
    Reply,
    Step,
    ask,
    check,
    choose,
    gather,
    generate,
    now,
    sample,
    sleep,
    step,
    uniform,
    version,
)
from .config import FlowRun
from .flow_function import FlowFunction
from .flows import AsyncFlow, Flow, flow
from .lanes import FlowLanes, FlowsFailed
from .limits import LimitReached, Limits
from .record import FlowChanged
from .run import FlowWork, build_flow, flow_of
from .task import FlowSettings

__all__ = [
    "AsyncFlow",
    "Flow",
    "FlowChanged",
    "FlowFunction",
    "FlowLanes",
    "FlowRun",
    "FlowSettings",
    "FlowWork",
    "FlowsFailed",
    "Judged",
    "LimitReached",
    "Limits",
    "NoChoice",
    "Reply",
    "Step",
    "ask",
    "build_flow",
    "check",
    "choose",
    "flow",
    "flow_of",
    "gather",
    "generate",
    "now",
    "sample",
    "sleep",
    "step",
    "uniform",
    "version",
]
