"""The keys of a session in the store, and the check of its lease that every step of a turn makes.

All keys of a session share the hash tag `{uid}`, so a cluster keeps them on one node and one script
may use them all. What the steps do is decided elsewhere.
"""

import hashlib

from serve_app.sessions.store import Lease

# meta: a hash of owner, times, title, … · turns: a list of packed turns · keys: a hash from a
# turn's Idempotency-Key to its index · ids: a hash from a turn's id to its index · feedback: a hash
# by turn id · lease: whose turn runs · others: a set of names of further keys that a delete takes
# along, which whoever makes such a key adds. They expire together.
SESSION_NAMES = ("meta", "turns", "keys", "ids", "feedback", "lease", "others")
# Set by a delete, for longer than a turn may run: a turn that runs then cannot bring a chat back.
GONE = "gone"
GONE_MS = 3_600_000

# The record of a live turn, by its id.
LIVE = "live"

# Lua for every script that writes for a turn: a string that says why it may not, else nil. `mine`
# is `holder(lease)`. A lease that merely expired, which nobody else has taken, may still write.
FENCE = """
local function refusal(lease, gone, mine)
    if redis.call('EXISTS', gone) == 1 then return 'gone' end
    local held = redis.call('GET', lease)
    if held and held ~= mine then return 'fenced' end
    return nil
end
"""

# Lua: whether `token` may write for the live turn, which has neither ended nor been deleted.
TELLS = """
local function tells(live, token)
    local found = redis.call('HMGET', live, 'token', 'state')
    return found[1] == token and found[2] == 'running'
end
"""

# Lua: the time of the store, in milliseconds since 1970, as text.
NOW_MS = """
local function now_ms()
    local time = redis.call('TIME')
    return string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
end
"""


def session_keys(uid: str, *names: str) -> list[str]:
    """The keys of those names, of the session `uid`."""
    return [f"moss:chat:{{{uid}}}:{name}" for name in names]


def uid_of(key: str) -> str:
    """The uid in a session's key."""
    return key[key.index("{") + 1 : key.index("}")]


def holder(lease: Lease) -> str:
    """The value of a lease's key while `lease` is held."""
    return lease.token + lease.key


def owner_key(owner: str) -> str:
    """The key of the index of an owner's sessions."""
    return "moss:owner:" + hashlib.sha256(owner.encode()).hexdigest()
