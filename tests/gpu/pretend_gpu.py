"""A pretend GPU: tensors say that they are on a device of their own, and are computed on the CPU.

What a GPU would refuse is refused (a CPU tensor among device tensors); what would make the host
wait is counted (reading a number, `nonzero`, bool masks, copies between host and device that are
not sent from pinned memory); so is what would be a kernel launch. Autocast does nothing on it.
"""

from __future__ import annotations

import contextlib
import traceback
from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from ltrobust.tape import waits

NAME = "pretendgpu"


class _Backend:
    """What torch asks a device's module for."""

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return True

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None: ...

    def synchronize(self, *arguments: Any) -> None: ...

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]

    def get_rng_state(self, device: Any = None) -> Tensor:
        return torch.zeros(1, dtype=torch.uint8)

    def set_rng_state(self, state: Tensor, device: Any = None) -> None: ...

    def device(self, device: Any) -> Any:
        return contextlib.nullcontext()


_setup_privateuseone_for_python_backend(NAME, backend_module=_Backend())
DEVICE = torch.device(NAME, 0)


class OnDevice(torch.Tensor):
    """A tensor of the pretend device; `inner` is where it is computed."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnDevice:
        return torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined, no-any-return]
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=DEVICE,
            requires_grad=False,
        )

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not _ENTERED:
            raise RuntimeError(f"a tensor of the pretend device outside of its mode: {func}")
        return _ENTERED[-1].run(func, args, kwargs or {})

    def __repr__(self, **named: Any) -> str:
        return f"OnDevice({self.inner!r})"

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError(f"can't convert {NAME} tensor to numpy")


class MixedDevicesError(RuntimeError):
    """An operation on tensors of the host and of the device."""


_ENTERED: list[PretendGPU] = []
_PINNED: set[int] = set()
COPIES = {"_to_copy", "copy_", "_copy_from"}
INDEXING = {"index", "index_put_", "index_put", "_unsafe_index"}
NO_LAUNCH = {
    *("view", "_unsafe_view", "reshape", "expand", "permute", "transpose", "t", "slice", "select"),
    *("detach", "alias", "unsqueeze", "squeeze", "as_strided", "split", "split_with_sizes"),
    *("unbind", "_reshape_alias", "lift_fresh", "detach_", "diagonal"),
    *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"),
}


class PretendGPU(TorchDispatchMode):
    """Inside it the device exists.

    Attributes:
        launches: kernels by operation.
        waits: what the host would wait for, and where in our code.
    """

    def __init__(self) -> None:
        super().__init__()
        self.launches: Counter[str] = Counter()
        self.waits: Counter[tuple[str, str]] = Counter()
        self._patch = contextlib.ExitStack()

    def __enter__(self) -> PretendGPU:
        _ENTERED.append(self)
        make, autocast = torch.tensor, torch.autocast

        def tensor(data: Any, *args: Any, device: Any = None, **kwargs: Any) -> Tensor:
            """`torch.tensor` goes past dispatch modes: a copy shows what it costs."""
            away = device is not None and torch.device(device).type == NAME
            made = make(data, *args, device=None if away else device, **kwargs)
            return made.to(device) if away else made

        def no_autocast(device_type: str, *args: Any, **kwargs: Any) -> Any:
            if device_type == NAME:
                return contextlib.nullcontext()
            return autocast(device_type, *args, **kwargs)

        torch.tensor, torch.autocast = tensor, no_autocast  # type: ignore[assignment, misc]
        self._patch.callback(setattr, torch, "tensor", make)
        self._patch.callback(setattr, torch, "autocast", autocast)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        _ENTERED.pop()
        self._patch.close()
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.run(func, args, kwargs or {})

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Do one operation, and count it."""
        name = func.overloadpacket.__name__
        leaves = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        device = [t for t in leaves if isinstance(t, OnDevice)]
        host = [t for t in leaves if not isinstance(t, OnDevice)]
        target = kwargs.get("device")
        target = None if target is None else torch.device(target)
        stays = bool(device) and (target is None or target.type == NAME)
        on_device = stays or (target is not None and target.type == NAME)
        if name in ("_pin_memory", "is_pinned"):
            return args[0].clone() if name == "_pin_memory" else False
        if device and host and name not in COPIES:
            self._check(name, host)
        elif name in COPIES and (host or not stays) and (device or on_device):
            on_device = on_device if target is not None else isinstance(args[0], OnDevice)
            sent = bool(kwargs.get("non_blocking")) and on_device
            if not sent:
                self._wait("copy to the device" if on_device else "copy to the host")
        if device and waits(func, args):
            self._wait(name)
            on_device = on_device and name != "_local_scalar_dense"
        if on_device and name not in NO_LAUNCH:
            self.launches[name] += _kernels(name, args)
        out = self._computed(func, args, kwargs, to_device=target is not None and on_device)
        return self._wrapped(out, device) if on_device else out

    def _check(self, name: str, host: list[Tensor]) -> None:
        if name in INDEXING:
            self._wait("index on the host")
        elif not all(t.dim() == 0 for t in host):
            shapes = [tuple(t.shape) for t in host]
            raise MixedDevicesError(f"{name} at {_where()}: on the host {shapes}")

    def _wait(self, what: str) -> None:
        self.waits[what, _where()] += 1

    def _computed(self, func: Any, args: Any, kwargs: dict[str, Any], *, to_device: bool) -> Any:
        plain, named = tree_map(
            lambda t: t.inner if isinstance(t, OnDevice) else t, (args, dict(kwargs))
        )
        if to_device:
            named["device"] = torch.device("cpu")
        if named.get("pin_memory"):
            named["pin_memory"] = False
        return func(*plain, **named)

    def _wrapped(self, out: Any, device: list[OnDevice]) -> Any:
        known = {id(t.inner): t for t in device}

        def wrap(t: Any) -> Any:
            if not isinstance(t, Tensor) or isinstance(t, OnDevice):
                return t
            return known[id(t)] if id(t) in known else OnDevice(t)

        return tree_map(wrap, out)


def _kernels(name: str, args: Any) -> int:
    """Launches of an operation; a convolution's bias is added by a kernel of its own."""
    if name == "convolution":
        return 1 if args[2] is None else 2
    return sum(map(bool, args[-1])) if name == "convolution_backward" else 1


def _where() -> str:
    """The innermost line of ours that is at work."""
    for frame in reversed(traceback.extract_stack()[:-3]):
        parts = frame.filename.split("/")
        if any(room in parts for room in ("ltrobust", "methods", "pyautoattack")):
            return f"{parts[-1]}:{frame.lineno}"
    return "(backward)"
