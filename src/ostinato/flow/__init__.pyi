from .calls import ask, gather, now, sleep, uniform, version
from .config import FlowRun
from .flow_function import FlowFunction
from .flows import AsyncFlow, Flow, flow
from .lanes import FlowLanes, FlowsFailed, key_of, prefix_of
from .limits import LimitReached, Limits
from .record import FlowChanged
from .run import FlowWork, build_flow, flow_of
from .sampling import sample
from .steps import Step, step
from .task import FlowSettings, own_traceback
from .text_calls import Judged, NoChoice, Reply, TakenBack, check, choose, generate

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
    "TakenBack",
    "ask",
    "build_flow",
    "check",
    "choose",
    "flow",
    "flow_of",
    "gather",
    "generate",
    "key_of",
    "now",
    "own_traceback",
    "prefix_of",
    "sample",
    "sleep",
    "step",
    "uniform",
    "version",
]
