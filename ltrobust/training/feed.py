"""The images of an epoch's batches on the device: all of them there, or fetched one batch ahead.

Data that fits lies on the device as a whole. Other data stays on the host, perhaps mapped from a
file, and a thread gathers the next batch while the device works on this one. The batches are the
same either way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

SHARE = 0.4
"""Of a device's free memory that the training images may take as a whole."""
AHEAD = 2
"""Batches that are fetched before they are needed."""
LARGE = 1_000_000_000
"""Bytes of images from which on they may lie on a disk, mapped into memory."""


def fits(images: Tensor, device: torch.device) -> bool:
    """Whether images may lie on a device as a whole; what is in a CPU's memory already does."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return images.numel() * images.element_size() <= SHARE * free


def placed(images: Tensor, device: torch.device) -> Tensor:
    """The images on the device where they fit, else as they are."""
    return images.to(device) if fits(images, device) else images


def chosen_images(images: Tensor, chosen: Tensor, device: torch.device) -> Tensor:
    """The images at `chosen`, int64 (B,) on any device, on `device`."""
    batch = images[chosen.to(images.device)]
    if batch.device == device:
        return batch
    if device.type == "cuda":
        return batch.pin_memory().to(device, non_blocking=True)
    return batch.to(device)


def sent(chosen: Tensor, device: torch.device) -> Tensor:
    """Positions on a device, without waiting for it."""
    if chosen.device == device or device.type == "cpu":
        return chosen.to(device)
    return chosen.pin_memory().to(device, non_blocking=True)


def reach(images: Tensor, device: torch.device) -> int:
    """How many batches to fetch ahead: none of images that are at hand."""
    at_hand = images.device == device and images.numel() < LARGE
    return 0 if at_hand else AHEAD


def fed(
    images: Tensor, draws: Iterable[Tensor], device: torch.device, ahead: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield each batch's positions and images, both on the device, in order.

    Args:
        images: uint8 (N, C, H, W), on the device or on the host.
        draws: positions of each batch's images, int64 (B,); they are drawn `ahead` batches before
            they are needed, so where a draw depends on the step before it that must be 0.
        device: where they are wanted.
        ahead: batches that a thread fetches beforehand.
    """
    if ahead == 0:
        for chosen in draws:
            yield sent(chosen, device), chosen_images(images, chosen, device)
        return
    waiting: deque[tuple[Tensor, Future[Tensor]]] = deque()
    with ThreadPoolExecutor(1) as pool:
        for chosen in draws:
            waiting.append((chosen, pool.submit(chosen_images, images, chosen, device)))
            if len(waiting) > ahead:
                yield _next(waiting, device)
        while waiting:
            yield _next(waiting, device)


def _next(
    waiting: deque[tuple[Tensor, Future[Tensor]]], device: torch.device
) -> tuple[Tensor, Tensor]:
    chosen, batch = waiting.popleft()
    return sent(chosen, device), batch.result()
