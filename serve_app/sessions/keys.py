"""The keys of a session in the store, and the check of its lease that every step of a turn makes.

All keys of a session share the hash tag `{uid}`, so a cluster keeps them on one node and one script
may use them all. What the steps do is decided elsewhere.
"""

import hashlib

from serve_app.sessions.store import Lease

# meta: a hash of owner, times, title, … · turns: a list of packed turns · keys: a hash from a
# turn's Idempotency-Key to its index · ids: a hash from a turn's id to its index · feedback: a hash
# by turn id · lease: whose turn runs · sent: see below · extras: names of further keys that a
# delete takes along, by when they expire in the store's ms; whoever makes such a key adds it. All
# but sent and extras expire together.
SESSION_NAMES = ("meta", "turns", "keys", "ids", "feedback", "lease", "sent", "extras")
# Set by a delete, for longer than a turn may run: a turn that runs then cannot bring a chat back.
GONE = "gone"
GONE_MS = 3_600_000
# A hash of the plugin calls with effects that may have been sent, each by the key of its turn: to
# whoever claimed it. It outlives turns that fail, which may be sent again with the same key.
SENT = "sent"
# A hash of what the plugin calls of one turn key have answered, by their place and what was called.
# It outlives a try that fails, for an hour, so that another one shows the same; a commit ends it.
RESULTS_MS = 3_600_000


def results_of(key: str) -> str:
    """The name of the results of the turn of `key`, whichever try that is."""
    return f"results:{hashlib.sha256(key.encode()).hexdigest()[:32]}"


def result_field(call_id: str) -> str:
    """That of a call in the results of its turn's key: its id without its try's."""
    return call_id.partition("-")[2]


# Lua: the result that stands: `result`, unless there was one before. Needs NOW_MS and ADD_EXTRAS.
KEEP_RESULT = f"""
local function keep_result(results, extras, field, result)
    redis.call('HSETNX', results, field, result)
    redis.call('PEXPIRE', results, {RESULTS_MS})
    add_extras(extras, now_ms(), {RESULTS_MS}, results)
    return redis.call('HGET', results, field)
end
"""


def sent_call(key: str, call_id: str) -> str:
    """The field of a call in the turn of `key`, whichever try that is, by its place.

    `call_id` is `TURN-CHOICE-INDEX-DIGEST`. Another try may call something else there.
    """
    _, choice, index, *_ = call_id.split("-")
    return f"{choice}-{index}:{key}"


# Lua: whether `mine` may send the call `field`; nobody else may from then on, for as long as the
# session is there, and `ttl_ms` at least.
CLAIM = """
local function claim(sent, meta, field, mine, ttl_ms)
    redis.call('HSETNX', sent, field, mine)
    local ttl = math.max(tonumber(ttl_ms), redis.call('PTTL', meta))
    if redis.call('PTTL', sent) < ttl then
        redis.call('PEXPIRE', sent, string.format('%.0f', ttl))
    end
    return redis.call('HGET', sent, field) == mine and 1 or 0
end
"""

# The record of a live turn, by its id.
LIVE = "live"
# A picture, by its id; with another word for what all of a chat have in common.
IMAGE = "image"

# Lua: a delete of the session takes those keys along, which expire `in_ms` from `now`. What has
# expired is forgotten.
ADD_EXTRAS = """
local function add_extras(extras, now, in_ms, ...)
    redis.call('ZREMRANGEBYSCORE', extras, '-inf', string.format('%.0f', now))
    for _, key in ipairs({...}) do
        redis.call('ZADD', extras, string.format('%.0f', now + in_ms), key)
    end
    if redis.call('PTTL', extras) < tonumber(in_ms) then redis.call('PEXPIRE', extras, in_ms) end
end
"""

# Lua: those of the extras whose names hold `part` live as long as the session, from now on. Returns
# them.
RENEW_EXTRAS = """
local function renew_extras(extras, now, in_ms, part)
    local renewed = {}
    for _, key in ipairs(redis.call('ZRANGE', extras, 0, -1)) do
        if string.find(key, part, 1, true) and redis.call('PEXPIRE', key, in_ms) == 1 then
            redis.call('ZADD', extras, string.format('%.0f', now + in_ms), key)
            renewed[#renewed + 1] = key
        end
    end
    return renewed
end
"""

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


def image_index(image_id: str) -> str:
    """The key that says in which chat's keys a picture is."""
    return f"moss:image:{image_id}"


def owner_key(owner: str) -> str:
    """The key of the index of an owner's sessions."""
    return "moss:owner:" + hashlib.sha256(owner.encode()).hexdigest()
