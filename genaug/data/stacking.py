"""Images of any kind, one by one, into one preallocated uint8 tensor."""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from genaug.data.allocation import MEMORY_LIMIT, allocate_pixels, check_memory_limit, warn_of_disk
from genaug.data.patches import Size, place_patches
from genaug.errors import DataError, shorten
from genaug.images import check_images, to_uint8
from genaug.spec import MAX_CHANNELS, MAX_SIDE

TOO_DEEP_MODES = ("I", "F")  # 32 bits; "I;16" and its kin have 16
GRAY_MODES = ("1", "L", "LA", "La")  # "La" is "LA" multiplied by alpha
DARK = 4096  # cameras of 12 bits write levels below this into 16: as 8 bits they would be 0 to 15
LUMA = (0.299, 0.587, 0.114)  # ITU-R 601-2, as in PIL


class Pair(NamedTuple):
    """Two images of one scene and size: what is to be restored, and what it is to become."""

    first: Any
    second: Any


class ImageStack:
    """A uint8 tensor (N, C, H, W) that is filled image by image; the first one, or `patches`, sets the size.

    PIL images are gray (C = 1) as long as all of them are, and RGB from the first other one on. Gray of 16 bits is
    divided by 257, which maps 65535 to 255. Transparent pixels are laid on white. The channels of a `Pair` stand one
    after another: it is gray (C = 2), or color (C = 6), as a whole.

    Args:
        count: the most images that will be added, or patches of them.
        resize: (height, width) to resize each image to, bilinear and antialiased.
        patches: (height, width) of patches to cut each image into, as `place_patches` tells.
        grayscale: make every image gray, by the weights of ITU-R 601-2.
        memory_limit: GiB of pixels beyond which the tensor is on the disk (`allocate_pixels`).

    Raises:
        DataError: a `resize` or `patches` that is no pair of sides, or a `memory_limit` that is not above 0.

    >>> stack = ImageStack(1)
    >>> stack.add(torch.ones(1, 2, 2), "white")
    1
    >>> stack.images.flatten().tolist()
    [255, 255, 255, 255]
    """

    def __init__(
        self,
        count: int,
        *,
        resize: Size | None = None,
        patches: Size | None = None,
        grayscale: bool = False,
        memory_limit: float = MEMORY_LIMIT,
    ) -> None:
        self.count = count
        self.resize = None if resize is None else check_size(resize, name="resize")
        self.patches = None if patches is None else check_size(patches, name="patches")
        self.grayscale = grayscale
        self.memory_limit = check_memory_limit(memory_limit)
        self.brightest_deep: int | None = None  # of 65535, in the 16-bit images
        self.added = 0
        self.first = ""
        self.from_pil = False
        self.images = torch.empty(0, dtype=torch.uint8)

    def add(self, image: Any, name: str) -> int:
        """Add a PIL image, or a tensor (C, H, W) of uint8 or of floats in [0, 1]; return how many images that gives.

        That is one, or the number of its patches; `name` is for messages. A `Pair` of them counts as one image.

        Raises:
            DataError: another type, mode or range; another size or number of channels than the first image has; no room
                for all images.
        """
        parts = image if isinstance(image, Pair) else (image,)
        is_pil = all(isinstance(part, Image.Image) for part in parts)
        pixels = _join([self._convert(part, name) for part in parts], name, grows=is_pil)
        channels, height, width = pixels.shape
        cut_height, cut_width = self.patches or (height, width)
        if self.added == 0:
            self.first, self.from_pil = name, is_pil
            self.images = self._allocate(channels, cut_height, cut_width)
        if is_pil and self.from_pil and channels == 3 * self.images.shape[1]:
            self._become_color()
        self._check_shape(pixels, name, grows=is_pil and self.from_pil)
        if channels < self.images.shape[1]:
            pixels = pixels.repeat_interleave(3, dim=0)
        places = place_patches((height, width), (cut_height, cut_width))
        for number, (top, left) in enumerate(places, start=self.added):
            self.images[number] = pixels[:, top : top + cut_height, left : left + cut_width]
        self.added += len(places)
        return len(places)

    def finish(self) -> Tensor:
        """Return the images that were added, a view (N, C, H, W).

        Warns where 16-bit images come out nearly black, and where the images are on the disk.
        """
        if self.brightest_deep is not None and self.brightest_deep < DARK:
            warnings.warn(
                f"the 16-bit images reach level {self.brightest_deep} of 65535 only; divided by 257 they have "
                f"{self.brightest_deep // 257 + 1} gray levels and look black: stretch them to the whole range first",
                stacklevel=2,
            )
        warn_of_disk(self.images, self.memory_limit)
        return self.images[: self.added]

    def _check_shape(self, pixels: Tensor, name: str, *, grows: bool) -> None:
        expected, got = self.images.shape[1:], pixels.shape
        if self.patches is None and got[1:] != expected[1:]:
            raise DataError(
                f"images must be of one size, but {self.first} is {expected[1]}x{expected[2]} and {name} is "
                f"{got[1]}x{got[2]} (height x width); resize them with --resize 32x32 or resize=(32, 32)"
            )
        if got[0] != expected[0] and not (grows and 3 * got[0] == expected[0]):
            raise DataError(
                f"images must have one number of channels, but {self.first} has {expected[0]} and {name} has {got[0]}; "
                "convert them to the same"
            )

    def _allocate(self, *shape: int) -> Tensor:
        return allocate_pixels((self.count, *shape), memory_limit=self.memory_limit)

    def _become_color(self) -> None:
        gray = self.images
        self.images = self._allocate(3 * gray.shape[1], *gray.shape[2:])
        for channel in range(gray.shape[1]):
            self.images[: self.added, 3 * channel : 3 * channel + 3] = gray[: self.added, channel : channel + 1]

    def _convert(self, image: Any, name: str) -> Tensor:
        """Return one image as uint8 (C, H, W)."""
        return self._from_pil(image, name) if isinstance(image, Image.Image) else self._from_tensor(image, name)

    def _from_pil(self, image: Image.Image, name: str) -> Tensor:
        """Return the pixels of a PIL image as uint8 (1, H, W) or (3, H, W)."""
        if image.mode in TOO_DEEP_MODES:
            raise DataError(
                f"{name}: images must have 8 or 16 bits per channel, got mode {image.mode} (32-bit integers or "
                "floats), whose range is not known; convert it to 8 or 16 bits first"
            )
        if image.mode.startswith("I;16"):
            image = self._from_deep(image)
        flat = _flatten(image)
        if self.grayscale:
            flat = flat.convert("L")
        if self.resize is not None and (flat.height, flat.width) != self.resize:
            flat = flat.resize(self.resize[::-1], Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(flat))
        return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)

    def _from_deep(self, image: Image.Image) -> Image.Image:
        """Return a gray image of 16 bits as one of 8, with its transparent level as white."""
        levels = np.asarray(image).astype(np.uint32)  # (H, W)
        transparent = image.info.get("transparency")
        self.brightest_deep = max(self.brightest_deep or 0, int(levels.max(initial=0)))
        if isinstance(transparent, int):
            levels[levels == transparent] = 65535
        return Image.fromarray(((levels + 128) // 257).astype(np.uint8))

    def _from_tensor(self, image: Any, name: str) -> Tensor:
        """Return a public image as uint8 (C, H, W)."""
        _check_tensor(image, name)
        image = image.detach().cpu()
        if self.grayscale and image.shape[0] != 1:
            image = _gray_tensor(image, name)
        if self.resize is not None and tuple(image.shape[-2:]) != self.resize:
            if image.dtype in (torch.float16, torch.bfloat16):
                image = image.float()  # torch does not resize others on the CPU
            image = interpolate(image[None], size=self.resize, mode="bilinear", antialias=True)[0]
        return to_uint8(image)


def check_size(size: Any, *, name: str) -> Size:
    """Return `size` as a tuple, or raise a `DataError` where it is not (height, width); the message calls it `name`."""
    valid = isinstance(size, (tuple, list)) and len(size) == 2
    if not valid or any(type(side) is not int or not 1 <= side <= MAX_SIDE for side in size):
        raise DataError(
            f"{name} must be (height, width), two integers from 1 to {MAX_SIDE}, got {shorten(size)}; "
            "pass for example (32, 32)"
        )
    return size[0], size[1]


def find_size(image: Any, name: str) -> Size:
    """Return (height, width) of a PIL image or a tensor (C, H, W), or of the first of a `Pair`.

    Raises:
        DataError: another type, shape or range; the message calls the image `name`.
    """
    if isinstance(image, Pair):
        image = image.first
    if isinstance(image, Image.Image):
        return image.height, image.width
    _check_tensor(image, name)
    return image.shape[1], image.shape[2]


def _check_tensor(image: Any, name: str) -> None:
    if not isinstance(image, Tensor):
        raise DataError(
            f"{name}: the image must be a PIL image or a tensor, got {type(image).__name__}; convert it first, "
            "for example with torch.as_tensor"
        )
    check_images(image, name=f"{name}: the image")
    if image.ndim != 3 or not 1 <= image.shape[0] <= MAX_CHANNELS or image.numel() == 0:
        raise DataError(f"{name}: the image must have shape (C, H, W), got {tuple(image.shape)}")


def _join(parts: Sequence[Tensor], name: str, *, grows: bool) -> Tensor:
    """Return images (C, H, W) as one, their channels one after another; where it `grows`, gray becomes color."""
    if len(parts) == 1:
        return parts[0]
    channels = max(len(part) for part in parts)
    if grows:
        parts = [part.expand(channels, -1, -1) for part in parts]
    if any(len(part) != channels for part in parts):
        got = " and ".join(str(len(part)) for part in parts)
        raise DataError(f"{name}: both images must have one number of channels, got {got}; convert them to the same")
    return torch.cat(list(parts))


def _flatten(image: Image.Image) -> Image.Image:
    """Return a PIL image as L or RGB, with what is transparent laid on white."""
    mode = "L" if image.mode in GRAY_MODES else "RGB"
    if image.mode == "La":  # which PIL converts to nothing else
        image = image.convert("LA")
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, "white")
        canvas.alpha_composite(image.convert("RGBA"))
        return canvas.convert(mode)
    return image if image.mode == mode else image.convert(mode)


def _gray_tensor(image: Tensor, name: str) -> Tensor:
    """Return a tensor (3, H, W) as gray (1, H, W) of the same dtype."""
    if image.shape[0] != 3:
        raise DataError(
            f"{name}: only images of 1 or 3 channels can be made gray, got {image.shape[0]}; drop --grayscale "
            "(grayscale=True)"
        )
    gray = (image.float() * torch.tensor(LUMA)[:, None, None]).sum(dim=0, keepdim=True)
    return gray.round().to(torch.uint8) if image.dtype == torch.uint8 else gray.to(image.dtype).clamp(0, 1)
