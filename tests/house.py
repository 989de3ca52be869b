"""The plan of the house, as `test_architecture` checks it. Libraries' homes are in `homes`.

A room is a folder. A single module is a room of its own where it stands above its folder's other
modules. Rooms are listed bottom-up in each package: a room imports only rooms that it names.
"""

from tests.rooms.engine import ENGINE_ROOMS
from tests.rooms.server import SERVER_ROOMS

ROOMS = {**ENGINE_ROOMS, **SERVER_ROOMS}
