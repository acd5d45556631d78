"""Image files read and written again without loss of what they are: depth, channels, pages and all metadata."""

from genaug.data.pictures.listing import find_pictures
from genaug.data.pictures.opening import open_picture
from genaug.data.pictures.picture import Picture, PictureFile

__all__ = ["Picture", "PictureFile", "find_pictures", "open_picture"]
