"""From a folder to text that knows where it stands: files found, parsed in bounded child processes, cut in chunks.

Nothing here knows a model, an index or a network.
"""

from edgemm.documents.chunk import Chunk, Count, chunks
from edgemm.documents.reader import Reader
from edgemm.documents.records import Document, Place, Refused, Section
from edgemm.documents.walk import Found, Skipped, walk

__all__ = ["Chunk", "Count", "Document", "Found", "Place", "Reader", "Refused", "Section", "Skipped", "chunks", "walk"]
